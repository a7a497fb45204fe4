//! What a new process makes of the alerts of the one before it.

use super::{at, check_alert, labels, run, times};
use crate::model::alert::AlertPhase::{Firing, Pending, Resolved};
use crate::model::alert::AlertRow;
use crate::rules::alert::Alerts;

/// The alerts as a new process finds them.
fn restarted(alerts: &Alerts, last_eval: i64) -> Alerts {
    let rows = alerts.iter().map(|(labels, alert)| {
        let row = alert.row(labels);
        AlertRow::decode(&row.encode()).unwrap()
    });
    Alerts::restore(rows.collect(), Some(at(last_eval)))
}

#[test]
fn a03_a08_a_restart_keeps_firing_alerts_and_their_keep_firing_for() {
    let firing = Some(Firing);
    let before = check_alert(
        times(0, 100),
        &[
            (0, true, Some((None, firing))),
            (60, false, Some((firing, firing))),
        ],
    );
    let mut after = restarted(&before, 60);
    assert_eq!(after.get(&labels("x")), before.get(&labels("x")));
    run(
        &mut after,
        times(0, 100),
        &[
            (120, false, None),
            (160, false, Some((firing, Some(Resolved)))),
        ],
    );
}

#[test]
fn a08_no_restored_alert_resolves_in_the_first_evaluation() {
    let firing = Some(Firing);
    let before = check_alert(times(0, 0), &[(0, true, Some((None, firing)))]);
    let mut after = restarted(&before, 0);
    run(
        &mut after,
        times(0, 0),
        &[
            (60, false, None),
            (120, false, Some((firing, Some(Resolved)))),
        ],
    );
}

#[test]
fn a08_time_down_does_not_count_for_for() {
    let pending = Some(Pending);
    let before = check_alert(
        times(300, 0),
        &[
            (0, true, Some((None, pending))),
            (60, true, None),
            (120, true, None),
        ],
    );
    let mut after = restarted(&before, 120);
    // Down from 120 to 420: 300 s that do not count, 180 of 300 s are left.
    run(
        &mut after,
        times(300, 0),
        &[
            (420, true, Some((pending, pending))),
            (540, true, None),
            (600, true, Some((pending, Some(Firing)))),
        ],
    );
}

#[test]
fn a08_the_start_that_a_restart_moved_outlives_the_next_one() {
    let pending = Some(Pending);
    let mut alerts = check_alert(times(300, 0), &[(0, true, Some((None, pending)))]);
    // Each time five seconds after the last evaluation, well within a resend delay.
    for (last_eval, secs, start) in [(0, 5, 5), (5, 10, 10), (10, 15, 15)] {
        alerts = restarted(&alerts, last_eval);
        run(
            &mut alerts,
            times(300, 0),
            &[(secs, true, Some((pending, pending)))],
        );
        assert_eq!(alerts.get(&labels("x")).unwrap().active_at, at(start));
    }
}

#[test]
fn a08_with_a_long_for_there_is_at_least_the_grace_period() {
    let pending = Some(Pending);
    let before = check_alert(times(1_200, 0), &[(0, true, Some((None, pending)))]);
    let mut after = restarted(&before, 1_080);
    // 120 s are left, but the grace period is 600 s.
    run(
        &mut after,
        times(1_200, 0),
        &[
            (1_140, true, Some((pending, pending))),
            (1_680, true, None),
            (1_740, true, Some((pending, Some(Firing)))),
        ],
    );
    let mut late = restarted(&before, 1_080);
    // Down for longer than the tolerance: begins anew.
    let start = 1_080 + 3_601;
    run(
        &mut late,
        times(1_200, 0),
        &[(start, true, Some((pending, pending)))],
    );
    assert_eq!(late.get(&labels("x")).unwrap().active_at, at(start));
}
