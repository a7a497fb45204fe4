//! How many dead letters are stored of each tenant: `pulse_delivery_dlq_depth`.
//!
//! Dead letters are numbered and the oldest go first, so it is enough to read the new
//! ones and to look at the first number. What is known is kept as runs of consecutive
//! numbers of one tenant. Letters taken from the middle are noticed when the runs
//! before them have gone.

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attempts::{after, sequence_of};
use crate::store::state::decode_dead_letter;
use crate::store::{self, Store, Table};
use crate::telemetry::Metrics;

/// Letters that are read at once; one may have 64 KiB.
const PAGE: usize = 32;
/// Changes are looked at together.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Run {
    first: u64,
    last: u64,
    tenant: Arc<str>,
}

/// The stored dead letters as runs.
#[derive(Default)]
struct Depth {
    runs: VecDeque<Run>,
    counts: HashMap<Arc<str>, i64>,
    unread: Vec<u8>,
}

impl Depth {
    fn add(&mut self, sequence: u64, tenant: &str) {
        let tenant = match self.counts.get_key_value(tenant) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(tenant),
        };
        *self.counts.entry(Arc::clone(&tenant)).or_default() += 1;
        match self.runs.back_mut() {
            Some(run) if run.tenant == tenant && run.last + 1 == sequence => run.last = sequence,
            _ => self.runs.push_back(Run {
                first: sequence,
                last: sequence,
                tenant,
            }),
        }
    }

    /// Everything before `first` is gone.
    fn drop_before(&mut self, first: u64) {
        while let Some(run) = self.runs.front_mut().filter(|run| run.first < first) {
            let gone = run.last.min(first - 1) - run.first + 1;
            let count = self.counts.entry(Arc::clone(&run.tenant)).or_default();
            *count -= i64::try_from(gone).unwrap_or(i64::MAX);
            run.first = first;
            if run.first > run.last {
                self.runs.pop_front();
            }
        }
    }
}

/// Keeps the gauge right until it is told to stop.
pub(super) async fn watch(store: Store, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut changes = store.changes(Table::Dead);
    let mut depth = Depth::default();
    loop {
        changes.mark_unchanged();
        loop {
            match read_page(&store, &mut depth) {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break,
                Err(err) => {
                    tracing::warn!(error = %err, "dead letters cannot be counted");
                    break;
                }
            }
        }
        publish(&depth, &metrics);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LINGER) => {}
        }
    }
}

/// Reads some new letters; says whether there may be more.
fn read_page(store: &Store, depth: &mut Depth) -> Result<bool, store::Error> {
    let range = (Bound::Included(&depth.unread[..]), Bound::Unbounded);
    let page = store.scan(Table::Dead, range, PAGE)?;
    let may_be_more = page.len() == PAGE;
    for (key, value) in page {
        depth.unread = after(&key);
        if let (Some(sequence), Ok(letter)) = (sequence_of(&key), decode_dead_letter(&value)) {
            depth.add(sequence, &letter.tenant_id);
        }
    }
    let first = store.scan(Table::Dead, (Bound::Unbounded, Bound::Unbounded), 1)?;
    let first = first.first().and_then(|(key, _)| sequence_of(key));
    depth.drop_before(first.unwrap_or(u64::MAX));
    Ok(may_be_more)
}

fn publish(depth: &Depth, metrics: &Metrics) {
    let mut shown: HashMap<&str, i64> = HashMap::new();
    for (tenant, count) in &depth.counts {
        *shown.entry(metrics.tenants.label(tenant)).or_default() += count;
    }
    for (tenant, count) in shown {
        let gauge = metrics.delivery.dlq_depth.with_label_values(&[tenant]);
        gauge.set(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted_by_tenant_while_the_oldest_go() {
        let mut depth = Depth::default();
        for sequence in 0..100 {
            depth.add(sequence, if sequence % 10 < 5 { "a" } else { "b" });
        }
        assert_eq!(depth.runs.len(), 20);
        depth.drop_before(3);
        assert_eq!((depth.counts["a"], depth.counts["b"]), (47, 50));
        depth.drop_before(57);
        assert_eq!((depth.counts["a"], depth.counts["b"]), (20, 23));
        depth.drop_before(u64::MAX);
        assert_eq!((depth.counts["a"], depth.counts["b"]), (0, 0));
        assert!(depth.runs.is_empty());
    }
}
