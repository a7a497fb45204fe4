//! A group's news as an outbox row.

use std::collections::BTreeSet;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::alerts::Alert;
use super::group::{Group, as_ms};
use super::hour::Hour;
use super::payload::{self, About};
use super::route::Route;
use super::told::{self, Told};
use crate::config::receivers::Integration;
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Delivery, DeliveryKind, StateRow, TenantId};
use crate::store::{StateOp, Table};

/// A group's news on its way to one integration.
pub(super) struct Telling<'a> {
    pub(super) route: &'a Route,
    pub(super) group: &'a Group,
    pub(super) integration: &'a Integration,
    pub(super) hour: &'a Hour<'a>,
}

impl Telling<'_> {
    fn key(&self, content: &Told) -> Vec<u8> {
        told::key(&self.integration.name, &self.group.id, content.at)
    }

    /// Notes what the receiver does not want to hear.
    pub(super) fn note(&self, content: &Told) -> StateOp {
        StateOp::Put {
            table: Table::NotifyState,
            key: Bytes::from(self.key(content)),
            value: Bytes::from(content.encode()),
        }
    }

    /// The outbox row, and what it says. It replaces one that still waits, and tells
    /// of everything that ended and that only the replaced one would have told: `carried`.
    pub(super) fn tell(
        &self,
        shown: Vec<&Alert>,
        mut content: Told,
        mut carried: Vec<Alert>,
    ) -> (Delivery, Told) {
        let now = self.hour.now;
        let known = fingerprints(&mut shown.iter().copied());
        carried.retain(|alert| !known.contains(&alert.labels.fingerprint()));
        let fingerprints = carried.iter().map(|alert| alert.labels.fingerprint());
        content.resolved.extend(fingerprints);
        let counted = match self.group.is_digest(self.route) {
            true => self.group.counted(&shown),
            false => Vec::new(),
        };
        let mut members: Vec<&Alert> = match counted.is_empty() {
            true => shown,
            false => counted.iter().collect(),
        };
        members.extend(&carried);
        members.retain(|alert| self.integration.send_resolved || alert.fires_at(now));
        let about = About {
            receiver: &self.route.receiver,
            group_key: &self.group.key,
            group_labels: &self.group.labels,
            members,
            external_url: &self.hour.settings.outside.url,
            alerts_max: self.integration.alerts_max,
            now,
        };
        let delivery = Delivery {
            kind: DeliveryKind::Notification,
            event_id: event_id(&self.integration.name, &self.group.id, &content),
            destination: self.integration.name.clone(),
            tenant_id: tenant_of(&about.members),
            route: self.group.key.clone(),
            created_at: now,
            attempts: 0,
            next_at: now,
            flush_interval_ms: Some(as_ms(self.route.group_interval)),
            content_type: "application/json".to_owned(),
            on_success: vec![StateRow {
                table: Table::NotifyState.name().to_owned(),
                key: self.key(&content),
                value: Some(content.encode()),
            }],
            body: payload::body(&about),
        };
        (delivery, content)
    }
}

/// The identities of some alerts.
pub(super) fn fingerprints(alerts: &mut dyn Iterator<Item = &Alert>) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    all.extend(alerts.map(|alert| alert.labels.fingerprint()));
    all
}

/// The same for the same fact: a flush that was not committed has no number, one
/// that was keeps it over all attempts.
fn event_id(integration: &str, group_id: &str, content: &Told) -> String {
    let mut hash = Xxh3::new();
    for text in [integration, group_id] {
        hash.update(&text.len().to_le_bytes());
        hash.update(text.as_bytes());
    }
    for set in [&content.firing, &content.resolved] {
        hash.update(&set.len().to_le_bytes());
        for fingerprint in set {
            hash.update(&fingerprint.to_le_bytes());
        }
    }
    hash.update(&content.at.as_ms().to_le_bytes());
    format!("ntf_{:032x}", hash.digest128())
}

/// The tenant that all alerts name, or the default one.
fn tenant_of(members: &[&Alert]) -> TenantId {
    let mut names = members.iter().map(|m| m.labels.value(TENANT_LABEL));
    let first = names.next().unwrap_or_default();
    if names.any(|name| name != first) {
        return TenantId::default_tenant();
    }
    TenantId::new(first).unwrap_or_else(|_| TenantId::default_tenant())
}
