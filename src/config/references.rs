//! Names that must be unique, and names that must exist.

use std::collections::HashSet;

use super::{Config, Mistake};
use crate::model::tenant::is_reserved;

/// Every mistake in what the tables say of each other.
pub(super) fn mistakes(config: &Config) -> Vec<Mistake> {
    let mut found: Vec<Mistake> = config.origin.not_read.iter().cloned().collect();
    repeats(config, &mut found);
    destinations(config, &mut found);
    found.extend(config.alerting.check_form().err().map(|field| {
        let path = format!("alerting.{field}");
        Mistake::new(
            path,
            "not beside the tree of [alerting.route] or config_file",
        )
    }));
    found.extend(nobody_told(config));
    let store = &config.store;
    if store.size_max.get() > 0 && store.reserve.get() >= store.size_max.get() {
        let text = "not below [store] size_max, of which it is a part: nothing else would fit";
        found.push(Mistake::new("store.reserve", text));
    }
    let is_tree = config.alerting.route.is_some() || config.alerting.file.is_some();
    if let Some(tree) = config.notification_tree().filter(|_| is_tree) {
        // An `alertmanager.yml` means its own receivers only, as in Alertmanager.
        let more = match config.alerting.file {
            Some(_) => HashSet::new(),
            None => config.destination.names().map(String::as_str).collect(),
        };
        let told = tree.mistakes(&more).into_iter();
        found.extend(told.map(|(path, text)| Mistake::new(config.tree_path(&path), text)));
    }
    found
}

/// Receivers to which nothing leads would never be told.
fn nobody_told(config: &Config) -> Option<Mistake> {
    let alerting = &config.alerting;
    let leads = config.notification_tree().is_some() || alerting.config_file.is_some();
    (!alerting.receivers.is_empty() && !leads).then(|| {
        let text = "nothing leads to them, expected [alerting.route], or one of them as receiver";
        Mistake::new("alerting.receivers", text)
    })
}

fn repeats(config: &Config, found: &mut Vec<Mistake>) {
    let mut sources = HashSet::new();
    let names = config.source.mqtt.iter().map(|s| s.name.as_str());
    repeated(
        found,
        &mut sources,
        "source name",
        "source.mqtt",
        "name",
        names,
    );
    let names = config.source.nats.iter().map(|s| s.name.as_str());
    repeated(
        found,
        &mut sources,
        "source name",
        "source.nats",
        "name",
        names,
    );
    let names = config.destination.webhook.iter().map(|w| w.name.as_str());
    let (what, table) = ("destination name", "destination.webhook");
    repeated(found, &mut HashSet::new(), what, table, "name", names);
    let names = config.route.iter().map(|r| r.name.as_str());
    repeated(
        found,
        &mut HashSet::new(),
        "route name",
        "route",
        "name",
        names,
    );
    for (index, tenant) in config.tenant.iter().enumerate() {
        if is_reserved(tenant.id.as_str()) {
            let text = format!(
                "{:?} is reserved, as all names are that begin with __",
                tenant.id.as_str()
            );
            found.push(Mistake::new(format!("tenant[{index}].id"), text));
        }
    }
    let ids = config.tenant.iter().map(|t| t.id.as_str());
    repeated(found, &mut HashSet::new(), "tenant id", "tenant", "id", ids);
}

fn repeated<'a>(
    found: &mut Vec<Mistake>,
    seen: &mut HashSet<&'a str>,
    what: &str,
    table: &str,
    field: &str,
    names: impl Iterator<Item = &'a str>,
) {
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            let text = format!("{what} {name:?} is used twice, expected unique names");
            found.push(Mistake::new(format!("{table}[{index}].{field}"), text));
        }
    }
}

fn destinations(config: &Config, found: &mut Vec<Mistake>) {
    let known: Vec<&str> = config.destination.names().map(String::as_str).collect();
    let mut check = |path: String, name: &str| {
        if !known.contains(&name) {
            let text = format!("{name:?} is not configured, expected one of {known:?}");
            found.push(Mistake::new(path, text));
        }
    };
    for (index, route) in config.route.iter().enumerate() {
        check(format!("route[{index}].destination"), &route.destination);
    }
    if let Some(receiver) = &config.alerting.receiver {
        check("alerting.receiver".to_owned(), receiver);
    }
}
