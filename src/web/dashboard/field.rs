//! How the values of one series are shown: the file's defaults, then what its
//! overrides say about that series.

use serde_json::Value;

use super::json::{at, count, flag, list, number, text, words};
use crate::chart::units::{Format, Formatted};
use crate::chart::{Color, DrawAs};
use crate::model::Timestamp;

/// Everything about showing one series.
#[derive(Clone, Debug)]
pub struct Field {
    /// Unit and decimals.
    pub format: Format,
    /// The bottom of the scale.
    pub min: Option<f64>,
    /// The top of the scale.
    pub max: Option<f64>,
    /// A fixed colour.
    pub color: Option<Color>,
    /// Instead of the series' own name.
    pub display_name: Option<String>,
    /// From which value on which colour holds, in order; the first from anywhere.
    pub thresholds: Vec<(f64, Color)>,
    /// Whether thresholds are percents of the scale.
    pub thresholds_percent: bool,
    /// Whether colours come from the thresholds.
    pub color_by_value: bool,
    /// What stands where there is no value.
    pub no_value: Option<String>,
    /// How it is drawn.
    pub draw_as: DrawAs,
    /// Dots on the line.
    pub dots: bool,
    /// Fill in percent.
    pub fill_percent: u8,
    /// The stacking mode, `none` by default.
    pub stacking: String,
    /// The base of a logarithmic axis.
    pub log: Option<f64>,
    /// How thresholds show on plots, `off` by default.
    pub thresholds_style: String,
    /// Drawn below zero.
    pub negative: bool,
    /// Not drawn.
    pub hidden: bool,
    mappings: Vec<Mapping>,
}

/// What stands for a value instead of its digits.
#[derive(Clone, Debug)]
struct Mapping {
    low: f64,
    high: f64,
    special: Option<String>,
    text: Option<String>,
    color: Option<Color>,
}

/// The series that overrides look at.
pub struct Subject<'a> {
    /// Its name as the legend has it.
    pub name: &'a str,
    /// The query it comes from.
    pub ref_id: &'a str,
}

impl Field {
    /// The field of a series of this panel.
    pub fn of(panel: &Value, subject: &Subject<'_>, now: Timestamp) -> Field {
        let mut json = at(panel, "fieldConfig.defaults")
            .cloned()
            .unwrap_or_default();
        for rule in list(panel, "fieldConfig.overrides") {
            if applies(rule, subject) {
                for property in list(rule, "properties") {
                    let id = text(property, "id").unwrap_or_default();
                    set(
                        &mut json,
                        &id,
                        property.get("value").cloned().unwrap_or_default(),
                    );
                }
            }
        }
        Field::read(&json, now)
    }

    fn read(json: &Value, now: Timestamp) -> Field {
        let mode = text(json, "color.mode").unwrap_or_default();
        let fixed = (mode == "fixed" || mode == "shades")
            .then(|| text(json, "color.fixedColor"))
            .flatten();
        let (draw_as, dots) = drawing(json);
        let fill = number(json, "custom.fillOpacity")
            .unwrap_or(0.0)
            .clamp(0.0, 99.0);
        let scale = text(json, "custom.scaleDistribution.type").unwrap_or_default();
        Field {
            format: Format {
                unit: text(json, "unit").unwrap_or_default(),
                decimals: count(json, "decimals").filter(|d| *d <= 15),
                now: Some(now),
            },
            min: number(json, "min"),
            max: number(json, "max"),
            color: fixed.as_deref().and_then(Color::parse),
            display_name: words(json, "displayName"),
            thresholds: thresholds(json),
            thresholds_percent: text(json, "thresholds.mode").as_deref() == Some("percentage"),
            color_by_value: mode == "thresholds" || mode.starts_with("continuous"),
            no_value: words(json, "noValue"),
            draw_as,
            dots,
            fill_percent: (0..=99).rev().find(|p| f64::from(*p) <= fill).unwrap_or(0),
            stacking: text(json, "custom.stacking.mode").unwrap_or_else(|| "none".to_owned()),
            log: (scale == "log")
                .then(|| number(json, "custom.scaleDistribution.log").unwrap_or(10.0)),
            thresholds_style: text(json, "custom.thresholdsStyle.mode")
                .unwrap_or_else(|| "off".to_owned()),
            negative: text(json, "custom.transform").as_deref() == Some("negative-Y"),
            hidden: flag(json, "custom.hideFrom.viz"),
            mappings: list(json, "mappings").iter().flat_map(mapping).collect(),
        }
    }

    /// The words for a value and the colour that a mapping gives it.
    pub fn show(&self, value: Option<f64>) -> (Formatted, Option<Color>) {
        let found = self.mappings.iter().find(|mapping| mapping.fits(value));
        let color = found.and_then(|mapping| mapping.color.clone());
        let plain = |text: String| Formatted {
            text,
            suffix: String::new(),
        };
        let shown = match (found.and_then(|mapping| mapping.text.clone()), value) {
            (Some(text), _) => plain(text),
            (None, Some(value)) => self.format.format(value),
            (None, None) => plain(self.no_value.clone().unwrap_or_else(|| "–".to_owned())),
        };
        (shown, color)
    }

    /// The same without a unit that the panel's head names already.
    pub fn show_short(&self, value: Option<f64>) -> Formatted {
        let mut plain = self.clone();
        plain.format = plain.format.without_words();
        plain.show(value).0
    }

    /// The colour that the thresholds give a value.
    pub fn threshold_color(&self, value: f64) -> Option<Color> {
        let value = if self.thresholds_percent {
            self.fraction(value) * 100.0
        } else {
            value
        };
        let passed = self
            .thresholds
            .iter()
            .rev()
            .find(|(from, _)| value >= *from);
        passed
            .or(self.thresholds.first())
            .map(|(_, color)| color.clone())
    }

    /// Where a value lies between the ends of the scale.
    pub fn fraction(&self, value: f64) -> f64 {
        let min = self.min.unwrap_or(0.0);
        let default = if self.format.unit == "percentunit" {
            1.0
        } else {
            100.0
        };
        let max = self.max.unwrap_or(default);
        if max > min {
            (value - min) / (max - min)
        } else {
            0.0
        }
    }
}

impl Mapping {
    fn fits(&self, value: Option<f64>) -> bool {
        match (self.special.as_deref(), value) {
            (Some("null" | "empty"), None) | (Some("null+nan"), None) => true,
            (Some("nan" | "null+nan"), Some(value)) => value.is_nan(),
            (Some("true"), Some(value)) => value == 1.0,
            (Some("false"), Some(value)) => value == 0.0,
            (Some(_), _) => false,
            (None, Some(value)) => value >= self.low && value <= self.high,
            (None, None) => false,
        }
    }
}

/// A bound in as few digits as are exact.
pub fn short(format: &Format, value: f64) -> String {
    let labels = format.axis_labels(&[value]);
    labels.into_iter().next().unwrap_or_default()
}

/// Whether an override is about this series.
fn applies(rule: &Value, subject: &Subject<'_>) -> bool {
    let options = rule.get("matcher").and_then(|m| m.get("options"));
    let wanted = options.and_then(Value::as_str).unwrap_or_default();
    match text(rule, "matcher.id").unwrap_or_default().as_str() {
        "byName" => wanted == subject.name,
        "byNames" => list(rule, "matcher.options.names")
            .iter()
            .any(|name| name.as_str() == Some(subject.name)),
        "byRegexp" => {
            let pattern = wanted
                .strip_prefix('/')
                .and_then(|p| p.rsplit_once('/'))
                .map_or(wanted, |(p, _)| p);
            let regex = regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build();
            regex.is_ok_and(|regex| regex.is_match(subject.name))
        }
        "byFrameRefID" => wanted == subject.ref_id,
        "byType" => wanted == "number",
        _ => false,
    }
}

/// Sets a property like `custom.lineWidth`, making what is missing on the way.
fn set(json: &mut Value, path: &str, value: Value) {
    let mut place = json;
    for key in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[key];
    }
    *place = value;
}

fn drawing(json: &Value) -> (DrawAs, bool) {
    let dots = text(json, "custom.showPoints").as_deref() == Some("always");
    let steps = text(json, "custom.lineInterpolation").is_some_and(|i| i.starts_with("step"));
    let draw_as = match text(json, "custom.drawStyle").as_deref() {
        Some("bars") => DrawAs::Bars,
        Some("points") => DrawAs::Points,
        _ if steps => DrawAs::Steps,
        _ => DrawAs::Line,
    };
    (draw_as, dots)
}

fn thresholds(json: &Value) -> Vec<(f64, Color)> {
    let mut steps: Vec<(f64, Color)> = list(json, "thresholds.steps")
        .iter()
        .map(|step| {
            let from = number(step, "value").unwrap_or(f64::NEG_INFINITY);
            let color = text(step, "color").and_then(|name| Color::parse(&name));
            (from, color.unwrap_or(Color::Text))
        })
        .collect();
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    steps
}

/// Today's mappings (value, range, special) and the old `valueMaps`.
fn mapping(json: &Value) -> Vec<Mapping> {
    let result = |json: &Value| {
        (
            words(json, "text"),
            words(json, "color").and_then(|name| Color::parse(&name)),
        )
    };
    let exact = |value: f64, (text, color)| Mapping {
        low: value,
        high: value,
        special: None,
        text,
        color,
    };
    match words(json, "type").as_deref() {
        Some("value") => at(json, "options")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, json)| Some(exact(key.parse().ok()?, result(json))))
            .collect(),
        Some("range") => {
            let (text, color) = at(json, "options.result").map(result).unwrap_or_default();
            vec![Mapping {
                low: number(json, "options.from").unwrap_or(f64::NEG_INFINITY),
                high: number(json, "options.to").unwrap_or(f64::INFINITY),
                special: None,
                text,
                color,
            }]
        }
        Some("special") => {
            let (shown, color) = at(json, "options.result").map(result).unwrap_or_default();
            vec![Mapping {
                low: 0.0,
                high: 0.0,
                special: text(json, "options.match"),
                text: shown,
                color,
            }]
        }
        _ => {
            if text(json, "value").as_deref() == Some("null") {
                return vec![Mapping {
                    low: 0.0,
                    high: 0.0,
                    special: Some("null".to_owned()),
                    text: words(json, "text"),
                    color: None,
                }];
            }
            let value = number(json, "value");
            value
                .map(|value| exact(value, result(json)))
                .into_iter()
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(panel: &Value, name: &str) -> Field {
        let subject = Subject { name, ref_id: "A" };
        Field::of(panel, &subject, Timestamp::from_ms(0))
    }

    #[test]
    fn overrides_change_only_their_series() {
        let panel = json!({"fieldConfig": {"defaults": {"unit": "s", "custom": {"fillOpacity": 12}}, "overrides": [
            {"matcher": {"id": "byName", "options": "a"}, "properties": [
                {"id": "unit", "value": "bytes"}, {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
                {"id": "custom.stacking", "value": {"mode": "normal"}}, {"id": "displayName", "value": "A!"}]},
            {"matcher": {"id": "byRegexp", "options": "/^b/"}, "properties": [{"id": "custom.transform", "value": "negative-Y"}]},
            {"matcher": {"id": "byRegexp", "options": "("}, "properties": [{"id": "unit", "value": "x"}]}
        ]}});
        let a = field(&panel, "a");
        assert_eq!(
            (a.format.unit.as_str(), a.color.clone(), a.stacking.as_str()),
            ("bytes", Some(Color::Crit), "normal")
        );
        assert_eq!(
            (a.display_name.as_deref(), a.fill_percent),
            (Some("A!"), 12)
        );
        assert!(field(&panel, "b1").negative);
        assert_eq!(field(&panel, "c").format.unit, "s");
    }

    #[test]
    fn mappings_and_thresholds_colour_values() {
        let panel = json!({"fieldConfig": {"defaults": {"noValue": "none", "max": 10,
            "thresholds": {"steps": [{"color": "green", "value": null}, {"color": "red", "value": 5}]},
            "mappings": [{"type": "value", "options": {"1": {"text": "Up", "color": "green"}}},
                         {"type": "range", "options": {"from": 8, "to": 9, "result": {"text": "high"}}},
                         {"type": "special", "options": {"match": "nan", "result": {"text": "?"}}}]}}});
        let f = field(&panel, "x");
        assert_eq!(f.show(Some(1.0)).0.text, "Up");
        assert_eq!(f.show(Some(8.5)).0.text, "high");
        assert_eq!(f.show(Some(f64::NAN)).0.text, "?");
        assert_eq!(f.show(None).0.text, "none");
        assert_eq!(f.threshold_color(4.9), Some(Color::Ok));
        assert_eq!(f.threshold_color(5.0), Some(Color::Crit));
        assert_eq!(f.fraction(5.0), 0.5);
    }
}
