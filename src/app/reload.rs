//! A new configuration for a running instance: read, check, compare, apply.
//!
//! Everything that can fail happens before the first part is told, so a bad file
//! changes nothing.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::start::{completed, operator_token};
use super::{App, check, notify};
use crate::config::{Config, Mistakes, Tenant};
use crate::model::TenantId;
use crate::web::ReloadRequest;
use crate::{rules, sources};

impl App {
    /// Reads the configuration and every file that it names again, and applies it.
    ///
    /// # Errors
    /// With all mistakes; then nothing has changed.
    pub async fn try_reload(&self) -> anyhow::Result<()> {
        let outcome = self.read_and_apply().await;
        let now = self.0.clock.now().as_secs_f64();
        let error = outcome.as_ref().err().map(|err| format!("{err:#}"));
        self.0.metrics.reload.tried(error, now);
        outcome
    }

    async fn read_and_apply(&self) -> anyhow::Result<()> {
        let app = &self.0;
        let _one_at_a_time = app.reloading.lock().await;
        // Reading and checking large files may take seconds.
        let reading = self.clone();
        let read = tokio::task::spawn_blocking(move || reading.read_again());
        let (config, loaded) = read.await??;
        let token = operator_token(&config)?;
        let plan = sources::Plan::from_config(&config)?;
        let fields = needs_restart(&app.started_with, &config);
        if !fields.is_empty() {
            let fields = fields.join(", ");
            tracing::warn!(fields, "not in force before a restart");
        }
        app.ingest.reload(&config)?;
        app.delivery.reload(&config)?;
        app.alerting.reload(&config)?;
        app.rules.reload(loaded).await;
        app.sources.apply(plan);
        app.token.send_replace(token);
        app.config.send_replace(Arc::new(config));
        Ok(())
    }

    fn read_again(&self) -> anyhow::Result<(Config, rules::Loaded)> {
        let config = completed((self.0.load)()?, &self.0.addrs);
        check(&config)?.log();
        let loaded = rules::load(&config)?;
        Ok((config, loaded))
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
            let outcome = self.try_reload().await;
            log_outcome(&outcome);
            drop(answer.send(outcome.map_err(|err| format!("{err:#}"))));
        }
    }

    /// The same, with the outcome in the log: for a signal, to which nobody can answer.
    pub async fn reload(&self) {
        notify(&[sd_notify::NotifyState::Reloading]);
        log_outcome(&self.try_reload().await);
        notify(&[sd_notify::NotifyState::Ready]);
    }
}

fn log_outcome(outcome: &anyhow::Result<()>) {
    let Err(err) = outcome else {
        tracing::info!("configuration reloaded");
        return;
    };
    let mistakes = err.downcast_ref::<Mistakes>();
    let mistakes = mistakes.map_or(1, |mistakes| mistakes.lines().count());
    let error = format!("{err:#}").replace('\n', "; ");
    tracing::error!(mistakes, error, "configuration not reloaded");
}

/// The fields in which `new` differs from what we run with and that only a start reads.
fn needs_restart(running: &Config, new: &Config) -> Vec<&'static str> {
    macro_rules! differing {
        ($($table:ident . $field:ident),* $(,)?) => {
            [$((
                concat!("[", stringify!($table), "] ", stringify!($field)),
                running.$table.$field != new.$table.$field,
            )),*]
        };
    }
    let fields = differing![
        server.listen,
        server.data_dir,
        server.connections_max,
        server.body_max,
        server.log_level,
        server.log_format,
        global.scrape_interval,
        global.trust_clock,
        store.retention,
        store.size_max,
        store.max_late,
        store.linger,
        store.hot_cache,
        store.l0_cache,
        store.head_max,
        store.memory_limit,
        store.free_min,
        store.reserve,
        store.write_budget,
        store.read_only,
        limits.series_max,
        limits.series_per_tenant_max,
        limits.new_series_per_hour,
        limits.new_series_per_tenant_per_hour,
        limits.label_values_max,
        limits.outbox_max,
        limits.dead_letters_max,
        query.concurrency,
        query.samples_max,
        query.series_max,
        query.lookback_delta,
        query.cache,
        query.features,
        metrics.views,
    ];
    let series_max = own(running, |t| t.series_max) != own(new, |t| t.series_max);
    let retention = own(running, |t| t.retention) != own(new, |t| t.retention);
    let tenants = [
        ("[[tenant]] series_max", series_max),
        ("[[tenant]] retention", retention),
    ];
    let all = fields.into_iter().chain(tenants);
    all.filter(|(_, differs)| *differs)
        .map(|(field, _)| field)
        .collect()
}

/// The tenants that have their own of something.
fn own<T>(config: &Config, of: impl Fn(&Tenant) -> Option<T>) -> Vec<(&TenantId, T)> {
    let tenants = config.tenant.iter();
    tenants.filter_map(|t| Some((&t.id, of(t)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_leaves_as_it_is_is_named_by_field() {
        for (text, want) in [
            ("", vec![]),
            (
                "[query]\ntimeout = \"5s\"\n[metrics]\nmax_tenants = 9",
                vec![],
            ),
            (
                "[server]\nbody_max = \"1MiB\"\n[store]\nretention = \"2d\"",
                vec!["[server] body_max", "[store] retention"],
            ),
            (
                "[store]\nread_only = true\nsize_max = \"1GiB\"\n[query]\ncache = \"0B\"",
                vec!["[store] size_max", "[store] read_only", "[query] cache"],
            ),
            (
                "[[tenant]]\nid = \"a\"\nseries_max = 5",
                vec!["[[tenant]] series_max"],
            ),
        ] {
            let new = Config::parse(text, "c.toml").unwrap();
            assert_eq!(needs_restart(&Config::default(), &new), want, "{text}");
        }
    }
}
