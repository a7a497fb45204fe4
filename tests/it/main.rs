//! The integration tests, linked once.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "in a test a panic is the report, and a test owns its tasks"
)]

mod alert_pages;
mod alertmanager;
mod alertmanager_config;
mod apart;
mod api;
mod backup;
mod broker;
mod clock;
mod delivery;
mod detours;
mod devices;
mod differential;
mod digest;
mod explain;
mod exposition;
mod full_disk;
mod fuzz;
mod handover;
mod hostile;
mod hostile_receivers;
mod import;
mod kill;
mod late;
mod ledger;
mod mail;
mod moved;
mod mqtt;
mod native_histograms;
mod nats;
mod notify;
mod notify_kill;
mod odd_answers;
mod odd_posts;
mod outward;
mod pages;
mod process;
mod programs;
mod promql_scripts;
mod promtool;
mod query_api;
mod receivers;

mod redirects;
mod reference;
mod refused;
mod remote_read;
mod remote_write;
mod remote_write_kill;
mod renamed;
mod requirements;
mod restore_beside;
mod rule_histograms;
mod rules;
mod rules_beside;
mod server;
mod sink;
mod strange;
mod tidy;
mod twins;
mod upstream;
