//! The memory guard: how much the process has, and how much it may.
//!
//! Above 80 % of `[store] memory_limit` the open hour is sealed early; above 95 %
//! samples of new series are refused. Known series go on.

use std::path::Path;

use procfs::FromRead as _;

use super::pressure::Level;

/// Of the limit, in percent.
const SHED_PERCENT: u64 = 80;
const NO_SERIES_PERCENT: u64 = 95;

/// Where a control group says what the process may have, by version.
const CGROUP_LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// The memory of the process.
pub(super) struct Memory {
    limit: u64,
    #[cfg(test)]
    pub(super) used: std::sync::atomic::AtomicU64,
}

impl Memory {
    /// With this limit; 0 is what the control group or else the machine has.
    pub(super) fn new(limit: u64) -> Memory {
        Memory {
            limit: if limit > 0 { limit } else { of_machine() },
            #[cfg(test)]
            used: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// The limit in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The level now.
    pub(super) fn level(&self) -> Level {
        level_of(self.used(), self.limit)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests say what is used")]
    fn used(&self) -> u64 {
        let resident = procfs::process::Process::myself().and_then(|own| own.statm());
        resident.map_or(0, |pages| pages.resident * procfs::page_size())
    }

    #[cfg(test)]
    fn used(&self) -> u64 {
        self.used.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn level_of(used: u64, limit: u64) -> Level {
    let above = |percent: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(percent);
    if above(NO_SERIES_PERCENT) {
        Level::NoSeries
    } else if above(SHED_PERCENT) {
        Level::Shed
    } else {
        Level::Calm
    }
}

fn of_machine() -> u64 {
    let group = CGROUP_LIMITS
        .into_iter()
        .filter_map(|path| read(Path::new(path)));
    let ram = procfs::Meminfo::from_file("/proc/meminfo").map(|info| info.mem_total);
    group.chain(ram.ok()).min().unwrap_or(u64::MAX)
}

/// `max` is no number, so it is no limit.
fn read(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_parts_of_the_limit() {
        for (used, want) in [
            (0, Level::Calm),
            (79, Level::Calm),
            (80, Level::Shed),
            (94, Level::Shed),
            (95, Level::NoSeries),
            (500, Level::NoSeries),
        ] {
            assert_eq!(level_of(used, 100), want, "{used}");
        }
        assert_eq!(level_of(u64::MAX, u64::MAX), Level::NoSeries);
        assert!(Memory::new(0).limit() > 1 << 20);
    }
}
