//! The figures and the stages of the pipeline.

use super::super::ask::Figure;
use super::{
    COMMIT, COMMITS, CPU, DEAD, DELIVERY, DISK, FAILING, INGEST, OUTBOX, QUEUED, REJECTED, RULES,
    SPAN_MS, STEP_MS,
};
use crate::chart::plot::sparkline;
use crate::chart::scale::XScale;
use crate::chart::units::Formatted;
use crate::chart::{Color, Format};
use crate::model::Timestamp;
use crate::rules::{AlertState, RuleKind};
use crate::sources::status::SourceState;
use crate::web::context::Context;

pub(super) struct Tile {
    pub(super) title: &'static str,
    pub(super) state: &'static str,
    pub(super) value: Formatted,
    pub(super) pill_state: &'static str,
    pub(super) pill: String,
    pub(super) note: String,
    pub(super) spark: String,
    pub(super) url: &'static str,
}

pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) state: &'static str,
    pub(super) value: Formatted,
    pub(super) note: String,
    pub(super) url: &'static str,
}

pub(super) fn tiles(figures: &[Figure], now: Timestamp) -> Vec<Tile> {
    let tile = |title,
                place: usize,
                unit: &str,
                decimals: Option<usize>,
                limits: Option<(f64, f64)>,
                note: &str,
                url| {
        tile(
            title,
            &figures[place],
            unit,
            decimals,
            limits,
            note,
            url,
            now,
        )
    };
    vec![
        tile(
            "Ingest rate",
            INGEST,
            "mps",
            None,
            None,
            "last minute",
            "/d/tenant-overview",
        ),
        tile(
            "Rejected",
            REJECTED,
            "percentunit",
            Some(2),
            Some((0.01, 0.05)),
            "",
            "/d/tenant-overview",
        ),
        tile(
            "Commit latency p99",
            COMMIT,
            "s",
            None,
            Some((0.25, 1.0)),
            "",
            "/d/infrastructure",
        ),
        tile(
            "Dead letters",
            DEAD,
            "short",
            None,
            Some((1.0, 1000.0)),
            "",
            "/d/infrastructure",
        ),
        tile(
            "Processor",
            CPU,
            "percentunit",
            Some(1),
            Some((0.8, 0.95)),
            "",
            "/d/host",
        ),
        tile(
            "Fullest disk",
            DISK,
            "percentunit",
            Some(1),
            Some((0.8, 0.92)),
            "",
            "/d/host",
        ),
    ]
}

#[expect(clippy::too_many_arguments, reason = "one row of the table above")]
fn tile(
    title: &'static str,
    figure: &Figure,
    unit: &str,
    decimals: Option<usize>,
    limits: Option<(f64, f64)>,
    note: &str,
    url: &'static str,
    now: Timestamp,
) -> Tile {
    let format = Format {
        decimals,
        ..Format::of(unit)
    };
    let shown = |v: f64| format.format(v);
    let state = match (limits, figure.now) {
        (Some((_, crit)), Some(v)) if v >= crit => "crit",
        (Some((warn, _)), Some(v)) if v >= warn => "warn",
        (Some(_), Some(_)) => "ok",
        _ => "",
    };
    let bound = |v: f64| format.axis_labels(&[v]).pop().unwrap_or_default();
    let pill = limits
        .filter(|_| figure.now.is_some())
        .map(|(warn, crit)| match state {
            "crit" => format!("above {}", bound(crit)),
            "warn" => format!("above {}", bound(warn)),
            _ if unit == "short" => "none".to_owned(),
            _ => format!("below {}", bound(warn)),
        });
    let color = match state {
        "crit" => Color::Crit,
        "warn" => Color::Warn,
        _ => Color::Slot(0),
    };
    let x = XScale {
        start: now.minus_ms(SPAN_MS).floor_to(STEP_MS),
        end: now.floor_to(STEP_MS),
    };
    Tile {
        title,
        value: figure.now.map_or_else(
            || Formatted {
                text: "–".to_owned(),
                suffix: String::new(),
            },
            shown,
        ),
        pill: pill.unwrap_or_default(),
        pill_state: state,
        note: if figure.now.is_none() {
            "no data yet".to_owned()
        } else {
            note.to_owned()
        },
        spark: sparkline(&figure.past, &color, &x, STEP_MS * 2),
        state: if state == "ok" { "" } else { state },
        url,
    }
}

pub(super) fn stages(context: &Context, figures: &[Figure]) -> Vec<Stage> {
    let sources = context.board.list();
    let up = sources
        .iter()
        .filter(|s| s.state == SourceState::Up)
        .count();
    let value = |place: usize, unit: &str| {
        let now = figures[place].now;
        now.map_or_else(
            || Formatted {
                text: "–".to_owned(),
                suffix: String::new(),
            },
            |v| Format::of(unit).format(v),
        )
    };
    let count = |place: usize| {
        figures[place]
            .now
            .map(|v| Format::of("locale").format(v).to_string())
    };
    let alerts = alert_counts(context);
    let failing = figures[FAILING].now.is_some_and(|v| v > 0.0);
    vec![
        Stage {
            name: "Sources",
            state: if up == sources.len() { "ok" } else { "crit" },
            value: Formatted {
                text: up.to_string(),
                suffix: format!("of {} up", sources.len()),
            },
            note: kinds(&sources),
            url: "/targets",
        },
        Stage {
            name: "Ingest",
            state: "ok",
            value: value(INGEST, "mps"),
            note: count(QUEUED).map_or_else(String::new, |n| format!("{n} waiting")),
            url: "/d/tenant-overview",
        },
        Stage {
            name: "Store",
            state: if failing { "crit" } else { "ok" },
            value: Formatted {
                text: Format::of("short")
                    .format(context.store.stats().series as f64)
                    .to_string(),
                suffix: "series".to_owned(),
            },
            note: format!(
                "{} commits/s, p99 {}",
                value(COMMITS, "none"),
                value(COMMIT, "s")
            ),
            url: "/d/host",
        },
        Stage {
            name: "Rules",
            state: if alerts.1 > 0 { "crit" } else { "ok" },
            value: Formatted {
                text: alerts.0.to_string(),
                suffix: "rules".to_owned(),
            },
            note: format!(
                "{} firing, {} evaluations/s",
                alerts.1,
                value(RULES, "none")
            ),
            url: "/alerts",
        },
        Stage {
            name: "Delivery",
            state: if figures[DEAD].now.is_some_and(|v| v > 0.0) {
                "warn"
            } else {
                "ok"
            },
            value: value(DELIVERY, "ops"),
            note: count(OUTBOX).map_or_else(String::new, |n| format!("{n} in the outbox")),
            url: "/d/infrastructure",
        },
    ]
}

/// How many rules there are and how many alerts fire.
fn alert_counts(context: &Context) -> (usize, usize) {
    let groups = (context.groups)();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let firing = rules.clone().map(|rule| match &rule.kind {
        RuleKind::Alerting { alerts, .. } => alerts
            .iter()
            .filter(|a| a.state == AlertState::Firing)
            .count(),
        RuleKind::Recording => 0,
    });
    (rules.clone().count(), firing.sum())
}

fn kinds(sources: &[crate::sources::status::SourceView]) -> String {
    let mut kinds: Vec<&str> = sources.iter().map(|source| source.kind).collect();
    kinds.dedup();
    kinds.join(", ")
}
