//! A dashboard file as we use it. Everything that is not read here stays in the
//! panel's own JSON, where the part that draws it looks it up.

use serde_json::Value;

use super::json::{at, count, flag, list, text, words};
use super::legacy;
use super::variables::Variable;

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Its place in URLs.
    pub uid: String,
    /// Its name.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Where its time range begins, unless the URL says otherwise.
    pub time_from: String,
    /// Where it ends.
    pub time_to: String,
    /// How often it refreshes itself; empty is never.
    pub refresh: String,
    /// In the order in which they are resolved.
    pub variables: Vec<Variable>,
    /// Stretches of panels, each below its row; the first may have no row.
    pub sections: Vec<Section>,
    /// The file's text, for people who want it in a Grafana.
    pub source: String,
}

/// The panels below one row.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The row's title; `None` above the first row.
    pub title: Option<String>,
    /// Whether it starts folded.
    pub collapsed: bool,
    /// A selector without which the section has nothing to show.
    pub requires: Option<String>,
    /// In reading order.
    pub panels: Vec<Panel>,
}

/// A panel's place in a grid of 24 columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// The left column, from 0.
    pub x: usize,
    /// The top line, from 0.
    pub y: usize,
    /// Columns.
    pub w: usize,
    /// Lines.
    pub h: usize,
}

/// How a panel is drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Lines, areas, bars over time.
    TimeSeries,
    /// One number with its recent past.
    Stat,
    /// An arc.
    Gauge,
    /// A bar for each value.
    BarGauge,
    /// Values in rows.
    Table,
    /// Words.
    Text,
    /// Named, so that a page can say what is missing.
    Unsupported(String),
}

/// One query of a panel.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// `A`, `B`, ...
    pub ref_id: String,
    /// PromQL with variables.
    pub expr: String,
    /// How series are called.
    pub legend: String,
    /// Whether only the last moment counts.
    pub instant: bool,
    /// Below this the step does not go, a duration text; may be empty.
    pub interval: String,
    /// Steps per interval.
    pub interval_factor: usize,
}

/// A panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its place in the file, from 0: unique, unlike ids.
    pub index: usize,
    /// The file's id.
    pub id: String,
    /// How it is drawn.
    pub kind: Kind,
    /// Its name, with variables.
    pub title: String,
    /// What it shows and why, with variables.
    pub description: String,
    /// Its place, from the top of its section.
    pub grid: Grid,
    /// What it asks.
    pub targets: Vec<Target>,
    /// An own time range like `1h`.
    pub time_from: Option<String>,
    /// The least distance of points, a duration text.
    pub interval: Option<String>,
    /// How many points it wants at most.
    pub points_max: Option<usize>,
    /// Whether it has no frame.
    pub transparent: bool,
    /// The rest, as the file has it.
    pub json: Value,
}

impl Dashboard {
    /// Reads a file; `fallback` names it when it has no uid.
    ///
    /// # Errors
    /// When the text is not JSON, or JSON that is no dashboard.
    pub fn parse(source: &str, fallback: &str) -> Result<Dashboard, String> {
        let source = source.trim_start_matches('\u{feff}');
        let mut root: Value = serde_json::from_str(source).map_err(|err| err.to_string())?;
        if let Some(inner) = root.get_mut("dashboard").filter(|inner| inner.is_object()) {
            root = inner.take();
        }
        if !root.is_object() || (root.get("panels").is_none() && root.get("rows").is_none()) {
            return Err("not a dashboard: neither panels nor rows".to_owned());
        }
        legacy::migrate_rows(&mut root);
        Ok(Dashboard {
            uid: words(&root, "uid").unwrap_or_else(|| fallback.to_owned()),
            title: words(&root, "title").unwrap_or_else(|| fallback.to_owned()),
            description: text(&root, "description").unwrap_or_default(),
            tags: list(&root, "tags")
                .iter()
                .filter_map(|tag| Some(tag.as_str()?.to_owned()))
                .collect(),
            time_from: words(&root, "time.from").unwrap_or_else(|| "now-6h".to_owned()),
            time_to: words(&root, "time.to").unwrap_or_else(|| "now".to_owned()),
            refresh: words(&root, "refresh")
                .filter(|refresh| refresh != "false")
                .unwrap_or_default(),
            variables: list(&root, "templating.list")
                .iter()
                .filter_map(Variable::parse)
                .collect(),
            sections: sections(list(&root, "panels")),
            source: source.to_owned(),
        })
    }

    /// All panels in reading order.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.sections.iter().flat_map(|section| &section.panels)
    }
}

/// Splits the flat list at its rows. A folded row holds its panels itself.
fn sections(panels: &[Value]) -> Vec<Section> {
    let mut sections: Vec<Section> = vec![Section::default()];
    let mut index = 0;
    for json in panels {
        if text(json, "type").as_deref() == Some("row") {
            let mut section = Section {
                title: Some(text(json, "title").unwrap_or_default()),
                collapsed: flag(json, "collapsed"),
                requires: words(json, "options.requires"),
                panels: Vec::new(),
            };
            for inner in list(json, "panels") {
                section.panels.push(Panel::parse(inner.clone(), index));
                index += 1;
            }
            sections.push(section);
            continue;
        }
        let section = sections.last_mut().expect("starts with one");
        section.panels.push(Panel::parse(json.clone(), index));
        index += 1;
    }
    sections.retain(|section| section.title.is_some() || !section.panels.is_empty());
    for section in &mut sections {
        settle(&mut section.panels);
    }
    sections
}

/// Sorts panels by place and moves the section to the top of its own grid.
fn settle(panels: &mut [Panel]) {
    panels.sort_by_key(|panel| (panel.grid.y, panel.grid.x));
    let top = panels.iter().map(|panel| panel.grid.y).min().unwrap_or(0);
    for panel in panels {
        panel.grid.y -= top;
    }
}

impl Panel {
    fn parse(mut json: Value, index: usize) -> Panel {
        legacy::migrate_panel(&mut json);
        let kind = match text(&json, "type").unwrap_or_default().as_str() {
            "timeseries" => Kind::TimeSeries,
            "stat" => Kind::Stat,
            "gauge" => Kind::Gauge,
            "bargauge" => Kind::BarGauge,
            "table" => Kind::Table,
            "text" => Kind::Text,
            other => Kind::Unsupported(other.to_owned()),
        };
        let kind = match foreign_datasource(&json) {
            Some(name) if kind != Kind::Text => Kind::Unsupported(format!("datasource:{name}")),
            _ => kind,
        };
        Panel {
            index,
            id: text(&json, "id").unwrap_or_else(|| index.to_string()),
            kind,
            title: text(&json, "title").unwrap_or_default(),
            description: text(&json, "description").unwrap_or_default(),
            grid: grid(&json),
            targets: list(&json, "targets")
                .iter()
                .enumerate()
                .filter_map(|(i, target)| Target::parse(target, i))
                .collect(),
            time_from: words(&json, "timeFrom"),
            interval: words(&json, "interval"),
            points_max: count(&json, "maxDataPoints").filter(|n| *n > 0),
            transparent: flag(&json, "transparent"),
            json,
        }
    }
}

impl Target {
    fn parse(json: &Value, place: usize) -> Option<Target> {
        let letter = char::from(b'A' + u8::try_from(place % 26).unwrap_or(0));
        (!flag(json, "hide")).then_some(())?;
        Some(Target {
            ref_id: words(json, "refId").unwrap_or_else(|| letter.to_string()),
            expr: words(json, "expr")?,
            legend: text(json, "legendFormat").unwrap_or_default(),
            instant: flag(json, "instant") && !flag(json, "range"),
            interval: text(json, "interval").unwrap_or_default(),
            interval_factor: count(json, "intervalFactor").unwrap_or(1).clamp(1, 100),
        })
    }
}

fn grid(json: &Value) -> Grid {
    let place = |path, default| count(json, path).unwrap_or(default);
    let w = place("gridPos.w", 12).clamp(1, 24);
    Grid {
        x: place("gridPos.x", 0).min(24 - w),
        y: place("gridPos.y", 0),
        w,
        h: place("gridPos.h", 8).clamp(2, 60),
    }
}

/// The kind of a data source that is named and is not one of ours.
fn foreign_datasource(json: &Value) -> Option<String> {
    let kind = match at(json, "datasource")? {
        Value::Object(_) => words(json, "datasource.type")?,
        _ => return None,
    };
    let ours = ["prometheus", "datasource", "grafana", "mixed"];
    let own = ours.contains(&kind.as_str()) || kind.contains('$') || kind.contains("prometheus");
    (!own).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Dashboard {
        Dashboard::parse(text, "file").unwrap()
    }

    #[test]
    fn odd_files_are_read() {
        let dashboard = parse(
            "\u{feff}{\"dashboard\": {\"title\": 7, \"annotations\": [], \"refresh\": false, \"panels\": [
              {\"type\": \"geomap\", \"gridPos\": {\"x\": 99, \"w\": \"30\", \"h\": -1}},
              {\"id\": \"a\", \"type\": \"stat\", \"datasource\": {\"type\": \"mysql\"}},
              {\"type\": \"stat\", \"datasource\": \"${DS_X}\", \"targets\": [{\"expr\": \"up\"}, {\"expr\": \"\"}, {\"expr\": \"x\", \"hide\": true}]}
            ]}}",
        );
        assert_eq!(
            (dashboard.uid.as_str(), dashboard.title.as_str()),
            ("file", "7")
        );
        let panels: Vec<&Panel> = dashboard.panels().collect();
        assert_eq!(panels[0].kind, Kind::Unsupported("geomap".into()));
        assert_eq!(
            (panels[0].grid.x, panels[0].grid.w, panels[0].grid.h),
            (0, 24, 8)
        );
        assert_eq!(panels[1].kind, Kind::Unsupported("datasource:mysql".into()));
        assert_eq!(panels[2].kind, Kind::Stat);
        assert_eq!(panels[2].targets.len(), 1);
    }

    #[test]
    fn rows_hold_what_follows_or_what_they_carry() {
        let dashboard = parse(
            r#"{"panels": [
              {"type": "stat", "gridPos": {"y": 0}},
              {"type": "row", "title": "open", "gridPos": {"y": 8}},
              {"type": "stat", "gridPos": {"y": 9, "x": 12}}, {"type": "text", "gridPos": {"y": 9, "x": 0}},
              {"type": "row", "title": "folded", "collapsed": true, "options": {"requires": "x"}, "panels": [{"type": "stat"}]}
            ]}"#,
        );
        let shape: Vec<(Option<&str>, usize)> = dashboard
            .sections
            .iter()
            .map(|s| (s.title.as_deref(), s.panels.len()))
            .collect();
        assert_eq!(shape, [(None, 1), (Some("open"), 2), (Some("folded"), 1)]);
        assert_eq!(dashboard.sections[1].panels[0].kind, Kind::Text);
        assert_eq!(dashboard.sections[1].panels[0].grid.y, 0);
        assert_eq!(dashboard.sections[2].requires.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_no_dashboard_is_refused() {
        assert!(Dashboard::parse("{", "f").is_err());
        assert!(Dashboard::parse("[]", "f").is_err());
        assert!(Dashboard::parse("{\"a\": 1}", "f").is_err());
    }
}
