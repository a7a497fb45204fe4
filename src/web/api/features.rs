//! `/api/v1/features`: what this server can do, so that a client need not guess from
//! its version. The names are those of Prometheus 3; what Prometheus can do and we
//! cannot is there with `false`, names that mean nothing here are left out.

use axum::extract::State;
use axum::response::Response;

use super::json::{self, Object};
use crate::config::Feature;
use crate::gotmpl::prometheus::FUNCTIONS;
use crate::promql::ast::{AggregateOp, BinaryOp};
use crate::promql::signature;
use crate::web::Context;

/// What is there or missing whatever the configuration says.
const FIXED: [(&str, &[(&str, bool)]); 6] = [
    (
        "prometheus",
        &[
            ("agent_mode", false),
            ("auto_reload_config", false),
            ("server_mode", true),
        ],
    ),
    (
        "rules",
        &[
            ("concurrent_rule_eval", false),
            ("keep_firing_for", true),
            ("query_offset", true),
        ],
    ),
    (
        "scrape",
        &[
            ("extra_scrape_metrics", false),
            ("start_timestamp_zero_ingestion", false),
            ("type_and_unit_labels", false),
        ],
    ),
    (
        "service_discovery_providers",
        &[("dns", true), ("file", true), ("static", true)],
    ),
    (
        "tsdb",
        &[
            ("delayed_compaction", false),
            ("exemplar_storage", false),
            ("isolation", true),
            ("native_histograms", true),
        ],
    ),
    ("ui", &[("ui_v2", false), ("ui_v3", false)]),
];

/// Parts of the language that are always there.
const LANGUAGE: [&str; 13] = [
    "at_modifier",
    "bool",
    "by",
    "duration_expr",
    "group_left",
    "group_right",
    "ignoring",
    "negative_offset",
    "offset",
    "on",
    "per_query_lookback_delta",
    "subqueries",
    "without",
];

/// What this server can do.
pub async fn features(State(context): State<Context>) -> Response {
    let config = context.config();
    let is_on = |feature| config.query.features.contains(&feature);
    let experimental = context.engine.options.features.experimental_functions;
    json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        let api = [
            ("admin", config.server.enable_admin_api),
            ("exclude_alerts", true),
            ("label_values_match", true),
            ("lifecycle", true),
            ("openapi_3.1", false),
            ("openapi_3.2", false),
            ("otlp_write_receiver", false),
            ("query_stats", true),
            ("query_warnings", true),
            ("remote_write_receiver", true),
            ("time_range_labels", true),
            ("time_range_series", true),
        ];
        flags(data.field("api"), &mut api.into_iter());
        let ranges = is_on(Feature::PromqlExtendedRangeSelectors);
        let fill = is_on(Feature::PromqlBinopFillModifiers);
        let switched = [
            ("anchored", ranges),
            (
                "delayed_name_removal",
                is_on(Feature::PromqlDelayedNameRemoval),
            ),
            ("fill", fill),
            ("fill_left", fill),
            ("fill_right", fill),
            ("per_step_stats", true),
            ("smoothed", ranges),
            ("type_and_unit_labels", false),
        ];
        let language = LANGUAGE.map(|name| (name, true)).into_iter();
        flags(data.field("promql"), &mut language.chain(switched));
        let functions = signature::functions().iter();
        let mut functions = functions.map(|f| (f.name, experimental || !f.experimental));
        flags(data.field("promql_functions"), &mut functions);
        let operators = BinaryOp::ALL.map(|op| (op.as_str(), true)).into_iter();
        let aggregations = AggregateOp::ALL.into_iter();
        let aggregations =
            aggregations.map(|op| (op.as_str(), experimental || !op.is_experimental()));
        let matching = ["=~", "!~", "@"].map(|op| (op, true));
        flags(
            data.field("promql_operators"),
            &mut operators.chain(aggregations).chain(matching),
        );
        let functions = FUNCTIONS.iter().map(|f| (f.name, true));
        flags(
            data.field("templating_functions"),
            &mut functions.chain([("args", true)]),
        );
        for (part, fixed) in FIXED {
            flags(data.field(part), &mut fixed.iter().copied());
        }
        data.end();
    }))
}

fn flags(out: &mut Vec<u8>, flags: &mut dyn Iterator<Item = (&'static str, bool)>) {
    let mut object = Object::new(out);
    for (name, on) in flags {
        object.boolean(name, on);
    }
    object.end();
}
