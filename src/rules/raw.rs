//! A rule file as it is written: the fields of Prometheus 3, and those of vmalert
//! that change no result.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    #[serde(default)]
    pub(super) groups: Option<Vec<RawGroup>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroup {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) interval: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) limit: Option<usize>,
    #[serde(default)]
    pub(super) query_offset: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) eval_delay: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) eval_offset: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) eval_alignment: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) concurrency: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) debug: Option<Spanned<String>>,
    #[serde(default, rename = "type")]
    pub(super) language: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: RawMap,
    #[serde(default)]
    pub(super) rules: Option<Vec<Spanned<RawRule>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    #[serde(default)]
    pub(super) record: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) alert: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) expr: Option<Spanned<String>>,
    #[serde(default, rename = "for")]
    pub(super) hold: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) keep_firing_for: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: RawMap,
    #[serde(default)]
    pub(super) annotations: RawMap,
    #[serde(default)]
    pub(super) debug: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) update_entries_limit: Option<Spanned<String>>,
}

/// A map of texts, in which a value may be left out.
pub(super) type RawMap = Option<BTreeMap<String, Option<Spanned<String>>>>;
