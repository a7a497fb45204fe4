//! Block devices and thermal zones.

use std::fs;
use std::path::Path;

use procfs::{DiskStat, DiskStats, FromBufRead as _};

use super::Families;
use crate::telemetry::metrics::FamilyBuilder;

/// What the kernel calls a sector here, whatever the device does.
const SECTOR: f64 = 512.0;
const MS: f64 = 0.001;

/// Name, help, whether it is a counter, and the value.
type Column = (&'static str, &'static str, bool, fn(&DiskStat) -> f64);

const COLUMNS: [Column; 11] = [
    (
        "node_disk_reads_completed_total",
        "The total number of reads completed successfully.",
        true,
        |d| d.reads as f64,
    ),
    (
        "node_disk_reads_merged_total",
        "The total number of reads merged.",
        true,
        |d| d.merged as f64,
    ),
    (
        "node_disk_read_bytes_total",
        "The total number of bytes read successfully.",
        true,
        |d| d.sectors_read as f64 * SECTOR,
    ),
    (
        "node_disk_read_time_seconds_total",
        "The total number of seconds spent by all reads.",
        true,
        |d| d.time_reading as f64 * MS,
    ),
    (
        "node_disk_writes_completed_total",
        "The total number of writes completed successfully.",
        true,
        |d| d.writes as f64,
    ),
    (
        "node_disk_writes_merged_total",
        "The number of writes merged.",
        true,
        |d| d.writes_merged as f64,
    ),
    (
        "node_disk_written_bytes_total",
        "The total number of bytes written successfully.",
        true,
        |d| d.sectors_written as f64 * SECTOR,
    ),
    (
        "node_disk_write_time_seconds_total",
        "This is the total number of seconds spent by all writes.",
        true,
        |d| d.time_writing as f64 * MS,
    ),
    (
        "node_disk_io_now",
        "The number of I/Os currently in progress.",
        false,
        |d| d.in_progress as f64,
    ),
    (
        "node_disk_io_time_seconds_total",
        "Total seconds spent doing I/Os.",
        true,
        |d| d.time_in_progress as f64 * MS,
    ),
    (
        "node_disk_io_time_weighted_seconds_total",
        "The weighted # of seconds spent doing I/Os.",
        true,
        |d| d.weighted_time_in_progress as f64 * MS,
    ),
];

/// `/proc/diskstats`: whole devices that have a medium.
pub(super) fn diskstats(text: &str, out: &mut Families) {
    let Ok(DiskStats(disks)) = DiskStats::from_buf_read(text.as_bytes()) else {
        return;
    };
    for (name, help, is_counter, value) in COLUMNS {
        let mut family = if is_counter {
            FamilyBuilder::counter(name, help)
        } else {
            FamilyBuilder::gauge(name, help)
        };
        for disk in disks.iter().filter(|disk| !is_left_out(&disk.name)) {
            family.add(&[("device", &disk.name)], value(disk));
        }
        out.push(family);
    }
}

/// Memory, loop and floppy devices and partitions, as node_exporter leaves them out.
fn is_left_out(device: &str) -> bool {
    let stem = device.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem == device {
        return false;
    }
    match stem {
        "ram" | "zram" | "loop" | "fd" => true,
        _ if is_nvme_partition(stem) => true,
        _ => is_disk_with_letter(stem),
    }
}

/// `nvme0n1p` of `nvme0n1p2`.
fn is_nvme_partition(stem: &str) -> bool {
    stem.strip_prefix("nvme")
        .and_then(|rest| rest.strip_suffix('p'))
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(controller, namespace)| is_number(controller) && is_number(namespace))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `hda`, `sda`, `vda`, `xvda`: then what followed was a partition's number.
fn is_disk_with_letter(stem: &str) -> bool {
    ["hd", "sd", "vd", "xvd"].iter().any(|prefix| {
        let letter = stem.strip_prefix(prefix);
        letter.is_some_and(|l| l.len() == 1 && l.as_bytes()[0].is_ascii_lowercase())
    })
}

/// `/sys/class/thermal/thermal_zone*`.
pub(super) fn thermal(sys: &Path, out: &mut Families) {
    let mut zones: Vec<(String, String, f64)> = Vec::new();
    for entry in fs::read_dir(sys.join("class/thermal"))
        .into_iter()
        .flatten()
    {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(zone) = name.strip_prefix("thermal_zone") else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        // A zone that is switched off cannot be read.
        let millidegrees = read("temp").and_then(|text| text.trim().parse::<f64>().ok());
        if let (Some(kind), Some(millidegrees)) = (read("type"), millidegrees) {
            zones.push((zone.to_owned(), kind.trim().to_owned(), millidegrees));
        }
    }
    zones.sort_by(|a, b| a.0.cmp(&b.0));
    let mut family = FamilyBuilder::gauge("node_thermal_zone_temp", "Zone temperature in Celsius.");
    for (zone, kind, millidegrees) in zones {
        family.add(&[("zone", &zone), ("type", &kind)], millidegrees / 1_000.0);
    }
    out.push(family);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_memory_devices_are_left_out() {
        for device in ["sda", "vdb", "nvme0n1", "dm-0", "md127", "mmcblk0", "sr0"] {
            assert!(!is_left_out(device), "{device}");
        }
        for device in [
            "sda1",
            "vda15",
            "xvda2",
            "nvme0n1p1",
            "loop0",
            "ram3",
            "zram0",
            "fd0",
        ] {
            assert!(is_left_out(device), "{device}");
        }
    }
}
