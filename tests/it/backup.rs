//! `pulse backup`, `pulse restore` and `pulse verify` with the real binary.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::broker::free_port;
use crate::ledger::Ledger;
use crate::server::{Http, Server, eventually};

/// Runs a sub-command.
fn pulse(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pulse"))
        .args(args)
        .env_remove("PULSE_CONFIG")
        .output()
        .unwrap()
}

/// Runs a sub-command that must succeed; gives what it says.
pub(crate) fn pulse_says(args: &[&str]) -> String {
    let output = pulse(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {text}{err}");
    text
}

/// Every checksum of a data directory is right, whether a process has it or not.
pub(crate) fn assert_verified(data: &Path) {
    let text = pulse_says(&["verify", "--data-dir", data.to_str().unwrap()]);
    assert!(text.trim().ends_with(" 0 faults"), "{text}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Pushes the ledger's ids one batch after the other; `acked` is how far it came.
async fn push(http: Http, port: u16, ledger: Ledger, acked: Arc<AtomicU64>) {
    for id in ledger.ids.clone() {
        let url = format!(
            "http://127.0.0.1:{port}/api/v1/ingest/{}?device=d{}",
            ledger.tenant,
            id % 20
        );
        let answer = http.clone().post_owned(url, ledger.payload(id)).await;
        assert_eq!(answer.status / 100, 2, "{}", answer.text());
        acked.store(id + 1, Ordering::Release);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_server_under_load_restores_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let now = pulse::model::Clock::System.now().as_ms();
    let ledger = Ledger {
        tenant: "acme",
        base_ms: u64::try_from(now).unwrap() - 600_000,
        ids: 0..3_000,
    };
    let acked = Arc::new(AtomicU64::new(0));
    let pushing = tokio::spawn(push(
        server.http.clone(),
        server.port,
        ledger.clone(),
        Arc::clone(&acked),
    ));
    eventually("half is pushed", || async {
        (acked.load(Ordering::Acquire) > 1_000).then_some(())
    })
    .await;
    let before = acked.load(Ordering::Acquire);
    let data = dir.path().join("data");
    let file = dir.path().join("b.pulse");
    let args = ["backup", text(&file), "--data-dir", text(&data)].map(str::to_owned);
    let said = tokio::task::spawn_blocking(move || pulse_says(&args.each_ref().map(|a| &**a)));
    let said = said.await.unwrap();
    assert!(said.contains("everything up to commit"), "{said}");
    assert_verified(&data);
    let again = pulse(&["backup", text(&file), "--data-dir", text(&data)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
    let inside = data.join("b.pulse");
    let itself = pulse(&["backup", text(&inside), "--data-dir", text(&data)]);
    assert_eq!(itself.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&itself.stderr).contains("inside the data directory"));
    assert!(!inside.exists());
    // The secret is needed, and no other one will do.
    let url = server.url("/api/v1/local/backup");
    let answer = server.http.post(&url, "application/json", "").await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    pushing.await.unwrap();
    drop(server);

    let other = tempfile::tempdir().unwrap();
    let into = other.path().join("data");
    pulse_says(&["verify", text(&file)]);
    pulse_says(&["restore", text(&file), "--data-dir", text(&into)]);
    assert_verified(&into);
    let restored = Server::start(other.path(), free_port()).await;
    // Samples up to some id, without a gap, and that id is not before the backup's begin.
    let ids = restored
        .query("sum(count_over_time(v{tenant_id=\"acme\"}[1h]))")
        .await;
    let stored: u64 = ids[0]["value"][1].as_str().unwrap().parse().unwrap();
    assert!(
        stored >= before,
        "{stored} of {before} acknowledged samples"
    );
    let part = |n: u64| Ledger {
        ids: 0..n,
        ..ledger.clone()
    };
    assert_eq!(part(stored).faults(&restored).await, Vec::<String>::new());
    // The control: one more is missed.
    assert_eq!(part(stored + 1).faults(&restored).await.len(), 1);

    // A bad backup is refused by name; a directory in use is not overwritten.
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let bad = dir.path().join("bad.pulse");
    fs::write(&bad, &bytes).unwrap();
    let third = dir.path().join("third");
    let refused = pulse(&["restore", text(&bad), "--data-dir", text(&third)]);
    assert_eq!(refused.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        complaint.contains("bad.pulse is damaged at byte"),
        "{complaint}"
    );
    assert!(!third.exists());
    let refused = pulse(&["restore", text(&file), "--data-dir", text(&into)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not empty"));
}

#[tokio::test]
async fn verify_names_the_file_and_the_page_of_a_flipped_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    eventually("own metrics are stored", || async {
        (server.value("count(up)").await >= Some(1.0)).then_some(())
    })
    .await;
    assert_eq!(server.terminate().await, Some(0));
    let data = dir.path().join("data");
    assert_verified(&data);
    // Flip a bit in the middle of the log: in each copy of a text that stands there.
    let hot = data.join("hot.redb");
    let whole = fs::read(&hot).unwrap();
    let mut flipped = whole.clone();
    let needle = b"pulse_store_commits_total";
    let mut hits = 0;
    for at in 0..flipped.len() - needle.len() {
        if flipped[at..].starts_with(needle) {
            flipped[at + 3] ^= 1;
            hits += 1;
        }
    }
    assert!(hits > 0, "no such text");
    fs::write(&hot, flipped).unwrap();
    let output = pulse(&["verify", text(&data)]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("hot.redb"), "{complaint}");
    fs::write(&hot, whole).unwrap();
    assert_verified(&data);
}

/// Asks the admin API; gives the status and the body.
async fn admin(server: &Server, path: &str) -> (u16, String) {
    let url = server.url(&format!("/api/v1/admin/tsdb/{path}"));
    let form = "application/x-www-form-urlencoded";
    let answer = server.http.post(&url, form, "").await;
    (answer.status, answer.text().to_owned())
}

#[tokio::test]
async fn the_admin_api_is_off_until_it_is_switched_on() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut server = Server::start(dir.path(), port).await;
    for call in ["delete_series", "clean_tombstones", "snapshot", "compact"] {
        let (status, body) = admin(&server, call).await;
        let wanted = "{\"status\":\"error\",\"errorType\":\"unavailable\",\
                      \"error\":\"admin APIs disabled\"}";
        assert_eq!((status, body.as_str()), (503, wanted), "{call}");
    }
    assert_eq!(server.terminate().await, Some(0));
    fs::write(
        dir.path().join("pulse.toml"),
        "[server]\nenable_admin_api = true\n",
    )
    .unwrap();
    // The same series go on: the port is their instance.
    let mut server = Server::start(dir.path(), port).await;
    eventually("own metrics are stored", || async {
        (server.value("up{job=\"pulse\"}").await == Some(1.0)).then_some(())
    })
    .await;
    let (status, body) = admin(&server, "delete_series").await;
    assert_eq!(status, 400);
    assert!(body.contains("no match[] parameter provided"), "{body}");
    let get = server.get("/api/v1/admin/tsdb/snapshot").await;
    assert_eq!(get.status, 405);

    let (status, body) = admin(&server, "snapshot?skip_head=0").await;
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let name = body["data"]["name"].as_str().unwrap();
    assert_verified(&dir.path().join("data/snapshots").join(name));
    let (status, body) = admin(&server, "snapshot?skip_head=x").await;
    assert_eq!(status, 400);
    assert!(
        body.contains("invalid parameter \\\"skip_head\\\""),
        "{body}"
    );

    let gone = "delete_series?match[]=pulse_store_commits_total&match[]=up";
    assert_eq!(admin(&server, gone).await, (204, String::new()));
    let left = "count_over_time(pulse_store_commits_total[1h])";
    let left = server.value(left).await.unwrap_or(0.0);
    assert!(left <= 1.0, "{left} samples, one may have come since");
    assert_eq!(admin(&server, "compact").await, (204, String::new()));
    assert_eq!(
        admin(&server, "clean_tombstones").await,
        (204, String::new())
    );
    assert_eq!(server.terminate().await, Some(0));
    assert_verified(&dir.path().join("data"));
}

/// Every file of a directory but the lock, with its bytes.
fn all_bytes(data: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(data).unwrap().map(|e| e.unwrap().path());
    let files = entries.filter(|path| path.is_file() && !path.ends_with("LOCK"));
    let mut all: Vec<_> = files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_read_only_start_answers_queries_refuses_pushes_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    let push = |server: &Server, v: u32| {
        let url = server.url("/api/v1/ingest/acme?device=d1");
        let http = server.http.clone();
        async move { http.post_owned(url, format!("{{\"v\":{v}}}")).await.status }
    };
    assert_eq!(push(&server, 7).await / 100, 2);
    // As a crash leaves it.
    server.kill();
    let data = dir.path().join("data");
    let before = all_bytes(&data);
    fs::write(dir.path().join("pulse.toml"), "[store]\nread_only = true\n").unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    let value = server
        .value("last_over_time(v{device_id=\"d1\"}[1h])")
        .await;
    assert_eq!(value, Some(7.0));
    assert_eq!(server.get("/").await.status, 200);
    let metrics = server.get("/metrics").await;
    assert!(metrics.text().contains("\npulse_store_read_only 1\n"));
    let status = push(&server, 8).await;
    assert!(status >= 500, "a push is answered with {status}");
    assert_eq!(server.terminate().await, Some(0));
    assert_eq!(all_bytes(&data), before);
    assert_verified(&data);
    // The control: with writes allowed the start does change something.
    fs::remove_file(dir.path().join("pulse.toml")).unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    assert_eq!(push(&server, 8).await / 100, 2);
    assert_eq!(server.terminate().await, Some(0));
    assert_ne!(all_bytes(&data), before);
}

#[tokio::test]
async fn analyze_tells_where_series_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    eventually("own metrics are stored", || async {
        (server.value("count(up)").await >= Some(1.0)).then_some(())
    })
    .await;
    let data = dir.path().join("data");
    let said = pulse_says(&["tsdb", "analyze", "--limit", "3", "--data-dir", text(&data)]);
    for wanted in [
        "series by metric name:",
        "series by tenant:",
        "new within the last hour",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
    drop(server);
    let output = pulse(&["tsdb", "analyze", "--data-dir", text(&data)]);
    assert_eq!(output.status.code(), Some(1), "nobody has the directory");
}

#[tokio::test]
async fn verify_of_a_damaged_file_says_sentences_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    eventually("own metrics are stored", || async {
        (server.value("count(up)").await >= Some(1.0)).then_some(())
    })
    .await;
    server.kill();
    let data = dir.path().join("data");
    let hot = data.join("hot.redb");
    let whole = fs::read(&hot).unwrap();
    let mut is_named = false;
    for seed in 0..24_usize {
        let mut bytes = whole.clone();
        for k in 0..(1 << (seed % 8)) {
            // Whatever stands there: pages of the tree and their lengths.
            let at = (seed * 7_919 + k * 104_729) % bytes.len();
            bytes[at] ^= 1 << (k % 8);
        }
        fs::write(&hot, &bytes).unwrap();
        let output = pulse(&["verify", text(&data)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{seed}: {said}");
        is_named |= output.status.code() == Some(1) && said.contains("hot.redb");
    }
    assert!(is_named, "nothing was damaged");
}
