//! Roll-ups on a disk that is really full: they leave before any sample does.

use super::ladder::{Machine, SmallDisk};
use super::*;
use crate::config::{Size, Span};
use crate::store::sealed::Kind;
use crate::store::tests::{T0, batch, options, row, samples};

const DAY: i64 = 86_400_000;

#[tokio::test]
async fn roll_ups_leave_a_full_disk_first_and_come_back_with_the_room() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let mut options = options(&disk.data());
    options.store.reserve = Size::bytes(0);
    options.store.rollup_5m_retention = Span::secs(90 * 86_400);
    options.store.rollup_1h_retention = Span::secs(90 * 86_400);
    let mut machine = Machine::open(options);
    for day in 1..4 {
        let value = |i: i64| (i * i % 101) as f64;
        let rows = (0..400).map(|i| row("a", "d1", T0 - day * DAY + i * 15_000, value(i)));
        machine.store.write(batch(rows)).await.unwrap();
    }
    machine.store.compact_now().await.unwrap();
    let before = samples(&machine.store, &[]);
    let rolls = |machine: &Machine, kind| {
        let all = machine.store.shared.days.all_rolls();
        all.iter().filter(|roll| roll.kind == kind).count()
    };
    assert_eq!(
        (rolls(&machine, Kind::Roll5m), rolls(&machine, Kind::Roll1h)),
        (3, 3)
    );
    machine.tick().await;
    assert_eq!(machine.store.shared.pressure.of(Cause::Disk), Level::Calm);

    // What is left is below a twentieth of the disk at each look: a file leaves, and
    // somebody else takes its room.
    let mut left = (3, 3);
    while left != (0, 0) {
        let filler = disk.fill(1_100 << 10);
        machine.tick().await;
        let before_it = left;
        left = (rolls(&machine, Kind::Roll5m), rolls(&machine, Kind::Roll1h));
        assert!(left < before_it, "nothing left of {left:?}");
        assert!(
            left.0 == 0 || left.1 == 3,
            "those of minutes first: {left:?}"
        );
        if left.1 > 0 {
            assert_eq!(samples(&machine.store, &[]), before, "{left:?}");
        }
        std::fs::remove_file(filler).unwrap();
    }
    let days = machine.days();
    let filler = disk.fill(1_100 << 10);
    machine.tick().await;
    assert!(machine.days() < days.min(3), "then the oldest day");
    let after = samples(&machine.store, &[]);
    // Nothing is made on such a disk, not even when it is asked for.
    machine.store.compact_now().await.unwrap();
    assert!(machine.store.shared.days.all_rolls().is_empty());

    std::fs::remove_file(filler).unwrap();
    machine.tick().await;
    machine.store.compact_now().await.unwrap();
    assert_eq!(
        (rolls(&machine, Kind::Roll5m), rolls(&machine, Kind::Roll1h)),
        (machine.days(), machine.days())
    );
    assert_eq!(samples(&machine.store, &[]), after);
    assert_eq!(machine.store.verify().faults, []);
    machine.store.close().await;
}
