//! Instruments of brokers and other sources.

use prometheus::Registry;

/// Instruments of brokers and other sources.
pub struct Sources {}

impl Sources {
    pub(super) fn new(_r: &Registry) -> Sources {
        Sources {}
    }
}
