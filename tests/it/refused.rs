//! A receiver that refuses is asked again with the next flush of the group, as by the
//! real Alertmanager 0.25.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

use crate::alertmanager::{Alertmanager, URL, alert, at, configure};
use crate::broker::{eventually, free_port};
use crate::server::{Http, Server};

/// The first posts that are refused.
const REFUSED: usize = 2;

/// When posts came to each path, with their idempotency keys.
#[derive(Clone, Default)]
struct Hooks(Arc<Mutex<Vec<(String, Instant, String)>>>);

impl Hooks {
    async fn start() -> (Hooks, u16) {
        let hooks = Hooks::default();
        let router = Router::new()
            .route("/{name}", post(take))
            .with_state(hooks.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0));
        let listener = listener.await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (hooks, port)
    }

    fn of(&self, name: &str) -> Vec<(Instant, String)> {
        let all = self.0.lock().unwrap();
        let of = all.iter().filter(|(of, ..)| of == name);
        of.map(|(_, at, id)| (*at, id.clone())).collect()
    }
}

async fn take(
    State(hooks): State<Hooks>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> StatusCode {
    let id = headers.get("webhook-id");
    let id = id.map_or_else(String::new, |id| id.to_str().unwrap().to_owned());
    hooks
        .0
        .lock()
        .unwrap()
        .push((name.clone(), Instant::now(), id));
    match hooks.of(&name).len() > REFUSED {
        true => StatusCode::OK,
        false => StatusCode::BAD_REQUEST,
    }
}

fn tree(port: u16, name: &str) -> String {
    format!(
        "route: {{receiver: a, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: a, webhook_configs: [{{url: 'http://127.0.0.1:{port}/{name}'}}]}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_is_sent_again_with_the_next_flush_under_the_same_id() {
    let (hooks, port) = Hooks::start().await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &tree(port, "ours"));
    let ours = Server::start(dir.path(), free_port()).await;
    let theirs = Alertmanager::start(&tree(port, "theirs"), URL).await;
    let http = Http::new();
    let body = |name: &str| {
        let alert = alert(&[("alertname", name)], &at(-1), &at(3_600));
        serde_json::to_string(&[alert]).unwrap()
    };
    let mut names = vec!["ours"];
    http.post(&ours.url("/api/v2/alerts"), "application/json", body("a"))
        .await;
    if let Some(theirs) = &theirs {
        names.push("theirs");
        let url = theirs.url("/api/v2/alerts");
        http.post(&url, "application/json", body("a")).await;
    }
    for name in names {
        let posts = eventually("the message is taken", || {
            Some(hooks.of(name)).filter(|posts| posts.len() > REFUSED)
        })
        .await;
        for pair in posts.windows(2) {
            let between = pair[1].0 - pair[0].0;
            assert!(between > Duration::from_millis(900), "{name}: {between:?}");
            assert_eq!(pair[1].1, pair[0].1, "{name}: another id");
        }
    }
    // What was taken is not sent again: the next message is the next fact.
    let next = body("b");
    http.post(&ours.url("/api/v2/alerts"), "application/json", next)
        .await;
    let posts = eventually("the next alert is told", || {
        Some(hooks.of("ours")).filter(|posts| posts.len() > REFUSED + 1)
    })
    .await;
    assert_ne!(posts[REFUSED].1, posts[REFUSED + 1].1);
}
