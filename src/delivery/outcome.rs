//! What an attempt's end means for its row, and the transaction that says so.

use std::time::Duration;

use super::attempts::{Attempt, End, Histories, Kept};
use super::http::{Outcome, Verdict};
use super::queue::Row;
use super::retry::{Hint, Next, Schedule};
use crate::model::delivery::{DEAD_LETTER_DETAIL_BYTES_MAX, DEAD_LETTER_PAYLOAD_BYTES_MAX};
use crate::model::{DeadLetter, DeliveryKind, StateRow, Timestamp};
use crate::store::state::{encode_delivery, outbox_key};
use crate::store::{self, StateOp, Store, Table, WriteBatch};

/// A transaction is kept below about this size; bodies are what counts.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The histories of so many events, each of at most about 30 KiB.
const BATCH_ROWS_MAX: usize = 64;

/// After so many attempts, in about a minute, a notification to a receiver that does not
/// answer counts as failed, though it is tried on; one that is refused does at once.
/// Alertmanager counts it when it gives up, at the next flush of the group.
const FAILED_ATTEMPTS: u32 = 10;

/// What becomes of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It is off.
    Delivered,
    /// It stays for another attempt.
    Retry,
    /// It is given up for this reason.
    Dead(&'static str),
    /// The receiver wants no more telemetry: the row stays, the destination stops.
    Disable,
}

impl Fate {
    /// As `pulse_delivery_total` names it.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Fate::Delivered => "success",
            Fate::Retry => "retry",
            Fate::Dead(_) => "dlq",
            Fate::Disable => "failed",
        }
    }

    fn end(&self) -> Option<End> {
        match self {
            Fate::Delivered => Some(End::Delivered),
            Fate::Dead(_) => Some(End::Dead),
            Fate::Retry | Fate::Disable => None,
        }
    }
}

/// An attempt that ended, with its row as it has to be from now on.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Done {
    pub(super) row: Row,
    pub(super) attempt: Attempt,
    pub(super) fate: Fate,
    /// Whether the notification counts as failed from now on.
    pub(super) has_failed: bool,
}

impl Done {
    /// Decides what becomes of the row.
    pub(super) fn new(
        mut row: Row,
        at: Timestamp,
        duration: Duration,
        outcome: Outcome,
        schedule: &Schedule,
        now: Timestamp,
    ) -> Done {
        let delivery = &mut row.delivery;
        delivery.attempts = delivery.attempts.saturating_add(1);
        let attempts = delivery.attempts;
        let verdict = match (outcome.verdict, delivery.kind) {
            // As Alertmanager: who is to hear of alerts is asked again with each flush.
            (Verdict::Gone, DeliveryKind::Notification) => Verdict::Failed(Hint {
                refused: true,
                retry_after: None,
            }),
            (verdict, _) => verdict,
        };
        let has_failed = match &verdict {
            Verdict::Delivered => false,
            Verdict::Failed(hint) if !hint.refused => attempts == FAILED_ATTEMPTS,
            Verdict::Failed(_) | Verdict::Gone => attempts == 1,
        };
        let fate = match verdict {
            Verdict::Delivered => Fate::Delivered,
            Verdict::Gone => Fate::Disable,
            Verdict::Failed(hint) => match schedule.next(delivery, hint, now) {
                Next::At(at) => {
                    delivery.next_at = at;
                    Fate::Retry
                }
                Next::Exhausted => Fate::Dead(match delivery.kind {
                    DeliveryKind::Telemetry => "exhausted",
                    DeliveryKind::Notification => "expired",
                }),
            },
        };
        Done {
            row,
            attempt: Attempt {
                at,
                duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                status: outcome.status,
                error: outcome.error,
                answer: outcome.answer,
                receiver_failed: outcome.receiver_failed,
            },
            fate,
            has_failed,
        }
    }

    /// Whether nothing has to be durable before the row is tried again.
    pub(super) fn is_retried_at_once(&self) -> bool {
        self.fate == Fate::Retry && self.row.delivery.kind == DeliveryKind::Notification
    }

    fn bytes(&self) -> usize {
        let body = self.row.delivery.body.len();
        match self.fate {
            Fate::Delivered | Fate::Disable => 0,
            Fate::Retry => body,
            Fate::Dead(_) => body.min(DEAD_LETTER_PAYLOAD_BYTES_MAX),
        }
    }
}

/// The transaction for the first of `done`, and how many it covers: at least one, and
/// only of one kind, because notifications go on when the disk refuses.
pub(super) fn batch(
    store: &Store,
    kept: &mut Kept,
    done: &[Done],
) -> Result<(WriteBatch, usize), store::Error> {
    let mut ops = Vec::new();
    let mut histories = Histories::default();
    let mut covered = 0;
    let mut bytes = 0;
    let kind = done.first().map(|one| one.row.delivery.kind);
    for one in done {
        bytes += one.bytes();
        let fits = bytes <= BATCH_BYTES_MAX && histories.len() < BATCH_ROWS_MAX;
        if covered > 0 && (!fits || Some(one.row.delivery.kind) != kind) {
            break;
        }
        covered += 1;
        changes(store, one, &mut ops)?;
        let Row { sequence, delivery } = &one.row;
        let (attempt, end) = (one.attempt.clone(), one.fate.end());
        histories.record(store, *sequence, delivery, attempt, end)?;
    }
    histories.put(kept, &mut ops);
    if let Some(last) = done.last() {
        ops.extend(kept.trim(last.attempt.at));
    }
    let mut batch = WriteBatch::of_state(ops);
    batch.volatile = kind == Some(DeliveryKind::Notification);
    Ok((batch, covered))
}

fn changes(store: &Store, done: &Done, ops: &mut Vec<StateOp>) -> Result<(), store::Error> {
    let Row { sequence, delivery } = &done.row;
    let key = outbox_key(&delivery.destination, *sequence);
    let delete = StateOp::Delete {
        table: Table::Outbox,
        key: key.clone().into(),
    };
    match done.fate {
        Fate::Delivered => {
            ops.push(delete);
            let at = done.attempt.ended_at();
            let rows = delivery.on_success.iter();
            ops.extend(rows.filter_map(|row| on_success(row, at)));
        }
        // The outbox may have dropped it meanwhile, into the dead letters.
        Fate::Dead(_) if store.get(Table::Outbox, &key)?.is_none() => {}
        Fate::Dead(reason) => {
            ops.push(StateOp::Bury(Box::new(dead_letter(done, reason))));
            ops.push(delete);
        }
        Fate::Retry if delivery.kind == DeliveryKind::Telemetry => ops.push(StateOp::Replace {
            table: Table::Outbox,
            key: key.into(),
            value: encode_delivery(delivery).into(),
        }),
        Fate::Retry | Fate::Disable => {}
    }
    Ok(())
}

fn on_success(row: &StateRow, at: Timestamp) -> Option<StateOp> {
    let Some(table) = Table::from_name(&row.table) else {
        // Written by a newer version; the delivery itself is what counts.
        tracing::error!(table = row.table, "unknown table in an outbox row");
        return None;
    };
    let key = row.key.clone().into();
    Some(match row.value_at(at) {
        Some(value) => StateOp::Put {
            table,
            key,
            value: value.into(),
        },
        None => StateOp::Delete { table, key },
    })
}

fn dead_letter(done: &Done, reason: &str) -> DeadLetter {
    let delivery = &done.row.delivery;
    let kept = delivery.body.len().min(DEAD_LETTER_PAYLOAD_BYTES_MAX);
    let mut detail = done.attempt.error.clone().unwrap_or_default();
    detail.truncate(detail.floor_char_boundary(DEAD_LETTER_DETAIL_BYTES_MAX));
    DeadLetter {
        source: delivery.destination.clone(),
        topic: delivery.route.clone(),
        tenant_id: delivery.tenant_id.as_str().to_owned(),
        received_at: delivery.created_at,
        reason: reason.to_owned(),
        detail,
        attempts: delivery.attempts,
        payload_bytes: u64::try_from(delivery.body.len()).unwrap_or(u64::MAX),
        payload: delivery.body[..kept].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Delivery;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    /// What becomes of a notification that was tried so often before.
    fn done(attempts: u32, outcome: Outcome) -> Done {
        let row = Row {
            sequence: 1,
            delivery: Delivery::plain(DeliveryKind::Notification, "event", attempts, NOW),
        };
        let schedule = Schedule {
            waits: Vec::new(),
            notification_max_age: Duration::from_secs(3_600),
        };
        Done::new(row, NOW, Duration::ZERO, outcome, &schedule, NOW)
    }

    #[test]
    fn a_notification_counts_as_failed_once_however_long_it_is_tried() {
        let failures = |outcome: fn(String) -> Outcome| -> Vec<u32> {
            let tried = (0..30).map(|attempts| done(attempts, outcome(String::new())));
            let counted = tried.filter(|done| done.has_failed);
            counted.map(|done| done.row.delivery.attempts).collect()
        };
        assert_eq!(failures(Outcome::failed), [FAILED_ATTEMPTS]);
        assert_eq!(failures(Outcome::refused), [1]);
        assert_eq!(failures(gone), [1]);
    }

    fn gone(error: String) -> Outcome {
        Outcome {
            verdict: Verdict::Gone,
            ..Outcome::failed(error)
        }
    }

    #[test]
    fn a_receiver_of_notifications_that_is_gone_is_asked_again_with_the_next_flush() {
        let done = done(0, gone(String::new()));
        assert_eq!(done.fate, Fate::Retry);
        assert!(done.row.delivery.next_at > NOW.plus_ms(200_000));
    }
}
