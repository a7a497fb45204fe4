//! The own host, under the names, types and units of node_exporter, so that its
//! dashboards and rules work unchanged.
//!
//! Owns nothing: each collection reads `/proc` and `/sys` anew, in about a
//! millisecond. What a kernel or a small box does not have is left out; a file
//! that cannot be read is never an error of the collection.
//!
//! It must never invent a value, and never ask a network file system for its
//! size: a dead server would hold the collection for ever. (node_exporter asks,
//! and gives up on a mount that hangs; so network mounts are a known difference.)

mod block;
mod filesystem;
mod kernel;
mod network;

use std::path::{Path, PathBuf};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::model::Clock;
use crate::telemetry::metrics::FamilyBuilder;

const TIME: (&str, &str) = (
    "node_time_seconds",
    "System time in seconds since epoch (1970).",
);

/// Reads the host's state. A collector: registered once, its families are part of
/// what [`crate::telemetry::Metrics::gather`] gives.
#[derive(Clone, Debug)]
pub struct Host {
    proc: PathBuf,
    sys: PathBuf,
    clock: Clock,
    desc: Desc,
}

impl Host {
    /// The machine we run on.
    pub fn new(clock: Clock) -> Host {
        Host::at(Path::new("/proc"), Path::new("/sys"), clock)
    }

    /// A machine whose `/proc` and `/sys` stand elsewhere.
    pub fn at(proc: &Path, sys: &Path, clock: Clock) -> Host {
        let (name, help) = TIME;
        Host {
            proc: proc.to_owned(),
            sys: sys.to_owned(),
            clock,
            desc: Desc::new(name.to_owned(), help.to_owned(), Vec::new(), [].into())
                .expect("BUG: a bad metric name"),
        }
    }

    /// All families that this host has. Blocks for the time of some file reads.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut out = Families::default();
        let now = self.clock.now().as_secs_f64();
        out.push(FamilyBuilder::gauge(TIME.0, TIME.1).with(&[], now));
        kernel::uname(&mut out);
        self.with_file("stat", &mut out, kernel::stat);
        self.with_file("meminfo", &mut out, kernel::meminfo);
        self.with_file("loadavg", &mut out, kernel::loadavg);
        self.with_file("sys/fs/file-nr", &mut out, kernel::file_nr);
        self.with_file("diskstats", &mut out, block::diskstats);
        self.with_file("net/dev", &mut out, network::dev);
        // Our own view of the mounts: /proc/mounts is a link to it.
        self.with_file("self/mounts", &mut out, filesystem::mounts);
        block::thermal(&self.sys, &mut out);
        out.0
    }

    fn with_file(&self, name: &str, out: &mut Families, read: impl Fn(&str, &mut Families)) {
        match std::fs::read(self.proc.join(name)) {
            Ok(bytes) => read(&String::from_utf8_lossy(&bytes), out),
            Err(err) => tracing::trace!(file = name, error = %err, "no such file on this host"),
        }
    }
}

impl Collector for Host {
    /// The one family that every host has; which others there are depends on it.
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gather()
    }
}

/// The families of one collection.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    /// Adds a family, if it has a value.
    fn push(&mut self, family: FamilyBuilder) {
        self.0.extend(family.build());
    }
}

#[cfg(test)]
mod tests;
