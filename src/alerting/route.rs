//! The routing tree: who is told of an alert, and together with which others.
//!
//! Semantics are Alertmanager's: depth first, the first child that matches counts
//! unless it goes on, a node without a matching child is told itself; times, receiver
//! and `group_by` come from the parent when they are left out (an empty `group_by`
//! too), time intervals do not.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::group::as_ms;
use crate::config::Alertmanager;
use crate::config::intervals::TimeInterval;
use crate::config::receivers::Integration;
use crate::config::routing::{ALL_LABELS, RouteNode};
use crate::config::{self};
use crate::model::labels::Quoted;
use crate::model::matchers::Braced;
use crate::model::{Labels, Matcher, Timestamp};

/// Alertmanager's times for a root that says nothing.
const GROUP_WAIT: Duration = Duration::from_secs(30);
const GROUP_INTERVAL: Duration = Duration::from_secs(300);
const REPEAT_INTERVAL: Duration = Duration::from_secs(4 * 3_600);

/// All routes, with what they name.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Tree {
    /// The root is the first.
    pub(super) routes: Vec<Route>,
    /// Who is told, by receiver, in the order of the configuration.
    pub(super) receivers: Vec<(String, Vec<Integration>)>,
    pub(super) intervals: BTreeMap<String, Vec<TimeInterval>>,
}

/// A node of the tree.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Route {
    /// Alertmanager's text of the matchers on the way to it; the root's is `{}`.
    pub(super) key: String,
    /// The same, but no two routes share it.
    pub(super) id: String,
    pub(super) matchers: Vec<Matcher>,
    pub(super) goes_on: bool,
    pub(super) receiver: String,
    pub(super) group_by: Vec<String>,
    pub(super) group_wait: Duration,
    pub(super) group_interval: Duration,
    pub(super) repeat_interval: Duration,
    /// See [`RouteNode::digest_interval`].
    pub(super) digest: Option<Duration>,
    /// See [`RouteNode::flap_limit`].
    pub(super) flap_limit: Option<usize>,
    pub(super) mute: Vec<String>,
    pub(super) active: Vec<String>,
    children: Vec<usize>,
}

impl Tree {
    /// The tree of a checked configuration; `None` when nobody is told.
    pub(super) fn from_config(config: &config::Config) -> Option<Tree> {
        let file = config.notification_tree()?;
        let mut tree = Tree {
            routes: Vec::new(),
            receivers: receivers(config, &file),
            intervals: file
                .intervals()
                .map(|named| (named.name.clone(), named.time_intervals.clone()))
                .collect(),
        };
        tree.add(file.route.as_ref()?, None, &mut HashMap::new());
        Some(tree)
    }

    /// The ways of telling of a receiver.
    pub(super) fn integrations(&self, receiver: &str) -> &[Integration] {
        let found = self.receivers.iter().find(|(name, _)| name == receiver);
        found.map_or(&[], |(_, integrations)| integrations)
    }

    /// The routes that an alert takes, by index.
    pub(super) fn matching(&self, labels: &Labels) -> Vec<usize> {
        let mut found = Vec::new();
        self.walk(0, labels, &mut found);
        found
    }

    /// The conditions of a route and of those above it, the root's first.
    pub(super) fn path(&self, at: usize) -> Vec<String> {
        let mut path = Vec::new();
        let mut next = Some(at);
        while let Some(at) = next {
            path.push(Braced(&self.routes[at].matchers).to_string());
            next = self.routes.iter().position(|r| r.children.contains(&at));
        }
        path.reverse();
        path
    }

    fn walk(&self, at: usize, labels: &Labels, found: &mut Vec<usize>) {
        let before = found.len();
        for &child in &self.routes[at].children {
            let route = &self.routes[child];
            if route.matchers.iter().all(|m| m.matches_labels(labels)) {
                self.walk(child, labels, found);
                if !route.goes_on {
                    break;
                }
            }
        }
        if found.len() == before {
            found.push(at);
        }
    }

    fn add(
        &mut self,
        node: &RouteNode,
        parent: Option<usize>,
        used: &mut HashMap<String, usize>,
    ) -> usize {
        let route = Route::new(node, parent.map(|at| &self.routes[at]), used);
        let at = self.routes.len();
        self.routes.push(route);
        let children = node.routes.iter();
        let children = children
            .map(|child| self.add(child, Some(at), used))
            .collect();
        self.routes[at].children = children;
        at
    }
}

/// The receivers of the tree, then the destinations that it may name as well.
fn receivers(config: &config::Config, file: &Alertmanager) -> Vec<(String, Vec<Integration>)> {
    let own = file.receivers.iter();
    let own = own.map(|receiver| (receiver.name.clone(), receiver.integrations()));
    let destination = |name: &String| {
        let integration = Integration {
            name: name.clone(),
            kind: "webhook",
            send_resolved: config.alerting.send_resolved,
            alerts_max: config.alerting.max_alerts,
            every: None,
        };
        (name.clone(), vec![integration])
    };
    own.chain(config.destination.names().map(destination))
        .collect()
}

impl Route {
    fn new(node: &RouteNode, parent: Option<&Route>, used: &mut HashMap<String, usize>) -> Route {
        let matchers = node.conditions();
        let key = match parent {
            Some(parent) => format!("{}/{}", parent.key, Braced(&matchers)),
            None => "{}".to_owned(),
        };
        let count = used.entry(key.clone()).or_default();
        let id = match *count {
            0 => key.clone(),
            n => format!("{key}#{n}"),
        };
        *count += 1;
        let span = |own: Option<config::Span>, of: fn(&Route) -> Duration, default| {
            let inherited = parent.map_or(default, of);
            own.map_or(inherited, config::Span::get)
        };
        let receiver = node.receiver.clone();
        Route {
            key,
            id,
            matchers,
            goes_on: node.goes_on,
            receiver: receiver
                .or_else(|| parent.map(|p| p.receiver.clone()))
                .unwrap_or_default(),
            group_by: match (node.group_by.0.is_empty(), parent) {
                (true, Some(parent)) => parent.group_by.clone(),
                _ => node.group_by.0.clone(),
            },
            group_wait: span(node.group_wait, |p| p.group_wait, GROUP_WAIT),
            group_interval: span(node.group_interval, |p| p.group_interval, GROUP_INTERVAL),
            repeat_interval: span(node.repeat_interval, |p| p.repeat_interval, REPEAT_INTERVAL),
            digest: match node.digest_interval {
                Some(own) => Some(own.get()),
                None => parent.and_then(|parent| parent.digest),
            },
            flap_limit: match node.flap_limit {
                Some(0) => None,
                Some(own) => Some(own),
                None => parent.and_then(|parent| parent.flap_limit),
            },
            mute: node.mute_time_intervals.clone(),
            active: node.active_time_intervals.clone(),
            children: Vec::new(),
        }
    }

    /// When a group whose first alert comes now is looked at.
    pub(super) fn first_flush(&self, now: Timestamp) -> Timestamp {
        let wait = now.plus_ms(as_ms(self.group_wait));
        self.next_digest(now).unwrap_or(wait)
    }

    /// When a group that was looked at now is looked at again.
    pub(super) fn next_flush(&self, now: Timestamp) -> Timestamp {
        let wait = now.plus_ms(as_ms(self.group_interval));
        self.next_digest(now).unwrap_or(wait)
    }

    fn next_digest(&self, now: Timestamp) -> Option<Timestamp> {
        let period = as_ms(self.digest?).max(1);
        Some(now.floor_to(period).plus_ms(period))
    }

    /// The longest time until a group is looked at again.
    pub(super) fn longest_wait(&self) -> Duration {
        let usual = self.group_interval.max(self.group_wait);
        self.digest.unwrap_or(usual)
    }

    /// The labels that the alert shares with all others of its group.
    pub(super) fn group_labels(&self, labels: &Labels) -> Labels {
        let by = |name: &str| {
            self.group_by
                .iter()
                .any(|by| by == name || by == ALL_LABELS)
        };
        Labels::from_sorted(labels.iter().filter(|(name, _)| by(name)))
    }

    /// Alertmanager's name of a group: `{}:{alertname="x"}`.
    pub(super) fn group_key(&self, group_labels: &Labels) -> String {
        format!("{}:{}", self.key, in_braces(group_labels))
    }

    /// The same, but no two groups share it.
    pub(super) fn group_id(&self, group_labels: &Labels) -> String {
        format!("{}:{}", self.id, in_braces(group_labels))
    }
}

fn in_braces(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={}", Quoted(value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn simple(group_by: &[&str]) -> Tree {
        let mut config = Config::default();
        config.alerting.receiver = Some("ops".to_owned());
        config.alerting.group_by = group_by.iter().map(|&l| l.to_owned()).collect();
        Tree::from_config(&config).unwrap()
    }

    #[test]
    fn a_digest_is_due_at_the_multiples_of_its_time_and_inherited() {
        let text = "[alerting.route]\nreceiver = \"a\"\ndigest_interval = \"1h\"\n\
                    [[alerting.route.routes]]\nmatchers = [\"x=y\"]\n\
                    [[alerting.receivers]]\nname = \"a\"\n";
        let tree = Tree::from_config(&Config::parse(text, "c.toml").unwrap()).unwrap();
        let at = |secs: i64| Timestamp::from_ms(secs * 1_000);
        for route in &tree.routes {
            assert_eq!(route.first_flush(at(10)), at(3_600));
            assert_eq!(route.next_flush(at(3_600)), at(7_200));
        }
    }

    fn check(group_by: &[&str], want: &str) {
        let labels = Labels::from_pairs([("alertname", "A"), ("site", "x\"y"), ("z", "1")]);
        let tree = simple(group_by);
        let route = &tree.routes[0];
        assert_eq!(route.group_key(&route.group_labels(&labels)), want);
    }

    #[test]
    fn group_keys_are_alertmanagers() {
        check(&["alertname"], "{}:{alertname=\"A\"}");
        check(&["z", "alertname", "none"], "{}:{alertname=\"A\", z=\"1\"}");
        check(&["..."], "{}:{alertname=\"A\", site=\"x\\\"y\", z=\"1\"}");
        check(&[], "{}:{}");
        assert!(Tree::from_config(&Config::default()).is_none());
    }

    const TREE: &str = r#"
        [alerting.route]
        receiver = "root"
        group_by = ["alertname"]
        group_wait = "1s"
        [[alerting.route.routes]]
        matchers = ["team=a"]
        receiver = "a"
        continue = true
        [[alerting.route.routes.routes]]
        matchers = ['severity=~"page|crit"', "env!=dev"]
        group_by = ["..."]
        group_interval = "1m"
        [[alerting.route.routes]]
        matchers = ["team=a"]
        receiver = "b"
        [[alerting.route.routes]]
        matchers = ["team=~.+"]
        group_by = []
        [[alerting.receivers]]
        name = "root"
        [[alerting.receivers]]
        name = "a"
        [[alerting.receivers]]
        name = "b"
    "#;

    fn tree() -> Tree {
        Tree::from_config(&Config::parse(TREE, "c.toml").unwrap()).unwrap()
    }

    fn check_path(labels: &[(&str, &str)], want: &[(&str, &str)]) {
        let tree = tree();
        let labels = Labels::from_pairs(labels.iter().copied());
        let found = tree.matching(&labels);
        let got: Vec<(String, String)> = found
            .iter()
            .map(|&at| {
                let route = &tree.routes[at];
                (
                    route.receiver.clone(),
                    route.group_id(&route.group_labels(&labels)),
                )
            })
            .collect();
        let want: Vec<(String, String)> = want
            .iter()
            .map(|(r, k)| ((*r).to_owned(), (*k).to_owned()))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn the_deepest_match_counts_and_continue_asks_the_next() {
        check_path(&[("alertname", "x")], &[("root", "{}:{alertname=\"x\"}")]);
        check_path(
            &[("alertname", "x"), ("team", "c")],
            &[("root", "{}/{team=~\".+\"}:{alertname=\"x\"}")],
        );
        check_path(
            &[("alertname", "x"), ("team", "a")],
            &[
                ("a", "{}/{team=\"a\"}:{alertname=\"x\"}"),
                ("b", "{}/{team=\"a\"}#1:{alertname=\"x\"}"),
            ],
        );
        check_path(
            &[("alertname", "x"), ("severity", "page"), ("team", "a")],
            &[
                (
                    "a",
                    "{}/{team=\"a\"}/{env!=\"dev\",severity=~\"page|crit\"}:\
                     {alertname=\"x\", severity=\"page\", team=\"a\"}",
                ),
                ("b", "{}/{team=\"a\"}#1:{alertname=\"x\"}"),
            ],
        );
    }

    #[test]
    fn what_is_left_out_comes_from_the_parent() {
        let tree = tree();
        let times = |at: usize| {
            let route: &Route = &tree.routes[at];
            (route.group_wait.as_secs(), route.group_interval.as_secs())
        };
        assert_eq!(
            [times(0), times(1), times(2)],
            [(1, 300), (1, 300), (1, 60)]
        );
        assert_eq!(tree.routes[4].group_by, ["alertname"]);
    }
}
