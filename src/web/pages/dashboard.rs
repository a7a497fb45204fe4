//! `/d/{uid}`: a dashboard, its panels as fragments, and their exact values.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::tz::TimeZone;

use super::ask;
use super::error::refuse;
use super::frame::{Frame, respond, respond_with, seconds};
use super::request::Request;
use crate::model::{Matcher, Timestamp};
use crate::promql;
use crate::web::context::Context;
use crate::web::dashboard::data::{Answer, Job};
use crate::web::dashboard::library::Library;
use crate::web::dashboard::model::{Dashboard, Kind, Panel, Section};
use crate::web::dashboard::plot;
use crate::web::dashboard::resolve::{self, Source};
use crate::web::dashboard::timerange::{Range, steps};
use crate::web::dashboard::variables::{self, Resolved};
use crate::web::dashboard::view::{Page, PanelView};

#[derive(Template)]
#[template(path = "dashboard.html")]
struct DashboardPage {
    frame: Frame,
    uid: String,
    kiosk: String,
    hidden: Vec<(String, String)>,
    variables: Vec<VariableView>,
    sections: Vec<SectionView>,
}

/// A variable in the filter row.
struct VariableView {
    name: String,
    label: String,
    summary: String,
    several: bool,
    free: bool,
    can_all: bool,
    all: bool,
    options: Vec<OptionView>,
}

struct OptionView {
    text: String,
    value: String,
    chosen: bool,
}

struct SectionView {
    title: Option<String>,
    open: bool,
    why: &'static str,
    panels: Vec<String>,
}

/// The first response waits this long for its panels; the others come later.
const FIRST_BUDGET: Duration = Duration::from_millis(1500);
/// Fragments and pages that ask for everything wait longer.
const FULL_BUDGET: Duration = Duration::from_secs(30);
/// Lines of the grid that count as two screens.
const FIRST_LINES: usize = 54;
/// Panels in one request for fragments.
const FRAGMENTS_MAX: usize = 16;

/// Everything that one view of a dashboard shares.
struct View {
    dashboard: Arc<Dashboard>,
    range: Range,
    zone: TimeZone,
    now: Timestamp,
    variables: Vec<Resolved>,
    scrape_ms: i64,
    path: String,
    query: String,
}

impl View {
    async fn new(context: &Context, dashboard: &Arc<Dashboard>, request: &Request) -> View {
        let now = context.clock.now();
        let zone = request.zone();
        let from = request.get("from").unwrap_or(&dashboard.time_from);
        let to = request.get("to").unwrap_or(&dashboard.time_to);
        let range = Range::resolve(from, to, now, &zone);
        let interval = context.config().global.scrape_interval;
        let scrape_ms = interval.as_ms().max(1000);
        let variables = resolved(context, dashboard, request, &range, scrape_ms).await;
        View {
            dashboard: Arc::clone(dashboard),
            path: format!("/d/{}", dashboard.uid),
            query: request.query_without(&["viewPanel", "view", "panels", "all", "theme"]),
            range,
            zone,
            now,
            variables,
            scrape_ms,
        }
    }

    fn page(&self) -> Page<'_> {
        Page {
            variables: &self.variables,
            range: &self.range,
            zone: &self.zone,
            now: self.now,
            path: &self.path,
            query: &self.query,
            values: None,
        }
    }

    fn job(&self, panel: &Panel) -> Job {
        Job::new(
            panel,
            &self.variables,
            &self.range,
            self.scrape_ms,
            &self.zone,
        )
    }

    fn render(&self, panel: &Panel, answer: Option<&Answer>) -> String {
        let view = PanelView::new(panel, &self.job(panel), answer, &self.page());
        view.render().unwrap_or_else(|err| {
            tracing::error!(error = %err, "cannot render a panel");
            String::new()
        })
    }

    /// Panels with the answers they get within `budget`, by their index.
    async fn answers(
        &self,
        context: &Context,
        panels: &[&Panel],
        budget: Duration,
    ) -> Vec<(usize, Answer)> {
        let asking: Vec<&&Panel> = panels
            .iter()
            .filter(|panel| !matches!(panel.kind, Kind::Text | Kind::Unsupported(_)))
            .collect();
        let jobs = asking.iter().map(|panel| self.job(panel)).collect();
        let answers = ask::panels(context, jobs, budget).await;
        let pairs = asking.iter().zip(answers);
        pairs
            .filter_map(|(panel, answer)| Some((panel.index, answer?)))
            .collect()
    }
}

async fn resolved(
    context: &Context,
    dashboard: &Arc<Dashboard>,
    request: &Request,
    range: &Range,
    scrape_ms: i64,
) -> Vec<Resolved> {
    let (store, engine) = (context.store.clone(), context.engine.clone());
    let (dashboard, request, range) = (Arc::clone(dashboard), request.clone(), range.clone());
    let asked = context.gate.run(FIRST_BUDGET, move |cancel| {
        let source = Source {
            store: &store,
            engine: &engine,
            cancel,
            steps: steps(range.span_ms(), 480, scrape_ms, scrape_ms, 1),
            range: &range,
        };
        resolve::resolve(&dashboard.variables, &source, |name| {
            let name = format!("var-{name}");
            let values: Vec<String> = request
                .all(&name)
                .into_iter()
                .filter(|v| !v.is_empty())
                .collect();
            (!values.is_empty()).then_some(values)
        })
    });
    asked.await.unwrap_or_default()
}

pub(super) async fn page(
    State(context): State<Context>,
    Extension(library): Extension<Arc<Library>>,
    Path(uid): Path<String>,
    request: Request,
) -> Response {
    if let Some(dashboard) = uid.strip_suffix(".json").and_then(|uid| library.get(uid)) {
        return respond_with(
            &request,
            StatusCode::OK,
            dashboard.source.clone(),
            "application/json",
        );
    }
    let Some(dashboard) = library.get(&uid) else {
        return refuse(
            &context,
            &request,
            StatusCode::NOT_FOUND,
            &format!("There is no dashboard {uid}."),
        );
    };
    let view = View::new(&context, dashboard, &request).await;
    let present = sections_with_data(&context, &view).await;
    let alone = request
        .get("viewPanel")
        .and_then(|index| index.parse::<usize>().ok());
    let wanted = panels_to_ask(&view, &present, &request, alone);
    let budget = if request.has("all") || alone.is_some() {
        FULL_BUDGET
    } else {
        FIRST_BUDGET
    };
    let answers = view.answers(&context, &wanted, budget).await;
    let sections = match alone {
        Some(index) => vec![section_alone(
            &view,
            index,
            &answers,
            request.get("view") == Some("table"),
        )],
        None => view
            .dashboard
            .sections
            .iter()
            .zip(&present)
            .map(|(section, present)| section_view(&view, section, *present, &answers))
            .collect(),
    };
    let default_secs = seconds(&dashboard.refresh).unwrap_or(0);
    let mut frame = Frame::new(&context, &request, &dashboard.title, "/dashboards")
        .with_time(&request, &view.range)
        .with_refresh(&request, default_secs, !view.range.is_relative());
    frame.crumb = Some(("Dashboards", "/dashboards"));
    frame.panels = Some(format!("{}/panels", view.path));
    let page = DashboardPage {
        frame,
        uid,
        kiosk: request.with(&[("kiosk", "1")]),
        hidden: request.without(|name| name.starts_with("var-")),
        variables: view.variables.iter().filter_map(variable_view).collect(),
        sections,
    };
    respond(&request, StatusCode::OK, &page)
}

/// Grafana's links carry the title behind the uid; it says nothing.
pub(super) async fn page_with_slug(
    Path((uid, _)): Path<(String, String)>,
    request: Request,
) -> Redirect {
    let query = request.query_without(&[]);
    Redirect::permanent(&format!(
        "/d/{}?{query}",
        crate::web::dashboard::interpolate::percent_encode(&uid)
    ))
}

/// A panel by its index as HTML, as `.json` its exact values; `panels` with
/// `?panels=1,2,3` gives several.
pub(super) async fn panel(
    State(context): State<Context>,
    Extension(library): Extension<Arc<Library>>,
    Path((uid, panel)): Path<(String, String)>,
    request: Request,
) -> Response {
    let Some(dashboard) = library.get(&uid) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (name, as_json) = match panel.strip_suffix(".json") {
        Some(name) => (name, true),
        None => (panel.as_str(), false),
    };
    let list = if name == "panels" {
        request.get("panels").unwrap_or_default()
    } else {
        name
    };
    let wanted: Vec<usize> = list
        .split(',')
        .filter_map(|index| index.parse().ok())
        .take(FRAGMENTS_MAX)
        .collect();
    let panels: Vec<&Panel> = dashboard
        .panels()
        .filter(|panel| wanted.contains(&panel.index))
        .collect();
    if panels.is_empty() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let view = View::new(&context, dashboard, &request).await;
    let answers = view.answers(&context, &panels, FULL_BUDGET).await;
    if as_json {
        let nothing = Answer::default();
        let answer = answer_of(&answers, panels[0].index).unwrap_or(&nothing);
        let values = plot::values(
            panels[0],
            &view.job(panels[0]),
            &answer.frames,
            &view.page(),
        );
        return respond_with(
            &request,
            StatusCode::OK,
            values.to_string(),
            "application/json",
        );
    }
    let fragments: String = panels
        .iter()
        .map(|panel| view.render(panel, answer_of(&answers, panel.index)))
        .collect();
    respond_with(
        &request,
        StatusCode::OK,
        fragments,
        "text/html; charset=utf-8",
    )
}

fn answer_of(answers: &[(usize, Answer)], index: usize) -> Option<&Answer> {
    answers
        .iter()
        .find(|(i, _)| *i == index)
        .map(|(_, answer)| answer)
}

/// Whether each section has what it requires.
async fn sections_with_data(context: &Context, view: &View) -> Vec<bool> {
    let store = context.store.clone();
    let dashboard = Arc::clone(&view.dashboard);
    let (from, to) = (view.range.from, view.range.to);
    let count = dashboard.sections.len();
    let asked = context.gate.run(FIRST_BUDGET, move |_| {
        let has = |matchers: Vec<Matcher>| {
            store
                .series(&[matchers], from, to, 1)
                .is_ok_and(|series| !series.is_empty())
        };
        let sections = dashboard.sections.iter();
        sections
            .map(|section| {
                match section
                    .requires
                    .as_deref()
                    .map(promql::parser::parse_selector)
                {
                    Some(Ok(selector)) => has(selector.matchers),
                    _ => true,
                }
            })
            .collect::<Vec<bool>>()
    });
    asked.await.unwrap_or_else(|_| vec![true; count])
}

/// The panels of the first response: those that are open and near the top.
fn panels_to_ask<'a>(
    view: &'a View,
    present: &[bool],
    request: &Request,
    alone: Option<usize>,
) -> Vec<&'a Panel> {
    if let Some(index) = alone {
        return view
            .dashboard
            .panels()
            .filter(|panel| panel.index == index)
            .collect();
    }
    let all = request.has("all");
    let mut top = 0;
    let mut wanted = Vec::new();
    for (section, present) in view.dashboard.sections.iter().zip(present) {
        let open = *present && !section.collapsed;
        let below = section
            .panels
            .iter()
            .map(|p| p.grid.y + p.grid.h)
            .max()
            .unwrap_or(0);
        for panel in &section.panels {
            if all || open && top + panel.grid.y < FIRST_LINES {
                wanted.push(panel);
            }
        }
        top += 1 + if open { below } else { 0 };
    }
    wanted
}

fn section_view(
    view: &View,
    section: &Section,
    present: bool,
    answers: &[(usize, Answer)],
) -> SectionView {
    let panels = section.panels.iter();
    SectionView {
        title: section.title.clone(),
        open: present && !section.collapsed,
        why: if present { "" } else { "no source configured" },
        panels: panels
            .map(|panel| view.render(panel, answer_of(answers, panel.index)))
            .collect(),
    }
}

/// One panel over the whole page.
fn section_alone(
    view: &View,
    index: usize,
    answers: &[(usize, Answer)],
    as_table: bool,
) -> SectionView {
    let mut panels: Vec<Panel> = view
        .dashboard
        .panels()
        .filter(|panel| panel.index == index)
        .cloned()
        .collect();
    for panel in &mut panels {
        panel.grid.x = 0;
        panel.grid.y = 0;
        panel.grid.w = 24;
        panel.grid.h = 18;
        if as_table {
            panel.kind = Kind::Table;
        }
    }
    SectionView {
        title: None,
        open: true,
        why: "",
        panels: panels
            .iter()
            .map(|panel| view.render(panel, answer_of(answers, panel.index)))
            .collect(),
    }
}

fn variable_view(resolved: &Resolved) -> Option<VariableView> {
    let variable = &resolved.variable;
    if variable.hidden || variable.kind == variables::Kind::DataSource {
        return None;
    }
    Some(VariableView {
        name: variable.name.clone(),
        label: variable.label.clone(),
        summary: if resolved.variable.kind == variables::Kind::TextBox {
            resolved.values.first().cloned().unwrap_or_default()
        } else {
            resolved.summary()
        },
        several: variable.multi,
        free: matches!(
            variable.kind,
            variables::Kind::TextBox | variables::Kind::AdHoc
        ),
        can_all: variable.include_all,
        all: resolved.all,
        options: resolved
            .options
            .iter()
            .map(|option| OptionView {
                text: option.text.clone(),
                value: option.value.clone(),
                chosen: resolved.has(&option.value),
            })
            .collect(),
    })
}
