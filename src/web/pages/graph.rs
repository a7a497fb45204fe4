//! `/graph`: any query as a chart or a table. Links in notifications end here.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use serde_json::json;

use super::ask;
use super::frame::{Frame, respond, respond_with};
use super::request::Request;
use super::why;
use crate::model::Timestamp;
use crate::web::context::Context;
use crate::web::dashboard::data::{Answer, Job};
use crate::web::dashboard::interpolate::percent_encode;
use crate::web::dashboard::model::{Dashboard, Panel};
use crate::web::dashboard::plot;
use crate::web::dashboard::timerange::Range;
use crate::web::dashboard::view::{Page, PanelView};

#[derive(Template)]
#[template(path = "graph.html")]
struct GraphPage {
    frame: Frame,
    queries: Vec<QueryView>,
}

struct QueryView {
    place: usize,
    expr: String,
    as_table: bool,
    graph_url: String,
    table_url: String,
    stats: String,
    hidden: Vec<(String, String)>,
    warnings: Vec<String>,
    body: String,
}

/// Queries on one page; more are left out.
const QUERIES_MAX: usize = 8;
const BUDGET: Duration = Duration::from_secs(30);
/// Saying why there is nothing may take no longer than this.
const WHY_BUDGET: Duration = Duration::from_secs(5);

/// What all queries of a page share.
struct View {
    range: Range,
    zone: TimeZone,
    now: Timestamp,
    scrape_ms: i64,
}

impl View {
    fn new(context: &Context, request: &Request) -> View {
        let (now, zone) = (context.clock.now(), request.zone());
        let from = request.get("from").unwrap_or("now-1h");
        let interval = context.config().global.scrape_interval;
        View {
            range: Range::resolve(from, request.get("to").unwrap_or("now"), now, &zone),
            scrape_ms: interval.as_ms().max(1000),
            zone,
            now,
        }
    }

    fn job(&self, panel: &Panel) -> Job {
        Job::new(panel, &[], &self.range, self.scrape_ms, &self.zone)
    }

    fn page(&self, expr: &str) -> Page<'_> {
        let values = format!(
            "/graph/values.json?expr={}&from={}&to={}",
            percent_encode(expr),
            self.range.from.as_ms(),
            self.range.to.as_ms()
        );
        Page {
            variables: &[],
            range: &self.range,
            zone: &self.zone,
            now: self.now,
            path: "",
            query: "",
            values: Some(values),
        }
    }
}

pub(super) async fn page(State(context): State<Context>, request: Request) -> Response {
    let view = View::new(&context, &request);
    let mut queries = Vec::new();
    for place in 0..QUERIES_MAX {
        let name = format!("g{place}.expr");
        if place == 0 || request.get(&name).is_some() {
            let expr = request.get(&name).unwrap_or_default().to_owned();
            queries.push(query_view(&context, &request, &view, place, expr).await);
        }
    }
    let page = GraphPage {
        frame: Frame::new(&context, &request, "Explore", "/graph").with_time(&request, &view.range),
        queries,
    };
    respond(&request, StatusCode::OK, &page)
}

/// The exact values behind a chart of this page.
pub(super) async fn values(State(context): State<Context>, request: Request) -> Response {
    let view = View::new(&context, &request);
    let expr = request.get("expr").unwrap_or_default();
    let Some(panel) = panel_of(expr, false) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let job = view.job(&panel);
    let answer = ask::panels(&context, vec![job.clone()], BUDGET)
        .await
        .pop()
        .flatten()
        .unwrap_or_default();
    let values = plot::values(&panel, &job, &answer.frames, &view.page(expr));
    respond_with(
        &request,
        StatusCode::OK,
        values.to_string(),
        "application/json",
    )
}

async fn query_view(
    context: &Context,
    request: &Request,
    view: &View,
    place: usize,
    expr: String,
) -> QueryView {
    let tab = format!("g{place}.tab");
    // As Prometheus' own page: 1 is the table, 0 the graph.
    let as_table = matches!(request.get(&tab), Some("1" | "table"));
    let name = format!("g{place}.expr");
    let mut shown = QueryView {
        place,
        as_table,
        graph_url: request.with(&[(&tab, "0")]),
        table_url: request.with(&[(&tab, "1")]),
        stats: String::new(),
        hidden: request.without(|n| n == name),
        warnings: Vec::new(),
        body: String::new(),
        expr,
    };
    let Some(panel) = panel_of(&shown.expr, as_table) else {
        shown.body = hint();
        return shown;
    };
    let started = tokio::time::Instant::now();
    let job = view.job(&panel);
    let answer = ask::panels(context, vec![job.clone()], BUDGET)
        .await
        .pop()
        .flatten();
    let ms = started.elapsed().as_millis();
    shown.stats = stats(answer.as_ref(), ms);
    shown.warnings = answer
        .as_ref()
        .map(|a| a.warnings.clone())
        .unwrap_or_default();
    let panel = PanelView::new(&panel, &job, answer.as_ref(), &view.page(&shown.expr)).render();
    let is_empty = |a: &Answer| a.frames.is_empty() && a.faults.is_empty();
    let why = if answer.as_ref().is_some_and(is_empty) {
        why::explained(context, &shown.expr, view.range.to, WHY_BUDGET).await
    } else {
        String::new()
    };
    let panel = panel.unwrap_or_default();
    shown.body = format!("{why}<div class=\"grid\">{panel}</div>");
    shown
}

fn stats(answer: Option<&Answer>, ms: u128) -> String {
    let Some(answer) = answer else {
        return format!("no answer within {} s", BUDGET.as_secs());
    };
    let points: usize = answer.frames.iter().map(|frame| frame.samples.len()).sum();
    format!(
        "{} series, {points} points, {ms}\u{a0}ms",
        answer.frames.len()
    )
}

/// A panel that asks only this.
fn panel_of(expr: &str, as_table: bool) -> Option<Panel> {
    if expr.trim().is_empty() {
        return None;
    }
    let kind = if as_table { "table" } else { "timeseries" };
    let file = json!({"panels": [{
        "id": 0, "type": kind, "title": "", "gridPos": {"x": 0, "y": 0, "w": 24, "h": 12},
        "targets": [{"refId": "A", "expr": expr}],
        "fieldConfig": {"defaults": {"unit": "short", "custom": {"fillOpacity": 0}}},
        "options": {"legend": {"displayMode": "list", "calcs": ["lastNotNull"]}},
    }]});
    let dashboard = Dashboard::parse(&file.to_string(), "graph").ok()?;
    dashboard.panels().next().cloned()
}

fn hint() -> String {
    "<div class=\"card void\"><b>Ask anything in PromQL</b>Try <a href=\"/graph?g0.expr=up\">up</a>, \
     <a href=\"/graph?g0.expr=sum%20by%20(mode)%20(rate(node_cpu_seconds_total%5B1m%5D))\">processor time</a> or \
     <a href=\"/graph?g0.expr=topk(10%2C%20count%20by%20(__name__)%20(%7B__name__%3D~%22.%2B%22%7D))&amp;g0.tab=1\">the largest metrics</a>.</div>"
        .to_owned()
}
