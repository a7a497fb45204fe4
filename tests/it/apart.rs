//! Groups of one receiver do not wait for each other, as in Alertmanager: neither for
//! those that it refuses to take, nor for those that it takes slowly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;

use crate::alertmanager::{alert, at, configure};
use crate::broker::free_port;
use crate::server::{Server, eventually};

/// A receiver.
#[derive(Clone)]
struct Hook(Arc<Calls>);

struct Calls {
    /// What it got, with how it answered.
    answered: Mutex<Vec<(String, StatusCode)>>,
    under_way: AtomicUsize,
    /// So many slow ones have to be under way before one is answered.
    together: usize,
}

/// A call that is under way, until its sender gives up or has an answer.
struct UnderWay(Hook);

impl UnderWay {
    fn new(hook: &Hook) -> UnderWay {
        hook.0.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(hook.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hook {
    /// Fails for all that `Bad` is told of, and takes its time for `Slow` while it fires.
    async fn start(together: usize) -> (Hook, u16) {
        let hook = Hook(Arc::new(Calls {
            answered: Mutex::default(),
            under_way: AtomicUsize::new(0),
            together,
        }));
        let take = async |State(hook): State<Hook>, body: String| {
            let under_way = UnderWay::new(&hook);
            let status = match body.contains("Bad") {
                true => StatusCode::INTERNAL_SERVER_ERROR,
                false => StatusCode::OK,
            };
            if body.contains("Slow") && !body.contains(r#""status":"resolved""#) {
                while hook.under_way() < hook.0.together {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(SLOW).await;
            }
            hook.0.answered.lock().unwrap().push((body, status));
            drop(under_way);
            status
        };
        let router = Router::new()
            .route("/", post(take))
            .with_state(hook.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (hook, port)
    }

    fn count(&self, name: &str) -> usize {
        let all = self.0.answered.lock().unwrap();
        all.iter().filter(|(body, _)| body.contains(name)).count()
    }

    fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::SeqCst)
    }
}

/// How long a slow receiver takes for one message.
const SLOW: Duration = Duration::from_secs(2);

fn tree(port: u16, interval: &str) -> String {
    format!(
        "route: {{receiver: a, group_by: [alertname], group_wait: 0s, group_interval: {interval}}}\n\
         receivers: [{{name: a, webhook_configs: [{{url: 'http://127.0.0.1:{port}/'}}]}}]\n"
    )
}

async fn start() -> (tempfile::TempDir, Hook, Server) {
    start_with("1h", 1).await
}

async fn start_with(interval: &str, together: usize) -> (tempfile::TempDir, Hook, Server) {
    let (hook, port) = Hook::start(together).await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &tree(port, interval));
    let server = Server::start(dir.path(), free_port()).await;
    (dir, hook, server)
}

async fn tell(server: &Server, names: &[String]) {
    tell_till(server, names, 3_600).await;
}

async fn tell_till(server: &Server, names: &[String], end: i64) {
    let one = |name: &String| alert(&[("alertname", name)], &at(-60), &at(end));
    let all: Vec<_> = names.iter().map(one).collect();
    let url = server.url("/api/v2/alerts");
    let body = serde_json::to_string(&all).unwrap();
    let answer = server.http.clone().post_owned(url, body).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_a_receiver_never_takes_hold_up_no_other_group() {
    let (_dir, hook, server) = start().await;
    let names =
        |word: &str, n: usize| -> Vec<String> { (0..n).map(|i| format!("{word}{i}x")).collect() };
    let bad = names("Bad", 3);
    tell(&server, &bad).await;
    // Long enough for tries of each that are seconds apart.
    eventually("each is tried again and again", || async {
        bad.iter().all(|name| hook.count(name) >= 6).then_some(())
    })
    .await;
    for name in names("Good", 3) {
        let told = Instant::now();
        tell(&server, std::slice::from_ref(&name)).await;
        eventually("a group that is taken", || async {
            (hook.count(&name) > 0).then_some(())
        })
        .await;
        // An open breaker's first probe comes after half a minute.
        assert!(told.elapsed() < SLOW * 7, "{name}: {:?}", told.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_groups_of_a_slow_receiver_are_told_at_once() {
    // It answers none until it was asked for all of them.
    let (_dir, hook, server) = start_with("1h", 40).await;
    let names: Vec<String> = (0..40).map(|i| format!("Slow{i}x")).collect();
    tell(&server, &names).await;
    eventually("all of them", || async {
        names.iter().all(|name| hook.count(name) == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_takes_that_it_fires_before_that_it_ended() {
    let (_dir, hook, server) = start_with("1s", 1).await;
    let names = ["Slow".to_owned()];
    tell(&server, &names).await;
    eventually("the message is under way", || async {
        (hook.under_way() > 0).then_some(())
    })
    .await;
    tell_till(&server, &names, -1).await;
    eventually("both of them", || async {
        (hook.count("Slow") >= 2).then_some(())
    })
    .await;
    let said = hook.0.answered.lock().unwrap().clone();
    let fires = |(body, _): &(String, StatusCode)| !body.contains(r#""status":"resolved""#);
    let order: Vec<bool> = said.iter().map(fires).collect();
    assert_eq!(order, [true, false]);
}
