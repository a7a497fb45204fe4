//! Instruments of our own HTTP server.

use prometheus::Registry;

/// Instruments of our own HTTP server.
pub struct Http {}

impl Http {
    pub(super) fn new(_r: &Registry) -> Http {
        Http {}
    }
}
