//! Instant results in rows: labels first, then one column for each query.

use serde_json::Value;

use super::data::Frame;
use super::field::{Field, Subject};
use super::json::{at, flag, list, text};
use super::model::Panel;
use super::reduce::reduce;
use crate::model::Timestamp;
use crate::model::labels::METRIC_NAME;

/// Rows are cut here; the page says how many there are.
const ROWS_MAX: usize = 200;

/// A table on a page.
pub struct TableView {
    /// Names of the columns and whether they hold numbers.
    pub columns: Vec<(String, bool)>,
    /// One cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// Rows that are not shown.
    pub left_out: usize,
}

/// A cell.
pub struct Cell {
    /// What it says.
    pub text: String,
    /// Whether it is a number.
    pub number: bool,
    /// The class of its state.
    pub state: &'static str,
    /// The length of its bar as a style; empty when it has none.
    pub bar: String,
}

/// Frames with the same labels share a row. `organize` renames and hides columns.
pub fn view(panel: &Panel, frames: &[Frame], now: Timestamp) -> TableView {
    let organize = list(&panel.json, "transformations")
        .iter()
        .find(|t| text(t, "id").as_deref() == Some("organize"))
        .cloned()
        .unwrap_or_default();
    let labels = label_columns(frames, &organize);
    let mut refs: Vec<&str> = Vec::new();
    for frame in frames {
        if !refs.contains(&frame.ref_id.as_str()) {
            refs.push(&frame.ref_id);
        }
    }
    let mut rows: Vec<(Vec<String>, Vec<Option<f64>>)> = Vec::new();
    for frame in frames {
        let key: Vec<String> = labels
            .iter()
            .map(|name| frame.labels.value(name).to_owned())
            .collect();
        let column = refs.iter().position(|r| *r == frame.ref_id).unwrap_or(0);
        let value = reduce(&frame.samples, "lastNotNull");
        match rows.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values[column] = value,
            None => {
                let mut values = vec![None; refs.len()];
                values[column] = value;
                rows.push((key, values));
            }
        }
    }
    rows.sort_by(|a, b| {
        let first = |row: &(Vec<String>, Vec<Option<f64>>)| {
            row.1.first().copied().flatten().unwrap_or(f64::MIN)
        };
        first(b).total_cmp(&first(a)).then_with(|| a.0.cmp(&b.0))
    });
    let fields: Vec<(Field, String)> = refs
        .iter()
        .map(|r| column_field(panel, r, refs.len(), &organize, now))
        .collect();
    let tops: Vec<f64> = (0..refs.len())
        .map(|i| rows.iter().filter_map(|row| row.1[i]).fold(0.0, f64::max))
        .collect();
    let mut columns: Vec<(String, bool)> = labels
        .iter()
        .map(|name| (renamed(&organize, name), false))
        .collect();
    columns.extend(fields.iter().map(|(_, name)| (name.clone(), true)));
    TableView {
        columns,
        left_out: rows.len().saturating_sub(ROWS_MAX),
        rows: rows
            .into_iter()
            .take(ROWS_MAX)
            .map(|(key, values)| {
                let mut cells: Vec<Cell> = key.into_iter().map(label_cell).collect();
                for (i, value) in values.into_iter().enumerate() {
                    cells.push(value_cell(
                        &fields[i].0,
                        value,
                        tops[i],
                        has_bar(panel, &fields[i].1),
                    ));
                }
                cells
            })
            .collect(),
    }
}

fn label_columns(frames: &[Frame], organize: &Value) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for (name, _) in frames.iter().flat_map(|frame| frame.labels.iter()) {
        let hidden = name == METRIC_NAME || flag_in(organize, "options.excludeByName", name);
        if !hidden && !labels.iter().any(|known| known == name) {
            labels.push(name.to_owned());
        }
    }
    labels.sort_unstable();
    labels
}

fn flag_in(json: &Value, path: &str, key: &str) -> bool {
    at(json, path)
        .and_then(|names| names.get(key))
        .and_then(Value::as_bool)
        == Some(true)
}

fn renamed(organize: &Value, name: &str) -> String {
    let names = at(organize, "options.renameByName");
    let new = names
        .and_then(|names| names.get(name))
        .and_then(Value::as_str);
    new.filter(|new| !new.is_empty()).unwrap_or(name).to_owned()
}

/// Grafana calls the columns of several queries `Value #A`.
fn column_field(
    panel: &Panel,
    ref_id: &str,
    count: usize,
    organize: &Value,
    now: Timestamp,
) -> (Field, String) {
    let name = if count > 1 {
        format!("Value #{ref_id}")
    } else {
        "Value".to_owned()
    };
    let shown = renamed(organize, &name);
    let field_by = |name: &str| Field::of(&panel.json, &Subject { name, ref_id }, now);
    let mut field = field_by(&name);
    if shown != name {
        field = field_by(&shown);
    }
    let shown = field.display_name.clone().unwrap_or(shown);
    (field, shown)
}

fn has_bar(panel: &Panel, name: &str) -> bool {
    let gauge = |json: &Value| text(json, "type").is_some_and(|kind| kind.contains("gauge"));
    list(&panel.json, "fieldConfig.overrides")
        .iter()
        .any(|rule| {
            let about = text(rule, "matcher.options").as_deref() == Some(name);
            let properties = list(rule, "properties").iter();
            about && properties.filter_map(|p| p.get("value")).any(gauge)
        })
        || flag(&panel.json, "options.showBars")
}

fn label_cell(text: String) -> Cell {
    Cell {
        text,
        number: false,
        state: "",
        bar: String::new(),
    }
}

fn value_cell(field: &Field, value: Option<f64>, top: f64, bar: bool) -> Cell {
    let (shown, mapped) = field.show(value);
    let color = mapped.or_else(|| {
        let by_value = value.and_then(|v| field.threshold_color(v));
        by_value.filter(|_| field.thresholds.len() > 1)
    });
    let max = field.max.unwrap_or(top);
    let share = value.map_or(0.0, |v| {
        if max > 0.0 {
            (v / max).clamp(0.0, 1.0)
        } else {
            0.0
        }
    });
    Cell {
        text: shown.to_string(),
        number: true,
        state: color
            .and_then(|c| c.state())
            .filter(|s| *s != "ok")
            .unwrap_or_default(),
        bar: if bar {
            format!("--c:var(--s1);--v:{:.1}%", share * 100.0)
        } else {
            String::new()
        },
    }
}
