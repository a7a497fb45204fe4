//! The host as texts, and the real one.

use std::fs;

use super::*;
use crate::codec::exposition::Format;
use crate::model::Timestamp;
use crate::model::clock::ManualClock;

/// A machine made of texts; its one disk is mounted where the texts stand.
fn fixture() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "proc/stat",
        "cpu  300 0 200 1000 10 0 5 0 0 0\n\
         cpu0 100 1 200 1000 10 2 5 7 50 0\n\
         cpu3 200 0 0 0\n\
         intr 12345 0 9\n\
         ctxt 99887766\nbtime 1700000000\nprocesses 4242\n\
         procs_running 3\nprocs_blocked 1\nsoftirq 1 2 3\n",
    );
    write(
        "proc/meminfo",
        "MemTotal:        2048 kB\nMemAvailable:    1024 kB\n\
         Active(anon):      16 kB\nHugePages_Total:       4\nodd line\n",
    );
    write("proc/loadavg", "0.15 1.25 2.05 2/345 6789\n");
    write("proc/sys/fs/file-nr", "1504\t0\t9223372036854775807\n");
    write(
        "proc/diskstats",
        "   8       0 sda 100 2 2048 30 50 4 4096 60 7 80 90\n   \
         8       1 sda1 1 1 1 1 1 1 1 1 1 1 1\n   \
         7       0 loop0 1 1 1 1 1 1 1 1 1 1 1\n",
    );
    write(
        "proc/net/dev",
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
         lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n\
         eth0:1000 20 3 4 0 0 0 5 2000 30 6 7 0 0 0 0\n",
    );
    let place = dir.path().display();
    write(
        "proc/self/mounts",
        &format!(
            "proc /proc proc rw 0 0\n/dev/hidden {place} ext4 rw 0 0\n\
             /dev/root\\040disk {place} ext4 rw 0 0\nserver:/x {place}/proc nfs4 rw 0 0\n\
             /dev/gone /does/not/exist ext4 rw 0 0\n"
        ),
    );
    write("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
    write("sys/class/thermal/thermal_zone0/temp", "47500\n");
    write("sys/class/thermal/thermal_zone1/type", "broken\n");
    write("sys/class/thermal/cooling_device0/type", "Fan\n");
    let clock = Clock::Manual(ManualClock::new(Timestamp::from_ms(1_700_000_123_500)));
    let host = Host::at(&dir.path().join("proc"), &dir.path().join("sys"), clock);
    (dir, host)
}

/// The exposition's lines without those that depend on the real machine.
fn lines(host: &Host) -> Vec<String> {
    let text = Format::Text.write(&host.gather());
    let wanted = |line: &&str| {
        !line.starts_with('#')
            && !line.starts_with("node_uname_info")
            && !line.starts_with("node_filesystem_")
    };
    text.lines().filter(wanted).map(str::to_owned).collect()
}

#[test]
fn values_have_node_exporters_names_and_units() {
    let (_dir, host) = fixture();
    let ticks = procfs::ticks_per_second();
    assert_eq!(ticks, 100, "the expected values below are for 100 Hz");
    let want = r#"node_boot_time_seconds 1700000000
node_context_switches_total 99887766
node_cpu_seconds_total{cpu="0",mode="idle"} 10
node_cpu_seconds_total{cpu="0",mode="iowait"} 0.1
node_cpu_seconds_total{cpu="0",mode="irq"} 0.02
node_cpu_seconds_total{cpu="0",mode="nice"} 0.01
node_cpu_seconds_total{cpu="0",mode="softirq"} 0.05
node_cpu_seconds_total{cpu="0",mode="steal"} 0.07
node_cpu_seconds_total{cpu="0",mode="system"} 2
node_cpu_seconds_total{cpu="0",mode="user"} 1
node_cpu_seconds_total{cpu="3",mode="idle"} 0
node_cpu_seconds_total{cpu="3",mode="nice"} 0
node_cpu_seconds_total{cpu="3",mode="system"} 0
node_cpu_seconds_total{cpu="3",mode="user"} 2
node_disk_io_now{device="sda"} 7
node_disk_io_time_seconds_total{device="sda"} 0.08
node_disk_io_time_weighted_seconds_total{device="sda"} 0.09
node_disk_read_bytes_total{device="sda"} 1048576
node_disk_read_time_seconds_total{device="sda"} 0.03
node_disk_reads_completed_total{device="sda"} 100
node_disk_reads_merged_total{device="sda"} 2
node_disk_write_time_seconds_total{device="sda"} 0.06
node_disk_writes_completed_total{device="sda"} 50
node_disk_writes_merged_total{device="sda"} 4
node_disk_written_bytes_total{device="sda"} 2097152
node_filefd_allocated 1504
node_filefd_maximum 9223372036854776000
node_forks_total 4242
node_intr_total 12345
node_load1 0.15
node_load15 2.05
node_load5 1.25
node_memory_Active_anon_bytes 16384
node_memory_HugePages_Total 4
node_memory_MemAvailable_bytes 1048576
node_memory_MemTotal_bytes 2097152
node_network_receive_bytes_total{device="eth0"} 1000
node_network_receive_bytes_total{device="lo"} 10
node_network_receive_drop_total{device="eth0"} 4
node_network_receive_drop_total{device="lo"} 0
node_network_receive_errs_total{device="eth0"} 3
node_network_receive_errs_total{device="lo"} 0
node_network_receive_multicast_total{device="eth0"} 5
node_network_receive_multicast_total{device="lo"} 0
node_network_receive_packets_total{device="eth0"} 20
node_network_receive_packets_total{device="lo"} 1
node_network_transmit_bytes_total{device="eth0"} 2000
node_network_transmit_bytes_total{device="lo"} 10
node_network_transmit_drop_total{device="eth0"} 7
node_network_transmit_drop_total{device="lo"} 0
node_network_transmit_errs_total{device="eth0"} 6
node_network_transmit_errs_total{device="lo"} 0
node_network_transmit_packets_total{device="eth0"} 30
node_network_transmit_packets_total{device="lo"} 1
node_procs_blocked 1
node_procs_running 3
node_thermal_zone_temp{type="x86_pkg_temp",zone="0"} 47.5
node_time_seconds 1700000123.5"#;
    assert_eq!(lines(&host).join("\n"), want);
}

#[test]
fn file_systems_are_the_visible_local_ones() {
    let (dir, host) = fixture();
    let families = host.gather();
    let size = families
        .iter()
        .find(|family| family.name() == "node_filesystem_size_bytes")
        .unwrap();
    let place = dir.path().display().to_string();
    let labels: Vec<Vec<&str>> = size
        .get_metric()
        .iter()
        .map(|m| m.get_label().iter().map(|l| l.value()).collect())
        .collect();
    assert_eq!(labels, [["/dev/root disk", "ext4", place.as_str()]]);
    assert!(size.get_metric()[0].get_gauge().get_value() > 0.0);
}

#[test]
fn an_empty_machine_still_has_a_time_and_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::at(dir.path(), dir.path(), Clock::System);
    let names: Vec<String> = host.gather().iter().map(|f| f.name().to_owned()).collect();
    assert_eq!(names, ["node_time_seconds", "node_uname_info"]);
}

#[test]
fn the_real_host_has_the_families_that_dashboards_need() {
    let families = Host::new(Clock::System).gather();
    let has = |name: &str| families.iter().any(|family| family.name() == name);
    for name in [
        "node_cpu_seconds_total",
        "node_memory_MemTotal_bytes",
        "node_load1",
        "node_network_receive_bytes_total",
        "node_boot_time_seconds",
        "node_filefd_allocated",
    ] {
        assert!(has(name), "{name}");
    }
}
