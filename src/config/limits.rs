//! `[store]`, `[limits]`, `[query]`, `[[tenant]]`: sizes, times and bounds.

use serde::Deserialize;

use super::{Secret, Size, Span};
use crate::model::TenantId;

/// `[store]`: the embedded store.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// How long samples are kept.
    pub retention: Span,
    /// How long roll-ups of 5 minutes are kept; 0: none are made.
    pub rollup_5m_retention: Span,
    /// How long roll-ups of an hour are kept; 0: none are made.
    pub rollup_1h_retention: Span,
    /// The most bytes of the whole data directory; the oldest days leave before it
    /// is passed. 0 is no limit.
    pub size_max: Size,
    /// How far in the past a sample may lie when it arrives.
    pub max_late: Span,
    /// How long the writer waits for more before it commits what somebody waits for.
    pub linger: Span,
    /// The page cache of the hot file; commits are at most a quarter of it.
    pub hot_cache: Size,
    /// The page cache of the open day's file.
    pub l0_cache: Size,
    /// Series and samples in memory; above this the open hour is sealed early.
    pub head_max: Size,
    /// Of the process: at 80 % the open hour is sealed early, at 95 % new series are
    /// refused. 0: what the control group or the machine has.
    pub memory_limit: Size,
    /// Free space below which old data goes early; 0: never.
    pub free_min: Size,
    /// A file that is given up when the disk is full; 0: none.
    pub reserve: Size,
    /// Bytes that commits and seals may write to the disk in a day; 0: no budget.
    pub write_budget: Size,
    /// Nothing is written: queries and pages only. So it is on a read-only medium too.
    pub read_only: bool,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            retention: Span::secs(30 * 86_400),
            rollup_5m_retention: Span::secs(0),
            rollup_1h_retention: Span::secs(0),
            size_max: Size::bytes(0),
            max_late: Span::secs(7 * 86_400),
            linger: Span::ms(2),
            hot_cache: Size::mib(8),
            l0_cache: Size::mib(16),
            head_max: Size::mib(1_024),
            memory_limit: Size::bytes(0),
            free_min: Size::mib(256),
            reserve: Size::mib(32),
            write_budget: Size::mib(8 * 1_024),
            read_only: false,
        }
    }
}

/// `[limits]`: bounds on what comes in, per tenant where it says so.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest payload of a message.
    pub payload_max: Size,
    /// Samples in one message.
    pub samples_per_message_max: usize,
    /// Nesting of a JSON payload.
    pub depth_max: usize,
    /// Labels of a series.
    pub labels_max: usize,
    /// Bytes of a label name.
    pub label_name_bytes_max: usize,
    /// Bytes of a label value.
    pub label_value_bytes_max: usize,
    /// Active series, all tenants together.
    pub series_max: usize,
    /// Active series of one tenant.
    pub series_per_tenant_max: usize,
    /// Series that may be made in an hour, all tenants together; 0 is no limit.
    pub new_series_per_hour: usize,
    /// Series that one tenant may make in an hour; 0 is no limit.
    pub new_series_per_tenant_per_hour: usize,
    /// Values of one label of one tenant; further ones become `__overflow__`. 0 is no limit.
    pub label_values_max: usize,
    /// Devices of one tenant that are registered; messages of others are taken all the same.
    pub devices_per_tenant_max: usize,
    /// Samples per second of messages and pushes, all tenants together; 0 is no limit.
    pub samples_per_second_all: u32,
    /// Samples per second of messages and pushes of one tenant; 0 is no limit.
    pub samples_per_second: u32,
    /// Messages per second of one tenant; 0 is no limit.
    pub messages_per_second: u32,
    /// Messages that a tenant may send at once above its rate.
    pub messages_burst: u32,
    /// Messages of one tenant that wait for their commit.
    pub buffer_per_tenant: usize,
    /// Outbox and dead letters together, each, on disk.
    pub outbox_max: Size,
    /// All dead letters on disk; the oldest go first.
    pub dead_letters_max: Size,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            payload_max: Size::mib(1),
            samples_per_message_max: 10_000,
            depth_max: 32,
            labels_max: 64,
            label_name_bytes_max: 256,
            label_value_bytes_max: 2_048,
            series_max: 1_000_000,
            series_per_tenant_max: 200_000,
            new_series_per_hour: 0,
            new_series_per_tenant_per_hour: 0,
            label_values_max: 0,
            devices_per_tenant_max: 100_000,
            samples_per_second_all: 0,
            samples_per_second: 0,
            messages_per_second: 0,
            messages_burst: 10_000,
            buffer_per_tenant: 65_600,
            outbox_max: Size::mib(128),
            dead_letters_max: Size::mib(128),
        }
    }
}

/// `[query]`: bounds on questions.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// How long one query may run.
    pub timeout: Span,
    /// How many queries run at once, and how many lists, federations and remote reads;
    /// more wait up to their time-out.
    pub concurrency: usize,
    /// Samples that one query may hold.
    pub samples_max: usize,
    /// Series that one selector may select.
    pub series_max: usize,
    /// How far back an instant selector looks for a sample.
    pub lookback_delta: Span,
    /// Memory for answers of range queries that are asked again; 0 keeps none.
    pub cache: Size,
    /// The experimental parts of PromQL that are on.
    pub features: Vec<Feature>,
}

/// An experimental part of PromQL, by the name of Prometheus' `--enable-feature`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Functions and aggregations.
    PromqlExperimentalFunctions,
    /// `anchored` and `smoothed`.
    PromqlExtendedRangeSelectors,
    /// `fill`, `fill_left`, `fill_right`.
    PromqlBinopFillModifiers,
    /// Names go at the end of a query. Changes answers, so it is off.
    PromqlDelayedNameRemoval,
    /// Computed durations; on in any case.
    PromqlDurationExpr,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 5] = [
        Feature::PromqlExperimentalFunctions,
        Feature::PromqlExtendedRangeSelectors,
        Feature::PromqlBinopFillModifiers,
        Feature::PromqlDelayedNameRemoval,
        Feature::PromqlDurationExpr,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Feature::PromqlExperimentalFunctions => "promql-experimental-functions",
            Feature::PromqlExtendedRangeSelectors => "promql-extended-range-selectors",
            Feature::PromqlBinopFillModifiers => "promql-binop-fill-modifiers",
            Feature::PromqlDelayedNameRemoval => "promql-delayed-name-removal",
            Feature::PromqlDurationExpr => "promql-duration-expr",
        }
    }
}

impl Default for Query {
    fn default() -> Query {
        Query {
            timeout: Span::secs(120),
            concurrency: 10,
            samples_max: 50_000_000,
            series_max: 500_000,
            cache: Size::mib(8),
            lookback_delta: Span::secs(300),
            features: vec![
                Feature::PromqlExperimentalFunctions,
                Feature::PromqlExtendedRangeSelectors,
                Feature::PromqlBinopFillModifiers,
            ],
        }
    }
}

/// `[[tenant]]`: what differs from `[limits]` for one tenant.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// The tenant's name.
    pub id: TenantId,
    /// Whether its messages are taken.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Instead of `limits.messages_per_second`.
    #[serde(default)]
    pub messages_per_second: Option<u32>,
    /// Instead of `limits.messages_burst`.
    #[serde(default)]
    pub messages_burst: Option<u32>,
    /// Instead of `limits.samples_per_second`.
    #[serde(default)]
    pub samples_per_second: Option<u32>,
    /// Instead of `limits.series_per_tenant_max`.
    #[serde(default)]
    pub series_max: Option<usize>,
    /// Instead of `store.retention`, when it is shorter.
    #[serde(default)]
    pub retention: Option<Span>,
    /// A bearer token that may push as this tenant, and only as it.
    #[serde(default)]
    pub token: Option<Secret>,
}

fn yes() -> bool {
    true
}
