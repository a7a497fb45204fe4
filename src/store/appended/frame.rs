//! One record in an appended file: where it stands, whose life it belongs to, and
//! whether it is as it was written.
//!
//! ```text
//! frame = xxh3-64 of the body | magic u32 | length of the body u32 | life u64 | commit u64
//!         | xxh3-64 of the 32 bytes before | body | zeros up to the end of the page
//! ```
//!
//! The hash of the head begins with the store's number as its seed: what another store
//! wrote is no frame here. The former magic says that it began with none.
//!
//! A frame without a body is the mark that begins a file. It has the number of the commit
//! by which `hot.redb` knows the file, whose record is not here.
//!
//! Numbers are little-endian. A frame begins at a multiple of 512 bytes, so that no
//! write touches a sector that holds an acknowledged record; one that does not fit
//! into what is left of a page of 4 KiB begins with the next page, so that it writes
//! no page more than it must.
//!
//! A file is used again when nobody needs its records. The *life* is the commit of a
//! file's first record since then; a frame of an earlier life is none.

use std::ops::Range;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const MAGIC: u32 = u32::from_le_bytes(*b"plg2");

/// Of frames that say nothing of their store.
const FORMER_MAGIC: u32 = u32::from_le_bytes(*b"plog");

/// The bytes before a body.
const HEAD: usize = 40;

const SECTOR: usize = 512;
const PAGE: usize = 4_096;

/// Whose frames are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owner {
    /// The store's number.
    pub(super) store: u64,
    /// Files whose life is below may have frames of the former form.
    pub(super) former_below: u64,
}

/// What a frame says about its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    hash: u64,
    len: u32,
    /// The commit of the file's first record.
    pub(super) life: u64,
    /// The commit.
    pub(super) seq: u64,
}

impl Head {
    /// The head at the beginning of `bytes`; `None` when there is none.
    pub(super) fn read(bytes: &[u8], owner: Owner) -> Option<Head> {
        let (head, hash) = bytes.get(..HEAD)?.split_at(HEAD - 8);
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight"));
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
        let seed = match u32_at(8) {
            MAGIC => owner.store,
            FORMER_MAGIC if u64_at(16) < owner.former_below => 0,
            _ => return None,
        };
        if hash != xxh3_64_with_seed(head, seed).to_le_bytes() {
            return None;
        }
        Some(Head {
            hash: u64_at(0),
            len: u32_at(12),
            life: u64_at(16),
            seq: u64_at(24),
        })
    }
}

/// Makes the frame of a record of a file's life and a commit that stands at `at`.
pub(super) fn write(
    owner: Owner,
    (life, seq): (u64, u64),
    body: &[u8],
    at: u64,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(&xxh3_64(body).to_le_bytes());
    out.extend_from_slice(&MAGIC.to_le_bytes());
    let len = u32::try_from(body.len()).expect("a record is shorter than its file");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&life.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    let hash = xxh3_64_with_seed(out, owner.store);
    out.extend_from_slice(&hash.to_le_bytes());
    out.extend_from_slice(body);
    let end = usize::try_from(at).expect("a place in a file of some MiB") + out.len();
    out.resize(out.len() + end.next_multiple_of(PAGE) - end, 0);
}

/// Where a record of so many bytes begins, behind one that ended at `end`, and
/// where the next one may begin.
pub(super) fn place(end: u64, body: usize) -> Range<u64> {
    let len = (HEAD + body) as u64;
    let left = end.next_multiple_of(PAGE as u64) - end;
    let begin = if len <= left {
        end
    } else {
        end.next_multiple_of(PAGE as u64)
    };
    begin..(begin + len).next_multiple_of(SECTOR as u64)
}

/// Something in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// A record; `next` is where the following one may begin.
    Record {
        seq: u64,
        at: usize,
        body: Range<usize>,
        next: usize,
    },
    /// The head of a record whose body is not as it was written: cut off by a power
    /// cut, or damaged.
    Broken { seq: u64, at: usize },
}

/// Looks through a file from `from` on for the next frame of a life, of a later
/// commit than `after`. What cannot be read is passed over, sector by sector.
pub(super) fn next(
    bytes: &[u8],
    (owner, life): (Owner, u64),
    after: u64,
    from: usize,
) -> Option<Seen> {
    let mut at = from;
    while at + HEAD <= bytes.len() {
        let head = Head::read(&bytes[at..], owner).filter(|h| h.life == life && h.seq > after);
        if let Some(head) = head {
            let seq = head.seq;
            let body = at + HEAD..at + HEAD + head.len as usize;
            let is_whole = bytes.get(body.clone()).map(xxh3_64) == Some(head.hash);
            let next = body.end.next_multiple_of(SECTOR);
            return Some(match is_whole {
                true => Seen::Record {
                    seq,
                    at,
                    body,
                    next,
                },
                false => Seen::Broken { seq, at },
            });
        }
        at += SECTOR;
    }
    None
}

/// Where to look on behind something.
pub(super) fn behind(seen: &Seen) -> usize {
    match seen {
        Seen::Record { next, .. } => *next,
        Seen::Broken { at, .. } => at + SECTOR,
    }
}

/// The life of a file: that of its first frame, or, where that is damaged, the
/// latest of all. `None` when the file has no frame.
pub(super) fn life(bytes: &[u8], owner: Owner) -> Option<u64> {
    if let Some(head) = Head::read(bytes, owner) {
        return Some(head.life);
    }
    let heads = bytes.chunks(SECTOR);
    let heads = heads.filter_map(|sector| Head::read(sector, owner));
    heads.map(|head| head.life).max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Owner = Owner {
        store: 77,
        former_below: 0,
    };

    /// A file with these records, by commit, and the end of the last one.
    fn file(life: u64, records: &[(u64, Vec<u8>)], bytes: &mut Vec<u8>) -> u64 {
        let (mut end, mut out) = (0, Vec::new());
        for (seq, body) in records {
            let to = place(end, body.len());
            write(OURS, (life, *seq), body, to.start, &mut out);
            let at = usize::try_from(to.start).unwrap();
            bytes.resize(bytes.len().max(at + out.len()), 0);
            bytes[at..at + out.len()].copy_from_slice(&out);
            assert!(to.start >= end && at.is_multiple_of(SECTOR));
            end = to.end;
        }
        end
    }

    fn read(bytes: &[u8], life: u64) -> (Vec<(u64, Vec<u8>)>, Vec<u64>) {
        let (mut at, mut after) = (0, 0);
        let (mut whole, mut broken) = (Vec::new(), Vec::new());
        while let Some(seen) = next(bytes, (OURS, life), after, at) {
            at = behind(&seen);
            match seen {
                Seen::Record { seq, body, .. } => {
                    after = seq;
                    whole.push((seq, bytes[body].to_vec()));
                }
                Seen::Broken { seq, .. } => broken.push(seq),
            }
        }
        (whole, broken)
    }

    fn records(first: u64, lengths: &[usize]) -> Vec<(u64, Vec<u8>)> {
        let record = |(i, len): (usize, &usize)| {
            let byte = |at: usize| (at * 7 + i).to_le_bytes()[0];
            (first + i as u64, (0..*len).map(byte).collect())
        };
        lengths.iter().enumerate().map(record).collect()
    }

    proptest! {
        #[test]
        fn records_come_back_and_those_of_former_lives_do_not(
            old in prop::collection::vec(0_usize..9_000, 0..30),
            new in prop::collection::vec(0_usize..9_000, 1..30),
        ) {
            let mut bytes = Vec::new();
            file(1, &records(1, &old), &mut bytes);
            let wanted = records(100, &new);
            file(100, &wanted, &mut bytes);
            prop_assert_eq!(life(&bytes, OURS), Some(100));
            prop_assert_eq!(read(&bytes, 100), (wanted, vec![]));
        }

        #[test]
        fn a_changed_byte_costs_its_own_record_only(
            lengths in prop::collection::vec(1_usize..6_000, 1..12),
            at: prop::sample::Index,
            xor in 1_u8..,
        ) {
            let mut bytes = Vec::new();
            let wanted = records(5, &lengths);
            file(5, &wanted, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            let (found, broken) = read(&bytes, 5);
            let lost: Vec<u64> = wanted.iter().filter(|r| !found.contains(r)).map(|r| r.0).collect();
            prop_assert!(lost.len() <= 1 && broken.len() <= 1);
            prop_assert!(found.iter().all(|record| wanted.contains(record)));
            prop_assert!(broken.iter().all(|seq| lost.contains(seq)));
        }

        #[test]
        fn arbitrary_bytes_have_no_records(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
            prop_assert_eq!(life(&bytes, OURS), None);
            prop_assert_eq!(read(&bytes, 0).0, vec![]);
        }
    }

    #[test]
    fn what_another_store_wrote_is_no_frame_and_the_former_form_is_one_for_a_while() {
        let mut bytes = Vec::new();
        write(OURS, (5, 6), b"record", 0, &mut bytes);
        let theirs = Owner { store: 78, ..OURS };
        assert_eq!(life(&bytes, OURS), Some(5));
        assert_eq!(life(&bytes, theirs), None);
        // As it was written before stores had numbers.
        bytes[8..12].copy_from_slice(&FORMER_MAGIC.to_le_bytes());
        let hash = xxh3_64(&bytes[..32]);
        bytes[32..40].copy_from_slice(&hash.to_le_bytes());
        for (former_below, want) in [(5, None), (6, Some(5)), (u64::MAX, Some(5))] {
            let owner = Owner {
                former_below,
                ..OURS
            };
            assert_eq!(life(&bytes, owner), want, "{former_below}");
        }
    }

    #[test]
    fn a_record_touches_no_page_more_than_it_must() {
        let check = |end: u64, body: usize, want: Range<u64>| assert_eq!(place(end, body), want);
        check(0, 100, 0..512);
        check(512, 3_584 - HEAD, 512..4_096);
        check(512, 3_585 - HEAD, 4_096..8_192);
        check(4_096, 10_000, 4_096..14_336);
        check(14_336, 2_048 - HEAD, 14_336..16_384);
        check(14_336, 2_049 - HEAD, 16_384..18_944);
    }

    #[test]
    fn the_life_is_found_without_the_first_record() {
        let mut bytes = Vec::new();
        file(3, &records(3, &[600, 600, 600]), &mut bytes);
        file(9, &records(9, &[600, 600]), &mut bytes);
        bytes[3] ^= 1;
        assert_eq!(life(&bytes, OURS), Some(9));
        let (found, _) = read(&bytes, 9);
        assert_eq!(found.len(), 1);
    }
}
