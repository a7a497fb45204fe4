//! A real store and a real ingest for tests of the push routes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::ingest::Ingest;
use crate::model::clock::ManualClock;
use crate::model::{Clock, Timestamp};
use crate::sources::Board;
use crate::sources::status::Status;
use crate::store::{Options, Store};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// The time at which all begins.
pub(super) const NOW: i64 = 1_700_000_000_000;

/// What the routes are made of.
pub(super) struct Parts {
    /// Holds the store's files.
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) ingest: Ingest,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: ManualClock,
    pub(super) board: Board,
    pub(super) status: Status,
    /// What pushes may show instead of a tenant's token.
    pub(super) operator_token: tokio::sync::watch::Receiver<Option<Arc<str>>>,
}

impl Parts {
    /// With a configuration's text.
    pub(super) fn new(text: &str, operator_token: Option<&str>) -> Parts {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::parse(text, "c.toml").unwrap();
        let metrics = Metrics::new();
        let manual = ManualClock::new(Timestamp::from_ms(NOW));
        let clock = Clock::Manual(manual.clone());
        let options = Options {
            dir: dir.path().to_owned(),
            store: config.store.clone(),
            limits: config.limits.clone(),
            tenants: config.tenant.clone(),
        };
        let store = Store::open(options, clock.clone(), Arc::clone(&metrics)).unwrap();
        let ingest = crate::ingest::start(
            &config,
            store.clone(),
            Arc::clone(&metrics),
            clock.clone(),
            &Tasks::new(metrics.task_restarts.clone()),
            CancellationToken::new(),
        )
        .unwrap();
        let board = Board::default();
        Parts {
            status: board.add("push", "http", "", "at least once", clock.now()),
            dir,
            store,
            ingest,
            metrics,
            clock: manual,
            board,
            operator_token: tokio::sync::watch::channel(operator_token.map(Arc::from)).1,
        }
    }
}
