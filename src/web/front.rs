//! The server's outer side: it answers from the first moment, with what there is.
//!
//! The listener is bound before the store is opened. Until [`Web::open`] only the few
//! early routes exist; after it all do, but answer 503 until the process says that it
//! is ready, and again when it stops.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::auth::{Access, AccessCache};
use super::context::Context;
use super::listener::{self, Listeners};
use super::router;
use crate::config::Config;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// What there is before the store is open. Cloning gives another handle.
#[derive(Clone)]
pub struct Front(Arc<Parts>);

struct Parts {
    metrics: Arc<Metrics>,
    config: watch::Receiver<Arc<Config>>,
    ready: watch::Receiver<bool>,
    access: AccessCache,
}

impl Front {
    /// `config` is the one in force, `ready` whether every part runs.
    pub fn new(
        metrics: Arc<Metrics>,
        config: watch::Receiver<Arc<Config>>,
        ready: watch::Receiver<bool>,
    ) -> Front {
        Front(Arc::new(Parts {
            metrics,
            config,
            ready,
            access: AccessCache::new(),
        }))
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0.config.borrow())
    }

    pub(super) fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    pub(super) fn access(&self) -> Arc<Access> {
        self.0.access.of(self.config())
    }
}

/// The running server. Cloning gives another handle.
#[derive(Clone)]
pub struct Web {
    front: Front,
    early: Router,
    full: Arc<OnceLock<Router>>,
}

/// Serves the listeners until `stop`; requests under way get a moment to end. Each
/// accept loop is vital: its end sets `tasks.fatal()`.
pub fn serve(front: Front, listeners: Listeners, tasks: &Tasks, stop: &CancellationToken) -> Web {
    let slots = front.config().server.connections_max;
    let web = Web {
        early: router::early(front.clone()),
        full: Arc::default(),
        front,
    };
    listener::spawn(&web, listeners, slots, tasks, stop);
    web
}

impl Web {
    /// Opens all routes. `push` are those of the sources that take requests.
    /// A second call changes nothing.
    pub fn open(&self, context: Context, push: Router) {
        self.full
            .get_or_init(|| router::full(self.front.clone(), context, push));
    }

    pub(super) fn metrics(&self) -> &Metrics {
        self.front.metrics()
    }

    /// Answers one request; a panic in a handler ends only that request.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response {
        let router = self.full.get().unwrap_or(&self.early).clone();
        match AssertUnwindSafe(router.oneshot(request))
            .catch_unwind()
            .await
        {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                tracing::error!("a handler panicked");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use http_body_util::BodyExt as _;

    use super::*;

    struct Case {
        web: Web,
        ready: watch::Sender<bool>,
        _config: watch::Sender<Arc<Config>>,
    }

    fn case(text: &str) -> Case {
        let config = Config::parse(text, "c.toml").unwrap();
        let (config, in_force) = watch::channel(Arc::new(config));
        let (ready, is_ready) = watch::channel(false);
        let front = Front::new(Metrics::new(), in_force, is_ready);
        let web = Web {
            early: router::early(front.clone()),
            full: Arc::default(),
            front,
        };
        Case {
            web,
            ready,
            _config: config,
        }
    }

    impl Case {
        async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (Response, String) {
            let mut request = Request::builder().uri(path).header("host", "127.0.0.1");
            for (name, value) in headers {
                request.headers_mut().unwrap().insert(
                    name.parse::<header::HeaderName>().unwrap(),
                    value.parse().unwrap(),
                );
            }
            let response = self.web.answer(request.body(Body::empty()).unwrap()).await;
            let (head, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            (Response::from_parts(head, Body::empty()), text)
        }
    }

    #[tokio::test]
    async fn before_the_store_is_open_only_the_early_paths_answer() {
        let case = case("");
        for path in ["/-/healthy", "/health", "/api/v1/status/walreplay"] {
            assert_eq!(case.get(path, &[]).await.0.status(), 200, "{path}");
        }
        for path in ["/", "/-/ready", "/api/v1/query?query=up", "/d/x"] {
            let (response, _) = case.get(path, &[]).await;
            assert_eq!(response.status(), 503, "{path}");
            assert_eq!(response.headers()["retry-after"], "1");
        }
        let (_, metrics) = case.get("/metrics", &[]).await;
        for line in [
            r#"http_requests_total{handler="none",method="GET",status="503"} 4"#,
            r#"http_requests_total{handler="/health",method="GET",status="200"} 1"#,
            r#"http_requests_in_progress{handler="/metrics",method="GET"} 1"#,
            r#"http_requests_inprogress{handler="/metrics",method="GET"} 1"#,
            r#"pulse_ui_refused_total{reason="not_ready"} 4"#,
        ] {
            assert!(metrics.contains(line), "{line} not in\n{metrics}");
        }
    }

    #[tokio::test]
    async fn every_answer_carries_the_headers_that_protect_a_browser() {
        let case = case("");
        for path in ["/health", "/nowhere"] {
            let (response, _) = case.get(path, &[]).await;
            let csp = &response.headers()[header::CONTENT_SECURITY_POLICY];
            assert!(csp.to_str().unwrap().starts_with("default-src 'none'"));
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            assert!(
                !response
                    .headers()
                    .contains_key("access-control-allow-origin")
            );
        }
    }

    #[tokio::test]
    async fn metrics_are_compressed_for_who_takes_it() {
        let case = case("");
        let (response, _) = case.get("/metrics", &[("accept-encoding", "gzip")]).await;
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        let (response, _) = case.get("/metrics", &[]).await;
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[tokio::test]
    async fn metrics_come_in_the_form_that_is_asked_for() {
        let case = case("");
        for (accept, media_type) in [
            ("*/*", "text/plain; version=0.0.4"),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                "application/openmetrics-text; version=1.0.0",
            ),
        ] {
            let (response, body) = case.get("/metrics", &[("accept", accept)]).await;
            let found = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
            assert!(found.starts_with(media_type), "{found}");
            assert_eq!(
                body.ends_with("# EOF\n"),
                media_type.contains("openmetrics")
            );
        }
    }

    #[tokio::test]
    async fn a_view_that_is_off_is_not_shown() {
        let case = case("[metrics]\nviews = [\"node\"]");
        let (_, metrics) = case.get("/metrics", &[]).await;
        assert!(!metrics.contains("http_requests_total"));
        assert!(metrics.contains("pulse_delivery_total"));
    }

    #[tokio::test]
    async fn the_token_guards_all_but_the_health_paths() {
        let case = case("[auth]\ntoken = \"s3cret\"");
        case.ready.send_replace(true);
        assert_eq!(case.get("/health", &[]).await.0.status(), 200);
        let (response, _) = case.get("/metrics", &[]).await;
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
        let bearer = [("authorization", "Bearer s3cret")];
        assert_eq!(case.get("/metrics", &bearer).await.0.status(), 200);
    }

    #[tokio::test]
    async fn a_strange_host_name_is_refused() {
        let case = case("");
        let (response, _) = case.get("/metrics", &[("host", "evil.example")]).await;
        assert_eq!(response.status(), 421);
    }
}
