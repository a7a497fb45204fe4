//! A receiver that a new configuration adds or renames hears of what stands, as by the
//! real Alertmanager 0.25; one that was told already is told nothing again.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::routing::post;
use serde_json::Value;

use crate::alertmanager::{Alertmanager, URL, alert, at, configure};
use crate::broker::free_port;
use crate::server::{Http, Server, eventually};

/// Who was told of how many alerts, and which of them.
#[derive(Clone, Default)]
struct Hooks(Arc<Mutex<Vec<String>>>);

impl Hooks {
    async fn start() -> (Hooks, u16) {
        let hooks = Hooks::default();
        let take =
            async |State(hooks): State<Hooks>, UrlPath(who): UrlPath<String>, body: String| {
                let message: Value = serde_json::from_str(&body).unwrap();
                let alerts = message["alerts"].as_array().unwrap();
                for alert in alerts {
                    let name = alert["labels"]["alertname"].as_str().unwrap();
                    let status = alert["status"].as_str().unwrap();
                    hooks
                        .0
                        .lock()
                        .unwrap()
                        .push(format!("{who} {name} {status}"));
                }
            };
        let router = Router::new()
            .route("/{who}", post(take))
            .with_state(hooks.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (hooks, port)
    }

    /// Waits for what is said, and takes all that was said till then.
    async fn told(&self, wanted: &[String]) {
        eventually(&format!("{wanted:?}"), || async {
            let said = self.0.lock().unwrap();
            wanted.iter().all(|one| said.contains(one)).then_some(())
        })
        .await;
        let mut said = std::mem::take(&mut *self.0.lock().unwrap());
        said.sort();
        assert_eq!(said, wanted);
    }
}

/// Each name is a receiver of all alerts.
fn tree(port: u16, who: &str, names: &[&str]) -> String {
    let route = |name: &&str| format!("  - {{receiver: {name}, continue: true}}\n");
    let receiver = |name: &&str| {
        let url = format!("http://127.0.0.1:{port}/{who}-{name}");
        format!("- {{name: {name}, webhook_configs: [{{url: '{url}'}}]}}\n")
    };
    let routes: String = names.iter().map(route).collect();
    let receivers: String = names.iter().map(receiver).collect();
    format!(
        "route:\n  receiver: nobody\n  group_by: [alertname]\n  group_wait: 1s\n  \
         group_interval: 1h\n  repeat_interval: 2h\n  routes:\n{routes}\
         receivers:\n- name: nobody\n{receivers}"
    )
}

async fn reload(url: &str) {
    let answer = Http::new().post(url, "text/plain", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn tell(url: &str, name: &str) {
    let alert = alert(&[("alertname", name)], &at(-60), &at(3_600));
    let body = serde_json::to_string(&[alert]).unwrap();
    let answer = Http::new().post(url, "application/json", body).await;
    assert_eq!(answer.status, 200);
}

fn said(who: &str, all: &[&str]) -> Vec<String> {
    let one = |said: &&str| format!("{who}-{said} firing");
    all.iter().map(one).collect()
}

fn write(dir: &Path, tree: String) {
    fs::write(dir.join("alertmanager.yml"), tree).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_new_hears_of_what_stands_and_the_others_nothing_twice() {
    let (hooks, port) = Hooks::start().await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &tree(port, "ours", &["a"]));
    let mut ours = Server::start(dir.path(), free_port()).await;
    let (alerts, reloads) = (ours.url("/api/v2/alerts"), ours.url("/-/reload"));
    tell(&alerts, "A").await;
    hooks.told(&said("ours", &["a A"])).await;
    write(dir.path(), tree(port, "ours", &["b"]));
    reload(&reloads).await;
    hooks.told(&said("ours", &["b A"])).await;
    // One more, and the same ones anew.
    write(dir.path(), tree(port, "ours", &["b", "c"]));
    reload(&reloads).await;
    hooks.told(&said("ours", &["c A"])).await;
    // A new name after a restart.
    write(dir.path(), tree(port, "ours", &["d", "c"]));
    ours.terminate().await;
    let ours = Server::start(dir.path(), ours.port).await;
    hooks.told(&said("ours", &["d A"])).await;
    // Whatever else would have come came before this.
    tell(&alerts, "B").await;
    hooks.told(&said("ours", &["c B", "d B"])).await;
    drop(ours);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_the_real_alertmanager() {
    let (hooks, port) = Hooks::start().await;
    let Some(theirs) = Alertmanager::start(&tree(port, "theirs", &["a"]), URL).await else {
        return;
    };
    let (alerts, reloads) = (theirs.url("/api/v2/alerts"), theirs.url("/-/reload"));
    tell(&alerts, "A").await;
    hooks.told(&said("theirs", &["a A"])).await;
    theirs.configure(&tree(port, "theirs", &["b"]));
    reload(&reloads).await;
    hooks.told(&said("theirs", &["b A"])).await;
    theirs.configure(&tree(port, "theirs", &["b", "c"]));
    reload(&reloads).await;
    hooks.told(&said("theirs", &["c A"])).await;
    tell(&alerts, "B").await;
    hooks.told(&said("theirs", &["b B", "c B"])).await;
}
