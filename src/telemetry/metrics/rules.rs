//! Instruments of rule groups and alerts.

use prometheus::{IntCounterVec, Registry};

use super::counters;
use crate::model::tenant::DEFAULT_TENANT;

/// Rule groups and alerts.
pub struct Rules {
    /// Rules evaluated by `tenant_id`.
    pub evaluated: IntCounterVec,
    /// Alerts that began to fire by `tenant_id`.
    pub alerts_created: IntCounterVec,
    /// Evaluations that failed by `tenant_id`.
    pub errors: IntCounterVec,
}

impl Rules {
    pub(super) fn new(r: &Registry) -> Rules {
        let rules = Rules {
            evaluated: counters(
                r,
                "evaluator_rules_evaluated_total",
                "Rules evaluated.",
                &["tenant_id"],
            ),
            alerts_created: counters(
                r,
                "evaluator_alerts_created_total",
                "Alerts that began to fire.",
                &["tenant_id"],
            ),
            errors: counters(
                r,
                "evaluator_evaluation_errors_total",
                "Rule evaluations that failed.",
                &["tenant_id"],
            ),
        };
        for family in [&rules.evaluated, &rules.alerts_created, &rules.errors] {
            family.with_label_values(&[DEFAULT_TENANT]);
        }
        rules
    }
}
