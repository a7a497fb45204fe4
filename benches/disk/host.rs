//! The series of one host, as a node exporter and an application have them.

use super::shapes::{BUCKETS, Histogram, Random, Shape, Source, wave};

/// One host: 214 series.
pub(crate) fn host(number: usize, step_ms: i64) -> Source {
    let mut host = Source::new(number as u64, step_ms, 0);
    let base = [
        ("instance", format!("host-{number:04}.edge.local:9100")),
        ("job", "node".to_owned()),
        ("site", format!("site-{:02}", number % 16)),
    ];
    let mut start = Random::new(1_000_000 + number as u64);
    let mut counter = |digits: i32, per_second: f64, spread: f64, often: f64| Shape::Counter {
        digits,
        per_second,
        spread,
        often,
        units: (per_second * often * 1e5 * start.unit() * 10f64.powi(digits)).floor(),
    };
    for cpu in ["0", "1", "2", "3"] {
        for (mode, mean, often) in CPU_MODES {
            let shape = match mode {
                "irq" | "nice" => Shape::Fixed(0.0),
                "idle" => counter(2, mean, 0.02, often),
                _ => counter(2, mean, 0.35, often),
            };
            let own = [("cpu", cpu), ("mode", mode)];
            host.add(&base, "node_cpu_seconds_total", &own, shape);
        }
    }
    for (at, name) in FIXED_MEMORY.iter().enumerate() {
        host.add(&base, name, &[], Shape::Fixed(at as f64 * 4_096.0));
    }
    for (name, at, step, often) in MOVING_MEMORY {
        let walk = Shape::Walk {
            quantum: 4_096.0,
            step,
            most: 4e9,
            often,
            at,
        };
        host.add(&base, name, &[], walk);
    }
    for (device, mountpoint, size) in DISKS {
        let own = [
            ("device", device),
            ("fstype", "ext4"),
            ("mountpoint", mountpoint),
        ];
        let walk = |quantum: f64, step: f64, often: f64, at: f64| match mountpoint {
            "/boot" => Shape::Fixed((at / 4_096.0).round() * 4_096.0),
            _ => Shape::Walk {
                quantum,
                step,
                most: size,
                often,
                at,
            },
        };
        host.add(
            &base,
            "node_filesystem_size_bytes",
            &own,
            Shape::Fixed(size),
        );
        host.add(
            &base,
            "node_filesystem_files",
            &own,
            Shape::Fixed((size / 16_384.0).round()),
        );
        host.add(
            &base,
            "node_filesystem_avail_bytes",
            &own,
            walk(4_096.0, 2e5, 0.8, size * 0.55),
        );
        host.add(
            &base,
            "node_filesystem_free_bytes",
            &own,
            walk(4_096.0, 2e5, 0.8, size * 0.6),
        );
        host.add(
            &base,
            "node_filesystem_files_free",
            &own,
            walk(1.0, 2.0, 0.3, size / 20_000.0),
        );
    }
    for (device, share) in [("mmcblk0", 1.0), ("sda", 0.3)] {
        let own = [("device", device)];
        for (name, digits, mean, often) in DISK_COUNTERS {
            host.add(&base, name, &own, counter(digits, mean * share, 0.4, often));
        }
        let busy = Shape::Walk {
            quantum: 1.0,
            step: 0.4,
            most: 6.0,
            often: 0.2,
            at: 0.0,
        };
        host.add(&base, "node_disk_io_now", &own, busy);
    }
    for (device, share) in [("eth0", 1.0), ("wg0", 0.2)] {
        let own = [("device", device)];
        for (bytes, packets, drops, fixed) in NETWORK {
            host.add(&base, bytes, &own, counter(0, 42_000.0 * share, 0.4, 1.0));
            host.add(&base, packets, &own, counter(0, 71.0 * share, 0.3, 1.0));
            host.add(&base, drops, &own, counter(0, 0.02 * share, 0.5, 0.02));
            for name in fixed {
                host.add(&base, name, &own, Shape::Fixed(0.0));
            }
        }
        for (name, value) in [
            ("node_network_up", 1.0),
            ("node_network_mtu_bytes", 1_500.0),
            ("node_network_carrier", 1.0),
        ] {
            host.add(&base, name, &own, Shape::Fixed(value));
        }
    }
    for (name, noise) in [
        ("node_load1", 0.08),
        ("node_load5", 0.03),
        ("node_load15", 0.012),
    ] {
        host.add(&base, name, &[], wave(2, 1.1, 0.2, noise));
    }
    for (name, mean) in COUNTERS {
        let often = if mean < 1.0 { 0.5 } else { 1.0 };
        host.add(&base, name, &[], counter(0, mean, 0.25, often));
    }
    for name in ZEROES {
        host.add(&base, name, &[], Shape::Fixed(0.0));
    }
    host.add(
        &base,
        "node_boot_time_seconds",
        &[],
        Shape::Fixed(1.7e9 + number as f64),
    );
    host.add(&base, "node_time_seconds", &[], Shape::Clock);
    host.add(&base, "up", &[], Shape::Fixed(1.0));
    for (name, at, step, often) in SMALL_GAUGES {
        let walk = Shape::Walk {
            quantum: 1.0,
            step,
            most: 1e6,
            often,
            at,
        };
        host.add(&base, name, &[], walk);
    }
    for sensor in ["0", "1"] {
        let own = [("chip", "cpu_thermal"), ("sensor", sensor)];
        host.add(
            &base,
            "node_hwmon_temp_celsius",
            &own,
            wave(1, 47.0, 3.0, 0.4),
        );
    }
    for (collector, scale) in COLLECTORS {
        let own = [("collector", collector)];
        let name = "node_scrape_collector_duration_seconds";
        host.add(&base, name, &own, Shape::Duration(scale));
        host.add(
            &base,
            "node_scrape_collector_success",
            &own,
            Shape::Fixed(1.0),
        );
    }
    for (which, (handler, per_second)) in [("/api/v1/ingest", 6.0), ("/dashboard", 0.15)]
        .into_iter()
        .enumerate()
    {
        host.histograms.push(Histogram::new(per_second));
        for (index, le) in BUCKETS.iter().enumerate() {
            let own = [("handler", handler), ("le", *le)];
            let shape = Shape::Histogram { which, index };
            host.add(&base, "http_request_duration_seconds_bucket", &own, shape);
        }
        for (more, name) in [
            "http_request_duration_seconds_sum",
            "http_request_duration_seconds_count",
        ]
        .into_iter()
        .enumerate()
        {
            let index = BUCKETS.len() + more;
            host.add(
                &base,
                name,
                &[("handler", handler)],
                Shape::Histogram { which, index },
            );
        }
    }
    host
}

const CPU_MODES: [(&str, f64, f64); 8] = [
    ("idle", 0.85, 1.0),
    ("user", 0.10, 1.0),
    ("system", 0.04, 1.0),
    ("iowait", 0.004, 0.4),
    ("softirq", 0.002, 0.5),
    ("irq", 0.0, 0.0),
    ("nice", 0.0, 0.0),
    ("steal", 0.001, 0.1),
];

const FIXED_MEMORY: [&str; 14] = [
    "node_memory_MemTotal_bytes",
    "node_memory_SwapTotal_bytes",
    "node_memory_SwapFree_bytes",
    "node_memory_HugePages_Total",
    "node_memory_HugePages_Free",
    "node_memory_Hugepagesize_bytes",
    "node_memory_VmallocTotal_bytes",
    "node_memory_HardwareCorrupted_bytes",
    "node_memory_Unevictable_bytes",
    "node_memory_Mlocked_bytes",
    "node_memory_CommitLimit_bytes",
    "node_memory_NFS_Unstable_bytes",
    "node_memory_WritebackTmp_bytes",
    "node_memory_Bounce_bytes",
];

const MOVING_MEMORY: [(&str, f64, f64, f64); 17] = [
    ("node_memory_MemFree_bytes", 1.2e9, 4e6, 1.0),
    ("node_memory_MemAvailable_bytes", 2.4e9, 3e6, 1.0),
    ("node_memory_Buffers_bytes", 1.2e8, 6e4, 0.5),
    ("node_memory_Cached_bytes", 1.1e9, 1e6, 1.0),
    ("node_memory_Active_bytes", 1.3e9, 2e6, 1.0),
    ("node_memory_Inactive_bytes", 9e8, 1e6, 1.0),
    ("node_memory_Dirty_bytes", 4e5, 2e5, 1.0),
    ("node_memory_Writeback_bytes", 0.0, 1e3, 0.02),
    ("node_memory_AnonPages_bytes", 7e8, 2e6, 1.0),
    ("node_memory_Mapped_bytes", 2.4e8, 2e5, 0.6),
    ("node_memory_Shmem_bytes", 6e6, 1e4, 0.1),
    ("node_memory_Slab_bytes", 1.9e8, 1e5, 0.8),
    ("node_memory_SReclaimable_bytes", 1.4e8, 5e4, 0.6),
    ("node_memory_SUnreclaim_bytes", 5e7, 3e4, 0.5),
    ("node_memory_KernelStack_bytes", 4.2e6, 3e4, 0.7),
    ("node_memory_PageTables_bytes", 1.1e7, 4e4, 0.7),
    ("node_memory_Committed_AS_bytes", 3.1e9, 3e6, 0.9),
];

const DISKS: [(&str, &str, f64); 3] = [
    ("/dev/mmcblk0p2", "/", 31_000_002_560.0),
    ("/dev/mmcblk0p1", "/boot", 260_001_792.0),
    ("/dev/sda1", "/data", 250_000_003_072.0),
];

const DISK_COUNTERS: [(&str, i32, f64, f64); 10] = [
    ("node_disk_reads_completed_total", 0, 0.6, 0.6),
    ("node_disk_reads_merged_total", 0, 0.1, 0.3),
    ("node_disk_read_bytes_total", 0, 9_000.0, 0.6),
    ("node_disk_read_time_seconds_total", 3, 0.000_8, 0.6),
    ("node_disk_writes_completed_total", 0, 4.0, 1.0),
    ("node_disk_writes_merged_total", 0, 2.5, 1.0),
    ("node_disk_written_bytes_total", 0, 52_000.0, 1.0),
    ("node_disk_write_time_seconds_total", 3, 0.012, 1.0),
    ("node_disk_io_time_seconds_total", 3, 0.009, 1.0),
    ("node_disk_io_time_weighted_seconds_total", 3, 0.015, 1.0),
];

const NETWORK: [(&str, &str, &str, [&str; 3]); 2] = [
    (
        "node_network_receive_bytes_total",
        "node_network_receive_packets_total",
        "node_network_receive_drop_total",
        [
            "node_network_receive_errs_total",
            "node_network_receive_fifo_total",
            "node_network_receive_compressed_total",
        ],
    ),
    (
        "node_network_transmit_bytes_total",
        "node_network_transmit_packets_total",
        "node_network_transmit_drop_total",
        [
            "node_network_transmit_errs_total",
            "node_network_transmit_fifo_total",
            "node_network_transmit_compressed_total",
        ],
    ),
];

const COUNTERS: [(&str, f64); 14] = [
    ("node_context_switches_total", 1_900.0),
    ("node_intr_total", 1_100.0),
    ("node_forks_total", 2.1),
    ("node_vmstat_pgfault", 700.0),
    ("node_vmstat_pgmajfault", 0.05),
    ("node_vmstat_pgpgin", 9.0),
    ("node_vmstat_pgpgout", 55.0),
    ("node_netstat_Tcp_InSegs", 60.0),
    ("node_netstat_Tcp_OutSegs", 66.0),
    ("node_netstat_Tcp_ActiveOpens", 0.4),
    ("node_netstat_Tcp_RetransSegs", 0.05),
    ("node_netstat_Udp_InDatagrams", 3.0),
    ("node_netstat_Udp_OutDatagrams", 3.1),
    ("node_softnet_processed_total", 80.0),
];

const ZEROES: [&str; 6] = [
    "node_netstat_Udp_InErrors",
    "node_netstat_Icmp_InErrors",
    "node_vmstat_oom_kill",
    "node_softnet_dropped_total",
    "node_timex_sync_status",
    "node_entropy_pool_size_bits",
];

const SMALL_GAUGES: [(&str, f64, f64, f64); 8] = [
    ("node_procs_running", 2.0, 1.0, 0.7),
    ("node_procs_blocked", 0.0, 0.4, 0.1),
    ("node_sockstat_TCP_inuse", 31.0, 1.5, 0.5),
    ("node_sockstat_TCP_tw", 4.0, 2.0, 0.5),
    ("node_sockstat_sockets_used", 210.0, 2.0, 0.6),
    ("node_filefd_allocated", 1_900.0, 20.0, 0.7),
    ("node_entropy_available_bits", 256.0, 0.0, 0.0),
    ("node_nf_conntrack_entries", 120.0, 6.0, 0.9),
];

const COLLECTORS: [(&str, f64); 10] = [
    ("cpu", 0.000_6),
    ("diskstats", 0.000_4),
    ("filesystem", 0.000_8),
    ("meminfo", 0.000_3),
    ("netclass", 0.009),
    ("netdev", 0.000_5),
    ("netstat", 0.000_7),
    ("sockstat", 0.000_1),
    ("vmstat", 0.000_3),
    ("hwmon", 0.004),
];
