//! Boots and jumps, on a clock that tests set.

use std::time::Duration;

use super::super::ManualClock;
use super::*;

/// 2026-01-01T00:00:00Z.
const BUILD: i64 = 1_767_225_600_000;
/// Half a year later.
const T0: i64 = BUILD + YEAR_MS / 2;

struct Machine {
    hands: ManualClock,
    clock: Clock,
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

impl Machine {
    /// A box whose clock says `wall` when the program starts.
    fn boot(wall: i64, saved: Option<i64>) -> Machine {
        Machine::boot_after(wall, saved.map(|now| Saved::at(at(now))))
    }

    fn boot_after(wall: i64, saved: Option<Saved>) -> Machine {
        let hands = ManualClock::new(at(wall));
        let clock = Clock::Manual(hands.clone()).guarded(at(BUILD), false);
        clock.resume(saved);
        Machine { hands, clock }
    }

    fn pass(&self, ms: i64) {
        self.hands.advance(Duration::from_millis(ms.unsigned_abs()));
    }

    fn check(&self, now: i64, is_trusted: bool) {
        let got = (self.clock.now(), self.clock.is_trusted());
        assert_eq!(got, (at(now), is_trusted), "by {}", got.0.as_ms() - now);
    }

    fn check_bounds(&self, earliest: i64, latest: i64) {
        let got = (self.clock.earliest(), self.clock.latest());
        assert_eq!(got, (at(earliest), at(latest)));
    }
}

#[test]
fn a_usual_restart_follows_the_wall() {
    let machine = Machine::boot(T0 + 60_000, Some(T0));
    machine.check(T0 + 60_000, true);
    machine.pass(5_000);
    machine.check(T0 + 65_000, true);
    machine.check_bounds(T0 + 65_000, T0 + 65_000);
    assert_eq!(
        (machine.clock.stepped_ms(), machine.clock.jumps().0),
        (0, 0)
    );
}

#[test]
fn a_boot_in_1970_goes_on_where_it_stopped_until_the_time_comes() {
    let machine = Machine::boot(7_000, Some(T0));
    machine.check(T0, false);
    machine.pass(60_000);
    machine.check(T0 + 60_000, false);
    // Devices know better: the box may have been off for long.
    machine.check_bounds(T0 + 60_000, T0 + 60_000 + YEAR_MS);
    machine.hands.set(at(T0 + HOUR_MS));
    machine.check(T0 + HOUR_MS, true);
    assert_eq!(machine.clock.stepped_ms(), HOUR_MS - 60_000);
    let (count, jumps) = machine.clock.jumps();
    assert_eq!(
        (count, jumps[0].is_trusted, jumps[0].at),
        (2, false, at(T0))
    );
    assert_eq!(jumps[1].followed_ms, HOUR_MS - 60_000);
}

#[test]
fn a_new_box_in_1970_starts_at_the_build_date_and_takes_the_first_sane_time() {
    let machine = Machine::boot(0, None);
    machine.check(BUILD, false);
    machine.hands.set(at(BUILD + 75 * YEAR_MS));
    machine.check(BUILD, false);
    machine.hands.set(at(BUILD + 5 * YEAR_MS));
    machine.check(BUILD + 5 * YEAR_MS, true);
}

#[test]
fn jumps_of_75_years_and_of_six_hours_back_are_not_followed() {
    let machine = Machine::boot(T0, Some(T0));
    for by in [75 * YEAR_MS, -6 * HOUR_MS] {
        let before = machine.clock.wall().as_ms();
        machine.hands.set(at(before + by));
        machine.check(before, false);
        machine.pass(90_000);
        machine.check(before + 90_000, false);
        assert!(machine.clock.earliest() == at(before + 90_000));
        // And back: nothing has happened.
        machine.hands.set(at(before + 90_000));
        machine.check(before + 90_000, true);
        assert_eq!(machine.clock.stepped_ms(), 0);
    }
    assert_eq!(machine.clock.jumps().0, 4);
}

#[test]
fn a_time_server_is_believed_whatever_it_says() {
    let machine = Machine::boot(T0, Some(T0));
    machine.hands.set(at(T0 - 6 * HOUR_MS));
    machine.check(T0, false);
    machine.hands.set_synchronised(true);
    // It is asked once a second.
    machine.pass(1_000);
    machine.check(T0 - 6 * HOUR_MS + 1_000, true);
    assert_eq!(machine.clock.steps_back(), 1);
    machine.check_bounds(T0 - 6 * HOUR_MS + 1_000, T0 - 6 * HOUR_MS + 1_000);
    let off_for_years = Machine::boot(T0 + 3 * YEAR_MS, Some(T0));
    off_for_years.check(T0, false);
    off_for_years.hands.set_synchronised(true);
    off_for_years.pass(1_000);
    off_for_years.check(T0 + 3 * YEAR_MS + 1_000, true);
}

#[test]
fn a_long_step_forward_is_followed_but_ages_nothing_for_a_day() {
    let machine = Machine::boot(T0, Some(T0));
    machine.hands.set(at(T0 + 60 * DAY_MS));
    machine.check(T0 + 60 * DAY_MS, true);
    machine.check_bounds(T0, T0 + 60 * DAY_MS);
    machine.pass(DAY_MS - 1);
    machine.check_bounds(T0 + DAY_MS - 1, T0 + 61 * DAY_MS - 1);
    machine.pass(1);
    machine.check_bounds(T0 + 61 * DAY_MS, T0 + 61 * DAY_MS);
}

#[test]
fn a_long_step_forward_that_is_taken_back_is_forgiven() {
    let machine = Machine::boot(T0, Some(T0));
    machine.hands.set(at(T0 + 60 * DAY_MS));
    machine.check(T0 + 60 * DAY_MS, true);
    machine.pass(HOUR_MS);
    machine.hands.set(at(T0 + HOUR_MS));
    machine.check(T0 + HOUR_MS, true);
    machine.check_bounds(T0 + HOUR_MS, T0 + HOUR_MS);
}

#[test]
fn a_short_step_forward_that_is_taken_back_costs_only_its_length() {
    let machine = Machine::boot(T0, Some(T0));
    for _ in 0..5 {
        let before = machine.clock.wall().as_ms();
        machine.hands.set(at(before + 2 * HOUR_MS));
        machine.check(before + 2 * HOUR_MS, true);
        machine.pass(3_000);
        machine.hands.set(at(before + 3_000));
        machine.check(before + 3_000, true);
        machine.check_bounds(before + 3_000, before + 3_000);
        machine.pass(60_000);
    }
    assert_eq!(machine.clock.stepped_ms(), 0);
    assert_eq!(
        (machine.clock.jumps().0, machine.clock.steps_back()),
        (10, 5)
    );
}

#[test]
fn steps_forward_one_after_the_other_are_taken_back_at_once_or_one_by_one() {
    for way in [&[0][..], &[2, 0], &[3, 1, 0]] {
        let machine = Machine::boot(T0, Some(T0));
        for hours in [2, 3, 5] {
            machine.hands.set(at(T0 + hours * HOUR_MS));
            machine.check(T0 + hours * HOUR_MS, true);
        }
        for hours in way {
            machine.hands.set(at(T0 + hours * HOUR_MS));
            machine.check(T0 + hours * HOUR_MS, true);
        }
        // It was taken back: six hours are too much again.
        machine.hands.set(at(T0 - 6 * HOUR_MS));
        machine.check(T0, false);
    }
}

#[test]
fn a_process_that_is_killed_while_the_clock_is_ahead_comes_back() {
    let machine = Machine::boot(T0, Some(T0));
    machine.hands.set(at(T0 + 2 * HOUR_MS));
    machine.check(T0 + 2 * HOUR_MS, true);
    let saved = machine.clock.save();
    let right = Machine::boot_after(T0 + 10_000, saved);
    right.check(T0 + 10_000, true);
    // The next start while the clock is still ahead, and only then is it set right.
    let ahead = Machine::boot_after(T0 + 2 * HOUR_MS + 10_000, saved);
    ahead.check(T0 + 2 * HOUR_MS + 10_000, true);
    ahead.hands.set(at(T0 + 20_000));
    ahead.check(T0 + 20_000, true);
}

#[test]
fn a_step_forward_becomes_the_time_after_a_day_or_an_hour_after_it_was_confirmed() {
    for (is_confirmed, wait) in [(false, DAY_MS), (true, HOUR_MS)] {
        for (passed, is_forgiven) in [(wait - 1, true), (wait, false)] {
            let machine = Machine::boot(T0, Some(T0));
            machine.hands.set_synchronised(is_confirmed);
            machine.hands.set(at(T0 + 2 * HOUR_MS));
            machine.check(T0 + 2 * HOUR_MS, true);
            machine.hands.set_synchronised(false);
            machine.pass(passed);
            machine.hands.set(at(T0 + passed));
            let line = T0 + passed + if is_forgiven { 0 } else { 2 * HOUR_MS };
            machine.check(line, is_forgiven);
        }
    }
}

#[test]
fn a_box_that_is_off_every_night_takes_no_step_back_of_days() {
    let mut saved = Some(Saved::at(at(T0)));
    let mut wall = T0;
    for _ in 0..10 {
        wall += 10 * HOUR_MS;
        let machine = Machine::boot_after(wall, saved);
        machine.check(wall, true);
        for _ in 0..14 {
            machine.pass(HOUR_MS);
            wall += HOUR_MS;
            machine.check(wall, true);
        }
        saved = machine.clock.save();
    }
    let machine = Machine::boot_after(wall - 3 * DAY_MS, saved);
    machine.check(wall, false);
}

#[test]
fn a_row_of_an_older_version_is_read() {
    let row = r#"{"now":5,"floor":4,"unproven_ms":3,"steps_back":2}"#;
    let saved: Saved = serde_json::from_str(row).unwrap();
    assert_eq!((saved.now, saved.before), (at(5), None));
}

#[test]
fn a_restart_remembers_what_is_not_proven() {
    let machine = Machine::boot(T0, Some(T0));
    machine.hands.set(at(T0 + 60 * DAY_MS));
    machine.check(T0 + 60 * DAY_MS, true);
    machine.pass(20 * HOUR_MS);
    let saved = machine.clock.save();
    let wrong = T0 + 60 * DAY_MS + 20 * HOUR_MS;
    let again = Machine::boot_after(wrong, saved);
    again.check(wrong, true);
    again.check_bounds(T0 + 20 * HOUR_MS, wrong);
    again.pass(4 * HOUR_MS);
    again.check_bounds(wrong + 4 * HOUR_MS, wrong + 4 * HOUR_MS);
    // The same box, but its clock is right again.
    let right = Machine::boot_after(T0 + 21 * HOUR_MS, saved);
    right.check(T0 + 21 * HOUR_MS, true);
    right.check_bounds(T0 + 21 * HOUR_MS, T0 + 21 * HOUR_MS);
}

#[test]
fn a_box_that_was_off_for_two_months_keeps_its_data_for_another_day() {
    let machine = Machine::boot(T0 + 60 * DAY_MS, Some(T0));
    machine.check(T0 + 60 * DAY_MS, true);
    machine.check_bounds(T0, T0 + 60 * DAY_MS);
    machine.hands.set_synchronised(true);
    machine.pass(1_000);
    let now = T0 + 60 * DAY_MS + 1_000;
    machine.check_bounds(now, now);
}

#[test]
fn who_trusts_all_follows_all() {
    let hands = ManualClock::new(at(T0));
    let clock = Clock::Manual(hands.clone()).guarded(at(BUILD), true);
    clock.resume(Some(Saved::at(at(T0))));
    for to in [7, T0 + 75 * YEAR_MS, T0 - 6 * HOUR_MS] {
        hands.set(at(to));
        assert_eq!(clock.now(), at(to));
        assert_eq!(clock.earliest(), at(to));
    }
    assert_eq!(clock.jumps().0, 3);
}

proptest::proptest! {
    /// However far ahead the clock is meanwhile: once it is right, it is believed.
    #[test]
    fn a_clock_that_comes_back_within_a_day_is_believed(
        steps in proptest::collection::vec((-6 * HOUR_MS..400 * DAY_MS, 0_i64..HOUR_MS, 0..3), 1..20)
    ) {
        let mut machine = Machine::boot(T0, Some(T0));
        let mut right = T0;
        for (by, ms, then) in steps {
            machine.hands.set(at(right + by));
            machine.pass(ms);
            let _ = machine.clock.now();
            right += ms;
            match then {
                0 => machine.hands.set(at(right)),
                // Killed, and the next start finds the right time.
                1 => machine = Machine::boot_after(right, machine.clock.save()),
                _ => continue,
            }
            proptest::prop_assert_eq!(machine.clock.now(), at(right));
            proptest::prop_assert!(machine.clock.is_trusted());
        }
    }

    /// Whatever the machine's clock does within a day, nothing gets much older.
    #[test]
    fn no_jumps_age_anything_within_a_day(
        jumps in proptest::collection::vec((0_i64..100 * YEAR_MS, 0_i64..HOUR_MS), 1..20)
    ) {
        let machine = Machine::boot(T0, Some(T0));
        let mut passed = 0;
        for (to, ms) in jumps {
            machine.pass(ms);
            passed += ms;
            machine.hands.set(at(to));
            let (now, earliest) = (machine.clock.now(), machine.clock.earliest());
            // Each step of less than a day is believed.
            proptest::prop_assert!(earliest.as_ms() <= T0 + passed + PROVE_ABOVE_MS * 20);
            proptest::prop_assert!(earliest <= now && now <= machine.clock.latest());
        }
    }
}
