//! Where receivers lead elsewhere: followed as by the real Alertmanager 0.25, beside it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use crate::alertmanager::{Alertmanager, URL, alert, at, configure};
use crate::broker::free_port;
use crate::server::{Http, Server, eventually};

/// Method, path, whether there was a body, and whether there were credentials.
type Got = (String, String, bool, bool);

/// Leads `/STATUS/REST` to `/REST`, `/round` to itself and `/metadata` to where nobody
/// may go; takes all else.
#[derive(Clone, Default)]
struct Hook(Arc<Mutex<Vec<Got>>>);

impl Hook {
    async fn start() -> (Hook, u16) {
        let hook = Hook::default();
        let router = Router::new().fallback(answer).with_state(hook.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (hook, port)
    }

    fn of(&self, path: &str) -> Vec<Got> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|got| got.1 == path).cloned().collect()
    }
}

async fn answer(
    State(hook): State<Hook>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let path = uri.path().to_owned();
    let got = (
        method.to_string(),
        path.clone(),
        !body.is_empty(),
        headers.contains_key("authorization"),
    );
    hook.0.lock().unwrap().push(got);
    let first = path[1..].split('/').next().unwrap_or_default();
    let (status, to) = match first.parse::<u16>() {
        Ok(status) => (status, path[4..].to_owned()),
        Err(_) if first == "round" => (307, path),
        Err(_) if first == "metadata" => (307, "http://169.254.169.254/latest".to_owned()),
        Err(_) => return StatusCode::OK.into_response(),
    };
    // A name that leads to the same place, but is another host.
    let port = headers["host"]
        .to_str()
        .unwrap()
        .rsplit_once(':')
        .unwrap()
        .1;
    let to = to.replace("/other/", &format!("http://localhost:{port}/"));
    (StatusCode::from_u16(status).unwrap(), [("location", to)]).into_response()
}

/// Where each of `who`'s messages begin and end.
fn ways(who: &str) -> Vec<(String, Got)> {
    let way = |from: &str, method: &str, to: &str, body: bool, auth: bool| {
        let to = format!("/{who}{to}");
        let from = from.replace("WHO", who);
        (from, (method.to_owned(), to, body, auth))
    };
    vec![
        way("/307/WHO/a", "POST", "/a", true, true),
        way("/308/WHO/b", "POST", "/b", true, true),
        way("/301/WHO/c", "GET", "/c", false, true),
        way("/302/WHO/d", "GET", "/d", false, true),
        way("/303/302/WHO/e", "GET", "/e", false, true),
        way(
            "/307/307/307/307/307/307/307/307/307/WHO/f",
            "POST",
            "/f",
            true,
            true,
        ),
    ]
}

fn tree(port: u16, who: &str, more: &str) -> String {
    let auth = "basic_auth: {username: u, password: p}";
    let one = |(from, _): &(String, Got)| {
        let url = format!("http://127.0.0.1:{port}{from}");
        format!("  - {{url: '{url}', http_config: {{{auth}}}}}\n")
    };
    let all: String = ways(who).iter().map(one).collect();
    format!(
        "route: {{receiver: a, group_wait: 0s, group_interval: 1h}}\n\
         receivers:\n- name: a\n  webhook_configs:\n{all}{more}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_followed_as_by_alertmanager_and_nowhere_that_is_forbidden() {
    let (hook, port) = Hook::start().await;
    let auth = "basic_auth: {username: u, password: p}";
    let one = |path: &str, more: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        format!("  - {{url: '{url}', http_config: {{{auth}{more}}}}}\n")
    };
    // Where we are stricter or were told not to go.
    let own = [
        one("/307/other/elsewhere", ""),
        one("/307/never", ", follow_redirects: false"),
        one("/metadata", ""),
        one("/round", ""),
    ];
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &tree(port, "ours", &own.concat()));
    let ours = Server::start(dir.path(), free_port()).await;
    let theirs = Alertmanager::start(&tree(port, "theirs", ""), URL).await;
    let http = Http::new();
    let alert = alert(&[("alertname", "A")], &at(-1), &at(3_600));
    let body = serde_json::to_string(&[alert]).unwrap();
    let mut told = vec![("ours", ours.url("/api/v2/alerts"))];
    if let Some(theirs) = &theirs {
        told.push(("theirs", theirs.url("/api/v2/alerts")));
    }
    for (who, url) in told {
        http.post(&url, "application/json", body.clone()).await;
        for (from, want) in ways(who) {
            eventually(&from, || async {
                (!hook.of(&want.1).is_empty()).then_some(())
            })
            .await;
            assert_eq!(hook.of(&want.1)[0], want, "{from}");
        }
    }
    eventually("another host", || async {
        (!hook.of("/elsewhere").is_empty()).then_some(())
    })
    .await;
    let got = hook.of("/elsewhere").remove(0);
    assert!(got.2 && !got.3, "the other host got credentials: {got:?}");
    for words in [
        "status 307: redirects are not followed",
        "stopped after 10 redirects",
        "link-local or cloud metadata",
    ] {
        eventually(words, || async {
            let page = ours.get("/targets").await;
            page.text().contains(words).then_some(())
        })
        .await;
    }
    assert_eq!(hook.of("/never"), Vec::<Got>::new());
}
