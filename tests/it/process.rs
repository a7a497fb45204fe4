//! The process as its operator sees it: start, stop, reload, mistakes.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::broker::free_port;
use crate::server::{Server, eventually};

fn pulse(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pulse"))
        .args(args)
        .output()
        .unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_explains_itself() {
    let output = pulse(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for wanted in [
        "run",
        "check",
        "query",
        "--config",
        "--listen",
        "--data-dir",
        "8080",
    ] {
        assert!(text.contains(wanted), "{wanted} not in {text}");
    }
}

#[test]
fn a_typo_ends_the_start_with_code_2_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(&file, "[server]\nlisen = [\"127.0.0.1:1\"]\n").unwrap();
    let file = file.to_str().unwrap();
    for args in [vec!["check", file], vec!["run", "--config", file]] {
        let output = pulse(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = complaint(&output);
        for wanted in ["bad.toml:2:1", "unknown field `lisen`", "`listen`"] {
            assert!(text.contains(wanted), "{wanted} not in {text}");
        }
    }
    assert!(!dir.path().join("data").exists());
}

#[test]
fn check_finds_what_the_files_hold() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pulse.toml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        pulse(&["check", file.to_str().unwrap()])
    };
    fs::write(
        dir.path().join("bad.yml"),
        "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: rate(x)\n",
    )
    .unwrap();
    let bad_rules = check("[rules]\nfiles = [\"bad.yml\"]\n");
    assert_eq!(bad_rules.status.code(), Some(2));
    let text = complaint(&bad_rules);
    assert!(
        text.contains("bad.yml") && text.contains("range vector"),
        "{text}"
    );

    let bad_qos = check("[[source.mqtt]]\nname = \"a\"\nurl = \"mqtt://h\"\nqos = 2\n");
    assert_eq!(bad_qos.status.code(), Some(2));
    assert!(
        complaint(&bad_qos).contains("qos"),
        "{}",
        complaint(&bad_qos)
    );

    let open = check("[server]\nlisten = [\"0.0.0.0:8080\"]\n");
    assert_eq!(open.status.code(), Some(2), "off loopback needs a token");
    assert!(complaint(&open).contains("auth"), "{}", complaint(&open));

    assert_eq!(check("").status.code(), Some(0));
}

#[tokio::test]
async fn terminate_ends_within_five_seconds_with_code_0() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    let start = Instant::now();
    assert_eq!(server.terminate().await, Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused_with_the_pid() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let mut second = Server::spawn(dir.path(), free_port());
    assert_eq!(second.wait().await, Some(1));
    let log = fs::read_to_string(dir.path().join("pulse.log")).unwrap();
    assert!(log.contains("in use by process"), "{log}");
    assert_eq!(server.get("/-/ready").await.status, 200);
}

#[tokio::test]
async fn a_reload_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("pulse.toml");
    let rules = dir.path().join("rules.yml");
    let rule = |expr: &str| {
        format!("groups:\n- name: g\n  interval: 1s\n  rules:\n  - record: r\n    expr: {expr}\n")
    };
    fs::write(&config, "[rules]\nfiles = [\"rules.yml\"]\n").unwrap();
    fs::write(&rules, rule("vector(1)")).unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    eventually("the rule runs", || async {
        (server.value("r").await == Some(1.0)).then_some(())
    })
    .await;

    fs::write(&rules, rule("vector(")).unwrap();
    let refused = server
        .http
        .post(&server.url("/-/reload"), "text/plain", "")
        .await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("rules.yml"), "{}", refused.text());
    fs::write(&config, "[rules]\nfils = 1\n[query]\ntimeout = \"0s\"\n").unwrap();
    let url = server.url("/-/reload");
    let refused = server.http.post(&url, "text/plain", "").await;
    let said = refused.text();
    for wanted in [
        "pulse.toml:2:1: [rules] fils",
        "pulse.toml:4:1: [query] timeout",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
    let log = fs::read_to_string(dir.path().join("pulse.log")).unwrap();
    let told: Vec<&str> = log.lines().filter(|l| l.contains("pulse.toml:")).collect();
    assert_eq!(told.len(), 1, "one event, without a picture: {log}");
    assert!(
        told[0].contains("mistakes=2") && !log.contains('^'),
        "{log}"
    );
    fs::write(&config, "[rules]\nfiles = [\"rules.yml\"]\n").unwrap();
    let loaded = server.get("/api/v1/rules").await.json();
    assert_eq!(
        loaded["data"]["groups"][0]["rules"][0]["query"],
        "vector(1)"
    );

    fs::write(&rules, rule("vector(2)")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    eventually("the new rule runs", || async {
        (server.value("r").await == Some(2.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_broker_is_shown_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = free_port();
    let config = format!(
        "[[source.mqtt]]\nname = \"gone\"\nurl = \"mqtt://127.0.0.1:{nobody}\"\n\
         [[source.nats]]\nname = \"away\"\nurl = \"nats://127.0.0.1:{nobody}\"\nstream = \"S\"\n"
    );
    fs::write(dir.path().join("pulse.toml"), config).unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    eventually("both are shown as down", || async {
        let page = server.get("/targets").await;
        let text = page.text();
        (text.contains("gone") && text.contains("away") && text.contains("refused")).then_some(())
    })
    .await;
    assert_eq!(server.get("/-/ready").await.status, 200);
}
