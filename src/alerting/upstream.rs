//! Other Alertmanagers: our alerts are sent to each of them as Prometheus would.
//!
//! One task. Each Alertmanager is asked for itself: what it took is remembered, what
//! it did not is sent again at the next look. A firing alert is sent again after
//! `resend_delay`, with an end that lies four of them ahead, so that it ends there
//! when we fall silent; a resolved one for 15 minutes. Nothing of this is on disk:
//! after a restart everything is sent again, which changes nothing there.
//!
//! With `handover` an empty list is posted when there is nothing to send. While one
//! of them answers, people hear of our rules' alerts from it and not from us; 15 s
//! after the last answer we tell them ourselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::Inner;
use super::alerts::{Alert, Outside};
use super::current::Current;
use super::group::as_ms;
use super::settings::Settings;
use crate::config::Config;
use crate::delivery::{self, Poster};
use crate::model::{Clock, Labels, Timestamp};
use crate::store::{self, Store, Table};
use crate::telemetry::Metrics;

/// How often it is looked what is due, and with `handover` who answers.
const LOOK: Duration = Duration::from_secs(5);
/// Never more often than this, however short `resend_delay` is.
const TICK: Duration = Duration::from_millis(100);
/// An answer holds for this time.
const ANSWER_HOLDS_MS: i64 = 15_000;
/// Alerts in one request, as Prometheus.
const BATCH_MAX: usize = 64;
/// How long a resolved alert is sent.
const RESOLVED_MS: i64 = 15 * 60_000;

/// All Alertmanagers that are told.
pub(super) struct Upstream {
    peers: Mutex<Arc<Vec<Peer>>>,
}

/// One of them.
struct Peer {
    poster: Poster,
    /// When it took an alert last.
    taken: Mutex<HashMap<Labels, Timestamp>>,
    answered: Mutex<Option<Timestamp>>,
    /// Whether it took nothing the last time; that is logged once.
    is_failing: AtomicBool,
}

/// What all looks need.
pub(super) struct Sending {
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL", skip_serializing_if = "str::is_empty")]
    generator_url: &'a str,
}

impl Upstream {
    /// Checks the configuration; asks nobody yet.
    ///
    /// # Errors
    /// With the entry and the field that is wrong.
    pub(super) fn new(config: &Config) -> anyhow::Result<Upstream> {
        Ok(Upstream {
            peers: Mutex::new(Arc::new(peers(config)?)),
        })
    }

    /// Takes over another configuration; who stays keeps what it knows.
    ///
    /// # Errors
    /// As [`Upstream::new`]; then nothing has changed.
    pub(super) fn reload(&self, config: &Config) -> anyhow::Result<()> {
        let mut new = peers(config)?;
        let old = self.peers();
        for peer in &mut new {
            if let Some(before) = old.iter().find(|old| old.poster.url() == peer.poster.url()) {
                peer.taken = Mutex::new(lock(&before.taken).clone());
                peer.answered = Mutex::new(*lock(&before.answered));
            }
        }
        *lock(&self.peers) = Arc::new(new);
        Ok(())
    }

    /// Where alerts are sent.
    pub(super) fn urls(&self) -> Vec<String> {
        let peers = self.peers();
        peers
            .iter()
            .map(|peer| peer.poster.url().to_owned())
            .collect()
    }

    /// Whether one of them answered lately. Who was not asked yet, as after a start, is
    /// given the time of one answer, so that nobody hears of the same twice.
    pub(super) fn answers(&self, now: Timestamp) -> bool {
        let is_recent = |at: Timestamp| (0..=ANSWER_HOLDS_MS).contains(&now.ms_since(at));
        let peers = self.peers();
        peers
            .iter()
            .any(|peer| is_recent(*lock(&peer.answered).get_or_insert(now)))
    }

    /// Sends what is due to everybody.
    pub(super) async fn send(&self, sending: &Sending, settings: &Settings) {
        let peers = self.peers();
        if peers.is_empty() {
            return;
        }
        let (store, outside) = (sending.store.clone(), settings.outside.clone());
        let now = sending.clock.now();
        let read = tokio::task::spawn_blocking(move || own_alerts(&store, &outside, now)).await;
        let alerts = match read {
            Ok(Ok(alerts)) => alerts,
            Ok(Err(err)) => {
                tracing::error!(error = %err, "cannot read the alerts for the alertmanagers");
                return;
            }
            Err(_) => return,
        };
        let sent = peers
            .iter()
            .map(|peer| peer.send(&alerts, sending, settings));
        futures_util::future::join_all(sent).await;
    }

    fn peers(&self) -> Arc<Vec<Peer>> {
        Arc::clone(&lock(&self.peers))
    }
}

/// Sends until the process stops; when another one takes over or leaves it to us, the
/// dispatcher looks at once.
pub(super) async fn run(inner: Arc<Inner>) {
    let sending = Sending {
        store: inner.store.clone(),
        metrics: Arc::clone(&inner.metrics),
        clock: inner.clock.clone(),
    };
    let mut changes = sending.store.changes(Table::Alert);
    while !inner.stop.is_cancelled() {
        changes.borrow_and_update();
        let before = inner.is_handed_over();
        let settings = Arc::clone(&inner.settings());
        let send = inner.upstream.send(&sending, &settings);
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = send => {}
        }
        if inner.is_handed_over() != before {
            inner.wake.notify_one();
        }
        let wait = LOOK.min(settings.resend_delay.max(TICK));
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn peers(config: &Config) -> anyhow::Result<Vec<Peer>> {
    let peer = |poster| Peer {
        poster,
        taken: Mutex::default(),
        answered: Mutex::default(),
        is_failing: AtomicBool::default(),
    };
    Ok(delivery::alertmanagers(config)?
        .into_iter()
        .map(peer)
        .collect())
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    async fn send(&self, alerts: &[Alert], sending: &Sending, settings: &Settings) {
        let now = sending.clock.now();
        let due = self.due(alerts, settings.resend_delay, now);
        let mut batches: Vec<&[&Alert]> = due.chunks(BATCH_MAX).collect();
        if batches.is_empty() && settings.handover {
            batches.push(&[]);
        }
        for batch in batches {
            if !self.post(batch, sending, settings).await {
                break;
            }
        }
    }

    /// What it has to hear now: what fires or ended since it heard of it, and
    /// everything again after a while.
    fn due<'a>(&self, alerts: &'a [Alert], resend: Duration, now: Timestamp) -> Vec<&'a Alert> {
        let mut taken = lock(&self.taken);
        taken.retain(|_, at| now.ms_since(*at).abs() <= 2 * RESOLVED_MS);
        let is_due = |alert: &&Alert| {
            let Some(at) = taken.get(&alert.labels) else {
                return true;
            };
            let is_news = alert.ends_at.is_some_and(|end| end > *at) || alert.starts_at > *at;
            // A clock that was set back must not silence us.
            is_news || !(0..as_ms(resend)).contains(&now.ms_since(*at))
        };
        alerts.iter().filter(is_due).collect()
    }

    /// Whether it took the batch.
    async fn post(&self, batch: &[&Alert], sending: &Sending, settings: &Settings) -> bool {
        let now = sending.clock.now();
        let end = now.plus_ms(as_ms(settings.resend_delay).saturating_mul(4));
        let all: Vec<Sent<'_>> = batch.iter().map(|alert| Sent::of(alert, end)).collect();
        let body = serde_json::to_vec(&all).expect("alerts are plain data");
        let (url, rules) = (self.poster.url(), &sending.metrics.rules);
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match self.poster.post(body, now).await {
            Ok(()) => {
                rules.sent.with_label_values(&[url]).inc_by(count);
                let mut taken = lock(&self.taken);
                taken.extend(batch.iter().map(|alert| (alert.labels.clone(), now)));
                *lock(&self.answered) = Some(now);
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(target = url, "an alertmanager takes alerts again");
                }
                true
            }
            Err(error) => {
                rules
                    .send_errors
                    .with_label_values(&[url])
                    .inc_by(count.max(1));
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(target = url, error, "an alertmanager takes no alerts");
                }
                false
            }
        }
    }
}

impl<'a> Sent<'a> {
    fn of(alert: &'a Alert, end: Timestamp) -> Sent<'a> {
        Sent {
            labels: alert.labels.iter().collect(),
            annotations: &alert.annotations,
            starts_at: alert.starts_at.to_rfc3339(),
            ends_at: alert.ends_at.unwrap_or(end).to_rfc3339(),
            generator_url: &alert.generator_url,
        }
    }
}

/// What our rules say: what fires, and what ended lately.
fn own_alerts(
    store: &Store,
    outside: &Outside,
    now: Timestamp,
) -> Result<Vec<Alert>, store::Error> {
    let is_due = |alert: &Alert| {
        let ended = alert.ends_at.map(|end| now.ms_since(end));
        ended.is_none_or(|ms| ms <= RESOLVED_MS)
    };
    let mut alerts = Current::own(store, outside, now)?;
    alerts.retain(is_due);
    Ok(alerts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str, starts_at: i64, ends_at: Option<i64>) -> Alert {
        Alert {
            labels: Labels::from_pairs([("alertname", name)]),
            annotations: BTreeMap::new(),
            generator_url: String::new(),
            starts_at: Timestamp::from_ms(starts_at),
            ends_at: ends_at.map(Timestamp::from_ms),
            updated_at: Timestamp::from_ms(starts_at),
            timeout: false,
            is_own: true,
        }
    }

    #[test]
    fn an_alert_is_due_when_it_is_new_ended_or_long_ago() {
        let text = "[[alerting.alertmanagers]]\nstatic_configs = [{ targets = [\"h:1\"] }]\n";
        let upstream = Upstream::new(&Config::parse(text, "c.toml").unwrap()).unwrap();
        assert_eq!(upstream.urls(), ["http://h:1/api/v2/alerts"]);
        let peers = upstream.peers();
        let resend = Duration::from_secs(60);
        let due = |alert: &Alert, now: i64| {
            let alerts = [alert.clone()];
            let due = peers[0].due(&alerts, resend, Timestamp::from_ms(now));
            !due.is_empty()
        };
        let firing = alert("A", 1_000, None);
        assert!(due(&firing, 2_000), "never heard of");
        lock(&peers[0].taken).insert(firing.labels.clone(), Timestamp::from_ms(2_000));
        assert!(!due(&firing, 61_999), "heard of lately");
        assert!(due(&firing, 62_000), "heard of long ago");
        assert!(due(&firing, 1_000), "heard of in the future");
        assert!(due(&alert("A", 1_000, Some(3_000)), 4_000), "it ended");
        assert!(
            !due(&alert("A", 1_000, Some(1_500)), 4_000),
            "told that it ended"
        );
        assert!(due(&alert("A", 3_000, None), 4_000), "it began anew");
    }

    #[test]
    fn an_answer_holds_for_a_while() {
        let text = "[[alerting.alertmanagers]]\nstatic_configs = [{ targets = [\"h:1\"] }]\n";
        let upstream = Upstream::new(&Config::parse(text, "c.toml").unwrap()).unwrap();
        let at = Timestamp::from_ms;
        assert!(upstream.answers(at(0)), "not asked yet");
        assert!(!upstream.answers(at(15_001)), "asked, and no answer");
        *lock(&upstream.peers()[0].answered) = Some(at(10_000));
        assert!(upstream.answers(at(10_000)) && upstream.answers(at(25_000)));
        assert!(!upstream.answers(at(25_001)) && !upstream.answers(at(9_999)));
    }
}
