//! `/dashboards`: what there is to look at.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json, response::IntoResponse};
use serde::Serialize;

use super::frame::{Frame, respond};
use super::request::Request;
use crate::web::context::Context;
use crate::web::dashboard::library::Library;

#[derive(Template)]
#[template(path = "dashboards.html")]
struct DashboardsPage {
    frame: Frame,
    dashboards: Vec<Listed>,
    broken: Vec<(String, String)>,
}

/// A dashboard in a list.
#[derive(Serialize)]
pub(super) struct Listed {
    pub(super) uid: String,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) tags: Vec<String>,
    pub(super) panels: usize,
}

pub(super) async fn page(
    State(context): State<Context>,
    Extension(library): Extension<Arc<Library>>,
    request: Request,
) -> Response {
    let dashboards = listed(&library);
    if request.get("format") == Some("json") {
        return Json(dashboards).into_response();
    }
    let page = DashboardsPage {
        frame: Frame::new(&context, &request, "Dashboards", "/dashboards"),
        dashboards,
        broken: library.broken().to_vec(),
    };
    respond(&request, StatusCode::OK, &page)
}

/// All dashboards in order.
pub(super) fn listed(library: &Library) -> Vec<Listed> {
    let list = library.list().iter();
    list.map(|d| Listed {
        uid: d.uid.clone(),
        title: d.title.clone(),
        description: d.description.clone(),
        tags: d.tags.clone(),
        panels: d.panels().count(),
    })
    .collect()
}
