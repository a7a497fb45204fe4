//! A whole plot: axis, grid, series, thresholds.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::color::Color;
use super::path::{self, Point};
use super::scale::{HEIGHT, Spread, WIDTH, XScale, YScale, units};
use super::stack::{Stacking, stack};
use super::ticks::{YWish, time_ticks, y_axis};
use super::units::Format;
use crate::model::{Sample, Timestamp};

/// What a series looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DrawAs {
    /// A line from value to value.
    #[default]
    Line,
    /// A line that holds each value until the next.
    Steps,
    /// A bar for each value.
    Bars,
    /// A dot for each value.
    Points,
}

/// One series of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// In time order.
    pub samples: Vec<Sample>,
    /// Its colour.
    pub color: Color,
    /// Its looks.
    pub draw_as: DrawAs,
    /// How strongly the area below it is filled, in percent.
    pub fill_percent: u8,
    /// Whether it is part of the stack, where there is one.
    pub stacked: bool,
    /// Whether dots stand on the line.
    pub dots: bool,
}

/// A level that is drawn across the plot.
#[derive(Clone, PartialEq, Debug)]
pub struct Threshold {
    /// The level.
    pub value: f64,
    /// Its colour.
    pub color: Color,
}

/// What a plot shows beside its series.
#[derive(Clone, Debug)]
pub struct PlotOptions {
    /// The time at the left edge.
    pub start: Timestamp,
    /// The time at the right edge.
    pub end: Timestamp,
    /// The zone of the time labels.
    pub zone: TimeZone,
    /// Values further apart are not joined, in milliseconds.
    pub gap_ms: i64,
    /// How the value axis is labelled.
    pub format: Format,
    /// A fixed bottom.
    pub min: Option<f64>,
    /// A fixed top.
    pub max: Option<f64>,
    /// What the bottom is not above.
    pub soft_min: Option<f64>,
    /// What the top is not below.
    pub soft_max: Option<f64>,
    /// How values are spread.
    pub spread: Spread,
    /// Whether and how series are stacked.
    pub stacking: Option<Stacking>,
    /// Levels across the plot.
    pub thresholds: Vec<Threshold>,
    /// About how many time labels fit.
    pub time_labels: i64,
}

/// A label beside the plot.
#[derive(Clone, PartialEq, Debug)]
pub struct Tick {
    /// Where it stands, in percent from the left or from the top.
    pub percent: f64,
    /// What it says. Not escaped.
    pub label: String,
}

impl Tick {
    /// The place as a number for a style attribute.
    pub fn place(&self) -> String {
        format!("{:.2}", self.percent)
    }
}

/// A finished plot.
#[derive(Clone, PartialEq, Debug)]
pub struct Plot {
    /// The picture: numbers and class names only, safe as markup.
    pub svg: String,
    /// Labels of the value axis from the bottom up.
    pub y_ticks: Vec<Tick>,
    /// Labels of the time axis.
    pub x_ticks: Vec<Tick>,
    /// The value axis.
    pub scale: YScale,
}

const HEAD: &str = r#"<svg class="plot-svg" viewBox="0 0 2400 1000" preserveAspectRatio="none" aria-hidden="true" focusable="false">"#;

/// Draws the series. Later ones lie above earlier ones; in a stack the first
/// lies at the bottom.
pub fn draw(lines: &[Line], options: &PlotOptions) -> Plot {
    let x = XScale {
        start: options.start,
        end: options.end,
    };
    let layers = Layers::new(lines, options.stacking);
    let (scale, ticks) = axis(lines, &layers, options);
    let mut svg = String::from(HEAD);
    for tick in &ticks {
        let _ = write!(svg, r#"<path class="g" d="M0 {}h2400"/>"#, scale.y(*tick));
    }
    for (i, line) in lines.iter().enumerate() {
        match layers.of(i) {
            Some(layer) => draw_layer(&mut svg, i, line, layer, &x, &scale),
            None => draw_line(&mut svg, i, line, &x, &scale, options.gap_ms),
        }
    }
    for threshold in &options.thresholds {
        let fraction = scale.fraction(threshold.value);
        if (0.0..=1.0).contains(&fraction) {
            let (color, y) = (threshold.color.css(), scale.y(threshold.value));
            let _ = write!(
                svg,
                r#"<path class="t" style="--c:{color}" d="M0 {y}h2400"/>"#
            );
        }
    }
    svg.push_str("</svg>");
    Plot {
        svg,
        y_ticks: y_labels(&ticks, &scale, options),
        x_ticks: x_labels(&x, options),
        scale,
    }
}

/// A line with a filled band below it and nothing else: the foot of a tile.
pub fn sparkline(samples: &[Sample], color: &Color, x: &XScale, gap_ms: i64) -> String {
    let (low, high) = extent(samples.iter().map(|s| s.v));
    let room = (high - low).max(high.abs() * 0.02).max(f64::MIN_POSITIVE);
    let scale = YScale {
        min: low - room * 0.08,
        max: low + room * 1.06,
        spread: Spread::Linear,
    };
    let runs = path::runs(samples, x, &scale, gap_ms);
    let css = color.css();
    let mut svg = HEAD.replace("plot-svg", "spark");
    if low.is_finite() {
        let _ = write!(
            svg,
            r#"<g style="--c:{css}"><path class="a" d="{}"/><path class="l" d="{}"/></g>"#,
            path::area(&runs, units(HEIGHT)),
            path::line(&runs),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The layers of the series that are stacked.
struct Layers {
    places: Vec<Option<usize>>,
    layers: Vec<super::stack::Layer>,
}

impl Layers {
    fn new(lines: &[Line], stacking: Option<Stacking>) -> Layers {
        let Some(stacking) = stacking else {
            return Layers {
                places: Vec::new(),
                layers: Vec::new(),
            };
        };
        let mut places = vec![None; lines.len()];
        let mut members: Vec<&[Sample]> = Vec::new();
        for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.stacked) {
            places[i] = Some(members.len());
            members.push(&line.samples);
        }
        Layers {
            places,
            layers: stack(&members, stacking),
        }
    }

    fn of(&self, line: usize) -> Option<&super::stack::Layer> {
        let place = (*self.places.get(line)?)?;
        self.layers.get(place)
    }
}

fn axis(lines: &[Line], layers: &Layers, options: &PlotOptions) -> (YScale, Vec<f64>) {
    let plain = lines
        .iter()
        .enumerate()
        .filter(|(i, _)| layers.of(*i).is_none())
        .flat_map(|(_, line)| line.samples.iter());
    let stacked = layers
        .layers
        .iter()
        .flat_map(|l| l.top.iter().chain(&l.bottom));
    let soft = [options.soft_min, options.soft_max].into_iter().flatten();
    let (low, high) = extent(plain.chain(stacked).map(|s| s.v).chain(soft));
    let percent = options.stacking == Some(Stacking::Percent);
    let wish = YWish {
        min: options.min.or(percent.then_some(0.0)),
        max: options.max.or(percent.then_some(1.0)),
        zero: options.stacking.is_some()
            || lines
                .iter()
                .any(|l| l.draw_as == DrawAs::Bars || l.fill_percent >= 20),
        spread: options.spread,
        binary: options.format.is_binary(),
        seconds: options.format.seconds_factor(),
    };
    y_axis(low, high, &wish)
}

/// The lowest and the highest finite value; infinities when there is none.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        })
}

fn draw_line(svg: &mut String, i: usize, line: &Line, x: &XScale, y: &YScale, gap_ms: i64) {
    let mut runs = path::runs(&line.samples, x, y, gap_ms);
    let base = y.y(0.0f64.clamp(y.min, y.max));
    begin(svg, i, line);
    match line.draw_as {
        DrawAs::Points => shape(svg, "p", &path::dots(&runs)),
        DrawAs::Bars => {
            let width = bar_width(&line.samples, x);
            shape(svg, "b", &path::bars(&runs, base, width));
        }
        DrawAs::Line | DrawAs::Steps => {
            let dots = line.dots.then(|| path::dots(&runs));
            if line.draw_as == DrawAs::Steps {
                runs = path::steps(&runs);
            }
            if line.fill_percent > 0 {
                let _ = write!(
                    svg,
                    r#"<path class="a" fill-opacity=".{:02}" d="{}"/>"#,
                    line.fill_percent.min(99),
                    path::area(&runs, base)
                );
            }
            shape(svg, "l", &path::line(&runs));
            if let Some(dots) = dots {
                shape(svg, "p", &dots);
            }
        }
    }
    svg.push_str("</g>");
}

fn draw_layer(
    svg: &mut String,
    i: usize,
    line: &Line,
    layer: &super::stack::Layer,
    x: &XScale,
    y: &YScale,
) {
    let points = |samples: &[Sample]| -> Vec<Point> {
        // A layer has no gaps, so it is thinned by leaving out, alike at both ends.
        let every = samples.len().div_ceil(2400).max(1);
        samples
            .iter()
            .step_by(every)
            .map(|s| (x.x(s.t), y.y(s.v)))
            .collect()
    };
    let (top, bottom) = (points(&layer.top), points(&layer.bottom));
    // A layer that is nothing everywhere would hide the line below it.
    if layer.top.iter().zip(&layer.bottom).all(|(a, b)| a.v == b.v) {
        return;
    }
    begin(svg, i, line);
    if line.draw_as == DrawAs::Bars {
        let width = bar_width(&layer.top, x);
        let mut d = String::new();
        for ((at, top), (_, bottom)) in top.iter().zip(&bottom) {
            let _ = write!(d, "M{} {bottom}V{top}h{width}V{bottom}Z", at - width / 2);
        }
        shape(svg, "b", &d);
    } else {
        let fill = if line.fill_percent == 0 {
            34
        } else {
            line.fill_percent
        };
        let _ = write!(
            svg,
            r#"<path class="a" fill-opacity=".{:02}" d="{}"/>"#,
            fill.clamp(20, 99),
            path::band(&top, &bottom)
        );
        if !top.is_empty() {
            shape(svg, "l", &path::line(&[top]));
        }
    }
    svg.push_str("</g>");
}

fn begin(svg: &mut String, i: usize, line: &Line) {
    let dash = match line.color.dash() {
        0 => "",
        1 => " d1",
        _ => " d2",
    };
    let css = line.color.css();
    let _ = write!(svg, r#"<g class="s{dash}" data-s="{i}" style="--c:{css}">"#);
}

fn shape(svg: &mut String, class: &str, d: &str) {
    if !d.is_empty() {
        let _ = write!(svg, r#"<path class="{class}" d="{d}"/>"#);
    }
}

/// Seven tenths of the smallest distance between two values.
fn bar_width(samples: &[Sample], x: &XScale) -> i32 {
    let span = x.end.ms_since(x.start).max(1) as f64;
    let nearest = samples.windows(2).map(|w| w[1].t.ms_since(w[0].t)).min();
    let share = nearest.map_or(0.02, |ms| ms as f64 / span);
    units((WIDTH * share * 0.7).clamp(2.0, WIDTH / 4.0))
}

fn y_labels(ticks: &[f64], scale: &YScale, options: &PlotOptions) -> Vec<Tick> {
    let format = match options.stacking {
        Some(Stacking::Percent) => Format::of("percentunit"),
        _ => options.format.without_words(),
    };
    let labels = format.axis_labels(ticks);
    ticks
        .iter()
        .zip(labels)
        .map(|(tick, label)| Tick {
            percent: (1.0 - scale.fraction(*tick)) * 100.0,
            label,
        })
        .collect()
}

fn x_labels(x: &XScale, options: &PlotOptions) -> Vec<Tick> {
    time_ticks(x.start, x.end, options.time_labels, &options.zone)
        .into_iter()
        .map(|tick| Tick {
            percent: x.fraction(tick.t) * 100.0,
            label: tick.label,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64], slot: usize) -> Line {
        let samples = values.iter().enumerate().map(|(i, v)| Sample {
            t: Timestamp::from_ms(i64::try_from(i).unwrap() * 1000),
            v: *v,
        });
        Line {
            samples: samples.collect(),
            color: Color::Slot(slot),
            draw_as: DrawAs::Line,
            fill_percent: 10,
            stacked: true,
            dots: false,
        }
    }

    fn options() -> PlotOptions {
        PlotOptions {
            start: Timestamp::from_ms(0),
            end: Timestamp::from_ms(4000),
            zone: TimeZone::UTC,
            gap_ms: 1500,
            format: Format::of("percent"),
            min: None,
            max: None,
            soft_min: None,
            soft_max: None,
            spread: Spread::Linear,
            stacking: None,
            thresholds: Vec::new(),
            time_labels: 4,
        }
    }

    #[test]
    fn a_plot_is_grid_series_and_labels() {
        let plot = draw(&[line(&[0.0, 50.0, 100.0], 0)], &options());
        assert_eq!(
            plot.svg,
            concat!(
                r#"<svg class="plot-svg" viewBox="0 0 2400 1000" preserveAspectRatio="none" aria-hidden="true" focusable="false">"#,
                r#"<path class="g" d="M0 1000h2400"/><path class="g" d="M0 750h2400"/><path class="g" d="M0 500h2400"/>"#,
                r#"<path class="g" d="M0 250h2400"/><path class="g" d="M0 0h2400"/>"#,
                r#"<g class="s" data-s="0" style="--c:var(--s1)">"#,
                r#"<path class="a" fill-opacity=".10" d="M0 1000V1000l600-500 600-500V1000Z"/>"#,
                r#"<path class="l" d="M0 1000l600-500 600-500"/></g></svg>"#
            )
        );
        let labels: Vec<&str> = plot.x_ticks.iter().map(|t| t.label.as_str()).collect();
        assert_eq!(
            labels,
            ["00:00:00", "00:00:01", "00:00:02", "00:00:03", "00:00:04"]
        );
        assert_eq!(plot.y_ticks[4].percent, 0.0);
    }

    #[test]
    fn a_stack_ends_at_the_sum() {
        let stacked = PlotOptions {
            stacking: Some(Stacking::Normal),
            ..options()
        };
        let plot = draw(&[line(&[1.0, 1.0], 0), line(&[2.0, 2.0], 9)], &stacked);
        assert_eq!(plot.scale.max, 3.0);
        assert!(
            plot.svg
                .contains(r#"class="s d1" data-s="1" style="--c:var(--s2)""#)
        );
        assert!(
            plot.svg.contains(r#"d="M0 0l600 0L600 667l-600 0Z""#),
            "{}",
            plot.svg
        );
    }

    #[test]
    fn a_threshold_is_drawn_only_where_it_can_be_seen() {
        let mut with = options();
        with.thresholds = [50.0, 5000.0]
            .map(|value| Threshold {
                value,
                color: Color::Crit,
            })
            .to_vec();
        let plot = draw(&[line(&[0.0, 100.0], 0)], &with);
        assert_eq!(plot.svg.matches(r#"class="t""#).count(), 1);
    }

    #[test]
    fn no_data_gives_an_empty_plot() {
        let plot = draw(&[], &options());
        assert!(!plot.svg.contains("<g"));
        assert!(
            sparkline(
                &[],
                &Color::Ok,
                &XScale {
                    start: Timestamp::from_ms(0),
                    end: Timestamp::from_ms(1)
                },
                1
            )
            .contains("</svg>")
        );
    }
}
