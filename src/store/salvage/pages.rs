//! The pages of a redb file, read without redb: its third file format.
//!
//! Every page is named by the page above it together with its checksum (xxh3-128, of the
//! bytes in use), the topmost ones by the commit slots in the header. So each page is
//! right or wrong by itself, and a wrong one costs no more than what lies below it.
//!
//! One wrong bit is found by trying: 32,768 flips of a page of 4 KiB take some
//! milliseconds, and only the right one can match 128 bits. What is wrong in several bits
//! is lost.
//!
//! ```text
//! file   = magic [9] | flags u8 | .. | 64: slot [128] | slot [128] | .. | 4096: pages
//! slot   = version u8 | has a root u8 | .. | 8: root | .. | 104: transaction u64
//!          | 112: xxh3-128 of the 112 bytes before
//! root   = page u64 | checksum u128 | length u64
//! page   = index 20 bits | region 20 bits | .. | order 5 bits at the top
//! leaf   = 1 | 0 | n u16 | ends of keys u32.., unless of one size | ends of values u32..
//!          | keys | values
//! branch = 2 | 0 | n u16 | 0 u32 | checksums u128.. and pages u64.. of n + 1 children
//!          | ends of keys u32.., unless of one size | keys
//! ```
//!
//! The root's rows are the tables: `3 | length u64 | has a root u8 | root | ..` by name.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;

use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_128;

const PAGE: u64 = 4_096;
/// Pages follow each other up to here. What the header says of that has no checksum.
const REGION: u64 = PAGE << 20;
const GOD: usize = 9;
const RECOVERY_REQUIRED: u8 = 2;
const SLOTS: usize = 64;
const SLOT: usize = 128;
const SLOT_HASHED: usize = 112;
const VERSION: u8 = 3;
const TABLE: u8 = 3;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// No tree is so high.
const DEPTH_MAX: u32 = 32;

/// Bytes that are hashed in the search for wrong bits: some seconds at most.
const SEARCH_BYTES_MAX: u64 = 32 << 30;

/// And of a file that looks as if only its last commit was cut off: a few pages.
const SEARCH_BYTES_FEW: u64 = 1 << 30;

/// What is wrong in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Health {
    /// Pages with one wrong bit, which was found.
    pub(super) mended: u64,
    /// Pages that cannot be read, with all that lies below them.
    pub(super) lost: u64,
}

/// A table, or nothing.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    root: Option<Root>,
}

/// What the file held at its last commit.
pub(super) struct Found {
    pub(super) tables: Vec<Table>,
    /// Of all of it.
    pub(super) health: Health,
}

#[derive(Clone, Copy, Debug)]
struct Root {
    page: u64,
    checksum: u128,
}

/// By number and checksum; nothing for those that cannot be told.
type Mended = HashMap<(u64, u128), Option<Vec<u8>>, ahash::RandomState>;

/// A file whose last commits may be damaged.
pub(super) struct File<'a> {
    bytes: &'a dyn StorageBackend,
    len: u64,
    /// The slot that counts, if whoever wrote the file ended.
    closed_at: Option<usize>,
    slots: Vec<Slot>,
    /// Pages that were wrong, as they have to be.
    mended: RefCell<Mended>,
    left: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Slot {
    n: usize,
    version: u8,
    transaction: u64,
    root: Option<Root>,
    is_mended: bool,
}

/// Gets key and value of a row.
pub(super) type OnRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> io::Result<()>;

impl File<'_> {
    /// Looks at a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(bytes: &dyn StorageBackend) -> io::Result<File<'_>> {
        let len = bytes.len()?;
        let mut head = vec![0; SLOTS + 2 * SLOT];
        if len >= head.len() as u64 {
            bytes.read(0, &mut head)?;
        }
        let mut slots: Vec<Slot> = (0..2).filter_map(|n| slot(&head, n)).collect();
        slots.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.transaction));
        Ok(File {
            bytes,
            len,
            closed_at: (head[GOD] & RECOVERY_REQUIRED == 0).then_some(usize::from(head[GOD] & 1)),
            slots,
            mended: RefCell::default(),
            left: Cell::new(SEARCH_BYTES_MAX),
        })
    }

    /// Whether a newer redb wrote it.
    pub(super) fn is_newer(&self) -> bool {
        self.slots.iter().any(|slot| slot.version > VERSION)
    }

    /// Whether there are wrong bytes that redb may not see: of a file that was closed it
    /// reads no checksums, and a last commit with a wrong page it takes for one that was
    /// cut off. That one has no page with just one wrong bit.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn is_damaged(&self) -> io::Result<bool> {
        let counts = |slot: &&Slot| self.closed_at.is_none_or(|n| n == slot.n);
        let Some(newest) = self.slots.iter().find(counts) else {
            return Ok(false);
        };
        if self.closed_at.is_none() {
            self.left.set(SEARCH_BYTES_FEW);
        }
        let health = self.look(newest)?.health;
        let may_be_cut_off = self.closed_at.is_none() && health.lost > 0;
        Ok(health != Health::default() && !may_be_cut_off)
    }

    /// The tables of the later one of the two last commits, or of the other one if less
    /// of that is damaged: then the last one was cut off.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn find(&self) -> io::Result<Found> {
        let mut best: Option<Found> = None;
        for slot in &self.slots {
            let found = self.look(slot)?;
            let lost = |found: &Found| (found.tables.is_empty(), found.health.lost);
            if best.as_ref().is_none_or(|best| lost(&found) < lost(best)) {
                best = Some(found);
            }
        }
        let nothing = || Found {
            tables: Vec::new(),
            health: Health { mended: 0, lost: 1 },
        };
        Ok(best.unwrap_or_else(nothing))
    }

    fn look(&self, slot: &Slot) -> io::Result<Found> {
        let mut health = Health::default();
        health.mended += u64::from(slot.is_mended);
        let mut tables = Vec::new();
        if let Some(root) = slot.root {
            let mut row = |name: &[u8], row: &[u8]| {
                match table(name, row) {
                    Some(table) => tables.push(table),
                    None => return Err(io::ErrorKind::InvalidData.into()),
                }
                Ok(())
            };
            self.walk(root, None, 0, &mut health, &mut row)?;
        }
        for table in &tables {
            let rows = self.rows(table, &mut |_, _| Ok(()))?;
            health.mended += rows.mended;
            health.lost += rows.lost;
        }
        Ok(Found { tables, health })
    }

    /// Hands over the rows of a table that can be read, ascending.
    ///
    /// # Errors
    /// When the file cannot be read, and those of `out`.
    pub(super) fn rows(&self, table: &Table, out: OnRow<'_>) -> io::Result<Health> {
        let mut health = Health::default();
        if let Some(root) = table.root {
            let width = super::key_width(&table.name);
            self.walk(root, width, 0, &mut health, out)?;
        }
        Ok(health)
    }

    fn walk(
        &self,
        root: Root,
        width: Option<usize>,
        depth: u32,
        health: &mut Health,
        out: OnRow<'_>,
    ) -> io::Result<()> {
        let page = match depth < DEPTH_MAX {
            true => self.page(root, width, health)?,
            false => None,
        };
        let Some(page) = page else {
            health.lost += 1;
            return Ok(());
        };
        let count = usize::from(u16_at(&page));
        if page[0] == LEAF {
            for (key, value) in (0..count).filter_map(|n| row(&page, width, count, n)) {
                out(key, value)?;
            }
            return Ok(());
        }
        for n in 0..=count {
            match child(&page, count, n) {
                Some(child) => self.walk(child, width, depth + 1, health, out)?,
                None => health.lost += 1,
            }
        }
        Ok(())
    }

    /// A page as it was written; `None` when nobody can tell.
    fn page(
        &self,
        root: Root,
        width: Option<usize>,
        health: &mut Health,
    ) -> io::Result<Option<Vec<u8>>> {
        let name = (root.page, root.checksum);
        if let Some(known) = self.mended.borrow().get(&name) {
            health.mended += u64::from(known.is_some());
            return Ok(known.clone());
        }
        let Some((at, len)) = self.place(root.page) else {
            return Ok(None);
        };
        let mut page = vec![0; len];
        self.bytes.read(at, &mut page)?;
        if is_right(&page, width, root.checksum) {
            return Ok(Some(page));
        }
        let is_mended =
            self.may_search(len) && mend(&mut page, &|page| is_right(page, width, root.checksum));
        let page = is_mended.then_some(page);
        health.mended += u64::from(page.is_some());
        self.mended.borrow_mut().insert(name, page.clone());
        Ok(page)
    }

    fn may_search(&self, len: usize) -> bool {
        let cost = (len as u64).saturating_mul(len as u64 * 8);
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(self.left.get()));
        left.is_some()
    }

    /// Where a page stands, and how long it is.
    fn place(&self, page: u64) -> Option<(u64, usize)> {
        let order = u32::try_from(page >> 59).ok()?;
        let index = page & (0xf_ffff >> order);
        let region = (page >> 20) & 0xf_ffff;
        let len = PAGE << order;
        let regions = region.saturating_mul(REGION);
        let at = (PAGE + index * len).saturating_add(regions);
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len);
        Some((at, usize::try_from(len).ok().filter(|_| fits)?))
    }
}

/// A commit slot; `None` when it says nothing.
fn slot(head: &[u8], n: usize) -> Option<Slot> {
    let from = SLOTS + n * SLOT;
    let mut slot = head[from..from + SLOT].to_vec();
    let is_right =
        |slot: &[u8]| xxh3_128(&slot[..SLOT_HASHED]).to_le_bytes() == slot[SLOT_HASHED..];
    let was_right = is_right(&slot);
    if !was_right && !mend(&mut slot, &is_right) {
        return None;
    }
    Some(Slot {
        n,
        version: slot[0],
        transaction: u64_at(&slot, 104)?,
        root: root(&slot, 8).filter(|_| slot[1] != 0),
        is_mended: !was_right,
    })
}

/// Finds the one wrong bit; leaves the bytes as they are when there is none.
fn mend(bytes: &mut [u8], is_right: &dyn Fn(&[u8]) -> bool) -> bool {
    for at in 0..bytes.len() * 8 {
        bytes[at / 8] ^= 1 << (at % 8);
        if is_right(bytes) {
            return true;
        }
        bytes[at / 8] ^= 1 << (at % 8);
    }
    false
}

fn table(name: &[u8], row: &[u8]) -> Option<Table> {
    let root = root(row, 10).filter(|_| row[9] != 0);
    Some(Table {
        name: std::str::from_utf8(name).ok()?.to_owned(),
        root: root.filter(|_| row[0] == TABLE),
    })
}

fn root(bytes: &[u8], at: usize) -> Option<Root> {
    Some(Root {
        page: u64_at(bytes, at)?,
        checksum: u128_at(bytes, at + 8)?,
    })
}

fn is_right(page: &[u8], width: Option<usize>, checksum: u128) -> bool {
    let used = end(page, width).and_then(|end| page.get(..end));
    used.is_some_and(|used| xxh3_128(used) == checksum)
}

/// Where what is in use of a page ends.
fn end(page: &[u8], width: Option<usize>) -> Option<usize> {
    let count = usize::from(u16_at(page));
    let last = count.checked_sub(1)?;
    match (page[0], width) {
        (LEAF, _) => value_end(page, width, count, last),
        (BRANCH, Some(width)) => Some(8 + 24 * (count + 1) + width * count),
        (BRANCH, None) => usize_at(page, 8 + 24 * (count + 1) + 4 * last),
        _ => None,
    }
}

/// A child of a branch with so many keys.
fn child(page: &[u8], count: usize, n: usize) -> Option<Root> {
    Some(Root {
        checksum: u128_at(page, 8 + 16 * n)?,
        page: u64_at(page, 8 + 16 * (count + 1) + 8 * n)?,
    })
}

/// A row of a leaf with so many.
fn row(page: &[u8], width: Option<usize>, count: usize, n: usize) -> Option<(&[u8], &[u8])> {
    let key_end = |n: usize| match width {
        Some(width) => Some(4 + 4 * count + width * (n + 1)),
        None => usize_at(page, 4 + 4 * n),
    };
    let keys = 4 + 4 * count * (1 + usize::from(width.is_none()));
    let key_from = n.checked_sub(1).map_or(Some(keys), key_end)?;
    let values = key_end(count - 1)?;
    let value_from = match n.checked_sub(1) {
        Some(before) => value_end(page, width, count, before)?,
        None => values,
    };
    let value = page.get(value_from..value_end(page, width, count, n)?)?;
    Some((page.get(key_from..key_end(n)?)?, value))
}

fn value_end(page: &[u8], width: Option<usize>, count: usize, n: usize) -> Option<usize> {
    let before = 4 + 4 * count * usize::from(width.is_none());
    usize_at(page, before + 4 * n)
}

fn u16_at(page: &[u8]) -> u16 {
    u16::from_le_bytes([page[2], page[3]])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*number))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, at)?).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u64::from_le_bytes(*number))
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    let (number, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u128::from_le_bytes(*number))
}
