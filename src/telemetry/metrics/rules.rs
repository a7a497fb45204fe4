//! Instruments of rule groups, alerts and notifications.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{counters, gauges, registered};
use crate::model::tenant::DEFAULT_TENANT;

/// Rule groups, alerts and notifications. What public alert rules ask for has
/// the names of Prometheus and Alertmanager.
pub struct Rules {
    /// Rules evaluated by `tenant_id`.
    pub evaluated: IntCounterVec,
    /// Alerts that began to fire by `tenant_id`.
    pub alerts_created: IntCounterVec,
    /// Evaluations that failed by `tenant_id`.
    pub errors: IntCounterVec,
    /// Rules evaluated by `rule_group`.
    pub evaluations: IntCounterVec,
    /// Evaluations that failed by `rule_group`.
    pub failures: IntCounterVec,
    /// Evaluations of the whole group by `rule_group`.
    pub iterations: IntCounterVec,
    /// Evaluations that were left out by `rule_group`.
    pub missed: IntCounterVec,
    /// How long the last evaluation took by `rule_group`.
    pub last_duration: GaugeVec,
    /// When the last evaluation was by `rule_group`.
    pub last_evaluation: GaugeVec,
    /// The interval by `rule_group`.
    pub interval: GaugeVec,
    /// The number of rules by `rule_group`.
    pub rules: IntGaugeVec,
    /// Alerts that alerting knows by `state`.
    pub alerts: IntGaugeVec,
    /// Alerts that others sent us, by `status` (`valid` or `invalid`).
    pub received: IntCounterVec,
    /// Silences by `state`.
    pub silences: IntGaugeVec,
    /// Notifications handed to the outbox by `integration`.
    pub notifications: IntCounterVec,
    /// Notifications that a receiver refused or did not take for about a minute, and
    /// flushes that could not be written, by `integration`.
    pub notifications_failed: IntCounterVec,
    /// Attempts at telling by `integration`.
    pub notification_requests: IntCounterVec,
    /// Attempts that failed by `integration`.
    pub notification_requests_failed: IntCounterVec,
    /// Evaluations of rules over late data.
    pub late_evaluations: IntCounter,
    /// Samples of recording rules that late data added.
    pub late_filled: IntCounter,
    /// Recorded samples that would be others with the late data, and stay.
    pub late_differing: IntCounter,
    /// Alerts that only late data shows.
    pub late_alerts: IntCounter,
    /// Looks at late data that was too old, or needed too many evaluations.
    pub late_cut: IntCounter,
    /// Alerts sent to other Alertmanagers by `alertmanager`.
    pub sent: IntCounterVec,
    /// Alerts that could not be sent by `alertmanager`.
    pub send_errors: IntCounterVec,
}

impl Rules {
    pub(super) fn new(r: &Registry) -> Rules {
        let tenant = |name, help| counters(r, name, help, &["tenant_id"]);
        let group = |name, help| counters(r, name, help, &["rule_group"]);
        let alertmanager = |name, help| counters(r, name, help, &["alertmanager"]);
        let integration = |name, help| counters(r, name, help, &["integration"]);
        let late = |name, help| {
            let counter = IntCounter::new(name, help);
            registered(r, counter.expect("BUG: a bad metric name"))
        };
        let rules = Rules {
            evaluated: tenant("evaluator_rules_evaluated_total", "Rules evaluated."),
            alerts_created: tenant(
                "evaluator_alerts_created_total",
                "Alerts that began to fire.",
            ),
            errors: tenant(
                "evaluator_evaluation_errors_total",
                "Rule evaluations that failed.",
            ),
            evaluations: group(
                "prometheus_rule_evaluations_total",
                "The total number of rule evaluations.",
            ),
            failures: group(
                "prometheus_rule_evaluation_failures_total",
                "The total number of rule evaluation failures.",
            ),
            iterations: group(
                "prometheus_rule_group_iterations_total",
                "The total number of scheduled rule group evaluations.",
            ),
            missed: group(
                "prometheus_rule_group_iterations_missed_total",
                "The total number of rule group evaluations missed due to slow rule group evaluation.",
            ),
            last_duration: seconds(
                r,
                "prometheus_rule_group_last_duration_seconds",
                "The duration of the last rule group evaluation.",
            ),
            last_evaluation: seconds(
                r,
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "The timestamp of the last rule group evaluation in seconds.",
            ),
            interval: seconds(
                r,
                "prometheus_rule_group_interval_seconds",
                "The interval of a rule group.",
            ),
            rules: gauges(
                r,
                "prometheus_rule_group_rules",
                "The number of rules.",
                &["rule_group"],
            ),
            alerts: gauges(
                r,
                "alertmanager_alerts",
                "How many alerts by state.",
                &["state"],
            ),
            received: counters(
                r,
                "pulse_alerting_alerts_received_total",
                "Alerts sent to us over the API.",
                &["status"],
            ),
            silences: gauges(
                r,
                "alertmanager_silences",
                "How many silences by state.",
                &["state"],
            ),
            notifications: integration(
                "alertmanager_notifications_total",
                "The total number of notifications handed to delivery.",
            ),
            notifications_failed: integration(
                "alertmanager_notifications_failed_total",
                "The total number of failed notifications.",
            ),
            notification_requests: integration(
                "alertmanager_notification_requests_total",
                "The total number of attempted notification requests.",
            ),
            notification_requests_failed: integration(
                "alertmanager_notification_requests_failed_total",
                "The total number of failed notification requests.",
            ),
            late_evaluations: late(
                "pulse_rules_late_evaluations_total",
                "Rules evaluated over late data.",
            ),
            late_filled: late(
                "pulse_rules_late_samples_total",
                "Samples of recording rules that late data added.",
            ),
            late_differing: late(
                "pulse_rules_late_differing_total",
                "Recorded samples that would be others with the late data, and stay.",
            ),
            late_alerts: late(
                "pulse_rules_late_alerts_total",
                "Alerts that would have fired, as only late data shows.",
            ),
            late_cut: late(
                "pulse_rules_late_cut_total",
                "Looks at late data that was too old or needed too many evaluations.",
            ),
            sent: alertmanager(
                "prometheus_notifications_sent_total",
                "Total number of alerts sent.",
            ),
            send_errors: alertmanager(
                "prometheus_notifications_errors_total",
                "Total number of sent alerts affected by errors.",
            ),
        };
        for family in [&rules.evaluated, &rules.alerts_created, &rules.errors] {
            family.with_label_values(&[DEFAULT_TENANT]);
        }
        for state in ["active", "suppressed", "unprocessed"] {
            rules.alerts.with_label_values(&[state]);
        }
        for status in ["valid", "invalid"] {
            rules.received.with_label_values(&[status]);
        }
        for state in ["active", "pending", "expired"] {
            rules.silences.with_label_values(&[state]);
        }
        for kind in super::delivery::DESTINATION_TYPES {
            for family in [
                &rules.notifications,
                &rules.notifications_failed,
                &rules.notification_requests,
                &rules.notification_requests_failed,
            ] {
                family.with_label_values(&[kind]);
            }
        }
        rules
    }

    /// Counts alerts that others sent us.
    pub fn count_received(&self, valid: usize, invalid: usize) {
        for (status, count) in [("valid", valid), ("invalid", invalid)] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.received.with_label_values(&[status]).inc_by(count);
        }
    }

    /// Makes a group's children, so that its zeros are visible.
    pub fn add_group(&self, key: &str, interval_secs: f64, rules: usize) {
        let label = &[key];
        for family in [
            &self.evaluations,
            &self.failures,
            &self.iterations,
            &self.missed,
        ] {
            family.with_label_values(label);
        }
        self.interval.with_label_values(label).set(interval_secs);
        self.last_duration.with_label_values(label);
        self.last_evaluation.with_label_values(label);
        let rules = i64::try_from(rules).unwrap_or(i64::MAX);
        self.rules.with_label_values(label).set(rules);
    }

    /// Takes away the children of a group that is gone.
    pub fn remove_group(&self, key: &str) {
        let label = &[key];
        for family in [
            &self.evaluations,
            &self.failures,
            &self.iterations,
            &self.missed,
        ] {
            drop(family.remove_label_values(label));
        }
        for family in [&self.last_duration, &self.last_evaluation, &self.interval] {
            drop(family.remove_label_values(label));
        }
        drop(self.rules.remove_label_values(label));
    }
}

fn seconds(r: &Registry, name: &str, help: &str) -> GaugeVec {
    let gauge = GaugeVec::new(Opts::new(name, help), &["rule_group"]);
    registered(r, gauge.expect("BUG: a bad metric name"))
}
