//! A rule file as it is written: the fields of Prometheus 3, and those of vmalert
//! that change no result.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::Placed;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    #[serde(default)]
    pub(super) groups: Option<Vec<RawGroup>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroup {
    pub(super) name: Placed<String>,
    #[serde(default)]
    pub(super) interval: Option<Placed<String>>,
    #[serde(default)]
    pub(super) limit: Option<i64>,
    #[serde(default)]
    pub(super) query_offset: Option<Placed<String>>,
    #[serde(default)]
    pub(super) eval_delay: Option<Placed<String>>,
    #[serde(default)]
    pub(super) eval_offset: Option<Placed<String>>,
    #[serde(default)]
    pub(super) eval_alignment: Option<Placed<String>>,
    #[serde(default)]
    pub(super) concurrency: Option<Placed<String>>,
    #[serde(default)]
    pub(super) debug: Option<Placed<String>>,
    #[serde(default, rename = "type")]
    pub(super) language: Option<Placed<String>>,
    #[serde(default)]
    pub(super) labels: RawMap,
    #[serde(default)]
    pub(super) rules: Option<Vec<Placed<RawRule>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    #[serde(default)]
    pub(super) record: Option<Placed<String>>,
    #[serde(default)]
    pub(super) alert: Option<Placed<String>>,
    #[serde(default)]
    pub(super) expr: Option<Placed<String>>,
    #[serde(default, rename = "for")]
    pub(super) hold: Option<Placed<String>>,
    #[serde(default)]
    pub(super) keep_firing_for: Option<Placed<String>>,
    #[serde(default)]
    pub(super) labels: RawMap,
    #[serde(default)]
    pub(super) annotations: RawMap,
    #[serde(default)]
    pub(super) debug: Option<Placed<String>>,
    #[serde(default)]
    pub(super) update_entries_limit: Option<Placed<String>>,
}

/// A map of texts, in which a value may be left out.
pub(super) type RawMap = Option<BTreeMap<String, Option<Placed<String>>>>;
