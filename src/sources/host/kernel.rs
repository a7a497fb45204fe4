//! CPU, memory, load, open files and the kernel's name.
//!
//! `/proc/stat` is read by hand: the procfs crate numbers the CPUs by position,
//! which is wrong as soon as one is offline, and its load averages are 32 bits.

use std::ffi::CStr;

use super::Families;
use crate::telemetry::metrics::FamilyBuilder;

/// The columns of a `cpu` line that are modes; guest time is part of user time.
const MODES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];

/// `/proc/stat`.
pub(super) fn stat(text: &str, out: &mut Families) {
    let ticks = procfs::ticks_per_second() as f64;
    let mut cpu = FamilyBuilder::counter(
        "node_cpu_seconds_total",
        "Seconds the CPUs spent in each mode.",
    );
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let key = fields.next().unwrap_or("");
        if let Some(number) = key.strip_prefix("cpu").filter(|n| !n.is_empty()) {
            for (mode, spent) in MODES.iter().zip(fields) {
                if let Ok(spent) = spent.parse::<f64>() {
                    cpu.add(&[("cpu", number), ("mode", mode)], spent / ticks);
                }
            }
            continue;
        }
        let Some(value) = fields.next().and_then(|v| v.parse().ok()) else {
            continue;
        };
        let family = match key {
            "intr" => {
                FamilyBuilder::counter("node_intr_total", "Total number of interrupts serviced.")
            }
            "ctxt" => FamilyBuilder::counter(
                "node_context_switches_total",
                "Total number of context switches.",
            ),
            "processes" => FamilyBuilder::counter("node_forks_total", "Total number of forks."),
            "btime" => {
                FamilyBuilder::gauge("node_boot_time_seconds", "Node boot time, in unixtime.")
            }
            "procs_running" => FamilyBuilder::gauge(
                "node_procs_running",
                "Number of processes in runnable state.",
            ),
            "procs_blocked" => FamilyBuilder::gauge(
                "node_procs_blocked",
                "Number of processes blocked waiting for I/O to complete.",
            ),
            _ => continue,
        };
        out.push(family.with(&[], value));
    }
    out.push(cpu);
}

/// `/proc/meminfo`: every line, named as the kernel names it.
pub(super) fn meminfo(text: &str, out: &mut Families) {
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else {
            continue;
        };
        let mut fields = rest.split_ascii_whitespace();
        let Some(value) = fields.next().and_then(|v| v.parse::<f64>().ok()) else {
            continue;
        };
        let (unit, factor) = match fields.next() {
            Some("kB") => ("_bytes", 1024.0),
            _ => ("", 1.0),
        };
        let key = key.replace('(', "_").replace(')', "");
        let name = format!("node_memory_{key}{unit}");
        let family = FamilyBuilder::gauge(name, "Memory information field of /proc/meminfo.");
        out.push(family.with(&[], value * factor));
    }
}

/// `/proc/loadavg`.
pub(super) fn loadavg(text: &str, out: &mut Families) {
    let families = [
        ("node_load1", "1m load average."),
        ("node_load5", "5m load average."),
        ("node_load15", "15m load average."),
    ];
    for ((name, help), value) in families.into_iter().zip(text.split_ascii_whitespace()) {
        if let Ok(value) = value.parse() {
            out.push(FamilyBuilder::gauge(name, help).with(&[], value));
        }
    }
}

/// `/proc/sys/fs/file-nr`: allocated, unused, maximum.
pub(super) fn file_nr(text: &str, out: &mut Families) {
    let fields: Vec<f64> = text
        .split_ascii_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    if let [allocated, _, maximum] = fields[..] {
        out.push(
            FamilyBuilder::gauge(
                "node_filefd_allocated",
                "File descriptor statistics: allocated.",
            )
            .with(&[], allocated),
        );
        out.push(
            FamilyBuilder::gauge(
                "node_filefd_maximum",
                "File descriptor statistics: maximum.",
            )
            .with(&[], maximum),
        );
    }
}

/// What `uname` says.
pub(super) fn uname(out: &mut Families) {
    let name = rustix::system::uname();
    let text = |text: &CStr| text.to_string_lossy().into_owned();
    let labels = [
        ("sysname", text(name.sysname())),
        ("release", text(name.release())),
        ("version", text(name.version())),
        ("machine", text(name.machine())),
        ("nodename", text(name.nodename())),
        ("domainname", text(name.domainname())),
    ];
    let labels = labels.each_ref().map(|(n, v)| (*n, v.as_str()));
    let help = "Labeled system information as provided by the uname system call.";
    out.push(FamilyBuilder::gauge("node_uname_info", help).with(&labels, 1.0));
}
