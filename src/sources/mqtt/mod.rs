//! MQTT 5 and 3.1.1: subscribe, hand over, acknowledge after the commit.
//!
//! Owns one task for each `[[source.mqtt]]`, its connection, its rows of
//! `Table::Inflight` (stamps of what may come again) and its row of
//! `Table::Cursor` (what its session is subscribed to).
//!
//! It must never acknowledge before ingest's verdict or by another connection
//! than the message came by, never stop polling its broker to wait for ingest,
//! and never start a clean session.

mod connection;
mod inflight;
mod options;
mod session;
mod subscription;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use options::Options;

use self::connection::{Error, Reader, Writer};
use self::inflight::Inflight;
use self::session::{End, Session, Source};
use self::wire::ConnAck;
use super::backoff::Backoff;
use super::handover::{Handover, OnRetry};
use super::link::Link;
use super::stamps::{Rows, Stamps};
use super::status::Status;
use crate::ingest::{Ingest, Origin, Stopped};
use crate::model::Clock;
use crate::store::Store;
use crate::telemetry::Metrics;

const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// While somebody else seems to use our client id.
const TAKEN_WAIT_MAX: Duration = Duration::from_secs(60);
/// A connection that lives longer was not taken over at once.
const SHORT_LIFE: Duration = Duration::from_secs(2);
/// So many short lives in a row are no accident.
const SHORT_LIVES_MAX: u32 = 3;

/// Runs one source until `stop` is cancelled. After a panic it can be run again.
pub async fn run(
    options: Options,
    ingest: Ingest,
    store: Store,
    status: Status,
    metrics: Arc<Metrics>,
    clock: Clock,
    stop: CancellationToken,
) {
    let id = format!("mqtt:{}", options.name);
    let instruments = metrics.sources.mqtt(&options.name);
    let link = Link::new(&id, status, instruments.up.clone(), clock.clone());
    let origin = Arc::new(Origin {
        source: id.clone(),
        kind: "mqtt",
        historical: false,
    });
    let Some([stamps, inflight]) =
        Rows::read_all(&id, &store, [Stamps::TAG, Inflight::TAG], &stop).await
    else {
        return;
    };
    let stamps = Stamps::new(Rows::new(&id), &stamps);
    let mut source = Source {
        inflight: Inflight::new(&id, stamps, &inflight),
        handover: Handover::new(ingest, origin, OnRetry::HandOverAgain),
        metrics: instruments,
        options,
        id,
        store,
        clock,
        link,
        epoch: 0,
    };
    // An error says that the process stops; so do we.
    let _ = source.stay_connected(&stop).await;
    source.link.ended();
}

impl Source {
    async fn stay_connected(&mut self, stop: &CancellationToken) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(WAIT_MIN, WAIT_MAX);
        let mut wait = Duration::ZERO;
        let mut short_lives = 0;
        while !stop.is_cancelled() {
            let connecting = connection::connect(&self.options);
            let connected = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                connected = Source::meanwhile(&mut self.handover, &self.metrics, connecting) => connected?,
            };
            let since = Instant::now();
            let err = match connected {
                Err(err) => err,
                Ok(connection) => match self.start(connection, stop).await {
                    None => return Ok(()),
                    Some(Err(err)) => err,
                    Some(Ok(session)) => match session.run(stop).await {
                        End::Stopped => return Ok(()),
                        End::Broken(err) => {
                            // Two instances that both back off live as long as the other waits.
                            if since.elapsed() >= SHORT_LIFE.max(wait * 3) {
                                short_lives = 0;
                                backoff.reset();
                            } else if err.is_abort() {
                                short_lives += 1;
                            }
                            err
                        }
                    },
                },
            };
            self.observe();
            wait = if short_lives >= SHORT_LIVES_MAX {
                let id = &self.options.client_id;
                self.link.down(&format!(
                    "client id {id:?} is in use elsewhere or refused: {err}"
                ));
                backoff.step_to(TAKEN_WAIT_MAX)
            } else {
                self.link.down(&err.to_string());
                backoff.step()
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                waited = Source::meanwhile(&mut self.handover, &self.metrics, sleep(wait)) => waited?,
            }
        }
        Ok(())
    }
}

impl Source {
    /// `None` when `stop` came first: the store may be waiting for room on its disk.
    async fn start(
        &mut self,
        connection: (Reader, Writer, ConnAck),
        stop: &CancellationToken,
    ) -> Option<Result<Session<'_>, Error>> {
        stop.run_until_cancelled(Session::start(self, connection))
            .await
    }
}

impl Error {
    /// Whether the broker ended an accepted connection.
    fn is_abort(&self) -> bool {
        matches!(
            self,
            Error::Closed | Error::Lost(_) | Error::Disconnected(_)
        )
    }
}
