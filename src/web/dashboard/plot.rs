//! Frames to a plot with its legend, and the exact values behind it.

use serde_json::{Value, json};

use super::data::{Frame, Job};
use super::field::Field;
use super::json::{list, number, text};
use super::model::Panel;
use super::reduce::{calc_name, reduce};
use super::view::{Page, field_of};
use crate::chart::Color;
use crate::chart::plot::{self, Line, Plot, PlotOptions, Threshold};
use crate::chart::scale::{Spread, XScale};
use crate::chart::stack::{Stacking, stack};
use crate::chart::units::Format;
use crate::model::Sample;

/// More series than this are not drawn, but counted.
pub const SERIES_MAX: usize = 50;

/// A plot on a page.
pub struct PlotView {
    /// Axes and picture.
    pub plot: Plot,
    /// Room for the value labels, in characters.
    pub label_width: usize,
    /// What the plot shows, for those who do not see it.
    pub summary: String,
    /// One entry for each drawn series; empty when the file wants no legend.
    pub legend: Vec<LegendItem>,
    /// The names of the legend's columns; empty for a plain list.
    pub columns: Vec<String>,
    /// Series that are not drawn.
    pub left_out: usize,
}

/// A series in the legend.
pub struct LegendItem {
    /// Its name.
    pub name: String,
    /// Its colour and dash.
    pub style: String,
    /// The class of its dash.
    pub dash: &'static str,
    /// Its place among the drawn series.
    pub place: usize,
    /// Its last value, or one value for each column.
    pub values: Vec<String>,
}

/// A series with all that is known of how to draw it.
struct Drawn {
    field: Field,
    name: String,
    line: Line,
}

/// Draws a panel's frames.
pub fn view(panel: &Panel, job: &Job, frames: &[Frame], page: &Page<'_>) -> PlotView {
    let drawn = drawn(panel, frames, page);
    let options = options(panel, job, &drawn, page);
    let lines: Vec<Line> = drawn.iter().map(|d| d.line.clone()).collect();
    let plot = plot::draw(&lines, &options);
    let longest = plot
        .y_ticks
        .iter()
        .map(|tick| tick.label.chars().count())
        .max();
    let (legend, columns) = legend(panel, &drawn);
    PlotView {
        label_width: longest.unwrap_or(1).max(2),
        summary: summary(&drawn),
        legend,
        columns,
        left_out: frames.len().saturating_sub(SERIES_MAX),
        plot,
    }
}

/// The exact values behind a plot, and where they stand on it.
pub fn values(panel: &Panel, job: &Job, frames: &[Frame], page: &Page<'_>) -> Value {
    let drawn = drawn(panel, frames, page);
    let options = options(panel, job, &drawn, page);
    let lines: Vec<Line> = drawn.iter().map(|d| d.line.clone()).collect();
    let scale = plot::draw(&lines, &options).scale;
    let members: Vec<&[Sample]> = lines
        .iter()
        .filter(|l| l.stacked)
        .map(|l| l.samples.as_slice())
        .collect();
    let mut layers = options
        .stacking
        .map(|stacking| stack(&members, stacking))
        .unwrap_or_default()
        .into_iter();
    let series: Vec<Value> = drawn
        .iter()
        .map(|d| {
            let layer = if d.line.stacked { layers.next() } else { None };
            let height = |sample: &Sample| -> f64 {
                let on = layer.as_ref().and_then(|layer| {
                    let at = layer.top.binary_search_by_key(&sample.t, |top| top.t).ok()?;
                    Some(layer.top[at].v)
                });
                ((1.0 - scale.fraction(on.unwrap_or(sample.v))) * 1000.0).round() / 10.0
            };
            let sign = if d.field.negative { -1.0 } else { 1.0 };
            json!({
                "name": d.name,
                "color": d.line.color.css(),
                "t": d.line.samples.iter().map(|s| s.t.as_ms()).collect::<Vec<_>>(),
                "v": d.line.samples.iter().map(|s| s.v * sign).collect::<Vec<_>>(),
                "y": d.line.samples.iter().map(height).collect::<Vec<_>>(),
                "f": d.line.samples.iter().map(|s| d.field.show(Some(s.v * sign)).0.to_string()).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "from": job.start().as_ms(),
        "to": job.end().as_ms(),
        "step": job.steps.step_ms,
        "stacked": options.stacking.is_some(),
        "series": series,
    })
}

/// The past of a number, as the foot of its tile.
pub fn spark(frame: &Frame, job: &Job, color: &Color) -> String {
    plot::sparkline(&frame.samples, color, &x_scale(job), gap_ms(job))
}

fn x_scale(job: &Job) -> XScale {
    XScale {
        start: job.start(),
        end: job.end(),
    }
}

/// Values that are further apart than one step and a half have a gap between them.
fn gap_ms(job: &Job) -> i64 {
    job.steps.step_ms.saturating_mul(3) / 2
}

fn drawn(panel: &Panel, frames: &[Frame], page: &Page<'_>) -> Vec<Drawn> {
    let mut slot = 0;
    frames
        .iter()
        .take(SERIES_MAX)
        .filter_map(|frame| {
            let (field, name) = field_of(panel, frame, page.now);
            let own = Color::Slot(slot);
            slot += 1;
            if field.hidden {
                return None;
            }
            let mut samples = frame.samples.clone();
            if field.negative {
                samples.iter_mut().for_each(|sample| sample.v = -sample.v);
            }
            let line = Line {
                samples,
                color: field.color.clone().unwrap_or(own),
                draw_as: field.draw_as,
                fill_percent: field.fill_percent,
                stacked: field.stacking == "normal" || field.stacking == "percent",
                dots: field.dots,
            };
            Some(Drawn { field, name, line })
        })
        .collect()
}

fn options(panel: &Panel, job: &Job, drawn: &[Drawn], page: &Page<'_>) -> PlotOptions {
    let first = drawn.first().map(|d| &d.field);
    let stacking = drawn.iter().find_map(|d| match d.field.stacking.as_str() {
        "percent" => Some(Stacking::Percent),
        "normal" => Some(Stacking::Normal),
        _ => None,
    });
    // A shaded region says the same as its lower edge.
    let lines = first.filter(|field| field.thresholds_style != "off");
    let thresholds = lines.map_or_else(Vec::new, |field| {
        let finite = field
            .thresholds
            .iter()
            .filter(|(value, _)| value.is_finite());
        finite
            .map(|(value, color)| Threshold {
                value: *value,
                color: color.clone(),
            })
            .collect()
    });
    let soft = |path: &str| number(&panel.json, &format!("fieldConfig.defaults.custom.{path}"));
    PlotOptions {
        start: job.start(),
        end: job.end(),
        zone: page.zone.clone(),
        gap_ms: gap_ms(job),
        format: first.map_or_else(Format::default, |field| field.format.clone()),
        min: first.and_then(|field| field.min),
        max: first.and_then(|field| field.max),
        soft_min: soft("axisSoftMin"),
        soft_max: soft("axisSoftMax"),
        spread: first
            .and_then(|field| field.log)
            .map_or(Spread::Linear, Spread::Log),
        stacking,
        thresholds,
        time_labels: match panel.grid.w {
            0..=7 => 4,
            8..=15 => 6,
            _ => 9,
        },
    }
}

fn legend(panel: &Panel, drawn: &[Drawn]) -> (Vec<LegendItem>, Vec<String>) {
    if panel.json.pointer("/options/legend/showLegend") == Some(&Value::Bool(false)) {
        return (Vec::new(), Vec::new());
    }
    let calcs: Vec<&str> = list(&panel.json, "options.legend.calcs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let as_table = text(&panel.json, "options.legend.displayMode").as_deref() == Some("table");
    let calcs = match (as_table, calcs.is_empty()) {
        (_, true) => vec!["lastNotNull"],
        (true, false) => calcs,
        (false, false) => calcs[..1].to_vec(),
    };
    let items = drawn
        .iter()
        .enumerate()
        .map(|(place, d)| LegendItem {
            name: d.name.clone(),
            style: format!("--c:{}", d.line.color.css()),
            dash: match d.line.color.dash() {
                0 => "",
                1 => "d1",
                _ => "d2",
            },
            place,
            values: calcs
                .iter()
                .map(|calc| {
                    let sign = if d.field.negative { -1.0 } else { 1.0 };
                    let value = reduce(&d.line.samples, calc).map(|v| v * sign);
                    d.field.show_short(value).to_string()
                })
                .collect(),
        })
        .collect();
    let columns = calcs
        .iter()
        .map(|calc| calc_name(calc).to_owned())
        .collect();
    (items, if as_table { columns } else { Vec::new() })
}

fn summary(drawn: &[Drawn]) -> String {
    let count = drawn.len();
    let first = drawn.first().and_then(|d| {
        let value = reduce(&d.line.samples, "lastNotNull")?;
        Some(format!("; {} is {}", d.name, d.field.show(Some(value)).0))
    });
    let plural = if count == 1 { "" } else { "s" };
    format!(
        "{count} line{plural} over time{}",
        first.unwrap_or_default()
    )
}
