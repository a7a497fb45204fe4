//! Whether the machine's clock is trusted, and how often it jumped.
//!
//! Dashboards show jumps with `changes(pulse_clock_jumps_total[$__interval]) > 0`.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::FamilyBuilder;
use crate::model::Clock;

/// Reads the clock when it is gathered.
pub struct ClockState {
    clock: Clock,
    desc: Desc,
}

impl ClockState {
    /// A collector for this clock.
    pub fn new(clock: Clock) -> ClockState {
        let name = "pulse_clock_state".to_owned();
        ClockState {
            clock,
            desc: Desc::new(name, STATE.to_owned(), Vec::new(), [].into())
                .expect("BUG: a bad metric name"),
        }
    }
}

const STATE: &str = "Whether the machine's clock is trusted; the state that holds is 1.";

impl Collector for ClockState {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let is_trusted = self.clock.is_trusted();
        let flag = |is_it: bool| f64::from(u8::from(is_it));
        let (jumps, _) = self.clock.jumps();
        let off_ms = self.clock.wall().ms_since(self.clock.now());
        let unproven_ms = self.clock.now().ms_since(self.clock.earliest());
        let families = [
            FamilyBuilder::gauge("pulse_clock_state", STATE)
                .with(&[("state", "trusted")], flag(is_trusted))
                .with(&[("state", "untrusted")], flag(!is_trusted)),
            FamilyBuilder::counter(
                "pulse_clock_jumps_total",
                "Jumps of the machine's clock, and changes of whether it is trusted.",
            )
            .with(&[], jumps as f64),
            FamilyBuilder::gauge(
                "pulse_clock_offset_seconds",
                "The machine's clock less the time that stamps and rules use.",
            )
            .with(&[], off_ms as f64 / 1e3),
            FamilyBuilder::gauge(
                "pulse_clock_unproven_seconds",
                "By how much the time was stepped forward without confirmation; nothing expires by it.",
            )
            .with(&[], unproven_ms as f64 / 1e3),
        ];
        families
            .into_iter()
            .filter_map(FamilyBuilder::build)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::model::clock::ManualClock;

    #[test]
    fn a_jump_shows_in_all_families() {
        let hands = ManualClock::new(Timestamp::from_ms(1_000_000_000_000));
        let clock =
            Clock::Manual(hands.clone()).guarded(Timestamp::from_ms(999_000_000_000), false);
        let collector = ClockState::new(clock);
        let values = || -> Vec<f64> {
            let families = collector.collect();
            let metrics = families
                .iter()
                .flat_map(|family| family.get_metric().to_vec());
            metrics
                .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
                .collect()
        };
        assert_eq!(values(), [1.0, 0.0, 0.0, 0.0, 0.0]);
        hands.set(Timestamp::from_ms(1_000_000_000_000 - 7_200_000));
        assert_eq!(values(), [0.0, 1.0, 1.0, -7_200.0, 0.0]);
    }
}
