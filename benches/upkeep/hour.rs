//! Series in memory, and the start after a crash.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pulse::store::WriteBatch;

use super::{HOUR, OPEN, Open, STEP, T0, anonymous, create, open, run_again, scrape, value};

/// Makes the series of a name, and opens what a crash leaves of them.
pub(super) async fn run(name: &str) {
    let (series, steps, unique, starts) = match name {
        "short" => (100_000, 48, false, 3),
        "full" => (100_000, 240, false, 3),
        "unique" => (100_000, 240, true, 1),
        "million" => (1_000_000, 240, false, 1),
        other => panic!("no series are called {other}"),
    };
    let dir = tempfile::tempdir().expect("a directory");
    let before = anonymous();
    let peak = Peak::watch();
    let Open { store, .. } = open(dir.path(), T0 + HOUR);
    let ids = create(&store, 0..series, unique, T0).await;
    for step in 1..steps {
        scrape(&store, &ids, T0 + step * STEP, |i| value(i, step)).await;
    }
    // An empty batch that waits is behind everything.
    store.write(WriteBatch::default()).await.expect("committed");
    drop(ids);
    let each = |bytes: u64| (bytes - before) as f64 / series as f64;
    println!(
        "{name}: {series} series x {steps} samples: {:.0} B/series anonymous memory, peak {:.0}",
        each(anonymous()),
        each(peak.stop())
    );
    let crashed = tempfile::tempdir().expect("a directory");
    copy_files(dir.path(), crashed.path());
    store.close().await;
    drop(store);
    drop(dir);
    for _ in 0..starts {
        let again = tempfile::tempdir().expect("a directory");
        copy_files(crashed.path(), again.path());
        run_again(OPEN, again.path());
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).expect("a directory");
            copy_files(&entry.path(), &to);
        } else if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// Opens what a crash left.
pub(super) async fn restart(dir: &Path) {
    let before = anonymous();
    let peak = Peak::watch();
    let begun = Instant::now();
    let Open { store, metrics, .. } = open(dir, T0 + HOUR);
    let took = begun.elapsed();
    let stats = store.stats();
    let each = |bytes: u64| (bytes - before) as f64 / stats.series as f64;
    println!(
        "  after a crash: {:.0} ms to open, of that log and catalog {:.0} ms, {} samples, {:.0} B/series, peak {:.0}",
        took.as_secs_f64() * 1e3,
        metrics.store.replay_seconds.get() * 1e3,
        stats.head_samples,
        each(anonymous()),
        each(peak.stop())
    );
    store.close().await;
}

/// Looks at the memory every 5 ms.
struct Peak {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Peak {
    fn watch() -> Peak {
        let stop = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, bytes) = (Arc::clone(&stop), Arc::clone(&bytes));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    bytes.fetch_max(anonymous(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Peak {
            stop,
            bytes,
            thread,
        }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only looks");
        self.bytes.load(Ordering::Relaxed)
    }
}
