//! Instruments of the store.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry,
};

use super::{PYTHON_BUCKETS, counters, gauges, histograms, registered};

/// The tables of the store, in its own words: `table` of the `db_` families.
pub(crate) const TABLES: [&str; 18] = [
    "samples",
    "series",
    "outbox",
    "attempt",
    "dead",
    "inflight",
    "cursor",
    "device",
    "rule_group",
    "alert",
    "alert_history",
    "agg_group",
    "notify_state",
    "posted_alert",
    "silence",
    "metadata",
    "kv",
    "deleted",
];

/// Why rows are not taken: `reason` of `pulse_store_refused_total`.
pub(crate) const REFUSALS: [&str; 9] = [
    "conflict",
    "too_old",
    "too_new",
    "series_limit",
    "no_room",
    "series_rate",
    "labels",
    "overload",
    "unknown_series",
];

/// What may run out: `cause` of `pulse_store_pressure`.
pub(crate) const CAUSES: [&str; 3] = ["disk", "head", "memory"];

/// Lengths of the buckets of roll-ups: `resolution` of `pulse_store_rollup_bytes`.
pub(crate) const ROLLUPS: [&str; 2] = ["5m", "1h"];

/// Rows of one table in one transaction.
const BATCH_BUCKETS: [f64; 9] = [
    1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 50_000.0,
];

/// A commit is mostly one sync of the disk: from below a millisecond to a stall.
const COMMIT_BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0,
];

/// Instruments of the store.
pub struct Store {
    /// Durable transactions.
    pub commits: IntCounter,
    /// Time of one durable transaction.
    pub commit_seconds: Histogram,
    /// Transactions that the disk refused; each is kept and tried again.
    pub commit_failures: IntCounter,
    /// 1 while the disk refuses transactions.
    pub failing: IntGauge,
    /// 1 while nothing can be written at all.
    pub read_only: IntGauge,
    /// State rows that count although the disk refuses them.
    pub unsaved_rows: IntGauge,
    /// Rows of history that had no room in memory while the disk refused.
    pub unsaved_dropped: IntCounter,
    /// Bytes handed to the file system.
    pub bytes_written: IntCounter,
    /// Syncs of files.
    pub syncs: IntCounter,
    /// Series in the index.
    pub series: IntGauge,
    /// Series with samples in memory.
    pub head_series: IntGauge,
    /// Samples in memory.
    pub head_samples: IntGauge,
    /// Bytes of the series and samples in memory.
    pub head_bytes: IntGauge,
    /// Time of the last replay.
    pub replay_seconds: prometheus::Gauge,
    /// Samples that the last replay read.
    pub replay_samples: IntGauge,
    /// Which transactions of the log the last replay reads.
    pub replay_at: ReplayAt,
    /// Bytes of log records that are not sealed.
    pub wal_bytes: IntGauge,
    /// Commits that were one record behind the last one of the appended log.
    pub log_commits: IntCounter,
    /// Stored bytes that did not match their checksum.
    pub checksum_failures: IntCounter,
    /// Rounds of the scrub, which reads every checksum once a day.
    pub scrubs: IntCounter,
    /// Time of the last round, pauses included.
    pub scrub_seconds: prometheus::Gauge,
    /// Rows that were there already.
    pub duplicates: IntCounter,
    /// Rows that were not taken, by `reason`.
    pub refused: IntCounterVec,
    /// How hard the store is pressed, by `cause`: 0 calm, 1 sheds old data, 2 refuses
    /// new series, 3 takes no samples.
    pub pressure: IntGaugeVec,
    /// New series that share the overflow value of a label.
    pub label_values_capped: IntCounter,
    /// Bytes that a day writes if it goes on as in the last hour.
    pub written_per_day: IntGauge,
    /// How long a commit waits for more because of the write budget.
    pub wear_linger: prometheus::Gauge,
    /// Free bytes on the disk of the data directory.
    pub free_bytes: IntGauge,
    /// Sealed files that were removed for want of room.
    pub shed_files: IntCounter,
    /// Outbox rows that became dead letters for want of room.
    pub outbox_evicted: IntCounter,
    /// Dead letters that were removed for want of room.
    pub dead_letters_dropped: IntCounter,
    /// Windows that were sealed.
    pub seals: IntCounter,
    /// Seals that failed; each is tried again.
    pub seal_failures: IntCounter,
    /// Time of sealing one window.
    pub seal_seconds: Histogram,
    /// Days that were rewritten into long columns.
    pub rewrites: IntCounter,
    /// Rewrites that failed; each is tried again.
    pub rewrite_failures: IntCounter,
    /// Time of rewriting one day.
    pub rewrite_seconds: Histogram,
    /// Files of roll-ups that were made.
    pub rollups: IntCounter,
    /// Those that could not be made; each is tried again.
    pub rollup_failures: IntCounter,
    /// Time of making the roll-ups of one day.
    pub rollup_seconds: Histogram,
    /// Bytes of roll-ups on disk, by `resolution`.
    pub rollup_bytes: IntGaugeVec,
    /// Selections of queries that read roll-ups.
    pub rollup_reads: IntCounter,
    /// Files in the quarantine directory, damaged ones that could not be moved there, and
    /// missing ones.
    pub quarantined: IntGauge,
    /// Days that retention removed.
    pub expired_files: IntCounter,
    /// Rows written by `table`.
    pub db_writes: IntCounterVec,
    /// Time of the transactions that wrote to a table, by `table`.
    pub db_write_duration: HistogramVec,
    /// Rows of a table in one transaction, by `table`.
    pub db_batch_size: HistogramVec,
    /// Rows that were handed over and are not durable yet, by `table`.
    pub pending_writes: IntGaugeVec,
}

impl Store {
    #[expect(clippy::too_many_lines, reason = "one table of instruments")]
    pub(super) fn new(r: &Registry) -> Store {
        let store = Store {
            commits: counter(r, "pulse_store_commits_total", "Durable transactions."),
            commit_seconds: histogram(
                r,
                "pulse_store_commit_seconds",
                "Time of one durable transaction.",
            ),
            commit_failures: counter(
                r,
                "pulse_store_commit_failures_total",
                "Transactions that the disk refused. Each is kept and tried again.",
            ),
            failing: gauge(
                r,
                "pulse_store_failing",
                "Whether the disk refuses transactions at the moment.",
            ),
            read_only: gauge(
                r,
                "pulse_store_read_only",
                "Whether the store was opened to be read only.",
            ),
            unsaved_rows: gauge(
                r,
                "pulse_store_unsaved_rows",
                "Rows of alerts and notifications that are in memory only, because the disk refuses them.",
            ),
            unsaved_dropped: counter(
                r,
                "pulse_store_unsaved_dropped_total",
                "Rows of alert history that had no room in memory while the disk refused.",
            ),
            bytes_written: counter(
                r,
                "pulse_store_bytes_written_total",
                "Bytes that the store handed to the file system.",
            ),
            syncs: counter(r, "pulse_store_syncs_total", "Syncs of the store's files."),
            series: gauge(r, "pulse_store_series", "Series in the index."),
            head_series: gauge(
                r,
                "pulse_store_head_series",
                "Series with samples or recent samples in memory.",
            ),
            head_samples: gauge(r, "pulse_store_head_samples", "Samples in memory."),
            head_bytes: gauge(
                r,
                "pulse_store_head_bytes",
                "Bytes of the series and samples in memory.",
            ),
            replay_seconds: registered(
                r,
                prometheus::Gauge::new(
                    "pulse_store_replay_seconds",
                    "Time that the last start took to read the log.",
                )
                .expect("BUG: a bad metric name"),
            ),
            replay_samples: gauge(
                r,
                "pulse_store_replay_samples",
                "Samples that the last start read from the log.",
            ),
            replay_at: ReplayAt::register(r),
            wal_bytes: gauge(
                r,
                "pulse_store_wal_bytes",
                "Bytes of log records that are not sealed.",
            ),
            log_commits: counter(
                r,
                "pulse_store_log_commits_total",
                "Commits of samples alone: one record behind the last one of the appended log.",
            ),
            checksum_failures: counter(
                r,
                "pulse_store_checksum_failures_total",
                "Stored values that did not match their checksum.",
            ),
            scrubs: counter(
                r,
                "pulse_store_scrubs_total",
                "Rounds of the daily scrub, which reads every checksum of every file.",
            ),
            scrub_seconds: registered(
                r,
                prometheus::Gauge::new(
                    "pulse_store_scrub_seconds",
                    "Time of the last round of the scrub, pauses included.",
                )
                .expect("BUG: a bad metric name"),
            ),
            duplicates: counter(
                r,
                "pulse_store_duplicates_total",
                "Rows that were stored already with the same value.",
            ),
            refused: counters(
                r,
                "pulse_store_refused_total",
                "Rows that were not taken.",
                &["reason"],
            ),
            pressure: gauges(
                r,
                "pulse_store_pressure",
                "0 calm, 1 old data goes early, 2 new series are refused, 3 no samples are taken.",
                &["cause"],
            ),
            label_values_capped: counter(
                r,
                "pulse_store_label_values_capped_total",
                "New series with a label value above the limit, which became __overflow__.",
            ),
            written_per_day: gauge(
                r,
                "pulse_store_written_per_day_bytes",
                "Bytes that a day writes to the disk if it goes on as in the last hour.",
            ),
            wear_linger: registered(
                r,
                prometheus::Gauge::new(
                    "pulse_store_linger_seconds",
                    "How long a commit waits for more, as the write budget allows.",
                )
                .expect("BUG: a bad metric name"),
            ),
            free_bytes: gauge(
                r,
                "pulse_store_free_bytes",
                "Free bytes on the disk of the data directory.",
            ),
            shed_files: counter(
                r,
                "pulse_store_shed_files_total",
                "Sealed files that were removed because the disk was nearly full.",
            ),
            outbox_evicted: counter(
                r,
                "pulse_store_outbox_evicted_total",
                "Outbox rows that became dead letters because the outbox was full.",
            ),
            dead_letters_dropped: counter(
                r,
                "pulse_store_dead_letters_dropped_total",
                "Dead letters removed because there was no room for more.",
            ),
            seals: counter(r, "pulse_store_seals_total", "Windows that were sealed."),
            seal_failures: counter(
                r,
                "pulse_store_seal_failures_total",
                "Seals that failed. Each is tried again.",
            ),
            seal_seconds: histogram(r, "pulse_store_seal_seconds", "Time of sealing one window."),
            rewrites: counter(
                r,
                "pulse_store_rewrites_total",
                "Days that were rewritten into long columns.",
            ),
            rewrite_failures: counter(
                r,
                "pulse_store_rewrite_failures_total",
                "Rewrites of a day that failed. Each is tried again.",
            ),
            rewrite_seconds: histogram(
                r,
                "pulse_store_rewrite_seconds",
                "Time of rewriting one day.",
            ),
            rollups: counter(
                r,
                "pulse_store_rollups_total",
                "Files of roll-ups that were made.",
            ),
            rollup_failures: counter(
                r,
                "pulse_store_rollup_failures_total",
                "Files of roll-ups that could not be made. Each is tried again.",
            ),
            rollup_seconds: histogram(
                r,
                "pulse_store_rollup_seconds",
                "Time of making the roll-ups of one day.",
            ),
            rollup_bytes: gauges(
                r,
                "pulse_store_rollup_bytes",
                "Bytes of roll-ups on disk.",
                &["resolution"],
            ),
            rollup_reads: counter(
                r,
                "pulse_store_rollup_reads_total",
                "Selections of queries that read roll-ups.",
            ),
            quarantined: gauge(
                r,
                "pulse_store_quarantined_files",
                "Damaged or foreign files that were put aside, and sealed files that are missing.",
            ),
            expired_files: counter(
                r,
                "pulse_store_expired_files_total",
                "Days whose samples were removed by the retention.",
            ),
            db_writes: counters(r, "db_writes_total", "Rows written.", &["table"]),
            db_write_duration: histograms(
                r,
                "db_write_duration_seconds",
                "Time of the transactions that wrote to a table.",
                &PYTHON_BUCKETS,
                &["table"],
            ),
            db_batch_size: histograms(
                r,
                "db_batch_size",
                "Rows of a table in one transaction.",
                &BATCH_BUCKETS,
                &["table"],
            ),
            pending_writes: gauges(
                r,
                "pending_writes",
                "Rows that were handed over and are not durable yet.",
                &["table"],
            ),
        };
        for reason in REFUSALS {
            store.refused.with_label_values(&[reason]);
        }
        for resolution in ROLLUPS {
            store.rollup_bytes.with_label_values(&[resolution]);
        }
        for cause in CAUSES {
            store.pressure.with_label_values(&[cause]);
        }
        for table in TABLES {
            store.db_writes.with_label_values(&[table]);
            store.db_write_duration.with_label_values(&[table]);
            store.db_batch_size.with_label_values(&[table]);
            store.pending_writes.with_label_values(&[table]);
        }
        store
    }
}

/// Transactions of the log, by position.
#[derive(Debug)]
pub struct ReplayAt {
    /// The first one.
    pub first: IntGauge,
    /// The last one.
    pub last: IntGauge,
    /// The one that was read last: when the replay is over, the last.
    pub current: IntGauge,
}

impl ReplayAt {
    fn register(r: &Registry) -> ReplayAt {
        let at = gauges(
            r,
            "pulse_store_replay_transaction",
            "Transactions of the log that a start reads: first, last and where it is.",
            &["position"],
        );
        let child = |position: &str| at.with_label_values(&[position]);
        ReplayAt {
            first: child("first"),
            last: child("last"),
            current: child("current"),
        }
    }
}

fn counter(r: &Registry, name: &str, help: &str) -> IntCounter {
    registered(
        r,
        IntCounter::new(name, help).expect("BUG: a bad metric name"),
    )
}

fn gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    registered(
        r,
        IntGauge::new(name, help).expect("BUG: a bad metric name"),
    )
}

fn histogram(r: &Registry, name: &str, help: &str) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(COMMIT_BUCKETS.to_vec());
    registered(
        r,
        Histogram::with_opts(opts).expect("BUG: a bad metric name"),
    )
}
