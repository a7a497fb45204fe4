//! A group with its task, and when it is due.
//!
//! An evaluation belongs to a slot: the interval's multiples, moved by a hash of
//! file and name so that groups do not all run at once. A slot that passed while
//! the group was busy is counted and left out, never made up for.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::group::Group;
use super::load::Settings;
use super::manager::Inner;
use super::spec::GroupSpec;
use crate::model::{Clock, Timestamp};

/// A sleeping group looks at the clock at least this often, because it may jump.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// A group with its task.
pub(super) struct Seat {
    pub(super) spec: Arc<GroupSpec>,
    pub(super) settings: Arc<Settings>,
    pub(super) key: String,
    pub(super) stop: CancellationToken,
    /// `None` before the first evaluation and after one that panicked: then the
    /// state comes from the store.
    pub(super) group: tokio::sync::Mutex<Option<Group>>,
    pub(super) selected: AtomicI64,
}

impl Seat {
    /// The slot that the clock is in. Each time that the clock goes back, slots move
    /// by a millisecond: the hours that come again get samples of their own.
    pub(super) fn slot(&self, clock: &Clock) -> Timestamp {
        let offset = self.spec.offset_ms() + i64::from(clock.steps_back());
        let now = clock.now();
        now.minus_ms(offset)
            .floor_to(self.spec.interval_ms())
            .plus_ms(offset)
    }
}

/// Evaluates a group at each of its slots, the next one first.
pub(super) async fn run(inner: Arc<Inner>, seat: Arc<Seat>) {
    let interval = seat.spec.interval_ms();
    let mut last = seat.slot(&inner.clock);
    let mut stepped_ms = inner.clock.stepped_ms();
    while !seat.stop.is_cancelled() {
        let slot = seat.slot(&inner.clock);
        if slot == last {
            let wait = slot.plus_ms(interval).ms_since(inner.clock.now()).max(1);
            let wait = Duration::from_millis(wait.unsigned_abs()).min(SLEEP_MAX);
            tokio::select! {
                () = seat.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => continue,
            }
        }
        // Time that the clock left out did not pass.
        let stepped =
            inner.clock.stepped_ms() - std::mem::replace(&mut stepped_ms, inner.clock.stepped_ms());
        let missed = (slot.ms_since(last) - stepped) / interval - 1;
        if missed > 0 {
            let label = &[seat.key.as_str()];
            let counter = inner.metrics.rules.missed.with_label_values(label);
            counter.inc_by(missed.unsigned_abs());
            tracing::warn!(group = seat.spec.name, missed, "evaluations were left out");
        }
        last = slot;
        inner.evaluate(&seat, slot).await;
    }
}
