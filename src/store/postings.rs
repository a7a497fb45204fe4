//! The series that carry one label pair.

use std::ops::BitOrAssign;

use roaring::RoaringBitmap;

/// A set of refs. Up to three of them need no allocation: values such as device
/// ids mostly have one series or a few, and an empty bitmap alone takes more.
#[derive(Debug)]
pub(super) enum Postings {
    /// The first `len` refs, in any order.
    Few { len: u8, refs: [u32; 3] },
    /// More than three.
    Many(Box<RoaringBitmap>),
}

impl Default for Postings {
    fn default() -> Postings {
        Postings::Few {
            len: 0,
            refs: [0; 3],
        }
    }
}

impl Postings {
    /// Adds a ref that is not in the set.
    pub(super) fn insert(&mut self, series: u32) {
        match self {
            Postings::Few { len, refs } if *len < 3 => {
                refs[usize::from(*len)] = series;
                *len += 1;
            }
            Postings::Few { refs, .. } => {
                let all = refs.iter().copied().chain([series]);
                *self = Postings::Many(Box::new(all.collect()));
            }
            Postings::Many(bitmap) => {
                bitmap.insert(series);
            }
        }
    }

    /// How many refs there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Postings::Few { len, .. } => u64::from(*len),
            Postings::Many(bitmap) => bitmap.len(),
        }
    }

    /// Removes a ref; says whether the set is empty now.
    pub(super) fn remove(&mut self, series: u32) -> bool {
        match self {
            Postings::Few { len, refs } => {
                let used = usize::from(*len);
                if let Some(at) = refs[..used].iter().position(|r| *r == series) {
                    refs.swap(at, used - 1);
                    *len -= 1;
                }
                *len == 0
            }
            Postings::Many(bitmap) => {
                bitmap.remove(series);
                bitmap.is_empty()
            }
        }
    }

    /// Keeps in `set` only what is here too.
    pub(super) fn intersect_into(&self, set: &mut RoaringBitmap) {
        match self {
            Postings::Few { .. } => {
                *set = self
                    .few()
                    .iter()
                    .copied()
                    .filter(|series| set.contains(*series))
                    .collect();
            }
            Postings::Many(bitmap) => *set &= &**bitmap,
        }
    }

    /// Whether it and `set` have a ref in common.
    pub(super) fn meets(&self, set: &RoaringBitmap) -> bool {
        match self {
            Postings::Few { .. } => self.few().iter().any(|series| set.contains(*series)),
            Postings::Many(bitmap) => !bitmap.is_disjoint(set),
        }
    }

    fn few(&self) -> &[u32] {
        match self {
            Postings::Few { len, refs } => &refs[..usize::from(*len)],
            Postings::Many(_) => &[],
        }
    }
}

impl BitOrAssign<&Postings> for RoaringBitmap {
    fn bitor_assign(&mut self, other: &Postings) {
        match other {
            Postings::Few { .. } => self.extend(other.few().iter().copied()),
            Postings::Many(bitmap) => *self |= &**bitmap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_sets_behave_alike() {
        let mut set = Postings::default();
        let mut want = RoaringBitmap::new();
        for series in [9, 4, 7, 1, 300_000] {
            set.insert(series);
            want.insert(series);
            let mut all = RoaringBitmap::new();
            all |= &set;
            assert_eq!(all, want);
            assert!(set.meets(&want));
        }
        assert_eq!(size_of::<Postings>(), 16);
        let mut other: RoaringBitmap = [4, 5, 300_000].into_iter().collect();
        set.intersect_into(&mut other);
        assert_eq!(other.iter().collect::<Vec<_>>(), [4, 300_000]);
        for series in [4, 9, 1, 7] {
            assert!(!set.remove(series));
        }
        assert!(set.remove(300_000));
    }
}
