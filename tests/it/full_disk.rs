//! A disk without a free byte: rules go on, and people are told of it. One that takes no
//! writes: the command line reads it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::backup::{assert_verified, pulse_says};
use crate::broker::free_port;
use crate::server::{Server, eventually};
use crate::sink::{SECRET, Sink};

/// Longer than any write takes that the disk does not refuse.
const REFUSED: Duration = Duration::from_secs(3);

/// A file system of a few megabytes; unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where one may not mount.
    fn mount(at: &Path) -> Option<SmallDisk> {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"])
            .arg(at)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(at.to_owned()));
        }
        let must = std::env::var_os("PULSE_TEST_FULL").is_some();
        assert!(!must, "cannot mount a tmpfs");
        #[expect(clippy::print_stderr, reason = "a skip has to be seen")]
        {
            eprintln!("SKIPPED: cannot mount a tmpfs");
        }
        None
    }

    /// Takes every free byte; gives the file.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = vec![1_u8; 1 << 16];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        filler
    }
}

impl SmallDisk {
    /// Takes no writes any more.
    fn freeze(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,ro"]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn configure(dir: &Path, sink_port: u16, reserve: &str) {
    let config = format!(
        "[server]\nenable_admin_api = true\n[global]\nscrape_interval = \"1s\"\n[store]\nreserve = \"{reserve}\"\n\
         [query]\nlookback_delta = \"5s\"\n\
         [rules]\nfiles = [\"rules.yml\"]\n\
         [alerting]\nreceiver = \"ops\"\ngroup_wait = \"0s\"\ngroup_interval = \"1s\"\n\
         [[destination.webhook]]\nname = \"ops\"\nsecret = \"{SECRET}\"\n\
         url = \"http://127.0.0.1:{sink_port}/hook\"\n"
    );
    std::fs::write(dir.join("pulse.toml"), config).unwrap();
    let rules = "groups:\n- name: seen\n  interval: 1s\n  rules:\n\
                 \x20 - {record: seen, expr: 'vector(1)'}\n\
                 - name: g\n  interval: 1s\n  rules:\n\
                 \x20 - {alert: WasThere, expr: 'seen'}\n\
                 \x20 - {alert: DiskRefuses, expr: 'pulse_store_failing == 1'}\n\
                 \x20 - {alert: Later, expr: 'pulse_store_failing == 1', for: 3s}\n";
    std::fs::write(dir.join("rules.yml"), rules).unwrap();
}

/// What was told of an alert, in order: the status and the id.
fn told(sink: &Sink, name: &str) -> Vec<(String, String)> {
    let mut told = Vec::new();
    for delivery in sink.deliveries() {
        let message: Value = serde_json::from_str(&delivery.body).unwrap();
        for alert in message["alerts"].as_array().unwrap() {
            if alert["labels"]["alertname"] == name {
                let status = alert["status"].as_str().unwrap().to_owned();
                told.push((status, delivery.id.clone()));
            }
        }
    }
    told
}

fn statuses(sink: &Sink, name: &str) -> Vec<String> {
    let told = told(sink, name).into_iter();
    told.map(|(status, _)| status).collect()
}

async fn silence(server: &Server) -> Option<u16> {
    let body = serde_json::json!({
        "matchers": [{"name": "a", "value": "b", "isRegex": false}],
        "startsAt": crate::alertmanager::at(0), "endsAt": crate::alertmanager::at(3_600),
        "createdBy": "x", "comment": "x".repeat(200_000),
    });
    let http = server.http.clone();
    let post = http.post_owned(server.url("/api/v2/silences"), body.to_string());
    let answer = tokio::time::timeout(REFUSED, post).await.ok()?;
    Some(answer.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a18_a_full_disk_still_notifies() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("data")) else {
        return;
    };
    let sink_port = free_port();
    configure(dir.path(), sink_port, "0B");
    let sink = Sink::start(sink_port).await;
    let mut server = Server::start(dir.path(), free_port()).await;
    eventually("it is told before", || async {
        (statuses(&sink, "WasThere") == ["firing"]).then_some(())
    })
    .await;
    let filler = disk.fill();
    // The control: whoever asks for a commit gets no answer any more.
    let mut refused = false;
    for _ in 0..200 {
        refused = silence(&server).await.is_none();
        if refused {
            break;
        }
    }
    assert!(refused, "the disk took everything");
    // Our own metrics say so although the store takes none of them, and it is told.
    eventually("it is told that the disk is full", || async {
        (statuses(&sink, "Later") == ["firing"]).then_some(())
    })
    .await;
    assert_eq!(statuses(&sink, "DiskRefuses"), ["firing"]);
    let metrics = server.get("/metrics").await;
    let value = |name: &str| -> f64 {
        let lines = metrics.text().lines();
        let mut line = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.next_back().unwrap().parse().unwrap()
    };
    assert_eq!(value("pulse_store_failing"), 1.0);
    assert!(value("pulse_store_unsaved_rows") > 0.0);
    let page = server.get("/alerts").await;
    assert!(page.text().contains("in memory only"), "{}", page.text());
    assert!(silence(&server).await.is_none(), "the disk is still full");
    // What cannot be seen any more has not ended.
    assert_eq!(statuses(&sink, "WasThere"), ["firing"]);

    std::fs::remove_file(&filler).unwrap();
    eventually("everything is on disk", || async {
        let metrics = server.get("/metrics").await;
        let is_saved = |line: &str| line == "pulse_store_unsaved_rows 0";
        metrics.text().lines().any(is_saved).then_some(())
    })
    .await;
    let before = told(&sink, "DiskRefuses");
    // Nothing of it was lost or is told again by the next process.
    server.kill();
    let server = Server::start(dir.path(), server.port).await;
    eventually("rules run again", || async {
        (server.value("count(ALERTS{alertstate=\"firing\"})").await >= Some(1.0)).then_some(())
    })
    .await;
    let history = server.get("/api/v1/alerts/history").await;
    assert!(history.text().contains("DiskRefuses"), "{}", history.text());
    let after = told(&sink, "DiskRefuses");
    let firing = |told: &[(String, String)]| told.iter().filter(|t| t.0 == "firing").count();
    assert_eq!(firing(&after), firing(&before), "{after:?}");
    assert_eq!(statuses(&sink, "WasThere"), ["firing"]);
    let log = std::fs::read_to_string(dir.path().join("pulse.log")).unwrap();
    let lines = log.matches("go on in memory only").count();
    assert_eq!(lines, 1, "said once");
    drop((server, disk));
}

/// Fills the disk, kills the process, and starts it on the full disk.
async fn restarts_on_a_full_disk(reserve: &str) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(&data) else {
        return;
    };
    let sink_port = free_port();
    configure(dir.path(), sink_port, reserve);
    let sink = Sink::start(sink_port).await;
    let mut server = Server::start(dir.path(), free_port()).await;
    let has_reserve = reserve != "0B";
    eventually("it runs and has its reserve", || async {
        let is_told = statuses(&sink, "WasThere") == ["firing"];
        (is_told && data.join("ballast").exists() == has_reserve).then_some(())
    })
    .await;
    // There is an hour's file, as after a seal, that is not closed cleanly either.
    let url = server.url("/api/v1/admin/tsdb/delete_series?match[]=seen");
    let sealed = server.http.post(&url, "text/plain", "").await;
    assert_eq!(sealed.status, 204, "{}", sealed.text());
    let names = std::fs::read_dir(&data).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.starts_with("l0-")));
    let before = server.value("count_over_time(up{job=\"pulse\"}[1h])").await;
    assert!(before >= Some(1.0), "{before:?}");
    let filler = disk.fill();
    server.kill();
    // The control: not even a file can be made.
    let control = std::fs::write(data.join("x"), "x");
    assert!(control.is_err());
    drop(std::fs::remove_file(data.join("x")));

    let server = Server::start(dir.path(), server.port).await;
    let after = server.value("count_over_time(up{job=\"pulse\"}[1h])").await;
    assert!(after >= before, "{after:?} of {before:?}");
    assert_eq!(server.get("/alerts").await.status, 200);
    if !has_reserve {
        eventually("people are told", || async {
            (statuses(&sink, "Later") == ["firing"]).then_some(())
        })
        .await;
    }
    std::fs::remove_file(&filler).unwrap();
    eventually("it goes on without a restart", || async {
        let metrics = server.get("/metrics").await;
        let goes_on = |line: &str| line == "pulse_store_failing 0";
        let is_reached = data.join("CONTROL").exists();
        (metrics.text().lines().any(goes_on) && is_reached).then_some(())
    })
    .await;
    eventually("samples come in", || async {
        let now = server.value("count_over_time(up{job=\"pulse\"}[1h])").await;
        (now > after).then_some(())
    })
    .await;
    // Through the running process, so by what CONTROL says.
    eventually("the command line reaches it", || async {
        let verify = Command::new(env!("CARGO_BIN_EXE_pulse"))
            .args(["verify", data.to_str().unwrap()])
            .output();
        verify.unwrap().status.success().then_some(())
    })
    .await;
    drop((server, disk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_on_a_full_disk_starts_on_it() {
    restarts_on_a_full_disk("0B").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_on_a_full_disk_starts_with_its_reserve() {
    restarts_on_a_full_disk("1MiB").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_medium_is_backed_up_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(&data) else {
        return;
    };
    let mut server = Server::start(dir.path(), free_port()).await;
    server.kill();
    // As a copy on a medium that nobody ever had for writing.
    std::fs::remove_file(data.join("LOCK")).unwrap();
    disk.freeze();
    let file = dir.path().join("b.pulse");
    let (file, from) = (file.to_str().unwrap(), data.to_str().unwrap());
    let said = pulse_says(&["backup", file, "--data-dir", from]);
    assert!(said.contains("everything up to commit"), "{said}");
    assert_verified(&data);
    pulse_says(&["verify", file]);
    // A process that only reads it does not stand in the way.
    let server = Server::start(dir.path(), free_port()).await;
    assert_verified(&data);
    for (path, body) in [
        ("/api/v1/ingest/default?device=d", "{\"v\":1}"),
        ("/api/v1/import/prometheus", "v 1\n"),
    ] {
        let answer = server
            .http
            .post(&server.url(path), "text/plain", body)
            .await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        let says = answer.text().contains("the store is read-only");
        assert!(says, "{path}: {}", answer.text());
    }
    drop((server, disk));
}
