//! The body of a webhook notification: Alertmanager's version 4, byte for byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::alerts::Alert as Member;
use crate::model::{Labels, Timestamp};

/// How Go prints the time that is none.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// What a notification is about.
pub(super) struct About<'a> {
    pub(super) receiver: &'a str,
    pub(super) group_key: &'a str,
    pub(super) group_labels: &'a Labels,
    /// In any order, at least one.
    pub(super) members: Vec<&'a Member>,
    pub(super) external_url: &'a str,
    /// 0 is no limit.
    pub(super) alerts_max: usize,
    /// Decides what fires.
    pub(super) now: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    receiver: &'a str,
    status: &'static str,
    alerts: Vec<Alert<'a>>,
    group_labels: BTreeMap<&'a str, &'a str>,
    common_labels: BTreeMap<&'a str, &'a str>,
    common_annotations: BTreeMap<&'a str, &'a str>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    status: &'static str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, &'a str>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: String,
}

/// Makes the body.
pub(super) fn body(about: &About<'_>) -> Vec<u8> {
    let mut members = about.members.clone();
    members.sort_unstable_by(|a, b| order(&a.labels, &b.labels));
    let any_fires = members.iter().any(|member| member.fires_at(about.now));
    let labels = members.iter().map(|m| pairs(&m.labels));
    let annotations = members.iter().map(|m| annotations(m));
    let kept = match about.alerts_max {
        0 => members.len(),
        max => members.len().min(max),
    };
    let message = Message {
        receiver: about.receiver,
        status: status(any_fires),
        alerts: members[..kept]
            .iter()
            .map(|member| alert(member, about.now))
            .collect(),
        group_labels: pairs(about.group_labels),
        common_labels: common(labels),
        common_annotations: common(annotations),
        external_url: about.external_url,
        version: "4",
        group_key: about.group_key,
        truncated_alerts: members.len() - kept,
    };
    escaped(&serde_json::to_string(&message).expect("a message is plain data"))
}

fn alert(member: &Member, now: Timestamp) -> Alert<'_> {
    let fires = member.fires_at(now);
    let end = member.ends_at.filter(|_| !fires);
    Alert {
        status: status(fires),
        labels: pairs(&member.labels),
        annotations: annotations(member),
        starts_at: rfc3339(member.starts_at),
        ends_at: end.map_or(ZERO_TIME.to_owned(), rfc3339),
        generator_url: member.generator_url.clone(),
        fingerprint: format!("{:016x}", member.labels.fingerprint()),
    }
}

fn status(fires: bool) -> &'static str {
    if fires { "firing" } else { "resolved" }
}

fn annotations(member: &Member) -> BTreeMap<&str, &str> {
    let mut pairs = BTreeMap::new();
    pairs.extend(member.annotations.iter().map(|(n, v)| (&**n, &**v)));
    pairs
}

fn pairs(labels: &Labels) -> BTreeMap<&str, &str> {
    let mut pairs = BTreeMap::new();
    pairs.extend(labels.iter());
    pairs
}

/// The pairs that all maps have.
fn common<'a>(
    mut maps: impl Iterator<Item = BTreeMap<&'a str, &'a str>>,
) -> BTreeMap<&'a str, &'a str> {
    let mut common = maps.next().unwrap_or_default();
    for map in maps {
        common.retain(|name, value| map.get(name) == Some(value));
    }
    common
}

/// As Alertmanager: by `job`, then `instance` (alerts without come last), then a
/// smaller label set first, then label by label.
fn order(a: &Labels, b: &Labels) -> std::cmp::Ordering {
    let missing_last = |labels: &Labels, name: &str| {
        let value = labels.get(name).map(str::to_owned);
        (value.is_none(), value)
    };
    let by = |name: &str| missing_last(a, name).cmp(&missing_last(b, name));
    by("job")
        .then_with(|| by("instance"))
        .then_with(|| a.len().cmp(&b.len()))
        .then_with(|| a.cmp(b))
}

/// As Go prints a time in JSON: without zeros at the end of the fraction.
fn rfc3339(t: Timestamp) -> String {
    let whole = t.to_rfc3339();
    let digits = whole.trim_end_matches('Z').trim_end_matches('0');
    format!("{}Z", digits.trim_end_matches('.'))
}

/// The alerts of a message that have ended, so that the message which replaces it
/// can tell of them too.
pub(super) fn resolved_in(body: &[u8]) -> Vec<Member> {
    let Ok(message) = serde_json::from_slice::<Sent>(body) else {
        return Vec::new();
    };
    let ended = message
        .alerts
        .into_iter()
        .filter(|a| a.status == "resolved");
    ended.filter_map(SentAlert::into_member).collect()
}

#[derive(Deserialize)]
struct Sent {
    alerts: Vec<SentAlert>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentAlert {
    status: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
}

impl SentAlert {
    fn into_member(self) -> Option<Member> {
        let time = |text: &str| {
            let at: jiff::Timestamp = text.parse().ok()?;
            Some(Timestamp::from_ms(at.as_millisecond()))
        };
        let ends_at = time(&self.ends_at)?;
        Some(Member {
            labels: Labels::from_pairs(&self.labels),
            annotations: self.annotations,
            generator_url: self.generator_url,
            starts_at: time(&self.starts_at)?,
            ends_at: Some(ends_at),
            updated_at: ends_at,
            timeout: false,
            is_own: false,
        })
    }
}

/// As Go's encoder: what HTML could misread is escaped, and a line ends it.
fn escaped(json: &str) -> Vec<u8> {
    let mut out = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('\n');
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pairs: &[(&str, &str)], ends_at: Option<i64>) -> Member {
        Member {
            labels: Labels::from_pairs(pairs.iter().copied()),
            annotations: BTreeMap::from([("s".to_owned(), "a < b".to_owned())]),
            generator_url: "http://box:8080/graph?g0.expr=a+%3E+1&g0.tab=1".to_owned(),
            starts_at: Timestamp::from_ms(1_700_000_000_250),
            ends_at: ends_at.map(Timestamp::from_ms),
            updated_at: Timestamp::MIN,
            timeout: false,
            is_own: false,
        }
    }

    fn text(members: &[Member], alerts_max: usize) -> String {
        let about = About {
            receiver: "ops",
            group_key: "{}:{alertname=\"A\"}",
            group_labels: &Labels::from_pairs([("alertname", "A")]),
            members: members.iter().collect(),
            external_url: "http://box:8080",
            alerts_max,
            now: Timestamp::from_ms(1_700_000_100_000),
        };
        String::from_utf8(body(&about)).unwrap()
    }

    #[test]
    fn is_alertmanagers_version_4() {
        let firing = member(&[("alertname", "A"), ("job", "b")], None);
        let ended = member(&[("alertname", "A"), ("job", "a")], Some(1_700_000_060_000));
        let want = concat!(
            r#"{"receiver":"ops","status":"firing","alerts":["#,
            r#"{"status":"resolved","labels":{"alertname":"A","job":"a"},"#,
            r#""annotations":{"s":"a \u003c b"},"startsAt":"2023-11-14T22:13:20.25Z","#,
            r#""endsAt":"2023-11-14T22:14:20Z","#,
            r#""generatorURL":"http://box:8080/graph?g0.expr=a+%3E+1\u0026g0.tab=1","#,
            r#""fingerprint":"FP_A"},"#,
            r#"{"status":"firing","labels":{"alertname":"A","job":"b"},"#,
            r#""annotations":{"s":"a \u003c b"},"startsAt":"2023-11-14T22:13:20.25Z","#,
            r#""endsAt":"0001-01-01T00:00:00Z","#,
            r#""generatorURL":"http://box:8080/graph?g0.expr=a+%3E+1\u0026g0.tab=1","#,
            r#""fingerprint":"FP_B"}],"#,
            r#""groupLabels":{"alertname":"A"},"commonLabels":{"alertname":"A"},"#,
            r#""commonAnnotations":{"s":"a \u003c b"},"externalURL":"http://box:8080","#,
            r#""version":"4","groupKey":"{}:{alertname=\"A\"}","truncatedAlerts":0}"#,
            "\n",
        );
        let fingerprint = |m: &Member| format!("{:016x}", m.labels.fingerprint());
        let want = want.replace("FP_A", &fingerprint(&ended));
        let want = want.replace("FP_B", &fingerprint(&firing));
        assert_eq!(text(&[firing, ended], 0), want);
    }

    #[test]
    fn alerts_without_job_come_last_and_the_rest_is_cut() {
        let members = [
            member(&[("alertname", "A"), ("x", "1")], None),
            member(&[("alertname", "A"), ("job", "z"), ("instance", "2")], None),
            member(&[("alertname", "A"), ("job", "z"), ("instance", "1")], None),
        ];
        let all = text(&members, 0);
        let at = |needle: &str| all.find(needle).unwrap();
        assert!(at("\"instance\":\"1\"") < at("\"instance\":\"2\""));
        assert!(at("\"instance\":\"2\"") < at("\"x\":\"1\""));
        let cut = text(&members, 2);
        assert!(!cut.contains("\"x\":\"1\""));
        assert!(cut.contains("\"truncatedAlerts\":1"));
    }

    #[test]
    fn what_ended_is_read_back_from_a_body() {
        let firing = member(&[("alertname", "A"), ("job", "b")], None);
        let mut ended = member(&[("alertname", "A"), ("job", "a")], Some(1_700_000_060_000));
        let body = text(&[firing, ended.clone()], 0);
        ended.updated_at = Timestamp::from_ms(1_700_000_060_000);
        assert_eq!(resolved_in(body.as_bytes()), [ended]);
    }

    #[test]
    fn times_lose_the_zeros_of_their_fraction_only() {
        for (ms, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (500, "1970-01-01T00:00:00.5Z"),
            (1_010, "1970-01-01T00:00:01.01Z"),
            (10_000, "1970-01-01T00:00:10Z"),
            (600_000, "1970-01-01T00:10:00Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_ms(ms)), want);
        }
    }
}
