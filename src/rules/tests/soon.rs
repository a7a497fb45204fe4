//! How long the evaluation of a group may wait to be on disk.

use std::sync::Arc;

use super::gaps::{RULES, evaluate};
use super::parse;
use crate::rules::group::Group;
use crate::store::Urgency;

#[test]
fn what_changes_is_waited_for_and_a_second_passes_at_most_while_an_alert_is_pending() {
    let spec = Arc::new(parse(RULES).remove(0));
    let mut group = Group::restore(spec, None, |_| Vec::new());
    for (secs, up, want) in [
        (0, 0.0, Urgency::Commit),
        (15, 0.0, Urgency::Soon),
        (120, 0.0, Urgency::Commit),
        (135, 0.0, Urgency::RideAlong),
        (150, 1.0, Urgency::Commit),
        (165, 1.0, Urgency::RideAlong),
    ] {
        let evaluation = evaluate(&mut group, secs, false, [up; 2]);
        assert_eq!(evaluation.batch.urgency, want, "{secs}");
    }
}
