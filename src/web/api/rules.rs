//! `/api/v1/rules`, `/alerts`, `/alertmanagers`: as Grafana and promtool read them.

use axum::extract::State;
use axum::response::Response;

use super::json::{self, Object};
use super::params::Params;
use crate::model::{Matcher, Timestamp};
use crate::rules::{AlertState, AlertView, GroupView, RuleKind, RuleView};
use crate::web::Context;
use crate::web::error::ApiError;

/// The time of an evaluation that never was, as Go prints its zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Which rules are asked for.
struct Filter {
    alerting: bool,
    recording: bool,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    selectors: Vec<Vec<Matcher>>,
    with_alerts: bool,
}

/// A group with those of its rules that are asked for.
struct Wanted<'a> {
    group: &'a GroupView,
    rules: Vec<&'a RuleView>,
}

/// All groups that have a rule that is asked for.
pub async fn rules(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let filter = Filter::new(&params)?;
    let page = Page::new(&params)?;
    let all = (context.groups)();
    let mut groups: Vec<Wanted<'_>> = all.iter().filter_map(|g| filter.apply(g)).collect();
    groups.sort_unstable_by(|a, b| {
        let (a, b) = (a.group, b.group);
        (&a.file, &a.name).cmp(&(&b.file, &b.name))
    });
    let (groups, next) = page.cut(groups)?;
    Ok(json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        json::array(data.field("groups"), groups, |out, group| {
            write_group(out, &group, filter.with_alerts);
        });
        if let Some(next) = next {
            data.text("groupNextToken", &next);
        }
        data.end();
    })))
}

/// All pending and firing alerts.
pub async fn alerts(State(context): State<Context>) -> Response {
    let groups = (context.groups)();
    let alerts = groups
        .iter()
        .flat_map(|group| &group.rules)
        .flat_map(|rule| match &rule.kind {
            RuleKind::Alerting { alerts, .. } => alerts.as_slice(),
            RuleKind::Recording => &[],
        });
    json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        json::array(data.field("alerts"), alerts, write_alert);
        data.end();
    }))
}

/// The Alertmanagers that our alerts are sent to. All that are named are asked.
pub async fn alertmanagers(State(context): State<Context>) -> Response {
    let urls = context.alerting.alertmanagers();
    json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        json::array(data.field("activeAlertmanagers"), &urls, |out, url| {
            let mut one = Object::new(out);
            one.text("url", url);
            one.end();
        });
        let dropped: [&String; 0] = [];
        json::array(data.field("droppedAlertmanagers"), dropped, |out, url| {
            json::raw(out, url);
        });
        data.end();
    }))
}

impl Filter {
    fn new(params: &Params) -> Result<Filter, ApiError> {
        let kind = params.get("type").to_ascii_lowercase();
        let (alerting, recording) = match kind.as_str() {
            "" => (true, true),
            "alert" => (true, false),
            "record" => (false, true),
            other => {
                let message = format!("not supported value {other:?}");
                return Err(ApiError::parameter("type", message));
            }
        };
        let exclude_alerts = match params.get("exclude_alerts") {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            other => {
                let message = format!("cannot parse {other:?} to a boolean");
                return Err(ApiError::parameter("exclude_alerts", message));
            }
        };
        let all = |name: &str| params.all(name).map(str::to_owned).collect();
        Ok(Filter {
            alerting,
            recording,
            names: all("rule_name[]"),
            groups: all("rule_group[]"),
            files: all("file[]"),
            selectors: params.selectors()?,
            with_alerts: !exclude_alerts,
        })
    }

    /// The rules of a group that are asked for; none when it has none.
    fn apply<'a>(&self, group: &'a GroupView) -> Option<Wanted<'a>> {
        let is_wanted =
            |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
        if !is_wanted(&self.groups, &group.name) || !is_wanted(&self.files, &group.file) {
            return None;
        }
        let is_asked_for = |rule: &&RuleView| {
            let kind = match rule.kind {
                RuleKind::Recording => self.recording,
                RuleKind::Alerting { .. } => self.alerting,
            };
            kind && is_wanted(&self.names, &rule.name) && self.selects(rule)
        };
        let rules: Vec<&RuleView> = group.rules.iter().filter(is_asked_for).collect();
        (!rules.is_empty()).then_some(Wanted { group, rules })
    }

    fn selects(&self, rule: &RuleView) -> bool {
        let fulfils = |matcher: &Matcher| {
            matcher.matches(rule.labels.get(&matcher.name).map_or("", String::as_str))
        };
        self.selectors.is_empty() || self.selectors.iter().any(|all| all.iter().all(fulfils))
    }
}

/// Which groups of the sorted list are shown.
struct Page {
    limit: usize,
    token: String,
}

impl Page {
    fn new(params: &Params) -> Result<Page, ApiError> {
        let token = params.get("group_next_token").to_owned();
        let limit = match params.get("group_limit") {
            "" if !token.is_empty() => {
                let message = "group_limit needs to be set in order to use group_next_token";
                return Err(ApiError::bad_data(message));
            }
            "" => usize::MAX,
            text => text
                .parse()
                .ok()
                .filter(|limit| *limit > 0)
                .ok_or_else(|| {
                    ApiError::bad_data(format!("group_limit needs to be a valid number: {text:?}"))
                })?,
        };
        Ok(Page { limit, token })
    }

    /// The groups of this page and the token of the next.
    fn cut<'a>(
        &self,
        mut groups: Vec<Wanted<'a>>,
    ) -> Result<(Vec<Wanted<'a>>, Option<String>), ApiError> {
        if !self.token.is_empty() {
            let at = groups.iter().position(|g| token(g.group) == self.token);
            let at = at.ok_or_else(|| {
                let message = format!("invalid group_next_token {:?}", self.token);
                ApiError::bad_data(message)
            })?;
            groups.drain(..at);
        }
        let next = groups.get(self.limit).map(|g| token(g.group));
        groups.truncate(self.limit);
        Ok((groups, next))
    }
}

/// Names a group without telling its file.
fn token(group: &GroupView) -> String {
    let key = format!("{};{}", group.file, group.name);
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(key.as_bytes()))
}

fn write_group(out: &mut Vec<u8>, wanted: &Wanted<'_>, with_alerts: bool) {
    let group = wanted.group;
    let mut object = Object::new(out);
    object.text("name", &group.name).text("file", &group.file);
    json::array(object.field("rules"), &wanted.rules, |out, rule| {
        write_rule(out, rule, with_alerts);
    });
    object
        .number("interval", group.interval_secs)
        .integer("limit", i64::try_from(group.limit).unwrap_or(i64::MAX))
        .number("evaluationTime", group.evaluation_secs)
        .text("lastEvaluation", &rfc3339(group.last_evaluation))
        .end();
}

fn write_rule(out: &mut Vec<u8>, rule: &RuleView, with_alerts: bool) {
    let mut object = Object::new(out);
    let kind = match &rule.kind {
        RuleKind::Recording => {
            object.text("name", &rule.name).text("query", &rule.query);
            if !rule.labels.is_empty() {
                object.pairs("labels", &rule.labels);
            }
            "recording"
        }
        RuleKind::Alerting {
            for_secs,
            keep_firing_secs,
            annotations,
            alerts,
        } => {
            object
                .text("state", state(alerts).as_str())
                .text("name", &rule.name)
                .text("query", &rule.query)
                .number("duration", *for_secs)
                .number("keepFiringFor", *keep_firing_secs)
                .pairs("labels", &rule.labels)
                .pairs("annotations", annotations);
            let shown: &[AlertView] = if with_alerts { alerts } else { &[] };
            json::array(object.field("alerts"), shown, write_alert);
            "alerting"
        }
    };
    let health = match rule.healthy {
        None => "unknown",
        Some(true) => "ok",
        Some(false) => "err",
    };
    object.text("health", health);
    if let Some(error) = &rule.last_error {
        object.text("lastError", error);
    }
    object
        .number("evaluationTime", rule.evaluation_secs)
        .text("lastEvaluation", &rfc3339(rule.last_evaluation))
        .text("type", kind)
        .end();
}

fn write_alert(out: &mut Vec<u8>, alert: &AlertView) {
    let mut object = Object::new(out);
    json::labels(object.field("labels"), &alert.labels);
    object
        .pairs("annotations", &alert.annotations)
        .text("state", alert.state.as_str())
        .text("activeAt", &rfc3339(Some(alert.active_at)));
    if let Some(since) = alert.keep_firing_since {
        object.text("keepFiringSince", &rfc3339(Some(since)));
    }
    object.text("value", &json::go_exponent(alert.value)).end();
}

/// A rule is in the state of its worst alert.
fn state(alerts: &[AlertView]) -> AlertState {
    let states = alerts.iter().map(|alert| alert.state);
    states.max().unwrap_or(AlertState::Inactive)
}

/// RFC 3339 without trailing zeros in the fraction, as Go prints it.
fn rfc3339(t: Option<Timestamp>) -> String {
    let Some(t) = t else {
        return NEVER.to_owned();
    };
    match jiff::Timestamp::from_millisecond(t.as_ms()) {
        Ok(t) => t.to_string(),
        Err(_) => NEVER.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Labels;

    fn alert(state: AlertState, value: f64) -> AlertView {
        AlertView {
            labels: Labels::from_pairs([("alertname", "Hot"), ("severity", "page")]),
            annotations: BTreeMap::from([("summary".to_owned(), "it is <hot>".to_owned())]),
            state,
            active_at: Timestamp::from_ms(1_700_000_000_250),
            keep_firing_since: None,
            value,
        }
    }

    fn rule(name: &str, kind: RuleKind) -> RuleView {
        RuleView {
            name: name.to_owned(),
            query: "a > 1".to_owned(),
            labels: BTreeMap::from([("severity".to_owned(), "page".to_owned())]),
            kind,
            healthy: Some(true),
            last_error: None,
            evaluation_secs: 0.000_25,
            last_evaluation: Some(Timestamp::from_ms(1_700_000_000_000)),
        }
    }

    fn alerting(alerts: Vec<AlertView>) -> RuleKind {
        RuleKind::Alerting {
            for_secs: 120.0,
            keep_firing_secs: 0.0,
            annotations: BTreeMap::new(),
            alerts,
        }
    }

    fn group(name: &str, rules: Vec<RuleView>) -> GroupView {
        GroupView {
            name: name.to_owned(),
            file: "f.yml".to_owned(),
            interval_secs: 15.0,
            limit: 0,
            rules,
            evaluation_secs: 0.5,
            last_evaluation: None,
        }
    }

    fn whole(group: &GroupView) -> Wanted<'_> {
        Wanted {
            group,
            rules: group.rules.iter().collect(),
        }
    }

    fn written(group: &GroupView, with_alerts: bool) -> String {
        let mut out = Vec::new();
        write_group(&mut out, &whole(group), with_alerts);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_group_has_prometheus_fields_in_their_order() {
        let firing = alert(AlertState::Firing, 90.0);
        let mut broken = rule("rec", RuleKind::Recording);
        broken.healthy = Some(false);
        broken.last_error = Some("no".to_owned());
        let group = group("g", vec![rule("Hot", alerting(vec![firing])), broken]);
        assert_eq!(
            written(&group, true),
            concat!(
                r#"{"name":"g","file":"f.yml","rules":[{"state":"firing","name":"Hot","query":"a \u003e 1","#,
                r#""duration":120,"keepFiringFor":0,"labels":{"severity":"page"},"annotations":{},"#,
                r#""alerts":[{"labels":{"alertname":"Hot","severity":"page"},"annotations":"#,
                r#"{"summary":"it is \u003chot\u003e"},"state":"firing","activeAt":"2023-11-14T22:13:20.25Z","#,
                r#""value":"9e+01"}],"health":"ok","evaluationTime":0.00025,"#,
                r#""lastEvaluation":"2023-11-14T22:13:20Z","type":"alerting"},"#,
                r#"{"name":"rec","query":"a \u003e 1","labels":{"severity":"page"},"health":"err","lastError":"no","#,
                r#""evaluationTime":0.00025,"lastEvaluation":"2023-11-14T22:13:20Z","type":"recording"}],"#,
                r#""interval":15,"limit":0,"evaluationTime":0.5,"lastEvaluation":"0001-01-01T00:00:00Z"}"#,
            )
        );
        assert!(!written(&group, false).contains("activeAt"));
    }

    #[test]
    fn the_state_is_that_of_the_worst_alert() {
        let [pending, firing] =
            [AlertState::Pending, AlertState::Firing].map(|state| alert(state, 1.0));
        assert_eq!(state(&[]), AlertState::Inactive);
        assert_eq!(state(std::slice::from_ref(&pending)), AlertState::Pending);
        assert_eq!(state(&[firing, pending]), AlertState::Firing);
    }

    #[test]
    fn filters_leave_out_groups_without_a_wanted_rule() {
        let filter = |alerting, recording, names: &[&str]| Filter {
            alerting,
            recording,
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            groups: Vec::new(),
            files: Vec::new(),
            selectors: Vec::new(),
            with_alerts: true,
        };
        let group = group("g", vec![rule("rec", RuleKind::Recording)]);
        assert!(filter(true, true, &[]).apply(&group).is_some());
        assert!(filter(true, false, &[]).apply(&group).is_none());
        assert!(filter(true, true, &["rec"]).apply(&group).is_some());
        let mut severe = filter(true, true, &[]);
        severe.selectors = vec![vec![Matcher::equal("severity", "page")]];
        assert!(severe.apply(&group).is_some());
        severe.selectors = vec![vec![Matcher::equal("severity", "info")]];
        assert!(severe.apply(&group).is_none());
        assert!(filter(true, true, &["other"]).apply(&group).is_none());
    }

    #[test]
    fn pages_of_groups_follow_their_tokens() {
        let groups = ["a", "b", "c"].map(|name| group(name, Vec::new()));
        let all = || groups.iter().map(whole).collect();
        let page = |limit, token: &str| Page {
            limit,
            token: token.to_owned(),
        };
        let (first, next) = page(2, "").cut(all()).unwrap();
        assert_eq!(first.len(), 2);
        let (second, end) = page(2, &next.unwrap()).cut(all()).unwrap();
        assert_eq!(second[0].group.name, "c");
        assert_eq!(end, None);
        assert!(page(2, "nonsense").cut(all()).is_err());
    }
}
