//! Pages that were read and checked, kept for the next reader.
//!
//! A page has the columns of a hundred series or more, and a panel wants one or two
//! of them from each hour: to find the page in redb's tree, to copy and to hash it
//! costs ten times what decoding a column does. So checked pages stay in memory, as
//! many as fit into a fixed number of bytes. A page that nobody came back to goes
//! first, so that a scan of everything does not push out what panels look at.
//!
//! What is kept is never checked again, and never older than its file: a page is
//! found under the number that the file got when it was opened, and a file is opened
//! anew after any damage was found in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Malformed;
use super::ends::Ends;
use super::page::{EntryKey, Marks, Page};

/// What a page costs beside its bytes and its marks.
const OVERHEAD: usize = 192;

/// The kept pages of all files.
#[derive(Default)]
pub(in crate::store) struct Pages {
    /// The ends of their columns.
    pub(super) ends: Ends,
    bytes_max: usize,
    files: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<Place, Kept>,
    bytes: usize,
    /// Where the search for a page that may go stands.
    hand: Place,
}

/// File, window, generation, and the first entry of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(super) struct Place {
    pub(super) file: u64,
    pub(super) window: u32,
    pub(super) generation: u16,
    pub(super) first: EntryKey,
}

struct Kept {
    page: Arc<Checked>,
    /// Somebody came back to it since the hand passed.
    used: bool,
}

/// A page whose checksum was right.
#[derive(Debug)]
pub(super) struct Checked {
    /// Its first entry.
    pub(super) first: EntryKey,
    bytes: Box<[u8]>,
    /// Where the following page starts.
    pub(super) next: Option<EntryKey>,
    /// Made when somebody comes back to it.
    marks: OnceLock<Marks>,
    /// It is not read for the first time.
    again: AtomicBool,
}

impl Checked {
    /// A page as it is read for the first time.
    pub(super) fn new(first: EntryKey, next: Option<EntryKey>, bytes: &[u8]) -> Arc<Checked> {
        Arc::new(Checked {
            first,
            bytes: bytes.into(),
            next,
            marks: OnceLock::new(),
            again: AtomicBool::new(false),
        })
    }

    /// Its head.
    ///
    /// # Errors
    /// As [`Page::open_checked`].
    pub(super) fn page(&self) -> Result<Page<'_>, Malformed> {
        Page::open_checked(&self.bytes)
    }

    /// What helps to find entries in it, when it is read again.
    pub(super) fn marks(&self, page: &Page<'_>) -> Option<&Marks> {
        let again = self.again.load(Ordering::Relaxed);
        again.then(|| self.marks.get_or_init(|| page.marks()))
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.bytes.len() / 8 + OVERHEAD
    }
}

impl Pages {
    /// Keeps so many bytes, a quarter of them ends; 0 keeps none.
    pub(in crate::store) fn new(bytes_max: usize) -> Pages {
        let ends_max = bytes_max / 4;
        Pages {
            ends: Ends::new(ends_max),
            bytes_max: bytes_max - ends_max,
            ..Pages::default()
        }
    }

    /// A number for a file that is opened now.
    pub(super) fn number(&self) -> u64 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    /// The page in which the entry stands, if it is there at all: the page with the
    /// largest key that is not above `entry`, when it is known that no other page
    /// lies between.
    pub(super) fn find(&self, entry: Place) -> Option<Arc<Checked>> {
        let mut state = self.lock();
        let (place, kept) = state.pages.range_mut(..=entry).next_back()?;
        let same = (place.file, place.window, place.generation)
            == (entry.file, entry.window, entry.generation);
        if !same || kept.page.next.is_some_and(|next| next <= entry.first) {
            return None;
        }
        kept.used = true;
        kept.page.again.store(true, Ordering::Relaxed);
        Some(Arc::clone(&kept.page))
    }

    /// Keeps the page of this place.
    pub(super) fn keep(&self, place: Place, page: &Arc<Checked>) {
        let size = page.size();
        if size > self.bytes_max / 4 {
            return;
        }
        let mut state = self.lock();
        while state.bytes + size > self.bytes_max {
            state.drop_one();
        }
        let kept = Kept {
            page: Arc::clone(page),
            used: false,
        };
        if let Some(old) = state.pages.insert(place, kept) {
            state.bytes -= old.page.size();
        }
        state.bytes += size;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Moves the hand to the next page that nobody used since it was there last.
    fn drop_one(&mut self) {
        loop {
            let unused = |(place, kept): (&Place, &mut Kept)| {
                let size = kept.page.size();
                (!std::mem::take(&mut kept.used)).then_some((*place, size))
            };
            let found = self.pages.range_mut(self.hand..).find_map(unused);
            let Some((place, size)) = found else {
                self.hand = Place::default();
                continue;
            };
            self.pages.remove(&place);
            self.bytes -= size;
            self.hand = place;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(metric_sym: u32) -> EntryKey {
        EntryKey {
            metric_sym,
            ..EntryKey::default()
        }
    }

    fn place(file: u64, metric: u32) -> Place {
        Place {
            file,
            window: 7,
            generation: 0,
            first: key(metric),
        }
    }

    fn keep(pages: &Pages, at: Place, next: Option<EntryKey>) {
        pages.keep(at, &Checked::new(at.first, next, &[1; 800]));
    }

    #[test]
    fn a_page_is_found_for_what_lies_before_the_next_one() {
        let pages = Pages::new(1 << 20);
        keep(&pages, place(1, 10), Some(key(20)));
        keep(&pages, place(1, 30), None);
        let first = |at| pages.find(at).map(|page| page.first.metric_sym);
        assert_eq!(first(place(1, 9)), None);
        assert_eq!(first(place(1, 10)), Some(10));
        assert_eq!(first(place(1, 19)), Some(10));
        assert_eq!(first(place(1, 20)), None, "of a page that is not there");
        assert_eq!(first(place(1, 31)), Some(30));
        assert_eq!(first(place(2, 31)), None, "of another file");
        let other = Place {
            generation: 1,
            ..place(1, 31)
        };
        assert_eq!(first(other), None);
    }

    #[test]
    fn what_nobody_came_back_to_goes_first_and_the_bytes_are_bounded() {
        let size = Checked::new(key(0), None, &[1; 800]).size();
        let pages = Pages {
            bytes_max: 10 * size,
            ..Pages::default()
        };
        for i in 0..10 {
            keep(&pages, place(1, i), Some(key(i + 1)));
        }
        assert!(pages.find(place(1, 0)).is_some() && pages.find(place(1, 5)).is_some());
        for i in 10..18 {
            keep(&pages, place(1, i), Some(key(i + 1)));
            assert!(pages.lock().bytes <= pages.bytes_max);
        }
        assert!(pages.find(place(1, 0)).is_some() && pages.find(place(1, 5)).is_some());
        assert!(pages.find(place(1, 1)).is_none());
        // Used ones go as well when there are no others.
        for i in 0..200 {
            keep(&pages, place(2, i), Some(key(i + 1)));
            pages.find(place(2, i)).unwrap();
        }
        let state = pages.lock();
        assert_eq!(state.pages.len(), 10);
        assert_eq!(state.bytes, pages.bytes_max);
    }

    #[test]
    fn none_are_kept_without_room() {
        let pages = Pages::default();
        keep(&pages, place(0, 0), None);
        assert!(pages.find(place(0, 0)).is_none());
    }
}
