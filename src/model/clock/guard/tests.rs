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
