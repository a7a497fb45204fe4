//! Files of before 2018 and panels of before 2021, brought to today's form.

use serde_json::{Map, Value, json};

use super::json::{at, count, flag, list, number, text, words};

/// `rows[]` with spans of twelfths becomes `panels[]` with places.
pub(super) fn migrate_rows(root: &mut Value) {
    if root.get("panels").is_some_and(Value::is_array) {
        return;
    }
    let mut panels = Vec::new();
    let mut y = 0;
    for row in list(root, "rows") {
        let titled = flag(row, "showTitle") || flag(row, "collapse");
        let height = row_height(row);
        let mut placed = Vec::new();
        let (mut x, mut line) = (0, y + usize::from(titled));
        for panel in list(row, "panels") {
            let w = (count(panel, "span").unwrap_or(4).clamp(1, 12)) * 2;
            if x + w > 24 {
                x = 0;
                line += height;
            }
            let mut panel = panel.clone();
            panel["gridPos"] = json!({"x": x, "y": line, "w": w, "h": height});
            placed.push(panel);
            x += w;
        }
        if titled {
            let collapsed = flag(row, "collapse");
            let inner = if collapsed {
                std::mem::take(&mut placed)
            } else {
                Vec::new()
            };
            panels.push(json!({
                "type": "row", "title": text(row, "title").unwrap_or_default(),
                "collapsed": collapsed, "panels": inner,
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            }));
        }
        panels.append(&mut placed);
        y = line + height;
    }
    root["panels"] = Value::Array(panels);
}

/// A row's height (`250px`, 250) in lines of 30 px and gaps of 8.
fn row_height(row: &Value) -> usize {
    let pixels = text(row, "height").unwrap_or_default();
    let pixels: usize = pixels.trim_end_matches("px").parse().unwrap_or(250);
    pixels.clamp(60, 1200).div_ceil(38)
}

/// `graph` and `singlestat` become `timeseries`, `stat` or `gauge`.
pub(super) fn migrate_panel(panel: &mut Value) {
    if !panel.is_object() {
        *panel = Value::Object(Map::new());
    }
    match text(panel, "type").unwrap_or_default().as_str() {
        "graph" => migrate_graph(panel),
        "singlestat" | "grafana-singlestat-panel" => migrate_singlestat(panel),
        "table-old" => panel["type"] = json!("table"),
        "text" if at(panel, "options.content").is_none() => {
            let content = text(panel, "content").unwrap_or_default();
            let mode = text(panel, "mode").unwrap_or_else(|| "markdown".to_owned());
            panel["options"] = json!({"content": content, "mode": mode});
        }
        _ => {}
    }
}

fn migrate_graph(panel: &mut Value) {
    let axis = list(panel, "yaxes").first().cloned().unwrap_or_default();
    let fill = number(panel, "fill").unwrap_or(1.0) * 10.0;
    let style = if flag(panel, "bars") {
        "bars"
    } else if at(panel, "lines") == Some(&Value::Bool(false)) && flag(panel, "points") {
        "points"
    } else {
        "line"
    };
    let stacking = match (flag(panel, "stack"), flag(panel, "percentage")) {
        (false, _) => "none",
        (true, false) => "normal",
        (true, true) => "percent",
    };
    let log = number(&axis, "logBase").filter(|base| *base > 1.0);
    let interpolation = if flag(panel, "steppedLine") {
        "stepAfter"
    } else {
        "linear"
    };
    let mut defaults = json!({
        "unit": words(&axis, "format").unwrap_or_else(|| "short".to_owned()),
        "custom": {
            "drawStyle": style, "fillOpacity": fill, "stacking": {"mode": stacking},
            "lineInterpolation": interpolation,
            "scaleDistribution": log.map_or(json!({"type": "linear"}), |base| json!({"type": "log", "log": base})),
        },
    });
    for (key, value) in [
        ("min", number(&axis, "min")),
        ("max", number(&axis, "max")),
        ("decimals", number(panel, "decimals")),
    ] {
        if let Some(value) = value {
            defaults[key] = json!(value);
        }
    }
    graph_thresholds(panel, &mut defaults);
    let overrides: Vec<Value> = at(panel, "aliasColors")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, color)| {
            json!({"matcher": {"id": "byName", "options": name},
                   "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]})
        })
        .collect();
    let options = json!({"legend": graph_legend(panel), "tooltip": {"mode": "multi"}});
    panel["fieldConfig"] = json!({"defaults": defaults, "overrides": overrides});
    panel["options"] = options;
    panel["type"] = json!("timeseries");
}

fn graph_thresholds(panel: &Value, defaults: &mut Value) {
    let mut steps = vec![json!({"color": "green", "value": null})];
    for threshold in list(panel, "thresholds") {
        if let Some(value) = number(threshold, "value") {
            let color = match text(threshold, "colorMode").as_deref() {
                Some("ok") => "green",
                Some("warning") => "orange",
                _ => "red",
            };
            steps.push(json!({"color": color, "value": value}));
        }
    }
    if steps.len() > 1 {
        defaults["thresholds"] = json!({"mode": "absolute", "steps": steps});
        defaults["custom"]["thresholdsStyle"] = json!({"mode": "line"});
    }
}

fn graph_legend(panel: &Value) -> Value {
    let calcs: Vec<&str> = [
        ("min", "min"),
        ("max", "max"),
        ("avg", "mean"),
        ("current", "lastNotNull"),
        ("total", "sum"),
    ]
    .into_iter()
    .filter(|(old, _)| flag(panel, &format!("legend.{old}")))
    .map(|(_, new)| new)
    .collect();
    json!({
        "showLegend": at(panel, "legend.show") != Some(&Value::Bool(false)),
        "displayMode": if flag(panel, "legend.alignAsTable") { "table" } else { "list" },
        "placement": if flag(panel, "legend.rightSide") { "right" } else { "bottom" },
        "calcs": if flag(panel, "legend.values") { calcs } else { Vec::new() },
    })
}

fn migrate_singlestat(panel: &mut Value) {
    let gauge = flag(panel, "gauge.show");
    let colors: Vec<String> = list(panel, "colors")
        .iter()
        .filter_map(|color| Some(color.as_str()?.to_owned()))
        .collect();
    let colored = flag(panel, "colorValue") || flag(panel, "colorBackground") || gauge;
    let levels = text(panel, "thresholds").unwrap_or_default();
    let mut steps =
        vec![json!({"color": colors.first().map_or("green", String::as_str), "value": null})];
    for (i, level) in levels.split(',').enumerate() {
        if let (Ok(value), true) = (level.trim().parse::<f64>(), colored) {
            steps.push(
                json!({"color": colors.get(i + 1).map_or("red", String::as_str), "value": value}),
            );
        }
    }
    let mut defaults = json!({
        "unit": words(panel, "format").unwrap_or_else(|| "none".to_owned()),
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": panel.get("valueMaps").cloned().unwrap_or_default(),
    });
    for (key, value) in [
        ("decimals", number(panel, "decimals")),
        ("min", number(panel, "gauge.minValue").filter(|_| gauge)),
        ("max", number(panel, "gauge.maxValue").filter(|_| gauge)),
    ] {
        if let Some(value) = value {
            defaults[key] = json!(value);
        }
    }
    if let Some(text) = words(panel, "nullText") {
        defaults["noValue"] = json!(text);
    }
    let calc = match text(panel, "valueName").as_deref() {
        Some("avg") => "mean",
        Some("min") => "min",
        Some("max") => "max",
        Some("total") => "sum",
        Some("first") => "first",
        _ => "lastNotNull",
    };
    let graph = if flag(panel, "sparkline.show") {
        "area"
    } else {
        "none"
    };
    panel["options"] = json!({"reduceOptions": {"calcs": [calc]}, "graphMode": graph,
        "colorMode": if colored { "value" } else { "none" }});
    panel["fieldConfig"] = json!({"defaults": defaults, "overrides": []});
    panel["type"] = json!(if gauge { "gauge" } else { "stat" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelfths_become_places() {
        let mut root = json!({"rows": [
            {"height": "250px", "panels": [{"span": 8}, {"span": 4}, {"span": 12}]},
            {"showTitle": true, "title": "T", "height": 100, "panels": [{"span": 6}]},
        ]});
        migrate_rows(&mut root);
        let places: Vec<String> = list(&root, "panels")
            .iter()
            .map(|p| p["gridPos"].to_string())
            .collect();
        assert_eq!(
            places,
            [
                r#"{"h":7,"w":16,"x":0,"y":0}"#,
                r#"{"h":7,"w":8,"x":16,"y":0}"#,
                r#"{"h":7,"w":24,"x":0,"y":7}"#,
                r#"{"h":1,"w":24,"x":0,"y":14}"#,
                r#"{"h":3,"w":12,"x":0,"y":15}"#,
            ]
        );
    }

    #[test]
    fn a_graph_becomes_a_time_series() {
        let mut panel = json!({"type": "graph", "stack": true, "fill": 3, "yaxes": [{"format": "bytes", "logBase": 10, "max": "100"}],
            "thresholds": [{"value": 5, "colorMode": "critical"}], "aliasColors": {"a": "#fff"},
            "legend": {"show": true, "values": true, "avg": true, "alignAsTable": true}});
        migrate_panel(&mut panel);
        assert_eq!(text(&panel, "type").unwrap(), "timeseries");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert_eq!(text(defaults, "unit").unwrap(), "bytes");
        assert_eq!(number(defaults, "max"), Some(100.0));
        assert_eq!(text(defaults, "custom.stacking.mode").unwrap(), "normal");
        assert_eq!(number(defaults, "custom.scaleDistribution.log"), Some(10.0));
        assert_eq!(panel["options"]["legend"]["calcs"], json!(["mean"]));
        assert_eq!(list(defaults, "thresholds.steps").len(), 2);
    }

    #[test]
    fn a_singlestat_becomes_a_stat_or_a_gauge() {
        let mut panel = json!({"type": "singlestat", "format": "percent", "thresholds": "50, 80", "colorValue": true,
            "colors": ["green", "orange", "red"], "valueName": "avg", "nullText": "none"});
        migrate_panel(&mut panel);
        assert_eq!(text(&panel, "type").unwrap(), "stat");
        assert_eq!(
            list(&panel, "fieldConfig.defaults.thresholds.steps").len(),
            3
        );
        assert_eq!(panel["options"]["reduceOptions"]["calcs"], json!(["mean"]));
        let mut panel = json!({"type": "singlestat", "gauge": {"show": true, "maxValue": 10}});
        migrate_panel(&mut panel);
        assert_eq!(text(&panel, "type").unwrap(), "gauge");
        assert_eq!(number(&panel, "fieldConfig.defaults.max"), Some(10.0));
    }
}
