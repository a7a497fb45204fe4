//! A disk without a free byte: rules go on, and people are told of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

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

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn configure(dir: &Path, sink_port: u16) {
    let config = format!(
        "[global]\nscrape_interval = \"1s\"\n[store]\nreserve = \"0B\"\n\
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
    configure(dir.path(), sink_port);
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
