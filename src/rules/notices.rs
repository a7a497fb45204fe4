//! What people would have been told of alerts that fired and resolved: grouping,
//! waiting and repeating as Alertmanager does it, by the routes that alerts take. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::alerting::{Plan, Plans};
use crate::model::{Labels, Timestamp};

/// Notifications that are told.
const NOTICES_MAX: usize = 10_000;

/// A notification that would have been sent.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Notice {
    /// Unix seconds.
    pub at: f64,
    /// The labels that its alerts share by `group_by`.
    pub group: BTreeMap<String, String>,
    /// Alerts that fire.
    pub firing: usize,
    /// Alerts that resolved since the last notification.
    pub resolved: usize,
    /// Whether it only repeats the last one.
    pub repeats: bool,
}

/// An alert that began or ceased to fire.
#[derive(Clone, Debug)]
pub(super) struct Turning {
    pub(super) at: Timestamp,
    pub(super) labels: Labels,
    pub(super) fires: bool,
}

/// The notifications up to `end`, in the order of time.
pub(super) fn notices(mut turnings: Vec<Turning>, plans: &Plans, end: Timestamp) -> Vec<Notice> {
    turnings.sort_by_key(|turning| turning.at);
    let mut groups: BTreeMap<(usize, BTreeMap<String, String>), Vec<Turning>> = BTreeMap::new();
    for turning in turnings {
        for at in plans.matching(&turning.labels) {
            let plan = &plans.all[at];
            if plan.is_told {
                let key = (at, group_labels(&turning.labels, plan));
                groups.entry(key).or_default().push(turning.clone());
            }
        }
    }
    let (mut all, mut end) = (Vec::new(), end);
    for ((at, labels), turnings) in groups {
        all.extend(of_group(&labels, &turnings, &plans.all[at], end));
        // Held to what is told, however many groups there are.
        if all.len() >= 2 * NOTICES_MAX {
            end = first_of(&mut all).unwrap_or(end);
        }
    }
    first_of(&mut all);
    all
}

/// Leaves the first notifications that are told; gives the time of the last of them.
fn first_of(all: &mut Vec<Notice>) -> Option<Timestamp> {
    all.sort_by(|a, b| a.at.total_cmp(&b.at));
    all.truncate(NOTICES_MAX);
    let last = all.last()?;
    Some(Timestamp::from_secs_f64(last.at))
}

fn group_labels(labels: &Labels, plan: &Plan) -> BTreeMap<String, String> {
    let is_all = plan.group_by.iter().any(|name| name == "...");
    let wanted = |name: &str| is_all || plan.group_by.iter().any(|wanted| wanted == name);
    let kept = labels.iter().filter(|(name, _)| wanted(name));
    kept.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// What a group told last.
struct Told {
    at: Timestamp,
    firing: BTreeSet<Labels>,
    resolved: BTreeSet<Labels>,
}

fn of_group(
    group: &BTreeMap<String, String>,
    turnings: &[Turning],
    plan: &Plan,
    end: Timestamp,
) -> Vec<Notice> {
    let interval = as_ms(plan.group_interval).max(1);
    let mut notices = Vec::new();
    let mut firing: BTreeSet<Labels> = BTreeSet::new();
    let mut resolved: BTreeSet<Labels> = BTreeSet::new();
    let mut told: Option<Told> = None;
    let mut rest = turnings.iter().peekable();
    while let Some(first) = rest.peek() {
        // A group that was empty begins anew with its next alert.
        let mut flush = first.at.plus_ms(as_ms(plan.group_wait));
        while flush <= end && notices.len() < NOTICES_MAX {
            while let Some(turning) = rest.next_if(|turning| turning.at <= flush) {
                let (into, from) = match turning.fires {
                    true => (&mut firing, &mut resolved),
                    false => (&mut resolved, &mut firing),
                };
                from.remove(&turning.labels);
                into.insert(turning.labels.clone());
            }
            if let Some(repeats) = is_news(flush, &firing, &resolved, told.as_ref(), plan) {
                notices.push(Notice {
                    at: flush.as_secs_f64(),
                    group: group.clone(),
                    firing: firing.len(),
                    resolved: if plan.send_resolved {
                        resolved.len()
                    } else {
                        0
                    },
                    repeats,
                });
                told = Some(Told {
                    at: flush,
                    firing: firing.clone(),
                    resolved: resolved.clone(),
                });
            }
            // What was flushed resolved leaves the group.
            resolved.clear();
            if firing.is_empty() {
                // Who is not told of the end knows as little as in the beginning.
                told = None;
                break;
            }
            let changes = rest.peek().map_or(end, |turning| turning.at);
            let repeats = told
                .as_ref()
                .map(|told| told.at.plus_ms(as_ms(plan.repeat_interval)));
            let until = repeats.map_or(changes, |repeats| repeats.min(changes));
            // The flushes before that have nothing to tell.
            let idle = until.ms_since(flush).max(1);
            let flushes = idle
                .checked_add(interval - 1)
                .map_or(i64::MAX, |ms| ms / interval);
            flush = flush.plus_ms(flushes.saturating_mul(interval));
        }
        if flush > end || notices.len() >= NOTICES_MAX {
            break;
        }
    }
    notices
}

/// Whether a flush tells something, and if so whether it only repeats.
fn is_news(
    now: Timestamp,
    firing: &BTreeSet<Labels>,
    resolved: &BTreeSet<Labels>,
    told: Option<&Told>,
    plan: &Plan,
) -> Option<bool> {
    let Some(told) = told else {
        return (!firing.is_empty()).then_some(false);
    };
    if !firing.is_subset(&told.firing) {
        return Some(false);
    }
    if firing.is_empty() {
        let was_firing = !told.firing.is_empty();
        return (was_firing && plan.send_resolved).then_some(false);
    }
    if plan.send_resolved && !resolved.is_subset(&told.resolved) {
        return Some(false);
    }
    (now.ms_since(told.at) >= as_ms(plan.repeat_interval)).then_some(true)
}

fn as_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn turning(secs: i64, name: &str, fires: bool) -> Turning {
        Turning {
            at: Timestamp::from_ms(secs * 1_000),
            labels: Labels::from_pairs([("alertname", "A"), ("i", name)]),
            fires,
        }
    }

    /// Time in seconds, alerts that fire, alerts that resolved, whether it repeats.
    fn check(turnings: &[Turning], by: &[&str], want: &[(f64, usize, usize, bool)]) {
        let got = notices_of(turnings, by, 10_000_000);
        let got: Vec<_> = got
            .iter()
            .map(|n| (n.at, n.firing, n.resolved, n.repeats))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_group_waits_tells_changes_and_repeats() {
        check(
            &[
                turning(0, "x", true),
                turning(10, "y", true),
                turning(100, "z", true),
                turning(5_000, "x", false),
                turning(5_000, "y", false),
                turning(5_001, "z", false),
            ],
            &["alertname"],
            &[
                (30.0, 2, 0, false),
                (330.0, 3, 0, false),
                (3_930.0, 3, 0, true),
                (5_130.0, 0, 3, false),
            ],
        );
    }

    #[test]
    fn an_alert_that_comes_and_goes_for_ever_is_told_up_to_a_bound() {
        let turnings: Vec<_> = (0..12_000)
            .map(|n| turning(n * 1_000, "x", n % 2 == 0))
            .collect();
        let told = notices_of(&turnings, &["alertname"], 20_000_000_000);
        assert_eq!(told.len(), NOTICES_MAX);
    }

    #[test]
    fn what_resolves_before_it_is_told_is_not_told() {
        check(
            &[turning(0, "x", true), turning(20, "x", false)],
            &["alertname"],
            &[],
        );
    }

    #[test]
    fn grouped_by_everything_each_alert_is_told_alone() {
        let both = [turning(0, "x", true), turning(0, "y", true)];
        let one = |at| (at, 1, 0, false);
        let all = notices_of(&both, &["..."], 100_000);
        assert_eq!(all.iter().filter(|n| !n.repeats).count(), 2);
        assert_eq!(all[0].at, one(30.0).0);
        assert_eq!(
            notices_of(&both, &[], 100_000)
                .iter()
                .filter(|n| !n.repeats)
                .count(),
            1
        );
    }

    #[test]
    fn who_does_not_hear_of_the_end_hears_of_the_next_beginning() {
        let turnings = [(0, true), (100, false), (500, true)];
        let turnings = turnings.map(|(at, fires)| turning(at, "x", fires));
        let plan = Plan {
            send_resolved: false,
            ..plan(&["alertname"])
        };
        let told = told_by(&turnings, plan, 1_000_000);
        let at: Vec<f64> = told.iter().map(|one| one.at).collect();
        assert_eq!(at, [30.0, 530.0]);
    }

    #[test]
    fn flushes_that_tell_nothing_cost_nothing() {
        let plan = Plan {
            group_interval: Duration::ZERO,
            ..plan(&["alertname"])
        };
        // Ten thousand million flushes.
        let told = told_by(&[turning(0, "x", true)], plan, 10_000_000_000);
        assert_eq!(told.len(), 2_778);
        assert!(told.iter().skip(1).all(|one| one.repeats));
    }

    #[test]
    fn of_more_notifications_than_are_told_the_first_are() {
        let names = (0..200).map(|i| i.to_string());
        let turnings: Vec<Turning> = names.map(|name| turning(0, &name, true)).collect();
        let often = Plan {
            group_interval: Duration::from_millis(1),
            repeat_interval: Duration::from_millis(1),
            ..plan(&["i"])
        };
        let told = told_by(&turnings, often, 10_000_000);
        assert_eq!(told.len(), NOTICES_MAX);
        assert!(told.iter().all(|one| one.at <= 30.05), "{:?}", told.last());
    }

    fn notices_of(turnings: &[Turning], by: &[&str], end_ms: i64) -> Vec<Notice> {
        told_by(turnings, plan(by), end_ms)
    }

    fn told_by(turnings: &[Turning], plan: Plan, end_ms: i64) -> Vec<Notice> {
        let mut plans = Plans::of(&Config::default());
        plans.all[0] = plan;
        notices(turnings.to_vec(), &plans, Timestamp::from_ms(end_ms))
    }

    fn plan(by: &[&str]) -> Plan {
        Plan {
            group_by: by.iter().map(|&name| name.to_owned()).collect(),
            group_wait: Duration::from_secs(30),
            group_interval: Duration::from_secs(300),
            repeat_interval: Duration::from_secs(3_600),
            send_resolved: true,
            is_told: true,
        }
    }
}
