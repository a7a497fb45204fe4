//! remote_read as a stream of chunks, byte for byte beside a real Prometheus that
//! has the same samples.

use std::sync::Arc;

use pulse::codec::histogram;
use pulse::model::histogram::{Bucket, CUSTOM};
use pulse::model::{Histogram, HistogramSample, Timestamp};

use crate::broker::free_port;
use crate::programs::Prometheus;
use crate::server::{Answer, Http, Server};

/// The time that a chunk of Prometheus may not reach over.
const BLOCK_MS: i64 = 2 * 3_600_000;

/// Samples of a series and their distance. Below a fourth of a chunk, as Prometheus
/// shortens its chunks by a guess after that.
const SAMPLES: i64 = 29;
const STEP_MS: i64 = 10_000;

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7f).unwrap() | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap());
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn packed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

/// The last time of samples that lie in one block.
fn end() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_millis()).unwrap() / 1_000 * 1_000;
    let into_block = now % BLOCK_MS;
    if into_block > SAMPLES * STEP_MS {
        now
    } else {
        now - into_block - 1_000
    }
}

fn head(metric: &str) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in [("__name__", metric), ("job", "a")] {
        let mut label = Vec::new();
        field(&mut label, 1, name.as_bytes());
        field(&mut label, 2, value.as_bytes());
        field(&mut series, 1, &label);
    }
    series
}

/// The value of a series' sample by its number.
type Value = fn(i64) -> f64;

/// A remote_write of series with floats of every sort and of histograms.
fn written(end: i64) -> Vec<u8> {
    let mut message = Vec::new();
    let values: [(&str, Value); 5] = [
        ("steady", |_| 21.5),
        ("counter_total", |i| (i * i * 7) as f64),
        ("noise", |i| (i as f64).sin()),
        ("wild", |i| match i % 6 {
            0 => f64::INFINITY,
            1 => f64::NAN,
            2 => -1e-300,
            3 => f64::from_bits(0x7ff0_0000_0000_0002),
            4 => 0.0,
            _ => f64::MAX,
        }),
        ("uneven", |i| i as f64),
    ];
    for (name, value) in values {
        let mut series = head(name);
        for i in 0..SAMPLES {
            let shaken = if name == "uneven" {
                i * i * 37 % 5_000
            } else {
                0
            };
            let t = end - (SAMPLES - i) * STEP_MS + shaken;
            let mut sample = vec![1 << 3 | 1];
            sample.extend_from_slice(&value(i).to_le_bytes());
            sample.push(2 << 3);
            varint(&mut sample, t.cast_unsigned());
            field(&mut series, 2, &sample);
        }
        field(&mut message, 1, &series);
    }
    let mut series = head("distribution");
    let mut native = Vec::new();
    histogram::write(&mut native, &distribution(end));
    field(&mut series, 4, &native);
    field(&mut message, 1, &series);
    packed(&message)
}

fn distribution(t: i64) -> HistogramSample {
    let bucket = |(index, count)| Bucket { index, count };
    let h = Histogram {
        schema: 3,
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 18.5,
        sum: 31.25,
        positive: [(-4, 1.0), (-3, 4.5), (9, 6.0)].map(bucket).to_vec(),
        negative: [(700, 5.0)].map(bucket).to_vec(),
        ..Histogram::default()
    };
    HistogramSample {
        t: Timestamp::from_ms(t),
        h: Arc::new(h),
    }
}

/// A question for everything of job `a`, with the kinds of answer that are taken.
fn question(end: i64, kinds: &[u8]) -> Vec<u8> {
    let mut query = vec![1 << 3];
    varint(&mut query, (end - SAMPLES * STEP_MS).cast_unsigned());
    query.push(2 << 3);
    varint(&mut query, end.cast_unsigned());
    let mut matcher = Vec::new();
    field(&mut matcher, 2, b"job");
    field(&mut matcher, 3, b"a");
    field(&mut query, 3, &matcher);
    let mut message = Vec::new();
    // Twice, so that the second answer has another number.
    field(&mut message, 1, &query);
    field(&mut message, 1, &query);
    field(&mut message, 2, kinds);
    packed(&message)
}

async fn asked(url: &str, body: Vec<u8>) -> Option<Answer> {
    let request = hyper::Request::post(url)
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-read-version", "0.1.0")
        .body(http_body_util::Full::from(body))
        .unwrap();
    Http::new().try_send(request).await
}

/// Splits a varint off.
fn take_varint(bytes: &mut &[u8]) -> u64 {
    let (mut n, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        n |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return n;
        }
    }
}

/// CRC-32C, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// The messages of a stream, one for each series here.
fn frames(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let len = usize::try_from(take_varint(&mut stream)).unwrap();
        let (crc, rest) = stream.split_at(4);
        let (message, rest) = rest.split_at(len);
        assert_eq!(crc, checksum(message).to_be_bytes(), "the checksum");
        frames.push(message.to_vec());
        stream = rest;
    }
    frames
}

const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

fn content_type(answer: &Answer) -> &str {
    answer.headers["content-type"].to_str().unwrap()
}

#[tokio::test]
async fn chunks_are_byte_for_byte_those_of_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let end = end();
    let body = written(end);
    let sent = asked(&server.url("/api/v1/write"), body.clone()).await;
    assert_eq!(sent.unwrap().status, 204);
    let read = server.url("/api/v1/read");
    let ours = asked(&read, question(end, &[1, 0])).await.unwrap();
    assert_eq!((ours.status, content_type(&ours)), (200, STREAMED));
    let ours = frames(&ours.body);
    assert_eq!(ours.len(), 12, "six series, asked for twice");
    // Who lists samples first gets them, though chunks would do.
    let plain = asked(&read, question(end, &[0, 1])).await.unwrap();
    assert_eq!(content_type(&plain), "application/x-protobuf");
    assert!(
        snap::raw::Decoder::new()
            .decompress_vec(&plain.body)
            .is_ok()
    );

    let Some(prometheus) = Prometheus::start_with_written(&body).await else {
        return;
    };
    let read = prometheus.url("/api/v1/read");
    let theirs = asked(&read, question(end, &[1, 0])).await.unwrap();
    assert_eq!((theirs.status, content_type(&theirs)), (200, STREAMED));
    let theirs = frames(&theirs.body);
    assert_eq!(theirs.len(), ours.len());
    for (theirs, ours) in theirs.iter().zip(&ours) {
        // It leaves out the number of the first question, which is zero.
        let number: &[u8] = if theirs.ends_with(&[2 << 3, 1]) {
            &[]
        } else {
            &[2 << 3, 0]
        };
        let theirs: Vec<u8> = [theirs.as_slice(), number].concat();
        let name = String::from_utf8_lossy(&theirs).into_owned();
        assert!(theirs == *ours, "{name}\n{theirs:?}\n{ours:?}");
    }
}

/// A series of histograms ends with a float: one series of the answer has both.
#[tokio::test]
async fn a_series_comes_once_whatever_its_samples_are() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), free_port()).await;
    let end = end();
    let mut series = head("mixed");
    for t in [end - STEP_MS, end] {
        let mut h = Histogram::clone(&distribution(t).h);
        h.schema = CUSTOM;
        h.bounds = [0.25, 1.0, 7.001, 100.0].into();
        h.positive.truncate(0);
        h.negative.truncate(0);
        (h.zero_count, h.zero_threshold, h.count) = (0.0, 0.0, 0.0);
        let mut native = Vec::new();
        let t = Timestamp::from_ms(t);
        histogram::write(&mut native, &HistogramSample { t, h: Arc::new(h) });
        field(&mut series, 4, &native);
    }
    let mut stale = vec![1 << 3 | 1];
    stale.extend_from_slice(&0x7ff0_0000_0000_0002_u64.to_le_bytes());
    stale.push(2 << 3);
    varint(&mut stale, (end - STEP_MS / 2).cast_unsigned());
    field(&mut series, 2, &stale);
    let mut message = Vec::new();
    field(&mut message, 1, &series);
    let sent = asked(&server.url("/api/v1/write"), packed(&message)).await;
    assert_eq!(sent.unwrap().status, 204);
    let read = server.url("/api/v1/read");
    let streamed = asked(&read, question(end, &[1])).await.unwrap();
    let frames = frames(&streamed.body);
    assert_eq!(frames.len(), 2, "one series, asked for twice");
    // A histogram, the float, a histogram: kinds 3, 1, 3.
    let kinds: Vec<u8> = frames[0]
        .windows(3)
        .filter(|w| w[0] == 3 << 3 && w[2] == (4 << 3 | 2))
        .map(|w| w[1])
        .collect();
    assert_eq!(kinds, [3, 1, 3]);
    let plain = asked(&read, question(end, &[])).await.unwrap();
    let message = snap::raw::Decoder::new()
        .decompress_vec(&plain.body)
        .unwrap();
    let names = message.windows(5).filter(|w| w == b"mixed").count();
    assert_eq!(names, 2, "one series, asked for twice");
}
