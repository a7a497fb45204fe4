//! A new configuration for a running instance: read, check, compare, apply.
//!
//! Everything that can fail happens before the first part is told, so a bad file
//! changes nothing.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::start::{completed, operator_token};
use super::{App, check, notify};
use crate::config::Config;
use crate::web::ReloadRequest;
use crate::{rules, sources};

impl App {
    /// Reads the configuration and every file that it names again, and applies it.
    ///
    /// # Errors
    /// With the first mistake; then nothing has changed.
    pub async fn try_reload(&self) -> anyhow::Result<()> {
        let app = &self.0;
        let _one_at_a_time = app.reloading.lock().await;
        let config = completed((app.load)()?, &app.addrs);
        check(&config)?;
        let loaded = rules::load(&config)?;
        let token = operator_token(&config)?;
        let plan = sources::Plan::from_config(&config)?;
        name_what_needs_a_restart(&app.config.borrow(), &config);
        app.ingest.reload(&config)?;
        app.delivery.reload(&config)?;
        app.alerting.reload(&config)?;
        app.rules.reload(loaded).await;
        app.sources.apply(plan);
        app.token.send_replace(token);
        app.config.send_replace(Arc::new(config));
        Ok(())
    }

    /// Answers those who ask for a reload over HTTP, until the process stops.
    pub(super) async fn answer_reloads(self, mut requests: mpsc::Receiver<ReloadRequest>) {
        let stop = self.0.layers.web.stop.clone();
        loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                () = stop.cancelled() => None,
            };
            let Some(answer) = request else { return };
            let outcome = self.try_reload().await.map_err(|err| format!("{err:#}"));
            log_outcome(&outcome);
            drop(answer.send(outcome));
        }
    }

    /// The same, with the outcome in the log: for a signal, to which nobody can answer.
    pub async fn reload(&self) {
        notify(&[sd_notify::NotifyState::Reloading]);
        log_outcome(&self.try_reload().await.map_err(|err| format!("{err:#}")));
        notify(&[sd_notify::NotifyState::Ready]);
    }
}

fn log_outcome(outcome: &Result<(), String>) {
    match outcome {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => tracing::error!(error, "configuration not reloaded"),
    }
}

fn name_what_needs_a_restart(old: &Config, new: &Config) {
    let changed = [
        ("server", old.server != new.server),
        ("store", old.store != new.store),
        ("query", old.query != new.query),
        ("global", old.global != new.global),
        ("metrics", old.metrics != new.metrics),
    ];
    for (table, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(table, "changes need a restart");
    }
}
