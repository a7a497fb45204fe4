//! `GET /api/v2/alerts`, `/alerts/groups` and `/receivers`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;

use super::answer::{Error, flag};
use super::scope::Scope;
use crate::alerting::AlertStatus;
use crate::model::matcher::anchored;
use crate::model::{Matcher, Timestamp, matchers};
use crate::web::Context;

type Pairs = Query<Vec<(String, String)>>;

/// What `GET /alerts` and `GET /alerts/groups` may be asked.
struct Wanted {
    matchers: Vec<Matcher>,
    receiver: Option<regex::Regex>,
    active: bool,
    silenced: bool,
    inhibited: bool,
    scope: Scope,
}

impl Wanted {
    fn new(pairs: &[(String, String)], scope: Scope) -> Result<Wanted, Error> {
        let last = |name: &str| {
            let found = pairs.iter().rev().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        let receiver = last("receiver").filter(|text| !text.is_empty());
        let receiver = receiver
            .map(anchored)
            .transpose()
            .map_err(|err| Error::Bad(format!("failed to parse receiver param: {err}")))?;
        Ok(Wanted {
            matchers: filters(pairs)?,
            receiver,
            active: flag(last("active")),
            silenced: flag(last("silenced")),
            inhibited: flag(last("inhibited")),
            scope,
        })
    }

    fn wants(&self, status: &AlertStatus) -> bool {
        let labels = &status.alert.labels;
        self.scope.covers(labels)
            && (self.active || status.is_suppressed())
            && (self.silenced || status.silenced_by.is_empty())
            && (self.inhibited || status.inhibited_by.is_none())
            && self.matchers.iter().all(|m| m.matches_labels(labels))
    }

    fn wants_receiver(&self, name: &str) -> bool {
        let receiver = self.receiver.as_ref();
        receiver.is_none_or(|pattern| pattern.is_match(name))
    }
}

/// All matchers of the `filter` parameters.
///
/// # Errors
/// With the first that is none.
pub(super) fn filters(pairs: &[(String, String)]) -> Result<Vec<Matcher>, Error> {
    let filters = pairs.iter().filter(|(name, _)| name == "filter");
    filters
        .map(|(_, text)| matchers::parse_one(text).map_err(|err| Error::Bad(err.to_string())))
        .collect()
}

/// An alert with what is made of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownAlert {
    annotations: BTreeMap<String, String>,
    ends_at: String,
    fingerprint: String,
    receivers: Vec<Named>,
    starts_at: String,
    status: ShownStatus,
    updated_at: String,
    #[serde(rename = "generatorURL", skip_serializing_if = "String::is_empty")]
    generator_url: String,
    labels: BTreeMap<String, String>,
}

/// A receiver.
#[derive(Serialize)]
pub struct Named {
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownStatus {
    inhibited_by: Vec<String>,
    silenced_by: Vec<String>,
    state: &'static str,
}

/// Alerts that are told together.
#[derive(Serialize)]
pub struct ShownGroup {
    alerts: Vec<ShownAlert>,
    labels: BTreeMap<String, String>,
    receiver: Named,
}

impl ShownAlert {
    /// An alert of our own rules ends when they say so: until then its end is shown
    /// as far away as that of an alert without one.
    fn of(status: &AlertStatus, now: Timestamp) -> ShownAlert {
        const OPEN_END_MS: i64 = 300_000;
        let alert = &status.alert;
        let ends_at = alert.ends_at.unwrap_or(now.plus_ms(OPEN_END_MS));
        let named = |name: &String| Named { name: name.clone() };
        ShownAlert {
            annotations: alert.annotations.clone(),
            ends_at: ends_at.to_rfc3339(),
            fingerprint: format!("{:016x}", alert.labels.fingerprint()),
            receivers: status.receivers.iter().map(named).collect(),
            starts_at: alert.starts_at.to_rfc3339(),
            status: ShownStatus {
                inhibited_by: status.inhibited_by.iter().cloned().collect(),
                silenced_by: status.silenced_by.clone(),
                state: if status.is_suppressed() {
                    "suppressed"
                } else {
                    "active"
                },
            },
            updated_at: alert.updated_at.to_rfc3339(),
            generator_url: alert.generator_url.clone(),
            labels: alert.labels.to_map(),
        }
    }
}

/// The firing alerts that are asked for, by fingerprint.
pub async fn list(
    State(context): State<Context>,
    scope: Scope,
    Query(pairs): Pairs,
) -> Result<Json<Vec<ShownAlert>>, Error> {
    let wanted = Wanted::new(&pairs, scope)?;
    let picture = context.alerting.picture().await?;
    let now = context.clock.now();
    let is_theirs = |status: &AlertStatus| {
        let mut receivers = status.receivers.iter();
        wanted.receiver.is_none() || receivers.any(|name| wanted.wants_receiver(name))
    };
    let shown = picture.alerts.iter();
    let shown = shown.filter(|status| wanted.wants(status) && is_theirs(status));
    Ok(Json(shown.map(|s| ShownAlert::of(s, now)).collect()))
}

/// The same in their groups.
pub async fn groups(
    State(context): State<Context>,
    scope: Scope,
    Query(pairs): Pairs,
) -> Result<Json<Vec<ShownGroup>>, Error> {
    let wanted = Wanted::new(&pairs, scope)?;
    let picture = context.alerting.picture().await?;
    let now = context.clock.now();
    let groups = picture.groups(
        |status| wanted.wants(status),
        |name| wanted.wants_receiver(name),
    );
    let shown = groups.iter().map(|group| ShownGroup {
        alerts: group
            .alerts
            .iter()
            .map(|s| ShownAlert::of(s, now))
            .collect(),
        labels: group.labels.to_map(),
        receiver: Named {
            name: group.receiver.clone(),
        },
    });
    Ok(Json(shown.collect()))
}

/// The names of all receivers.
pub async fn receivers(State(context): State<Context>, _: Scope) -> Json<Vec<Named>> {
    let names = context.alerting.receivers().into_iter();
    Json(names.map(|name| Named { name }).collect())
}
