//! A panel's answer as the page shows it: words, numbers and finished pictures.

use askama::Template;
use jiff::tz::TimeZone;

use super::data::{Answer, Fault, Frame, Job};
use super::field::{Field, Subject};
use super::interpolate::{Place, Scope, percent_encode};
use super::json::{flag, list, text};
use super::model::{Kind, Panel};
use super::plot;
use super::reduce::reduce;
use super::table::{self, TableView};
use super::timerange::Range;
use super::variables::Resolved;
use super::words;
use crate::chart::units::Formatted;
use crate::chart::{Color, gauge};
use crate::model::Timestamp;

/// What a panel needs to know of its page.
pub struct Page<'a> {
    /// The dashboard's variables.
    pub variables: &'a [Resolved],
    /// The page's range.
    pub range: &'a Range,
    /// The zone of times.
    pub zone: &'a TimeZone,
    /// The time of the page.
    pub now: Timestamp,
    /// The dashboard's own path.
    pub path: &'a str,
    /// The page's query string, for links that keep it.
    pub query: &'a str,
    /// Where the exact values are, when that is not beside the panel itself.
    pub values: Option<String>,
}

/// A panel on a page.
#[derive(Template)]
#[template(path = "_panel.html")]
pub struct PanelView {
    index: usize,
    id: String,
    kind: &'static str,
    title: String,
    sub: String,
    description: String,
    style: String,
    class: String,
    unsupported: String,
    error: String,
    later: bool,
    values: String,
    links: Vec<(String, &'static str)>,
    body: Body,
}

/// What a panel shows.
pub enum Body {
    /// A plot with its axes and legend.
    Plot(Box<plot::PlotView>),
    /// One or more numbers.
    Stats(Vec<StatView>),
    /// One or more arcs.
    Gauges(Vec<GaugeView>),
    /// Bars beside each other.
    Bars(Vec<BarView>),
    /// Rows.
    Table(TableView),
    /// Safe markup.
    Prose(String),
    /// Nothing to show, and why.
    Empty(String, String),
    /// A query that failed.
    Fault(Fault),
    /// A type that we do not draw, with the panel's queries.
    Unsupported(String, Vec<String>),
    /// To be asked for later.
    Later,
}

/// A number with its state and its past.
pub struct StatView {
    /// Empty when there is only one.
    pub name: String,
    /// The number.
    pub value: Formatted,
    /// The class of its state; empty when it has none.
    pub state: &'static str,
    /// The state in words.
    pub note: String,
    /// Its colour when it is not that of a state.
    pub style: String,
    /// A picture; empty when there is none.
    pub spark: String,
}

/// A value on an arc.
pub struct GaugeView {
    /// Empty when there is only one.
    pub name: String,
    /// The number.
    pub value: Formatted,
    /// The class of its state.
    pub state: &'static str,
    /// The picture.
    pub arc: String,
}

/// A value as a bar.
pub struct BarView {
    /// The series.
    pub name: String,
    /// The number.
    pub value: Formatted,
    /// Colour and length.
    pub style: String,
}

impl PanelView {
    /// A panel with its answer; without one it is asked for later.
    pub fn new(panel: &Panel, job: &Job, answer: Option<&Answer>, page: &Page<'_>) -> PanelView {
        let scope = Scope {
            variables: page.variables,
            range: &job.range,
            steps: job.steps,
        };
        let body = body(panel, job, answer, page, &scope);
        let unsupported = match &panel.kind {
            Kind::Unsupported(kind) => kind.clone(),
            _ => String::new(),
        };
        let error = match &body {
            Body::Fault(fault) => fault.message.clone(),
            _ => String::new(),
        };
        let grid = panel.grid;
        PanelView {
            index: panel.index,
            id: panel.id.clone(),
            kind: kind_name(&panel.kind),
            title: scope.expand(&panel.title, Place::Words),
            sub: sub_title(panel, page.now),
            description: scope.expand(&panel.description, Place::Words),
            style: format!(
                "--x:{};--y:{};--w:{};--h:{}",
                grid.x + 1,
                grid.y + 1,
                grid.w,
                grid.h
            ),
            class: class(panel, &body),
            later: matches!(body, Body::Later),
            links: links(panel, job, page),
            values: page.values.clone().unwrap_or_default(),
            unsupported,
            error,
            body,
        }
    }
}

/// What the title leaves open: an own range, stacking, the unit of the axis.
fn sub_title(panel: &Panel, now: Timestamp) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(panel.time_from.iter().map(|past| format!("last {past}")));
    if panel.kind == Kind::TimeSeries {
        let subject = Subject {
            name: "",
            ref_id: "",
        };
        let field = Field::of(&panel.json, &subject, now);
        match field.stacking.as_str() {
            "normal" => words.push("stacked".to_owned()),
            "percent" => words.push("shares".to_owned()),
            _ => {}
        }
        words.extend(field.format.words().map(str::to_owned));
    }
    words.join(" · ")
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::TimeSeries => "timeseries",
        Kind::Stat => "stat",
        Kind::Gauge => "gauge",
        Kind::BarGauge => "bargauge",
        Kind::Table => "table",
        Kind::Text => "text",
        Kind::Unsupported(_) => "unsupported",
    }
}

fn class(panel: &Panel, body: &Body) -> String {
    let mut class = String::from("panel");
    if matches!(panel.kind, Kind::Stat | Kind::Gauge) && panel.grid.w <= 8 {
        class.push_str(" small");
    }
    if panel.transparent {
        class.push_str(" clear");
    }
    match body {
        Body::Fault(_) => class.push_str(" fault"),
        Body::Unsupported(..) => class.push_str(" unsupported"),
        Body::Stats(stats) => {
            for state in ["crit", "warn"] {
                if stats.iter().any(|stat| stat.state == state) {
                    class.push_str(" flag-");
                    class.push_str(state);
                    break;
                }
            }
        }
        _ => {}
    }
    class
}

/// The panel's menu: alone on the page, its values, its query, its data.
fn links(panel: &Panel, job: &Job, page: &Page<'_>) -> Vec<(String, &'static str)> {
    let join = |extra: &str| match page.query {
        "" => format!("{}?{extra}", page.path),
        query => format!("{}?{query}&{extra}", page.path),
    };
    if page.path.is_empty() {
        return Vec::new();
    }
    let mut links = vec![(join(&format!("viewPanel={}", panel.index)), "View alone")];
    if panel.targets.is_empty() {
        return links;
    }
    if panel.kind == Kind::TimeSeries {
        links.push((
            join(&format!("viewPanel={}&view=table", panel.index)),
            "View as table",
        ));
    }
    let mut graph = format!(
        "/graph?from={}&to={}",
        percent_encode(&page.range.from_text),
        percent_encode(&page.range.to_text)
    );
    for (i, query) in job.queries().enumerate() {
        graph.push_str(&format!("&g{i}.expr={}&g{i}.tab=0", percent_encode(query)));
    }
    links.push((graph, "Open query"));
    links.push((
        format!("{}/panels/{}.json?{}", page.path, panel.index, page.query),
        "Values as JSON",
    ));
    links
}

fn body(
    panel: &Panel,
    job: &Job,
    answer: Option<&Answer>,
    page: &Page<'_>,
    scope: &Scope<'_>,
) -> Body {
    match &panel.kind {
        Kind::Unsupported(kind) => {
            return Body::Unsupported(kind.clone(), job.queries().map(str::to_owned).collect());
        }
        Kind::Text => return prose(panel, scope),
        _ => {}
    }
    let Some(answer) = answer else {
        return Body::Later;
    };
    if let Some(fault) = answer.faults.first().filter(|_| answer.frames.is_empty()) {
        return Body::Fault(fault.clone());
    }
    let no_value = text(&panel.json, "fieldConfig.defaults.noValue");
    if answer.frames.is_empty() && (no_value.is_none() || panel.kind == Kind::TimeSeries) {
        let (no_value, why) = match no_value {
            Some(words) => (true, words),
            None => (false, "No data".to_owned()),
        };
        let hint = if no_value {
            ""
        } else if job.queries().next().is_none() {
            "This panel asks for nothing."
        } else {
            "No series match in this time range."
        };
        return Body::Empty(why, hint.to_owned());
    }
    match panel.kind {
        Kind::Stat => Body::Stats(stats(panel, job, &answer.frames, page)),
        Kind::Gauge => Body::Gauges(gauges(panel, &answer.frames, page)),
        Kind::BarGauge => Body::Bars(bars(panel, &answer.frames, page)),
        Kind::Table => Body::Table(table::view(panel, &answer.frames, page.now)),
        _ => Body::Plot(Box::new(plot::view(panel, job, &answer.frames, page))),
    }
}

fn prose(panel: &Panel, scope: &Scope<'_>) -> Body {
    let content = text(&panel.json, "options.content").unwrap_or_default();
    let content = scope.expand(&content, Place::Words);
    Body::Prose(match text(&panel.json, "options.mode").as_deref() {
        Some("html") => words::html_text(&content),
        Some("code") => format!("<pre>{}</pre>", words::escape(&content)),
        _ => words::markdown(&content),
    })
}

/// The field of a frame and the name it is shown by.
pub(super) fn field_of(panel: &Panel, frame: &Frame, now: Timestamp) -> (Field, String) {
    let subject = Subject {
        name: &frame.name,
        ref_id: &frame.ref_id,
    };
    let field = Field::of(&panel.json, &subject, now);
    let name = field
        .display_name
        .clone()
        .unwrap_or_else(|| frame.name.clone());
    (field, name)
}

fn calc_of(panel: &Panel) -> String {
    let calcs = list(&panel.json, "options.reduceOptions.calcs");
    let first = calcs.first().and_then(|calc| calc.as_str());
    first.unwrap_or("lastNotNull").to_owned()
}

/// A frame without series stands for "no value", so that `noValue` shows.
fn or_nothing(frames: &[Frame]) -> Vec<Frame> {
    if !frames.is_empty() {
        return frames.iter().take(24).cloned().collect();
    }
    vec![Frame {
        name: String::new(),
        labels: crate::model::Labels::empty(),
        ref_id: String::new(),
        samples: Vec::new(),
    }]
}

fn stats(panel: &Panel, job: &Job, frames: &[Frame], page: &Page<'_>) -> Vec<StatView> {
    let calc = calc_of(panel);
    let with_graph = text(&panel.json, "options.graphMode").as_deref() != Some("none");
    let colored = text(&panel.json, "options.colorMode").as_deref() != Some("none");
    let frames = or_nothing(frames);
    let many = frames.len() > 1
        || text(&panel.json, "options.textMode").is_some_and(|m| m.contains("name"));
    frames
        .iter()
        .map(|frame| {
            let (field, name) = field_of(panel, frame, page.now);
            let value = reduce(&frame.samples, &calc);
            let (shown, mapped) = field.show(value);
            let by_threshold = value
                .and_then(|v| field.threshold_color(v))
                .filter(|_| field.thresholds.len() > 1);
            let color = mapped.or(by_threshold).filter(|_| colored);
            let state = color.as_ref().and_then(Color::state).unwrap_or_default();
            let drawn = color
                .clone()
                .filter(|c| !matches!(c, Color::Ok | Color::Text))
                .unwrap_or(Color::Slot(0));
            StatView {
                name: if many { name } else { String::new() },
                value: shown,
                note: value
                    .map(|v| state_words(&field, v, state))
                    .unwrap_or_default(),
                state,
                style: match &color {
                    Some(Color::Hex(hex)) => format!("--k:{hex}"),
                    _ => String::new(),
                },
                spark: if with_graph && frame.samples.len() > 1 {
                    plot::spark(frame, job, &drawn)
                } else {
                    String::new()
                },
            }
        })
        .collect()
}

/// `below 80 %`, `above 95 %`: which bound makes the state.
fn state_words(field: &Field, value: f64, state: &str) -> String {
    if state.is_empty() || field.thresholds.len() < 2 || field.thresholds_percent {
        return String::new();
    }
    let place = field
        .thresholds
        .iter()
        .rposition(|(from, _)| value >= *from)
        .unwrap_or(0);
    let rising = field
        .thresholds
        .first()
        .is_some_and(|(_, c)| *c == Color::Ok);
    let below = field
        .thresholds
        .get(place + 1)
        .map(|(to, _)| ("below", *to));
    let above = field
        .thresholds
        .get(place)
        .map(|(from, _)| ("above", *from));
    let (near, far) = if rising == (state == "ok") {
        (below, above)
    } else {
        (above, below)
    };
    let bound = near
        .filter(|(_, at)| at.is_finite())
        .or(far.filter(|(_, at)| at.is_finite()));
    bound.map_or_else(String::new, |(word, at)| {
        let shown = super::field::short(&field.format, at);
        format!("{word} {shown}")
    })
}

fn gauges(panel: &Panel, frames: &[Frame], page: &Page<'_>) -> Vec<GaugeView> {
    let calc = calc_of(panel);
    let frames = or_nothing(frames);
    frames
        .iter()
        .map(|frame| {
            let (field, name) = field_of(panel, frame, page.now);
            let value = reduce(&frame.samples, &calc);
            let (shown, mapped) = field.show(value);
            let color = mapped
                .or(value.and_then(|v| field.threshold_color(v)))
                .unwrap_or(Color::Slot(0));
            let steps: Vec<(f64, Color)> = field
                .thresholds
                .iter()
                .map(|(from, color)| {
                    let from = if field.thresholds_percent {
                        from / 100.0
                    } else {
                        field.fraction(*from)
                    };
                    (from.clamp(0.0, 1.0), color.clone())
                })
                .collect();
            let fraction = value.map_or(f64::NAN, |v| field.fraction(v));
            GaugeView {
                name: if frames.len() > 1 {
                    name
                } else {
                    String::new()
                },
                value: shown,
                state: color
                    .state()
                    .filter(|state| *state != "ok")
                    .unwrap_or_default(),
                arc: gauge::draw(fraction, &color, &steps),
            }
        })
        .collect()
}

fn bars(panel: &Panel, frames: &[Frame], page: &Page<'_>) -> Vec<BarView> {
    let calc = calc_of(panel);
    let mut rows: Vec<(Field, String, Option<f64>)> = frames
        .iter()
        .map(|frame| {
            let (field, name) = field_of(panel, frame, page.now);
            (field, name, reduce(&frame.samples, &calc))
        })
        .collect();
    if !flag(&panel.json, "options.keepOrder") {
        rows.sort_by(|a, b| b.2.unwrap_or(f64::MIN).total_cmp(&a.2.unwrap_or(f64::MIN)));
    }
    let top = rows.iter().filter_map(|row| row.2).fold(0.0, f64::max);
    rows.into_iter()
        .take(50)
        .map(|(field, name, value)| {
            let (shown, mapped) = field.show(value);
            let by_threshold = value.and_then(|v| field.threshold_color(v));
            let color =
                mapped.or(by_threshold.filter(|c| field.thresholds.len() > 1 && *c != Color::Ok));
            let max = field.max.unwrap_or(top);
            let share = value.map_or(0.0, |v| {
                if max > 0.0 {
                    (v / max).clamp(0.0, 1.0)
                } else {
                    0.0
                }
            });
            BarView {
                name,
                value: shown,
                style: format!(
                    "--c:{};--v:{:.1}%",
                    color.unwrap_or(Color::Slot(0)).css(),
                    share * 100.0
                ),
            }
        })
        .collect()
}
