//! Network interfaces.

use super::Families;
use crate::telemetry::metrics::FamilyBuilder;

/// Where a value stands behind the interface's name, and what it is.
const COLUMNS: [(usize, &str, &str); 9] = [
    (
        0,
        "node_network_receive_bytes_total",
        "Network device statistic receive_bytes.",
    ),
    (
        1,
        "node_network_receive_packets_total",
        "Network device statistic receive_packets.",
    ),
    (
        2,
        "node_network_receive_errs_total",
        "Network device statistic receive_errs.",
    ),
    (
        3,
        "node_network_receive_drop_total",
        "Network device statistic receive_drop.",
    ),
    (
        7,
        "node_network_receive_multicast_total",
        "Network device statistic receive_multicast.",
    ),
    (
        8,
        "node_network_transmit_bytes_total",
        "Network device statistic transmit_bytes.",
    ),
    (
        9,
        "node_network_transmit_packets_total",
        "Network device statistic transmit_packets.",
    ),
    (
        10,
        "node_network_transmit_errs_total",
        "Network device statistic transmit_errs.",
    ),
    (
        11,
        "node_network_transmit_drop_total",
        "Network device statistic transmit_drop.",
    ),
];

/// `/proc/net/dev`. A name may hold colons (aliases), the values never do.
pub(super) fn dev(text: &str, out: &mut Families) {
    let interfaces: Vec<(&str, Vec<f64>)> = text
        .lines()
        .skip(2)
        .filter_map(|line| line.rsplit_once(':'))
        .map(|(name, values)| {
            let values = values.split_ascii_whitespace();
            (name.trim(), values.filter_map(|v| v.parse().ok()).collect())
        })
        .collect();
    for (column, name, help) in COLUMNS {
        let mut family = FamilyBuilder::counter(name, help);
        for (interface, values) in &interfaces {
            if let Some(value) = values.get(column) {
                family.add(&[("device", interface)], *value);
            }
        }
        out.push(family);
    }
}
