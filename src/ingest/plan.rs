//! What the configuration says about messages, compiled and valid as a whole.
//!
//! A reload compiles a new plan beside the old one and puts it in its place only
//! when nothing was wrong with it.

use std::collections::HashMap;

use super::decode::DEPTH_MAX;
use super::map::Map;
use super::route::Route;
use crate::config::{self, Config, Limits, Mistake};
use crate::model::TenantId;
use crate::telemetry::metrics;

/// The compiled configuration of ingest.
#[derive(Debug)]
pub(super) struct Plan {
    /// The first map whose topic matches counts; the last one is the default map.
    pub(super) maps: Vec<Map>,
    /// Where accepted messages go.
    pub(super) routes: Vec<Route>,
    /// Bounds of a message.
    pub(super) limits: Limits,
    /// How far in the past a sample may lie, in milliseconds.
    pub(super) late_max_ms: i64,
    tenants: HashMap<TenantId, Rule>,
    anyone: Rule,
    tokens: Vec<(TenantId, String)>,
}

/// What a tenant may do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rule {
    /// Whether its messages are taken.
    pub(super) enabled: bool,
    /// Messages per second; 0 is no limit.
    pub(super) rate: u32,
    /// Messages at once above the rate.
    pub(super) burst: u32,
    /// Samples per second; 0 is no limit.
    pub(super) samples: u32,
    /// Messages that may wait for their commit.
    pub(super) buffer: usize,
}

/// A plan with the instruments of its message types: what messages are judged by.
pub(super) struct Active {
    /// The plan.
    pub(super) plan: Plan,
    /// The message type of each map.
    pub(super) kinds: Vec<metrics::Kind>,
    /// The message type of topics that no map takes.
    pub(super) unknown: metrics::Kind,
}

impl Plan {
    /// Compiles the configuration. Reads the tenants' tokens.
    ///
    /// # Errors
    /// When a map, a route, a limit or a token is not valid; the text says which.
    pub(super) fn compile(config: &Config) -> Result<Plan, Mistake> {
        let limits = config.limits.clone();
        check_limits(&limits)?;
        let default = Map::compile(&config::Map::default()).expect("the default map is one");
        let anyone = Rule {
            enabled: true,
            rate: limits.messages_per_second,
            burst: limits.messages_burst,
            samples: limits.samples_per_second,
            buffer: limits.buffer_per_tenant,
        };
        Ok(Plan {
            maps: maps(config)
                .chain([Ok(default)])
                .collect::<Result<_, _>>()?,
            routes: routes(config).collect::<Result<_, _>>()?,
            late_max_ms: config.store.max_late.as_ms(),
            tenants: rules(config, anyone),
            tokens: tokens(config).collect::<Result<_, _>>()?,
            limits,
            anyone,
        })
    }

    /// What a tenant may do. Tenants that are not configured may what `[limits]` says.
    pub(super) fn rule(&self, tenant: &str) -> Rule {
        self.tenants.get(tenant).copied().unwrap_or(self.anyone)
    }

    /// The configured tenants.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenants.keys()
    }

    /// The tokens that are bound to a tenant.
    pub(super) fn tokens(&self) -> &[(TenantId, String)] {
        &self.tokens
    }

    /// The plan with its instruments.
    pub(super) fn activate(self, metrics: &metrics::Ingest) -> Active {
        let kind = |map: &Map| metrics.add_message_type(map.message_type());
        Active {
            kinds: self.maps.iter().map(kind).collect(),
            unknown: metrics.add_message_type("unknown"),
            plan: self,
        }
    }
}

/// Every mistake that [`Plan::compile`] could find.
pub(super) fn mistakes(config: &Config) -> Vec<Mistake> {
    let mut found: Vec<Mistake> = check_limits(&config.limits).err().into_iter().collect();
    found.extend(maps(config).filter_map(Result::err));
    found.extend(routes(config).filter_map(Result::err));
    found.extend(tokens(config).filter_map(Result::err));
    found
}

fn check_limits(limits: &config::Limits) -> Result<(), Mistake> {
    let depth = limits.depth_max;
    if !(1..=DEPTH_MAX).contains(&depth) {
        let text = format!("{depth}, expected 1 to {DEPTH_MAX}");
        return Err(Mistake::new("limits.depth_max", text));
    }
    Ok(())
}

fn maps(config: &Config) -> impl Iterator<Item = Result<Map, Mistake>> {
    config.ingest.map.iter().enumerate().map(|(at, raw)| {
        Map::compile(raw).map_err(|err| Mistake::within(&format!("ingest.map[{at}]"), &err))
    })
}

fn routes(config: &Config) -> impl Iterator<Item = Result<Route, Mistake>> {
    config.route.iter().enumerate().map(|(at, raw)| {
        Route::compile(raw).map_err(|err| Mistake::within(&format!("route[{at}]"), &err))
    })
}

fn rules(config: &Config, anyone: Rule) -> HashMap<TenantId, Rule> {
    let rule = |tenant: &config::Tenant| Rule {
        enabled: tenant.enabled,
        rate: tenant.messages_per_second.unwrap_or(anyone.rate),
        burst: tenant.messages_burst.unwrap_or(anyone.burst),
        samples: tenant.samples_per_second.unwrap_or(anyone.samples),
        ..anyone
    };
    let tenants = config.tenant.iter();
    tenants.map(|t| (t.id.clone(), rule(t))).collect()
}

fn tokens(config: &Config) -> impl Iterator<Item = Result<(TenantId, String), Mistake>> {
    let tenants = config.tenant.iter().enumerate();
    let with_token = tenants.filter_map(|(at, t)| Some((at, &t.id, t.token.as_ref()?)));
    with_token.map(|(at, id, secret)| {
        let path = format!("tenant[{at}].token");
        match secret.read() {
            Ok(token) if token.is_empty() => Err(Mistake::new(path, "empty, expected a text")),
            Ok(token) => Ok((id.clone(), token)),
            Err(err) => Err(Mistake::new(path, format!("{err:#}"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> anyhow::Result<Plan> {
        Ok(Plan::compile(&Config::parse(text, "c.toml").unwrap())?)
    }

    #[test]
    fn the_default_map_is_always_the_last_one() {
        assert_eq!(compile("").unwrap().maps.len(), 1);
        let plan = compile("[[ingest.map]]\ntopic = \"x/{device_id}\"\n").unwrap();
        assert_eq!(plan.maps.len(), 2);
        assert!(plan.maps[1].topic.matches("tenants/a/devices/b/telemetry"));
    }

    #[test]
    fn a_tenant_differs_from_the_limits_where_it_says_so() {
        let plan = compile(
            "[limits]\nmessages_per_second = 5\n[[tenant]]\nid = \"a\"\nmessages_per_second = 9\n\
             [[tenant]]\nid = \"b\"\nenabled = false\n",
        )
        .unwrap();
        assert_eq!((plan.rule("a").rate, plan.rule("b").rate), (9, 5));
        assert!(plan.rule("a").enabled && !plan.rule("b").enabled);
        assert_eq!(plan.rule("stranger").rate, 5);
    }

    #[test]
    fn errors_name_the_table() {
        let check = |text: &str, want: &str| {
            let err = format!("{:#}", compile(text).unwrap_err());
            assert!(err.contains(want), "{want:?} not in {err}");
        };
        check(
            "[[ingest.map]]\ntopic = \"a/#/b\"\n",
            "[ingest.map[0]] topic: `#` is only",
        );
        check(
            "[limits]\ndepth_max = 500\n",
            "[limits] depth_max: 500, expected 1 to",
        );
        check(
            "[[tenant]]\nid = \"a\"\ntoken = { file = \"/nonexistent\" }\n",
            "[tenant[0]] token: read secret",
        );
        check(
            "[[destination.webhook]]\nname = \"w\"\nurl = \"http://h\"\n\
             [[route]]\nname = \"r\"\ntopic = \"a/{b}\"\ndestination = \"w\"\n",
            "[route[0]] topic: a filter",
        );
    }
}
