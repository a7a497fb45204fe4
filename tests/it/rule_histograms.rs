//! Native histograms through recording rules, alerts and rule unit tests.

use std::fs;

use pulse::model::Timestamp;
use pulse::promql::{Queryable as _, SelectHints};
use pulse::rules::AlertState;
use pulse::rules::unit::{self, notation};
use pulse::store::{Item, WriteBatch, histogram_rows};

use crate::rules::{Machine, Process, group};

const RULES: &str = "  - {record: 'job:latency', expr: 'sum by (job) (latency)'}\n\
                     \x20 - {record: 'job:p50', expr: 'histogram_quantile(0.5, job:latency)'}\n\
                     \x20 - {alert: Slow, expr: 'histogram_avg(job:latency) > 2'}\n";

impl Process {
    async fn feed_histogram(&self, instance: &str, text: &str) {
        let labels = [
            ("__name__", "latency"),
            ("job", "api"),
            ("instance", instance),
        ];
        let sample = pulse::model::HistogramSample {
            t: Timestamp::from_ms(self.now()),
            h: notation::histogram(text).unwrap().into(),
        };
        let rows = histogram_rows(&pulse::model::Labels::from_pairs(labels), &sample);
        let mut batch = WriteBatch::default();
        batch.push(rows.unwrap(), Item::default());
        self.write(batch).await;
    }

    /// The recorded histograms in the notation, without their hint.
    fn recorded(&self) -> Vec<(i64, String)> {
        let matchers = [pulse::model::Matcher::equal("__name__", "job:latency")];
        let end = Timestamp::from_ms(self.now());
        let hints = SelectHints::default();
        let found = self
            .queryable()
            .histograms(Timestamp::MIN, end, &matchers, &hints);
        let mut all = Vec::new();
        for series in found.unwrap() {
            assert_eq!(series.labels.value("job"), "api");
            for sample in series.samples {
                let mut h = (*sample.h).clone();
                h.hint = pulse::model::histogram::ResetHint::Unknown;
                all.push((sample.t.as_ms(), notation::text(&h)));
            }
        }
        all
    }
}

#[tokio::test]
async fn a_recorded_histogram_is_stored_and_later_rules_see_it_at_once() {
    let machine = Machine::new(&group(RULES));
    let p = machine.boot().await;
    p.feed_histogram("a", "{{count:3 sum:3 buckets:[1 2]}}")
        .await;
    p.feed_histogram("b", "{{count:1 sum:7 offset:2 buckets:[1]}}")
        .await;
    p.step(10).await;
    let want = "{{schema:0 count:4 sum:10 buckets:[1 2 1]}}";
    let recorded = p.recorded();
    let texts: Vec<&str> = recorded.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, [want]);
    let quantile = p.series("job:p50").into_values().next().unwrap();
    assert!((1.0..=2.0).contains(&quantile[0].v), "{quantile:?}");
    assert_eq!(p.alerts(), [AlertState::Firing]);
    p.kill().await;

    // It survives, goes on, and ends with a marker when its source does.
    let p = machine.boot().await;
    assert_eq!(p.recorded(), recorded);
    p.step(10).await;
    assert_eq!(p.recorded().len(), 2);
    for _ in 0..40 {
        p.step(10).await;
    }
    let marks = p.series("job:latency").into_values().next().unwrap();
    assert!(pulse::model::is_stale_nan(marks.last().unwrap().v));
    assert!(p.alerts().is_empty());
}

#[test]
fn unit_tests_load_record_and_expect_histograms() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    file("rules.yml", &group(RULES));
    let test = |expected: &str| {
        format!(
            "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  \
             input_series:\n  - series: 'latency{{job=\"api\", instance=\"a\"}}'\n    \
             values: '{{{{count:1 sum:1 buckets:[1]}}}}+{{{{count:1 sum:9 buckets:[0 1]}}}}x3'\n  \
             alert_rule_test:\n  - eval_time: 1m\n    alertname: Slow\n    exp_alerts:\n    \
             - exp_labels: {{job: api}}\n  promql_expr_test:\n  - expr: 'job:latency'\n    eval_time: 2m\n    \
             exp_samples:\n    - labels: 'job:latency{{job=\"api\"}}'\n      histogram: '{expected}'\n  \
             - expr: 'histogram_count(job:latency)'\n    eval_time: 3m\n    \
             exp_samples: [{{labels: '{{job=\"api\"}}', value: 4}}]\n"
        )
    };
    let path = dir.path().join("test.yml");
    let run = |expected: &str| {
        file("test.yml", &test(expected));
        unit::run(&path).failures
    };
    let right = "{{count:3 sum:19 buckets:[1 2]}}";
    assert_eq!(run(right), Vec::<String>::new());
    // The control: another bucket is found out, and both are shown.
    let failures = run("{{count:3 sum:19 buckets:[2 1]}}");
    assert_eq!(failures.len(), 1);
    for words in ["buckets:[2 1]", "buckets:[1 2]"] {
        assert!(failures[0].contains(words), "{}", failures[0]);
    }
    let failures = run("{{nonsense:1}}");
    assert!(failures[0].contains("not a histogram"), "{failures:?}");
}
