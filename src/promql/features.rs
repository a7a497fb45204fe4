//! The parts of the language that can be switched on and off, by Prometheus' names.
//!
//! What only adds syntax is on: it changes no query that worked without it. What
//! changes answers is off, as in Prometheus. Duration expressions are no longer
//! experimental there and cannot be switched off here.

use crate::config::{Feature, Query};

/// Which parts of the language are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Functions and aggregations that Prometheus calls experimental.
    pub experimental_functions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
    /// A metric's name goes at the end of the query rather than at the function
    /// that drops it.
    pub delayed_name_removal: bool,
}

/// As the configuration has it when it says nothing.
impl Default for Features {
    fn default() -> Features {
        Features::of(&Query::default().features)
    }
}

impl Features {
    /// These features and no others.
    pub fn of(features: &[Feature]) -> Features {
        let on = |feature| features.contains(&feature);
        Features {
            experimental_functions: on(Feature::PromqlExperimentalFunctions),
            extended_range_selectors: on(Feature::PromqlExtendedRangeSelectors),
            fill_modifiers: on(Feature::PromqlBinopFillModifiers),
            delayed_name_removal: on(Feature::PromqlDelayedNameRemoval),
        }
    }
}
