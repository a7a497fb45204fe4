//! The process's own use of the machine, under the names of the Go client.

use procfs::process::{LimitValue, Process as ProcFs};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts, Registry};

use super::gauges;

/// Reads `/proc/self` when it is gathered.
struct Process {
    cpu_seconds: Counter,
    gauges: [Gauge; 5],
}

/// Names and helps of the gauges, in the order in which [`read`] gives their values.
const GAUGES: [(&str, &str); 5] = [
    (
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
    ),
    (
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
    ),
    ("process_open_fds", "Number of open file descriptors."),
    (
        "process_max_fds",
        "Maximum number of open file descriptors.",
    ),
    (
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
    ),
];

/// Registers the process's families and `pulse_build_info`.
pub(super) fn register(registry: &Registry) {
    let gauge =
        |(name, help): (&str, &str)| Gauge::new(name, help).expect("BUG: a bad metric name");
    let cpu = Opts::new(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
    );
    let process = Process {
        cpu_seconds: Counter::with_opts(cpu).expect("BUG: a bad metric name"),
        gauges: GAUGES.map(gauge),
    };
    registry
        .register(Box::new(process))
        .expect("BUG: two instruments of one name");
    build_info(registry);
}

/// A constant 1 with the version that runs.
fn build_info(registry: &Registry) {
    let help = "A metric with a constant '1' value labeled by version.";
    let info = gauges(registry, "pulse_build_info", help, &["version"]);
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().flat_map(Collector::desc);
        self.cpu_seconds.desc().into_iter().chain(gauges).collect()
    }

    /// Gives what can be read; on a system without `/proc` that is nothing.
    fn collect(&self) -> Vec<MetricFamily> {
        let Ok((cpu_seconds, values)) = read() else {
            return Vec::new();
        };
        let more = cpu_seconds - self.cpu_seconds.get();
        self.cpu_seconds.inc_by(more.max(0.0));
        for (gauge, value) in self.gauges.iter().zip(values) {
            gauge.set(value);
        }
        let gauges = self.gauges.iter().flat_map(Collector::collect);
        self.cpu_seconds
            .collect()
            .into_iter()
            .chain(gauges)
            .collect()
    }
}

/// CPU seconds and the values of [`GAUGES`].
fn read() -> procfs::ProcResult<(f64, [f64; 5])> {
    let process = ProcFs::myself()?;
    let stat = process.stat()?;
    let ticks_per_second = procfs::ticks_per_second() as f64;
    let max_fds = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit as f64,
        LimitValue::Unlimited => f64::INFINITY,
    };
    let booted_at = procfs::boot_time_secs()? as f64;
    let values = [
        (stat.rss * procfs::page_size()) as f64,
        stat.vsize as f64,
        process.fd_count()? as f64,
        max_fds,
        booted_at + stat.starttime as f64 / ticks_per_second,
    ];
    Ok(((stat.utime + stat.stime) as f64 / ticks_per_second, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_a_start() {
        let registry = Registry::new();
        register(&registry);
        let families = registry.gather();
        let value = |name: &str| {
            let family = families.iter().find(|f| f.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1.6e9);
        assert!(value("pulse_build_info") == 1.0);
        assert!(registry.gather().len() == 7, "a second read works too");
    }
}
