//! How a store is opened: its files, then catalog and log, then its threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::appended::{self, Appended};
use super::days::{Coverage, Days};
use super::disk::{self, Backends, DirLock, io_error};
use super::hot::{self, Hot};
use super::ledger::Ledger;
use super::replay::{self, Lost, Replayed};
use super::salvage::{self, Salvaged};
use super::sealer::{Command, Sealer};
use super::shared::{Ended, Opened, Shared};
use super::space::Space;
use super::tables::{self, Meta};
use super::writer::{self, Writer};
use super::{Error, Options, Store, clock, delete, scrub, wal};
use crate::model::Clock;
use crate::telemetry::Metrics;

/// Commands that may wait for the sealer.
const COMMANDS_MAX: usize = 16;

impl Store {
    /// As [`Store::open`], on other bytes than files.
    pub(super) fn open_on(
        backends: Backends,
        lock: DirLock,
        options: Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Store, Error> {
        prepare(&options)?;
        let first = Loaded::load(&options, &backends, &clock, &metrics, None);
        let loaded = match first {
            Err(Error::Damaged { path, source }) if path.ends_with(tables::HOT_FILE) => {
                let now = clock.now();
                let salvaged = salvage::salvage(&options, &backends, source, now, &metrics)?;
                Loaded::load(&options, &backends, &clock, &metrics, Some(salvaged))?
            }
            loaded => loaded?,
        };
        let Loaded {
            files,
            mut replayed,
            newest,
            ledger,
            last_key,
            is_salvaged,
        } = loaded;
        let appended = i64::try_from(files.log.bytes()).unwrap_or(i64::MAX);
        metrics.store.wal_bytes.add(appended);
        if let Some(path) = files.log.lost() {
            let mut told = replayed.lost.iter_mut();
            if let Some(end) = told.find(|lost| lost.first > replayed.seq) {
                end.places.push((path.to_owned(), 0));
            } else {
                let lost = Lost::file(path, replayed.seq, newest);
                lost.tell(&metrics);
                replayed.lost.push(lost);
            }
        }
        let newest = newest.max(clock.now().as_ms());
        files.note_lost(&replayed.lost, newest, options.store.read_only);
        files.days.note_missing(&*files.hot.database()?)?;
        let numbers = writer::Log {
            builder: wal::Builder::after(replayed.resets),
            sequence: replayed.sequence.max(last_key),
            resets: replayed.reset_seqs,
            first: replayed.first,
            sealed: files.meta.wal_sealed_seq,
        };
        let shared = Arc::new(Shared::new(Opened {
            options,
            clock,
            metrics,
            hot: files.hot,
            log: files.log,
            index: replayed.index,
            head: replayed.head,
            parts: replayed.parts,
            ledger,
            committed: replayed.seq,
            days: files.days,
            sealed_max_t: files.coverage.max_t,
            lock,
        }));
        shared.measure_damaged();
        delete::load(&shared)?;
        let store = Store::start(shared, numbers)?;
        if is_salvaged {
            // In files of their own the samples need neither the log nor its gaps. Nobody
            // waits for it, and the next hour does it if the queue is closed.
            let (reply, _) = tokio::sync::oneshot::channel();
            store
                .commands
                .try_send(Command::Seal(reply))
                .unwrap_or_default();
        }
        Ok(store)
    }

    /// Starts the threads.
    fn start(shared: Arc<Shared>, log: writer::Log) -> Result<Store, Error> {
        let (jobs, queue) = mpsc::channel(writer::QUEUE_BATCHES_MAX);
        let (commands, orders) = std::sync::mpsc::sync_channel(COMMANDS_MAX);
        // Without, nobody takes what is sent: there is nothing to write.
        if !shared.options.store.read_only {
            let fail = |err| io_error("open", &shared.dir, err);
            let writer = Writer::new(Arc::clone(&shared), queue, log).map_err(fail)?;
            let sealer = Sealer::new(Arc::clone(&shared), jobs.downgrade());
            let stop = commands.clone();
            let ended = EndNotice::new(&shared, |ended| ended.writer = true);
            let write = move || {
                let _ended = ended;
                writer.run();
                // When the queue is full the sealer finds the writer gone by itself.
                drop(stop.try_send(Command::Stop));
            };
            spawn("store-writer", Box::new(write)).map_err(fail)?;
            let ended = EndNotice::new(&shared, |ended| ended.sealer = true);
            let seal = move || {
                let _ended = ended;
                sealer.run(&orders);
            };
            spawn("store-sealer", Box::new(seal)).map_err(fail)?;
            let scrubbed = Arc::downgrade(&shared);
            spawn("store-scrub", Box::new(move || scrub::run(&scrubbed))).map_err(fail)?;
        }
        Ok(Store {
            shared,
            jobs,
            commands,
        })
    }
}

fn spawn(name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(body).map(drop)
}

/// Makes the directory fit to be opened, or says why it is not.
fn prepare(options: &Options) -> Result<(), Error> {
    let dir = &options.dir;
    if !options.store.read_only {
        Space::new(dir, &options.store).make_room_to_start();
        disk::check_format(dir)?;
        // Of a process that was killed over it. The file itself is still there then.
        salvage::remove_left(dir);
        Ok(())
    } else if disk::read_format(dir)? == disk::Format::Missing {
        let what = "it has no FORMAT file: this is no data directory";
        Err(io_error("read", dir, what))
    } else {
        Ok(())
    }
}

/// What a start reads.
struct Loaded {
    files: Files,
    replayed: Replayed,
    /// No sample is later, in ms.
    newest: i64,
    ledger: Ledger,
    /// The last number of an outbox row or a dead letter.
    last_key: u64,
    is_salvaged: bool,
}

impl Loaded {
    /// Opens and reads the files.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the bytes of `hot.redb` are wrong.
    fn load(
        options: &Options,
        backends: &Backends,
        clock: &Clock,
        metrics: &Metrics,
        salvaged: Option<Salvaged>,
    ) -> Result<Loaded, Error> {
        let hot = options.dir.join(tables::HOT_FILE);
        let load = || {
            let is_salvaged = salvaged.is_some();
            let files = Files::open(options, backends, salvaged)?;
            let mut replayed = files.replay(metrics)?;
            // Numbers that the files know are not given again, whatever the log has lost.
            replayed.seq = replayed.seq.max(files.days.last_seq());
            if is_salvaged {
                files.tell_strangers(&replayed, metrics, options.store.read_only);
            }
            let newest = replayed.parts.all().map(|part| part.max_t).max();
            let newest = newest.unwrap_or(i64::MIN).max(files.coverage.max_t);
            let (ledger, last_key) = files.resume(clock, newest)?;
            Ok(Loaded {
                files,
                replayed,
                newest,
                ledger,
                last_key,
                is_salvaged,
            })
        };
        hot::caught(&hot, load).map_err(|err| hot::as_damage(&hot, err))
    }
}

/// The open files of the directory.
struct Files {
    hot: Hot,
    meta: Meta,
    days: Days,
    coverage: Coverage,
    log: Appended,
}

impl Files {
    fn open(
        options: &Options,
        backends: &Backends,
        salvaged: Option<Salvaged>,
    ) -> Result<Files, Error> {
        let Options { dir, store, .. } = options;
        let cache = store.hot_cache.as_usize();
        let open_days = |number| {
            let l0_cache = store.l0_cache.as_usize();
            Days::open_whole(dir, number, Arc::clone(backends), l0_cache, store.read_only)
        };
        if !dir.join(tables::HOT_FILE).exists() {
            refuse_days_alone(dir, &open_days(0)?)?;
        }
        let (hot, meta, lost) = match salvaged {
            Some(Salvaged { hot, meta, lost }) => (hot, meta, lost),
            None => {
                let path = dir.join(tables::HOT_FILE);
                if salvage::is_needed(&path, backends)? {
                    let source = "some of its pages are not as they were written".into();
                    return Err(Error::Damaged { path, source });
                }
                let open = match store.read_only {
                    true => Hot::open_existing,
                    false => Hot::open,
                };
                let (hot, meta) = open(dir, Arc::clone(backends), cache)?;
                (hot, meta, None)
            }
        };
        let days = open_days(meta.store)?;
        if let Some((path, times)) = lost {
            days.note_lost(times, path);
        }
        let coverage = days.coverage()?;
        let (size_max, files) = (store.size_max.get(), Arc::clone(backends));
        let log = Appended::open(dir, files, meta, size_max, !store.read_only)?;
        Ok(Files {
            hot,
            meta,
            days,
            coverage,
            log,
        })
    }

    fn fail(&self, err: replay::Failure) -> Error {
        io_error("read", self.hot.path(), err)
    }

    /// Reads catalog and log.
    fn replay(&self, metrics: &Metrics) -> Result<Replayed, Error> {
        let db = self.hot.database()?;
        let appended = self.log.hold().reader(self.meta.wal_sealed_seq + 1);
        hot::caught(self.hot.path(), || {
            let replayed = replay::replay(&db, appended, self.meta, &self.coverage, metrics);
            replayed.map_err(|err| self.fail(err))
        })
    }

    /// Reads the ledger and its last number, and makes the clock go on from what is saved.
    /// No sample is later than `newest`, in ms.
    fn resume(&self, clock: &Clock, newest: i64) -> Result<(Ledger, u64), Error> {
        let db = self.hot.database()?;
        let ledger = Ledger::read(&db).map_err(|err| self.fail(err.into()))?;
        let saved = clock::saved(&db, newest);
        clock.resume(saved.map_err(|err| self.fail(err.into()))?);
        Ok(ledger)
    }

    /// Tells of samples in the log whose series nobody knows, and keeps the log.
    fn tell_strangers(&self, replayed: &Replayed, metrics: &Metrics, read_only: bool) {
        let mut series = 0;
        replayed.head.for_each(|id, head, _| {
            series += u64::from(!head.is_empty() && !replayed.index.contains(id));
        });
        if series == 0 {
            return;
        }
        metrics.store.checksum_failures.inc_by(series);
        tracing::error!(
            series,
            "the labels of series in the log are lost, as are their samples"
        );
        let times = replayed.parts.all().map(|part| (part.min_t, part.max_t));
        let times = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let (times, held) = (times.unwrap_or_default(), self.log.hold());
        for path in held.files_of(0, u64::MAX) {
            let kept = match read_only {
                true => path,
                false => self.days.keep_log(&path, times),
            };
            self.days.note_lost(times, kept);
        }
    }

    /// Notes what of the log is lost, and keeps its damaged files before they are used again.
    /// No sample is later than `newest`, in ms.
    fn note_lost(&self, lost: &[Lost], newest: i64, read_only: bool) {
        let (days, held) = (&self.days, self.log.hold());
        for lost in lost {
            let times = (lost.times.0, lost.times.1.min(newest));
            let mut files: Vec<PathBuf> =
                lost.places.iter().map(|(path, _)| path.clone()).collect();
            if lost.damaged > files.len() as u64 {
                files.extend(held.files_of(lost.first, lost.last));
            }
            files.sort_unstable();
            files.dedup();
            if files.is_empty() {
                days.note_lost(times, days.dir().join(tables::HOT_FILE));
            }
            for path in files {
                let kept = match read_only {
                    true => path,
                    false => days.keep_log(&path, times),
                };
                days.note_lost(times, kept);
            }
        }
    }
}

/// Samples in sealed files and in the appended log are found by numbers that only
/// `hot.redb` keeps: with a new one they would be taken for other series'.
fn refuse_days_alone(dir: &Path, days: &Days) -> Result<(), Error> {
    let hot = dir.join(tables::HOT_FILE);
    let text = if days.span().is_some() {
        "it is missing beside sealed days: restore it, or move the l0-*.redb and day-*.redb files away"
    } else if appended::is_in(dir)? {
        "it is missing beside a log: restore it, or move the hot-*.log files away"
    } else {
        return Ok(());
    };
    Err(io_error("open", &hot, std::io::Error::other(text)))
}

/// Tells that a thread has ended, however it did, and has let go of the store.
struct EndNotice {
    ended: Arc<watch::Sender<Ended>>,
    mark: fn(&mut Ended),
}

impl EndNotice {
    fn new(shared: &Shared, mark: fn(&mut Ended)) -> EndNotice {
        EndNotice {
            ended: Arc::clone(&shared.ended),
            mark,
        }
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.ended.send_modify(self.mark);
    }
}
