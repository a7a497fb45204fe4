//! The store through its handle: what is acknowledged is there, once, and stays.

use std::ops::Bound;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::model::clock::ManualClock;
use crate::model::{DeadLetter, Delivery, DeliveryKind, Labels, Matcher, Sample, TenantId};
use crate::promql::{QueryError, Queryable as _, SelectHints};

/// 2023-11-14T22:00:00Z, the start of a window.
pub(super) const T0: i64 = 1_699_999_200_000;

pub(super) fn manual(now: i64) -> (Clock, ManualClock) {
    let clock = ManualClock::new(Timestamp::from_ms(now));
    (Clock::Manual(clock.clone()), clock)
}

pub(super) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        store: config::Store::default(),
        limits: config::Limits::default(),
        tenants: Vec::new(),
    }
}

fn open_with(options: Options) -> Store {
    let (clock, _) = manual(T0 + 60_000);
    Store::open(options, clock, Metrics::new()).unwrap()
}

fn open(dir: &Path) -> Store {
    open_with(options(dir))
}

async fn close(store: Store) {
    store.close().await;
}

/// How many rows of a destination wait in the outbox.
fn outbox_rows(store: &Store, destination: &str) -> usize {
    let prefix = state::outbox_prefix(destination);
    let from = (Bound::Included(&prefix[..]), Bound::Unbounded);
    let rows = store.scan(Table::Outbox, from, 1_000).unwrap();
    rows.iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .count()
}

pub(super) fn labels(name: &str, device: &str) -> Labels {
    Labels::from_pairs([
        ("__name__", name),
        ("device_id", device),
        ("tenant_id", "acme"),
    ])
}

pub(super) fn row(name: &str, device: &str, t: i64, v: f64) -> Row {
    Row {
        series: SeriesKey::Labels(labels(name, device)),
        t: Timestamp::from_ms(t),
        v,
    }
}

pub(super) fn batch(rows: impl IntoIterator<Item = Row>) -> WriteBatch {
    let mut batch = WriteBatch::default();
    batch.push(rows, Item::default());
    batch
}

fn put(key: &str, value: &str) -> StateOp {
    StateOp::Put {
        table: Table::Kv,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn delivery(destination: &str, body: usize) -> StateOp {
    StateOp::Enqueue(Box::new(Delivery {
        kind: DeliveryKind::Telemetry,
        event_id: "e".to_owned(),
        destination: destination.to_owned(),
        tenant_id: TenantId::new("acme").unwrap(),
        route: "r".to_owned(),
        created_at: Timestamp::from_ms(T0),
        attempts: 0,
        next_at: Timestamp::from_ms(T0),
        flush_interval_ms: None,
        content_type: "text/plain".to_owned(),
        on_success: Vec::new(),
        body: vec![b'x'; body],
    }))
}

fn letter(tenant: &str, payload: usize) -> StateOp {
    StateOp::Bury(Box::new(DeadLetter {
        source: "mqtt:a".to_owned(),
        topic: "t".to_owned(),
        tenant_id: tenant.to_owned(),
        received_at: Timestamp::from_ms(T0),
        reason: "parse".to_owned(),
        detail: "bad".to_owned(),
        attempts: 1,
        payload_bytes: payload as u64,
        payload: vec![b'y'; payload],
    }))
}

/// Changes a bit of a byte of a file.
pub(super) fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path);
    let file = file.unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

pub(super) fn samples(store: &Store, matchers: &[Matcher]) -> Vec<(String, Vec<Sample>)> {
    let found = store.select(
        Timestamp::MIN,
        Timestamp::MAX,
        matchers,
        &SelectHints::default(),
    );
    let series = found.unwrap().into_iter();
    series.map(|s| (s.labels.to_string(), s.samples)).collect()
}

fn all_rows(store: &Store, table: Table) -> Vec<(Bytes, Bytes)> {
    store
        .scan(table, (Bound::Unbounded, Bound::Unbounded), 1_000_000)
        .unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rows = (0..500).map(|i| row("temp", "d1", T0 + i * 10, i as f64 / 4.0));
    let first = store.write(batch(rows)).await.unwrap();
    assert_eq!(first.outcomes[0].added, 500);
    let second = store
        .write(batch([row("temp", "d2", T0, f64::NAN)]))
        .await
        .unwrap();
    assert!(second.seq > first.seq);
    let before = samples(&store, &[]);
    assert_eq!((before.len(), before[0].1.len()), (2, 500));
    assert_eq!(store.stats().head_samples, 501);
    close(store).await;

    let store = open(dir.path());
    assert_eq!(samples(&store, &[]), before);
    assert_eq!(store.stats().series, 2);
    // The value coders go on where the log ended, through further restarts.
    store
        .write(batch([row("temp", "d1", T0 + 5_000, 125.0)]))
        .await
        .unwrap();
    close(store).await;
    let store = open(dir.path());
    assert_eq!(samples(&store, &[])[0].1.len(), 501);
}

#[tokio::test]
async fn dropping_all_handles_commits_what_rode_along() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut ride = batch([row("up", "d", T0, 1.0)]);
    ride.urgency = Urgency::RideAlong;
    let answer = store.write(ride).await.unwrap();
    assert_eq!(answer.outcomes[0].added, 1);
    // Visible, not durable yet.
    assert_eq!(samples(&store, &[]).len(), 1);
    let mut ended = store.shared.ended.subscribe();
    drop(store);
    // An error says that the sender is gone too.
    drop(ended.wait_for(|ended| ended.writer && ended.sealer).await);
    assert_eq!(samples(&open(dir.path()), &[]).len(), 1);
}

#[tokio::test]
async fn repeats_change_nothing_and_other_values_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let message = |v: f64| {
        let mut batch = WriteBatch::default();
        let item = Item {
            on_new: vec![delivery("hook", 3)],
            always: vec![put("seen", "yes")],
            ..Item::default()
        };
        batch.push([row("temp", "d", T0, v), row("hum", "d", T0, 2.0)], item);
        batch
    };
    let first = store.write(message(1.0)).await.unwrap().outcomes[0];
    assert_eq!((first.added, first.duplicates, first.refused), (2, 0, 0));
    let again = store.write(message(1.0)).await.unwrap().outcomes[0];
    assert_eq!((again.added, again.duplicates, again.refused), (0, 2, 0));
    let other = store.write(message(7.0)).await.unwrap().outcomes[0];
    assert_eq!((other.added, other.duplicates, other.refused), (0, 1, 1));
    assert_eq!(other.refusal, Some(Refusal::Conflict));
    assert_eq!(outbox_rows(&store, "hook"), 1);
    assert_eq!(store.get(Table::Kv, b"seen").unwrap().unwrap(), "yes");
    let temp = samples(&store, &[Matcher::equal("__name__", "temp")]);
    assert_eq!(temp[0].1, [Sample::new(T0, 1.0)]);
}

#[tokio::test]
async fn repeats_are_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rows = || (0..300).map(|i| row("m", "d", T0 + i * 7, (i % 3) as f64));
    store.write(batch(rows())).await.unwrap();
    close(store).await;
    let store = open(dir.path());
    let again = store.write(batch(rows().rev())).await.unwrap().outcomes[0];
    assert_eq!((again.added, again.duplicates), (0, 300));
}

#[tokio::test]
async fn old_rows_and_too_many_series_are_refused_without_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.series_per_tenant_max = 2;
    let store = open_with(options);
    let week = 7 * 86_400_000;
    let outcome = store
        .write(batch([
            row("a", "d", T0 + 60_000 - week - 1, 1.0),
            row("a", "d", T0 + 60_000 - week, 1.0),
            row("b", "d", T0, 1.0),
            row("c", "d", T0, 1.0),
            row("c", "d", T0 + 1, 1.0),
        ]))
        .await
        .unwrap()
        .outcomes[0];
    assert_eq!((outcome.added, outcome.refused), (2, 3));
    assert_eq!(outcome.refusal, Some(Refusal::TooOld));
    assert_eq!(store.resolve(&labels("c", "d")), None);
    let names = store
        .label_values("__name__", &[], Timestamp::MIN, Timestamp::MAX, 10)
        .unwrap();
    assert_eq!(names, ["a", "b"]);
    // Other tenants have their own limit; known series go on.
    let other = Row {
        series: SeriesKey::Labels(Labels::from_pairs([("__name__", "c")])),
        t: Timestamp::from_ms(T0),
        v: 1.0,
    };
    let id = store.resolve(&labels("b", "d")).unwrap();
    let known = Row {
        series: SeriesKey::Id(id),
        t: Timestamp::from_ms(T0 + 5),
        v: 2.0,
    };
    let unknown = Row {
        series: SeriesKey::Id(SeriesId(999)),
        ..known.clone()
    };
    let outcome = store.write(batch([other, known, unknown])).await.unwrap();
    assert_eq!(outcome.outcomes[0].added, 2);
    assert_eq!(outcome.outcomes[0].refusal, Some(Refusal::UnknownSeries));
}

#[tokio::test]
async fn numbers_of_outbox_rows_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ops = vec![delivery("a", 1), delivery("b", 1), letter("t", 1)];
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    let keys: Vec<Bytes> = all_rows(&store, Table::Outbox)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, [state::outbox_key("a", 1), state::outbox_key("b", 2)]);
    let delete = |key: &Bytes| StateOp::Delete {
        table: Table::Outbox,
        key: key.clone(),
    };
    let ops = keys.iter().map(delete).collect();
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    assert_eq!((outbox_rows(&store, "a"), store.outbox_bytes()), (0, 0));
    close(store).await;

    let store = open(dir.path());
    assert_eq!(store.dead_letters()["t"], 1);
    store
        .write(WriteBatch::of_state(vec![delivery("a", 1)]))
        .await
        .unwrap();
    let rows = all_rows(&store, Table::Outbox);
    assert_eq!(rows[0].0, state::outbox_key("a", 4));
    assert_eq!(state::decode_delivery(&rows[0].1).unwrap().body, b"x");
    assert_eq!(outbox_rows(&store, "a"), 1);
}

#[tokio::test]
async fn a_full_outbox_turns_its_oldest_rows_into_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.outbox_max = config::Size::bytes(10_000);
    options.limits.dead_letters_max = config::Size::bytes(6_000);
    let store = open_with(options);
    let mut ops = vec![delivery("small", 10)];
    ops.extend((0..6).map(|_| delivery("big", 2_000)));
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    assert_eq!(outbox_rows(&store, "small"), 1);
    assert_eq!(outbox_rows(&store, "big"), 4);
    assert!(store.outbox_bytes() <= 10_000);
    assert_eq!(store.dead_letters()["acme"], 2);
    let letters = all_rows(&store, Table::Dead);
    let first = state::decode_dead_letter(&letters[0].1).unwrap();
    assert_eq!(
        (first.reason.as_str(), first.source.as_str()),
        ("overload", "big")
    );
    assert_eq!(store.shared.metrics.store.outbox_evicted.get(), 2);
    // Dead letters have a bound of their own: the oldest go, counted.
    let ops = (0..3).map(|_| letter("other", 1_500)).collect();
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    assert!(store.dead_letters()["acme"] < 2);
    assert_eq!(store.dead_letters()["other"], 3);
    assert!(store.shared.metrics.store.dead_letters_dropped.get() > 0);
}

#[tokio::test]
async fn state_ops_apply_in_order_and_watchers_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut kv = store.changes(Table::Kv);
    let alerts = store.changes(Table::Alert);
    let delete = StateOp::Delete {
        table: Table::Kv,
        key: Bytes::from_static(b"a"),
    };
    let ops = vec![put("a", "1"), put("b", "1"), delete, put("a", "2")];
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    kv.changed().await.unwrap();
    assert!(!alerts.has_changed().unwrap());
    let got: Vec<_> = all_rows(&store, Table::Kv);
    let want = [("a", "2"), ("b", "1")].map(|(k, v)| (Bytes::from(k), Bytes::from(v)));
    assert_eq!(got, want);
    let from_b = (Bound::Included(&b"b"[..]), Bound::Unbounded);
    assert_eq!(store.scan(Table::Kv, from_b, 5).unwrap(), want[1..]);
    let nothing = (Bound::Excluded(&b"b"[..]), Bound::Excluded(&b"b"[..]));
    assert_eq!(store.scan(Table::Kv, nothing, 5).unwrap(), []);
}

#[tokio::test]
async fn a_table_of_a_former_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    close(open(dir.path())).await;
    let hot = redb::Database::open(dir.path().join(tables::HOT_FILE)).unwrap();
    let txn = hot.begin_write().unwrap();
    let former = redb::TableDefinition::<&[u8], &[u8]>::new("dedupe");
    drop(txn.open_table(former).unwrap());
    txn.commit().unwrap();
    drop(hot);
    close(open(dir.path())).await;
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_kept_and_a_new_one_begins() {
    for bytes in [&b""[..], &[7; 20_000], &b"redb"[..]] {
        let dir = tempfile::tempdir().unwrap();
        close(open(dir.path())).await;
        std::fs::write(dir.path().join(tables::HOT_FILE), bytes).unwrap();
        let store = open(dir.path());
        assert!(store.shared.metrics.store.checksum_failures.get() > 0);
        assert_eq!(store.shared.metrics.store.quarantined.get(), 1);
        store.write(batch([row("a", "d", T0, 1.0)])).await.unwrap();
        close(store).await;
        assert_eq!(samples(&open(dir.path()), &[]).len(), 1);
    }
}

#[tokio::test]
async fn a_row_that_is_gone_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let replace = |table, key: &Bytes, value: &'static str| StateOp::Replace {
        table,
        key: key.clone(),
        value: Bytes::from_static(value.as_bytes()),
    };
    let ops = vec![put("a", "1"), delivery("hook", 3), delivery("hook", 3)];
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    let outbox: Vec<Bytes> = all_rows(&store, Table::Outbox)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let bytes = store.outbox_bytes();
    // One is dropped while its attempt is on the way, the other one is not.
    let ops = vec![
        StateOp::Delete {
            table: Table::Outbox,
            key: outbox[0].clone(),
        },
        replace(Table::Outbox, &outbox[0], "again"),
        replace(Table::Outbox, &outbox[1], "again"),
        replace(Table::Kv, &Bytes::from_static(b"a"), "2"),
        replace(Table::Kv, &Bytes::from_static(b"b"), "2"),
    ];
    store.write(WriteBatch::of_state(ops)).await.unwrap();
    let left = all_rows(&store, Table::Outbox);
    assert_eq!(left, [(outbox[1].clone(), Bytes::from_static(b"again"))]);
    assert!(store.outbox_bytes() < bytes / 2);
    let kv = all_rows(&store, Table::Kv);
    assert_eq!(kv, [(Bytes::from_static(b"a"), Bytes::from_static(b"2"))]);
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (clock, _) = manual(T0);
    let err = Store::open(options(dir.path()), clock, Metrics::new());
    assert!(matches!(err.err(), Some(Error::Locked { .. })));
    drop(store);
}

#[tokio::test]
async fn a_closed_store_refuses_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let other = store.clone();
    store.close().await;
    other.close().await;
    other.closed().await;
    let err = other.write(batch([row("a", "d", T0, 1.0)])).await;
    assert!(matches!(err, Err(Error::Closed)));
}

#[tokio::test]
async fn many_writers_share_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.store.linger = config::Span::ms(5);
    let store = open_with(options);
    let writes = (0..200).map(|i| {
        let store = store.clone();
        async move {
            let name = format!("m{}", i % 10);
            store.write(batch([row(&name, "d", T0 + i, 1.0)])).await
        }
    });
    let answers = futures_util::future::join_all(writes).await;
    let mut seqs: Vec<u64> = answers.into_iter().map(|a| a.unwrap().seq.0).collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert!(
        seqs.len() < 100,
        "{} transactions for 200 writers",
        seqs.len()
    );
    assert_eq!(store.stats().head_samples, 200);
}

#[tokio::test]
async fn labels_and_limits_are_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rows = (0..5).flat_map(|i| {
        let device = format!("d{i}");
        [
            row("a", &device, T0 + i, 1.0),
            row("b", &device, T0 + 1_000, 1.0),
        ]
    });
    store.write(batch(rows)).await.unwrap();
    let a = vec![Matcher::equal("__name__", "a")];
    let (start, end) = (Timestamp::from_ms(T0), Timestamp::from_ms(T0 + 2));
    let found = store
        .series(std::slice::from_ref(&a), start, end, 10)
        .unwrap();
    assert_eq!(
        found,
        [labels("a", "d0"), labels("a", "d1"), labels("a", "d2")]
    );
    assert_eq!(store.series(&[], start, end, 2).unwrap().len(), 2);
    let names = store.label_names(&[], start, end, 10).unwrap();
    assert_eq!(names, ["__name__", "device_id", "tenant_id"]);
    let values = store
        .label_values("device_id", &[a], start, end, 10)
        .unwrap();
    assert_eq!(values, ["d0", "d1", "d2"]);
    let select = |hints: SelectHints| store.select(start, Timestamp::MAX, &[], &hints);
    let hints = SelectHints {
        series_max: 3,
        ..SelectHints::default()
    };
    assert!(matches!(select(hints), Err(QueryError::TooManySeries(3))));
    let hints = SelectHints {
        samples_max: 9,
        ..SelectHints::default()
    };
    assert!(matches!(select(hints), Err(QueryError::TooManySamples)));
    let hints = SelectHints::default();
    hints.cancel.store(true, Ordering::Relaxed);
    assert!(matches!(select(hints), Err(QueryError::Cancelled)));
}

#[test]
fn the_tables_of_the_metrics_are_the_stores() {
    let ours = Table::ALL.iter().map(|table| table.name());
    let all: Vec<&str> = ["samples", "series"].into_iter().chain(ours).collect();
    assert_eq!(all, crate::telemetry::metrics::STORE_TABLES);
}

#[tokio::test]
async fn limits_on_new_series_are_kept_and_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.limits.new_series_per_tenant_per_hour = 3;
    options.limits.label_values_max = 2;
    options.limits.label_value_bytes_max = 12;
    let store = open_with(options);
    let rows = ["d1", "d2", "d3", "d4", "a value that is too long"];
    let rows = rows.map(|device| row("a", device, T0, 1.0));
    let committed = store.write(batch(rows)).await.unwrap();
    // The third device's series is the one of all others; the fourth is a repeat.
    let outcome = committed.outcomes[0];
    assert_eq!(
        (outcome.added, outcome.duplicates, outcome.refused),
        (3, 1, 1)
    );
    assert!(store.resolve(&labels("a", "__overflow__")).is_some());
    assert!(store.resolve(&labels("a", "d3")).is_none());
    let outcome = store
        .write(batch([row("b", "d1", T0, 1.0)]))
        .await
        .unwrap()
        .outcomes[0];
    assert_eq!(outcome.refusal, Some(Refusal::SeriesRate));
    let metrics = &store.shared.metrics.store;
    let counted = |reason: &str| metrics.refused.with_label_values(&[reason]).get();
    assert_eq!((counted("labels"), counted("series_rate")), (1, 1));
    assert_eq!(metrics.label_values_capped.get(), 1);
}

#[tokio::test]
async fn a_spent_write_budget_makes_commits_wait_for_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    // Less than one commit writes.
    options.store.write_budget = config::Size::bytes(1_000);
    let store = open_with(options);
    let write = async |i: i64| {
        let begun = Instant::now();
        store
            .write(batch([row("a", "d", T0 + i, 1.0)]))
            .await
            .unwrap();
        begun.elapsed()
    };
    write(0).await;
    assert!(write(1).await > std::time::Duration::from_millis(900));
    let metrics = &store.shared.metrics.store;
    assert!(metrics.wear_linger.get() > 0.9);
    assert!(store.stats().written_per_day > 0);
    // The control: with the usual budget a lone caller does not wait.
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write(batch([row("a", "d", T0, 1.0)])).await.unwrap();
    assert!(store.shared.metrics.store.wear_linger.get() < 0.01);
}
