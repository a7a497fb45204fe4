//! What leaves the store: days that are too old, days that do not fit, and what
//! tenants with a shorter retention have in days that stay.
//!
//! A day leaves by an unlink of its files; nothing is read or written for it. What
//! comes behind takes longer and nobody waits for long: series that are nowhere any
//! more leave the index in small steps, with a transaction for each thousand. The
//! samples of one tenant leave with a rewrite of their day, when the whole day is
//! older than that tenant's retention.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;

use super::super::days::{DayFile, store_error};
use super::super::disk::{causes, disk_bytes};
use super::super::pressure::{Cause, Level};
use super::super::writer::Job;
use super::super::{Error, sealed};
use super::{DAY_S, Gone, NO_WINDOW, Sealer, is_time_again};
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Matcher, Timestamp};
use crate::telemetry::metrics::ServiceName;

/// Series that leave the index in one transaction: other commits wait for it.
const FORGET_MAX: usize = 1_000;

/// Series of which nothing is kept before a time in ms.
pub(super) struct Limit {
    pub(super) series: RoaringBitmap,
    pub(super) oldest_ms: i64,
}

/// From this size on it may pay to give free pages of `hot.redb` back.
const HOT_LARGE: u64 = 2 << 20;

/// From this size on, or at this part of the budget, the log is sealed before a day goes.
const LOG_LARGE: u64 = 8 << 20;
const LOG_PART: u64 = 16;

/// It is done at most so often: commits wait for it.
const COMPACT_PAUSE: Duration = Duration::from_secs(600);

/// How often the log says that the budget cannot be kept.
const OVER_TOLD: Duration = Duration::from_secs(3_600);

impl Sealer {
    /// Removes days that are older than the retention, once a day, and then the
    /// series that are nowhere any more. Days that do not fit go at every call.
    pub(super) fn expire(&mut self) -> Result<Result<(), Error>, Gone> {
        let shared = Arc::clone(&self.shared);
        let fitted = self.fit_budget(0)?;
        let begun = Instant::now();
        // A time that nobody confirmed makes nothing old.
        let now = shared.clock.earliest();
        let today = now.as_ms().div_euclid(86_400_000);
        if today == self.expired_at_day || fitted.is_err() || shared.days.is_pinned() {
            return Ok(fitted);
        }
        let oldest = |kind| now.minus_ms(self.roll_retention_ms(kind)).as_ms();
        // What its roll-ups have to be made of stays until they are there.
        let is_needed = |day: &Arc<DayFile>| !day.kind.is_roll() && self.lacks_rolls(day.start_s);
        let (expired, needed) = match shared.days.expire(oldest, is_needed) {
            Ok(done) => {
                if done.forgot {
                    shared.changed.note_all();
                    shared.measure_damaged();
                }
                (done.removed, done.needed)
            }
            Err(err) => return Ok(Err(err)),
        };
        if expired > 0 {
            let unlinked = begun.elapsed().as_secs_f64();
            let service = &shared.metrics.service;
            service
                .observe(ServiceName::OpsWorker, "expiry")
                .observe(unlinked);
        }
        if needed == 0 {
            self.expired_at_day = today;
        }
        if let Err(err) = self
            .find_trims(now)
            .and_then(|()| self.find_roll_trims(now))
        {
            return Ok(Err(store_error(err)));
        }
        if expired > 0 {
            shared.changed.note_all();
            shared.metrics.store.expired_files.inc_by(expired as u64);
            shared.measure_rolls();
            if let Err(err) = self.forget_unheld()? {
                return Ok(Err(err));
            }
        }
        shared
            .metrics
            .service
            .observe(ServiceName::OpsWorker, "retention")
            .observe(begun.elapsed().as_secs_f64());
        Ok(Ok(()))
    }

    /// Removes roll-ups and then the oldest files until `bytes` more fit into the
    /// budget of the data directory. The newest day stays: what is above the budget then
    /// is not ours to remove. The log goes first: sealed its samples take a part of it.
    pub(super) fn fit_budget(&mut self, bytes: u64) -> Result<Result<(), Error>, Gone> {
        let shared = Arc::clone(&self.shared);
        let budget = shared.options.store.size_max.get();
        if budget == 0 || shared.days.is_pinned() {
            return Ok(Ok(()));
        }
        if disk_bytes(&shared.dir) + bytes <= budget {
            return Ok(Ok(()));
        }
        self.seal_log(budget)?;
        self.compact_hot()?;
        let mut removed = 0;
        while disk_bytes(&shared.dir) + bytes > budget {
            let Some(oldest) = shared.days.first_to_leave() else {
                self.tell_over_budget(budget);
                break;
            };
            if oldest.kind.is_roll() {
                self.pause_rolls();
            }
            if let Err(err) = shared.days.remove(&oldest) {
                return Ok(Err(err));
            }
            shared.days.forget_missing_before(&oldest);
            tracing::warn!(path = %oldest.path.display(), "no room for this day, removed");
            removed += 1;
        }
        if removed == 0 {
            return Ok(Ok(()));
        }
        shared.changed.note_all();
        shared.metrics.store.expired_files.inc_by(removed);
        shared.measure_rolls();
        self.forget_unheld()
    }

    /// Seals all there is when a good part of the budget is log.
    fn seal_log(&mut self, budget: u64) -> Result<(), Gone> {
        let store = &self.shared.metrics.store;
        let log = u64::try_from(store.wal_bytes.get()).unwrap_or(0);
        let is_small = log < LOG_LARGE.min(budget / LOG_PART);
        if is_small || self.shared.pressure.of(Cause::Disk) >= Level::Withhold {
            return Ok(());
        }
        self.take(NO_WINDOW)?;
        if let Err(err) = self.seal_parts()? {
            tracing::error!(error = %causes(&err), "cannot seal, trying again");
            return Ok(());
        }
        self.compacted = Some(Instant::now());
        self.free_log()
    }

    /// What `hot.redb` needs no more goes before a day does.
    fn compact_hot(&mut self) -> Result<(), Gone> {
        let bytes = std::fs::metadata(self.shared.hot.path()).map_or(0, |file| file.len());
        if bytes < HOT_LARGE || !is_time_again(&mut self.compacted, COMPACT_PAUSE) {
            return Ok(());
        }
        if let Err(err) = self.ask(Job::Compact)? {
            tracing::warn!(error = %causes(&err), "cannot make hot.redb smaller");
        }
        Ok(())
    }

    fn tell_over_budget(&mut self, budget: u64) {
        let bytes = disk_bytes(&self.shared.dir);
        if bytes > budget && is_time_again(&mut self.over_told, OVER_TOLD) {
            tracing::warn!(
                bytes,
                size_max = budget,
                "the data directory is larger than it may be, and nothing more can go"
            );
        }
    }

    /// Notes the days of which a tenant's samples are all too old.
    fn find_trims(&mut self, now: Timestamp) -> Result<(), sealed::Error> {
        let limits = self.limits(now);
        for file in self.shared.days.all() {
            let end_ms = (i64::from(file.start_s) + i64::from(DAY_S)) * 1_000;
            for limit in limits.iter().filter(|limit| end_ms <= limit.oldest_ms) {
                if !self
                    .shared
                    .days
                    .series_of(&file)?
                    .is_disjoint(&limit.series)
                {
                    self.to_trim.insert(file.start_s);
                }
            }
        }
        Ok(())
    }

    /// The series of tenants with a retention shorter than the common one.
    pub(super) fn limits(&self, now: Timestamp) -> Vec<Limit> {
        self.limits_below(now, self.shared.options.store.retention.as_ms())
    }

    /// The series of tenants with a retention shorter than this.
    pub(super) fn limits_below(&self, now: Timestamp, retention_ms: i64) -> Vec<Limit> {
        let options = &self.shared.options;
        let tenants = options.tenants.iter().filter_map(|tenant| {
            let own = tenant.retention?;
            (own.as_ms() < retention_ms).then_some((&tenant.id, own))
        });
        let limit = |(id, own): (&crate::model::TenantId, crate::config::Span)| {
            let matcher = Matcher::equal(TENANT_LABEL, id.as_str());
            Limit {
                series: self.shared.index().matching(&[matcher]),
                oldest_ms: now.minus_ms(own.as_ms()).as_ms(),
            }
        };
        tenants.map(limit).collect()
    }

    /// Takes the series that no sealed file and no memory holds out of the index.
    pub(super) fn forget_unheld(&self) -> Result<Result<(), Error>, Gone> {
        let unheld = match self.unheld() {
            Ok(unheld) => unheld,
            Err(err) => return Ok(Err(store_error(err))),
        };
        let ids: Vec<u32> = unheld.iter().collect();
        for some in ids.chunks(FORGET_MAX) {
            let series = some.iter().copied().collect();
            self.ask(|reply| Job::Forget { series, reply })?;
        }
        Ok(Ok(()))
    }

    fn unheld(&self) -> Result<RoaringBitmap, sealed::Error> {
        // Nobody knows which series a damaged file holds.
        if self.shared.days.has_damage() {
            return Ok(RoaringBitmap::new());
        }
        let mut unheld = self.shared.index().all().clone();
        unheld -= self.shared.days.series(i64::MIN, i64::MAX)?;
        self.shared.head.for_each(|id, series, _| {
            if !series.is_empty() {
                unheld.remove(id);
            }
        });
        Ok(unheld)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HOUR, Setup, added, all, names, rows};
    use super::*;
    use crate::config::{Size, Span};
    use crate::model::TenantId;
    use crate::store::tests::{T0, labels, row};

    const DAY: i64 = 24 * HOUR;

    #[tokio::test]
    async fn the_oldest_days_leave_when_the_directory_is_full() {
        let setup = Setup::new();
        let store = setup.open();
        let mut random = 7u64;
        for day in 0..5 {
            let noise = (0..20_000).map(|i| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let t = T0 - (4 - day) * DAY + i * 100;
                row("noise", "d", t, f64::from_bits(random >> 2))
            });
            added(&store, noise.collect()).await;
            let name = format!("m{day}");
            added(&store, vec![row(&name, "d", T0 - (4 - day) * DAY, 1.0)]).await;
            store.compact_now().await.unwrap();
        }
        store.close().await;
        drop(store);
        assert_eq!(names(&setup).len(), 5);
        let budget = disk_bytes(setup.dir.path()) * 2 / 3;
        let mut options = setup.options();
        options.store.size_max = Size::bytes(budget);
        let store = setup.open_with(options);
        store.seal_now().await.unwrap();
        assert!(disk_bytes(setup.dir.path()) <= budget);
        let left = names(&setup);
        assert!(left.len() >= 2 && left.len() < 5, "{left:?}");
        assert_eq!(left.last().unwrap(), "day-20231114.redb");
        assert!(
            store.resolve(&labels("m0", "d")).is_none(),
            "its only day is gone"
        );
        assert!(store.resolve(&labels("m4", "d")).is_some());
    }

    #[tokio::test]
    async fn a_tenant_with_a_shorter_retention_leaves_days_that_stay() {
        let setup = Setup::new();
        let mut options = setup.options();
        let tenant = r#"id = "acme"
            retention = "1d""#;
        options.tenants = vec![toml::from_str(tenant).unwrap()];
        assert_eq!(options.tenants[0].id, TenantId::new("acme").unwrap());
        assert_eq!(options.tenants[0].retention, Some(Span::secs(86_400)));
        let store = setup.open_with(options);
        let other = |t: i64| {
            let mut row = row("temp", "d9", t, 4.0);
            row.series = crate::store::SeriesKey::Labels(crate::model::Labels::from_pairs([
                ("__name__", "temp"),
                ("tenant_id", "other"),
            ]));
            row
        };
        added(&store, rows(T0 - 2 * DAY, 40)).await;
        added(&store, vec![other(T0 - 2 * DAY), other(T0)]).await;
        added(&store, rows(T0, 4)).await;
        store.compact_now().await.unwrap();
        let mut left = all(&store);
        assert_eq!(left.len(), 4, "three devices and another tenant");
        assert!(left.iter().all(|(name, _)| !name.is_empty()));
        left.sort_by_key(|(_, samples)| samples.len());
        let lengths: Vec<usize> = left.iter().map(|(_, samples)| samples.len()).collect();
        assert_eq!(lengths, [2, 4, 4, 4], "44 samples without the retention");
        // A day later the rest of the tenant is too old as well: its day is rewritten.
        setup.clock.set(Timestamp::from_ms(T0 + 3 * DAY));
        let mut sealer = Setup::sealer(&store);
        let work = tokio::task::spawn_blocking(move || {
            let (_commands, orders) = std::sync::mpsc::sync_channel(1);
            assert!(matches!(sealer.expire(), Ok(Ok(()))));
            assert_eq!(sealer.to_trim.len(), 1);
            assert!(sealer.rewrite_due(&orders).is_ok());
            assert!(sealer.to_trim.is_empty());
        });
        work.await.unwrap();
        let left = all(&store);
        assert_eq!((left.len(), left[0].1.len()), (1, 2));
        assert!(store.resolve(&labels("temp", "d1")).is_none());
    }

    #[tokio::test]
    async fn samples_from_1970_on_are_loaded_when_the_options_allow_it() {
        let setup = Setup::new();
        let mut options = setup.options();
        options.store.retention = Span::secs(100 * 365 * 86_400);
        options.store.max_late = Span::secs(100 * 365 * 86_400);
        let store = setup.open_with(options.clone());
        let old = (0..200)
            .map(|i| row("old", "d", i * DAY / 4, i as f64))
            .collect();
        assert_eq!(added(&store, old).await, (200, 0, 0));
        assert_eq!(
            added(&store, vec![row("old", "d", -1, 1.0)]).await,
            (0, 0, 1)
        );
        let before = all(&store);
        store.seal_now().await.unwrap();
        assert_eq!(names(&setup).len(), 50);
        assert_eq!(all(&store), before);
        // Backwards and between, into days that were rewritten.
        store.compact_now().await.unwrap();
        let late = (0..200)
            .rev()
            .map(|i| row("old", "d", i * DAY / 4 + 1, 0.5))
            .collect();
        assert_eq!(added(&store, late).await, (200, 0, 0));
        store.compact_now().await.unwrap();
        assert!(names(&setup).iter().all(|name| name.starts_with("day-")));
        let both = all(&store);
        assert_eq!(both[0].1.len(), 400);
        assert!(both[0].1.is_sorted_by_key(|s| s.t));
        store.close().await;
        drop(store);
        assert_eq!(all(&setup.open_with(options)), both);
    }
}
