//! Which samples are sealed together.
//!
//! Time is cut into hourly windows (UTC). The samples of one window that are not
//! sealed yet form a *part*. Sealing a window takes its part away; a sample that
//! comes later for that window opens a further part, so a seal never races with
//! the writer. A part becomes one generation of its window in a sealed file, and
//! that generation holds every sample of the window from the transactions up to
//! its last one that no earlier generation holds: replay leans on this.

use std::ops::RangeInclusive;

use super::series::PartId;

/// The length of a window in ms.
pub(super) const WINDOW_MS: i64 = 3_600_000;

/// The samples of one window that will be sealed together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) id: PartId,
    /// Hours since the epoch.
    pub(super) window: u32,
    /// The first transaction that put a sample in.
    pub(super) first_seq: u64,
    /// The last one that may have; known when the part is taken.
    pub(super) last_seq: u64,
    pub(super) samples: u64,
    pub(super) min_t: i64,
    pub(super) max_t: i64,
}

/// The parts that are not sealed yet.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Still growing, at most one for a window.
    open: Vec<Part>,
    /// Taken by the sealer.
    taken: Vec<Part>,
    last_id: PartId,
    recent: usize,
}

/// The window of a time; `None` before 1970 and after 2106, which no file name
/// or page key can hold.
pub(super) fn window_of(t: i64) -> Option<u32> {
    let window = u32::try_from(t.div_euclid(WINDOW_MS)).ok()?;
    (window <= u32::MAX / 3_600).then_some(window)
}

impl Parts {
    /// The part that a sample at `t` of transaction `seq` belongs to; counts it in.
    #[inline]
    pub(super) fn count_in(&mut self, window: u32, t: i64, seq: u64) {
        let part = self.open_part(window, seq);
        part.samples += 1;
        part.min_t = part.min_t.min(t);
        part.max_t = part.max_t.max(t);
    }

    /// Counts samples of a window in, the first of them of transaction `first_seq`.
    pub(super) fn count_all(
        &mut self,
        window: u32,
        first_seq: u64,
        samples: u64,
        times: &RangeInclusive<i64>,
    ) {
        let part = self.open_part(window, first_seq);
        part.first_seq = part.first_seq.min(first_seq);
        part.samples += samples;
        part.min_t = part.min_t.min(*times.start());
        part.max_t = part.max_t.max(*times.end());
    }

    /// The id of the window's open part.
    #[inline]
    pub(super) fn id_of(&mut self, window: u32, seq: u64) -> PartId {
        self.open_part(window, seq).id
    }

    #[inline]
    fn open_part(&mut self, window: u32, seq: u64) -> &mut Part {
        let recent = self.open.get(self.recent);
        if recent.is_none_or(|part| part.window != window) {
            let found = self.open.iter().position(|part| part.window == window);
            self.recent = found.unwrap_or_else(|| self.begin(window, seq));
        }
        &mut self.open[self.recent]
    }

    fn begin(&mut self, window: u32, seq: u64) -> usize {
        self.last_id += 1;
        self.open.push(Part {
            id: self.last_id,
            window,
            first_seq: seq,
            last_seq: seq,
            samples: 0,
            min_t: i64::MAX,
            max_t: i64::MIN,
        });
        self.open.len() - 1
    }

    /// Takes the parts of all windows but `leave` to seal them; `last_seq` is the
    /// last transaction, all of whose samples are in.
    pub(super) fn take_all_but(&mut self, leave: &RangeInclusive<u32>, last_seq: u64) -> Vec<Part> {
        let (stay, take): (Vec<Part>, Vec<Part>) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|part| leave.contains(&part.window));
        self.open = stay;
        self.recent = 0;
        let mut take = take;
        take.retain(|part| part.samples > 0);
        for part in &mut take {
            part.last_seq = last_seq;
        }
        take.sort_unstable_by_key(|part| part.window);
        self.taken.extend(take.iter().cloned());
        take
    }

    /// Forgets a part whose seal is on record.
    pub(super) fn sealed(&mut self, id: PartId) {
        self.taken.retain(|part| part.id != id);
    }

    /// The first transaction whose samples are not all sealed.
    pub(super) fn first_unsealed_seq(&self) -> Option<u64> {
        self.all().map(|part| part.first_seq).min()
    }

    /// How many samples wait in other windows than these, not taken yet.
    pub(super) fn backlog(&self, leave: &RangeInclusive<u32>) -> u64 {
        let waiting = self.open.iter();
        let over = waiting.filter(|part| !leave.contains(&part.window));
        over.map(|part| part.samples).sum()
    }

    /// The parts that nobody has sealed yet, taken ones included.
    pub(super) fn all(&self) -> impl Iterator<Item = &Part> {
        self.taken.iter().chain(&self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_window_opens_a_further_part() {
        let mut parts = Parts::default();
        let first = parts.id_of(10, 5);
        parts.count_in(10, 36_000_001, 5);
        parts.count_in(11, 39_600_000, 6);
        let taken = parts.take_all_but(&(11..=u32::MAX), 9);
        assert_eq!(taken.len(), 1);
        assert_eq!(
            (taken[0].id, taken[0].first_seq, taken[0].last_seq),
            (first, 5, 9)
        );
        assert_ne!(parts.id_of(10, 10), first);
        assert_eq!(parts.first_unsealed_seq(), Some(5));
        parts.sealed(first);
        assert_eq!(parts.first_unsealed_seq(), Some(6));
    }

    #[test]
    fn times_outside_the_format_have_no_window() {
        assert_eq!(window_of(-1), None);
        assert_eq!(window_of(0), Some(0));
        assert_eq!(window_of(i64::MAX), None);
        assert_eq!(
            window_of(i64::from(u32::MAX) * 1_000),
            Some(u32::MAX / 3_600)
        );
    }
}
