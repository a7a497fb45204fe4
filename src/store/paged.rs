//! A map from dense, growing ids to values, in pages of 256.
//!
//! Ids are never used twice, so a plain vector would keep a slot for everything
//! that ever was. Here a page goes when its last value goes: 8 bytes stay for
//! 256 dead ids.

const PAGE: usize = 256;

/// The map. Lookups cost two steps and no hash.
#[derive(Debug)]
pub(super) struct Paged<T> {
    pages: Vec<Option<Box<Page<T>>>>,
    len: usize,
}

#[derive(Debug)]
struct Page<T> {
    slots: [Option<T>; PAGE],
    used: usize,
}

impl<T> Default for Paged<T> {
    fn default() -> Paged<T> {
        Paged {
            pages: Vec::new(),
            len: 0,
        }
    }
}

fn place(id: u32) -> (usize, usize) {
    (id as usize / PAGE, id as usize % PAGE)
}

impl<T> Paged<T> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of `id`.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        let (page, slot) = place(id);
        self.pages.get(page)?.as_ref()?.slots[slot].as_ref()
    }

    /// The value of `id`, to change.
    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let (page, slot) = place(id);
        self.pages.get_mut(page)?.as_mut()?.slots[slot].as_mut()
    }

    /// The value of `id`; made by `make` when there is none.
    #[inline]
    pub(super) fn get_or_insert_with(&mut self, id: u32, make: impl FnOnce() -> T) -> &mut T {
        let (page, slot) = place(id);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| {
            Box::new(Page {
                slots: [const { None }; PAGE],
                used: 0,
            })
        });
        let slot = &mut page.slots[slot];
        if slot.is_none() {
            page.used += 1;
            self.len += 1;
        }
        slot.get_or_insert_with(make)
    }

    /// Takes the value of `id` out.
    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let (at, slot) = place(id);
        let page = self.pages.get_mut(at)?.as_mut()?;
        let value = page.slots[slot].take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages[at] = None;
        }
        Some(value)
    }

    /// How many pages there may be; some are empty.
    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Ids and values of one page.
    pub(super) fn page(&self, at: usize) -> impl Iterator<Item = (u32, &T)> {
        let page = self.pages.get(at).and_then(Option::as_ref);
        let slots = page.map_or(&[][..], |page| &page.slots[..]);
        slots
            .iter()
            .enumerate()
            .filter_map(move |(slot, value)| Some((id_of(at, slot), value.as_ref()?)))
    }

    /// The values of one page, to change.
    pub(super) fn page_mut(&mut self, at: usize) -> impl Iterator<Item = &mut T> {
        let page = self.pages.get_mut(at).and_then(Option::as_mut);
        page.into_iter()
            .flat_map(|page| page.slots.iter_mut().flatten())
    }

    /// Keeps the values of one page for which `keep` says yes.
    pub(super) fn retain_page(&mut self, at: usize, mut keep: impl FnMut(u32, &mut T) -> bool) {
        let Some(Some(page)) = self.pages.get_mut(at) else {
            return;
        };
        for (slot, value) in page.slots.iter_mut().enumerate() {
            if value.as_mut().is_some_and(|v| !keep(id_of(at, slot), v)) {
                *value = None;
                page.used -= 1;
                self.len -= 1;
            }
        }
        if page.used == 0 {
            self.pages[at] = None;
        }
    }
}

fn id_of(page: usize, slot: usize) -> u32 {
    u32::try_from(page * PAGE + slot).expect("pages are made from 32-bit ids")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_and_go_with_their_pages() {
        let mut map = Paged::default();
        for id in [0, 5, 255, 256, 100_000] {
            map.get_or_insert_with(id, || id * 2);
        }
        assert_eq!(map.len(), 5);
        assert_eq!(map.get(256), Some(&512));
        assert_eq!(map.get(257), None);
        assert_eq!(
            map.page(0).map(|(id, _)| id).collect::<Vec<_>>(),
            [0, 5, 255]
        );
        assert_eq!(map.remove(100_000), Some(200_000));
        assert_eq!(map.remove(100_000), None);
        map.retain_page(0, |id, _| id == 5);
        assert_eq!((map.len(), map.get(0), map.get(5)), (2, None, Some(&10)));
    }
}
