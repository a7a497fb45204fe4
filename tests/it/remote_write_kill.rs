//! SIGKILL during a remote_write stream: what was answered with 2xx is stored, once.

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use crate::broker::{free_port, say};
use crate::kill::{check, kill_until, ledger, messages};
use crate::ledger::Ledger;
use crate::server::{Http, Server};

/// Senders, each of which waits for its answers.
const SENDERS: usize = 4;

/// Samples in one request.
const REQUEST: u64 = 100;

/// What the senders saw.
#[derive(Default)]
struct Seen {
    accepted: AtomicU64,
    /// Requests that were sent again, as nobody knew whether they were stored.
    repeated: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sample_of_an_answered_request_is_lost_or_doubled_by_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "[[tenant]]\nid = \"push\"\nsamples_per_second = 1000000\n";
    fs::write(dir.path().join("pulse.toml"), limits).unwrap();
    let mut server = Server::start(dir.path(), free_port()).await;
    let ledger = ledger("push");
    let seen = Arc::new(Seen::default());
    let share = messages() / SENDERS as u64;
    let senders: Vec<_> = (0..SENDERS as u64)
        .map(|n| {
            let ids = n * share..(n + 1) * share;
            let url = server.url("/api/v1/write");
            tokio::spawn(send(url, ledger.clone(), ids, Arc::clone(&seen)))
        })
        .collect();
    let is_done = || senders.iter().all(tokio::task::JoinHandle::is_finished);
    let kills = kill_until(&mut server, dir.path(), is_done).await;
    for sender in senders {
        sender.await.unwrap();
    }
    let repeated = seen.repeated.load(Ordering::Relaxed);
    say(&format!(
        "{kills} kills during {} samples, {repeated} requests sent again",
        messages()
    ));
    assert_eq!(seen.accepted.load(Ordering::Relaxed), messages());
    assert!(repeated > 0, "no kill hit a request");
    check(&mut server, dir.path(), &ledger).await;
}

/// Sends the ids in their order, each request until it is answered with 2xx.
async fn send(url: String, ledger: Ledger, ids: Range<u64>, seen: Arc<Seen>) {
    let http = Http::new();
    let mut next = ids.start;
    while next < ids.end {
        let end = ids.end.min(next + REQUEST);
        let body = Bytes::from(encode(&ledger, next..end));
        loop {
            let request = Request::post(&url)
                .header("content-encoding", "snappy")
                .header("content-type", "application/x-protobuf")
                .header("x-prometheus-remote-write-version", "0.1.0")
                .body(Full::new(body.clone()))
                .unwrap();
            match http.try_send(request).await {
                Some(answer) if (200..300).contains(&answer.status) => break,
                Some(answer) if answer.status < 500 => {
                    panic!("{}: {}", answer.status, answer.text())
                }
                _ => {
                    seen.repeated.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        seen.accepted.fetch_add(end - next, Ordering::Relaxed);
        next = end;
        // The stream lasts through several kills.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A request of remote_write 1.0, one series with one sample for each id.
fn encode(ledger: &Ledger, ids: Range<u64>) -> Vec<u8> {
    let mut request = Vec::new();
    for id in ids {
        let mut series = Vec::new();
        let device = ledger.device(id);
        let labels = [
            ("__name__", "v"),
            ("device_id", &device),
            ("tenant_id", ledger.tenant),
        ];
        for (name, value) in labels {
            let mut label = Vec::new();
            field(&mut label, 1, name.as_bytes());
            field(&mut label, 2, value.as_bytes());
            field(&mut series, 1, &label);
        }
        let mut sample = vec![9];
        sample.extend_from_slice(&(id as f64).to_le_bytes());
        sample.push(16);
        varint(&mut sample, ledger.base_ms + id);
        field(&mut series, 2, &sample);
        field(&mut request, 1, &series);
    }
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

/// A field of bytes.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    loop {
        let [low, ..] = n.to_le_bytes();
        n >>= 7;
        if n == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}
