//! By which times and groups each route tells, for who asks what would have been told.

use std::time::Duration;

use super::route::{Route, Tree};
use crate::config::Config;
use crate::model::Labels;

/// How alerts become notifications, in Alertmanager's words.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Alerts with equal values of these labels share one notification; `...`: of all.
    pub group_by: Vec<String>,
    /// How long a new group waits for more alerts.
    pub group_wait: Duration,
    /// How long a group waits before it tells of changes.
    pub group_interval: Duration,
    /// How long until an unchanged group is told again.
    pub repeat_interval: Duration,
    /// Whether resolved alerts are told.
    pub send_resolved: bool,
    /// Whether there is anybody to be told.
    pub is_told: bool,
}

/// The plans of all routes.
pub struct Plans {
    /// In the order of the routes.
    pub all: Vec<Plan>,
    tree: Option<Tree>,
}

impl Plans {
    /// Those of a checked configuration; where nobody is told, those of `[alerting]`, as
    /// if somebody were.
    pub fn of(config: &Config) -> Plans {
        let tree = Tree::from_config(config);
        let plan = |route: &Route, tree: &Tree| {
            let told = tree.integrations(&route.receiver);
            Plan {
                group_by: route.group_by.clone(),
                group_wait: route.group_wait,
                group_interval: route.group_interval,
                repeat_interval: route.repeat_interval,
                send_resolved: told.iter().any(|one| one.send_resolved),
                is_told: !told.is_empty(),
            }
        };
        let all = match &tree {
            Some(tree) => tree.routes.iter().map(|route| plan(route, tree)).collect(),
            None => vec![untold(config)],
        };
        Plans { all, tree }
    }

    /// The plans that hold for an alert, by index.
    pub fn matching(&self, labels: &Labels) -> Vec<usize> {
        let tree = self.tree.as_ref();
        tree.map_or_else(|| vec![0], |tree| tree.matching(labels))
    }
}

fn untold(config: &Config) -> Plan {
    let times = &config.alerting;
    Plan {
        group_by: times.group_by.clone(),
        group_wait: times.group_wait.get(),
        group_interval: times.group_interval.get(),
        repeat_interval: times.repeat_interval.get(),
        send_resolved: times.send_resolved,
        is_told: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_tells_by_its_own_times() {
        let text = r#"
            [alerting.route]
            receiver = "a"
            group_by = ["site"]
            group_wait = "1s"
            [[alerting.route.routes]]
            matchers = ["team=b"]
            receiver = "b"
            group_interval = "7s"
            continue = true
            [[alerting.route.routes]]
            matchers = ["team=b"]
            receiver = "nobody"
            [[alerting.receivers]]
            name = "a"
            webhook_configs = [{ url = "http://h/", send_resolved = false }]
            [[alerting.receivers]]
            name = "b"
            webhook_configs = [{ url = "http://h/" }]
            [[alerting.receivers]]
            name = "nobody"
        "#;
        let plans = Plans::of(&Config::parse(text, "c.toml").unwrap());
        let of = |labels: &[(&str, &str)]| -> Vec<(u64, u64, bool, bool)> {
            let labels = Labels::from_pairs(labels.iter().copied());
            let at = plans.matching(&labels).into_iter();
            let plan = at.map(|at| &plans.all[at]);
            plan.map(|plan| {
                assert_eq!(plan.group_by, ["site"]);
                let (wait, interval) = (plan.group_wait, plan.group_interval);
                let told = (plan.send_resolved, plan.is_told);
                (wait.as_secs(), interval.as_secs(), told.0, told.1)
            })
            .collect()
        };
        assert_eq!(of(&[("team", "c")]), [(1, 300, false, true)]);
        let both = [(1, 7, true, true), (1, 300, false, false)];
        assert_eq!(of(&[("team", "b")]), both);
    }

    #[test]
    fn where_nobody_is_told_the_times_of_alerting_hold() {
        let plans = Plans::of(&Config::default());
        assert_eq!(plans.matching(&Labels::from_pairs([("a", "b")])), [0]);
        assert_eq!(plans.all[0].group_wait, Duration::from_secs(30));
        assert!(plans.all[0].is_told);
    }
}
