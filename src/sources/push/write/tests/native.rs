//! Native histograms that are pushed.

use super::*;

/// A series with native histograms, given as messages of their own.
fn with_histograms(labels: &str, all: &[Vec<u8>]) -> Vec<u8> {
    let mut series = Vec::new();
    for pair in labels.split(' ') {
        let (name, value) = pair.split_once('=').unwrap();
        let mut label = Vec::new();
        write::bytes(&mut label, 1, name.as_bytes());
        write::bytes(&mut label, 2, value.as_bytes());
        write::bytes(&mut series, 1, &label);
    }
    for histogram in all {
        write::bytes(&mut series, 4, histogram);
    }
    let mut message = Vec::new();
    write::bytes(&mut message, 1, &series);
    message
}

fn histogram(t: i64, sum: f64, counts: &[f64]) -> Vec<u8> {
    let index = (0..).zip(counts);
    let h = crate::model::Histogram {
        count: counts.iter().sum(),
        sum,
        positive: index
            .map(|(index, count)| crate::model::histogram::Bucket {
                index,
                count: *count,
            })
            .collect(),
        ..crate::model::Histogram::default()
    };
    let t = Timestamp::from_ms(t);
    let sample = crate::model::HistogramSample { t, h: h.into() };
    let mut message = Vec::new();
    crate::codec::histogram::write(&mut message, &sample);
    message
}

#[tokio::test]
async fn native_histograms_are_stored_and_a_stale_one_ends_them() {
    let desk = desk("", None);
    let mut broken = histogram(NOW, 1.0, &[1.0]);
    // A count without a span.
    write::bytes(&mut broken, 13, &2.0f64.to_le_bytes());
    let all = [
        histogram(NOW - 60_000, 5.0, &[1.0, 2.0, 1.0]),
        histogram(NOW - 30_000, 7.0, &[1.0, 3.0, 1.0]),
        broken,
        histogram(NOW + 3_600_000, 9.0, &[1.0]),
        histogram(NOW, stale_nan(), &[]),
    ];
    let message = with_histograms("__name__=h job=a", &all);
    let answer = desk.post("/api/v1/write/acme", &[], block(&message)).await;
    assert_eq!(answer, refused("1 timestamp, 1 histogram"));
    assert_eq!(desk.rejected(PushReason::Histogram), 1);
    let stored = ["h{job=\"a\", tenant_id=\"acme\"}: 0=stale"];
    assert_eq!(desk.stored(), stored, "parts are no series of floats");

    let engine = crate::promql::Engine::default();
    let ask = |query: &str, t: i64| {
        let expr = crate::promql::parse(query).unwrap();
        let cancel = Arc::default();
        let t = Timestamp::from_ms(t);
        let output = engine.instant(&desk.store, &expr, t, &cancel).unwrap();
        let crate::promql::Value::Vector { samples, .. } = output.value else {
            panic!("no vector")
        };
        let text = |s: &crate::promql::VectorSample| match &s.histogram {
            Some(h) => format!("{} {h}", s.labels),
            None => format!("{} {}", s.labels, s.v),
        };
        samples.iter().map(text).collect::<Vec<_>>()
    };
    let labels = "h{job=\"a\", tenant_id=\"acme\"}";
    assert_eq!(
        ask("h{job=\"a\"}", NOW - 60_000),
        [format!(
            "{labels} {{count:4, sum:5, (0.5,1]:1, (1,2]:2, (2,4]:1}}"
        )]
    );
    assert_eq!(ask("h", NOW), [""; 0], "it has ended");
    // Half of the window lies between the two samples.
    assert_eq!(
        ask("increase(h[1m])", NOW - 10_000),
        ["{job=\"a\", tenant_id=\"acme\"} {count:2, sum:4, (1,2]:2}"]
    );
    // Again: nothing is new, and nothing of it is a conflict.
    let message = with_histograms("__name__=h job=a", &all[..2]);
    let again = desk.post("/api/v1/write/acme", &[], block(&message)).await;
    assert_eq!(again, ok());
}
