//! `/api/v2/status`: who we are and what we were told to do.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::config::shown;
use super::scope::Scope;
use crate::web::Context;

/// The version of the API that is spoken here; amtool compares it with its own.
const API_VERSION: &str = "0.25.0";

/// Who we are.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    cluster: Cluster,
    config: Original,
    uptime: String,
    version_info: Version,
}

#[derive(Serialize)]
struct Cluster {
    peers: [(); 0],
    status: &'static str,
}

#[derive(Serialize)]
struct Original {
    original: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    branch: &'static str,
    build_date: &'static str,
    build_user: &'static str,
    go_version: &'static str,
    revision: &'static str,
    version: &'static str,
}

/// The tree as an `alertmanager.yml` that amtool can read. A tenant sees nobody's.
pub async fn status(State(context): State<Context>, scope: Scope) -> Json<Status> {
    let original = match scope {
        Scope::Operator => shown(&context.config()),
        Scope::Tenant(_) => String::new(),
    };
    Json(Status {
        cluster: Cluster {
            peers: [],
            status: "disabled",
        },
        config: Original { original },
        uptime: context.started.to_rfc3339(),
        version_info: Version {
            branch: "pulse",
            build_date: "",
            build_user: "",
            go_version: "",
            revision: concat!("pulse ", env!("CARGO_PKG_VERSION")),
            version: API_VERSION,
        },
    })
}
