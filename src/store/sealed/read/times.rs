//! The timestamp columns that the entries of pages refer to.

use std::ops::Range;

use redb::{AccessGuard, ReadOnlyTable};

use super::super::Malformed;
use super::super::file::{Generation, Trouble, place};
use super::super::tables::{self, Head};

/// The timestamp columns of one generation.
pub(super) struct Times<'a> {
    table: &'a TimesRows,
    generation: &'a Generation,
    decoded: &'a mut Decoded,
    pack: Option<Pack>,
    /// The column that was read last, and those behind it.
    last: Option<u32>,
    behind: Option<redb::Range<'static, TimesKey, &'static [u8]>>,
}

/// Window, generation and id.
type TimesKey = (u32, u16, u32);
/// The table of all columns.
pub(super) type TimesRows = ReadOnlyTable<TimesKey, &'static [u8]>;
type Row = AccessGuard<'static, &'static [u8]>;

/// Columns that are kept decoded: enough for the targets of a scrape, few enough to
/// stay near.
const SLOTS: usize = 256;

/// Decoded columns, each in the slot of its id's last digits. The buffers serve one
/// generation after the other.
#[derive(Default)]
pub(super) struct Decoded {
    slots: Vec<Slot>,
    /// Counts the generations.
    turn: u32,
}

#[derive(Default)]
struct Slot {
    /// The turn and the id of the column that it has; no turn is 0.
    column: (u32, u32),
    head: Head,
    /// All of them, or none yet.
    times: Vec<i64>,
}

impl<'a> Times<'a> {
    /// No column is decoded yet.
    pub(super) fn new(
        table: &'a TimesRows,
        generation: &'a Generation,
        decoded: &'a mut Decoded,
    ) -> Times<'a> {
        decoded.turn += 1;
        Times {
            table,
            generation,
            decoded,
            pack: None,
            last: None,
            behind: None,
        }
    }

    /// The times of a column.
    pub(super) fn get(&mut self, id: u32) -> Result<&[i64], Trouble> {
        let at = self.slot(id);
        let column = (self.decoded.turn, id);
        let slot = &self.decoded.slots[at];
        if slot.column != column || slot.head.count != slot.times.len() {
            let slot = std::mem::take(&mut self.decoded.slots[at]);
            let mut times = slot.times;
            times.clear();
            self.with_column(id, &mut |bytes| tables::decode_packed(bytes, &mut times))?;
            self.decoded.slots[at] = Slot {
                column,
                head: Head {
                    count: times.len(),
                    first: times.first().copied().unwrap_or(0),
                },
                times,
            };
        }
        Ok(&self.decoded.slots[at].times)
    }

    /// What a column begins with.
    pub(super) fn head(&mut self, id: u32) -> Result<Head, Trouble> {
        let at = self.slot(id);
        let column = (self.decoded.turn, id);
        if self.decoded.slots[at].column != column {
            let mut head = Head::default();
            self.with_column(id, &mut |bytes| {
                head = tables::head_of_packed(bytes)?;
                Ok(())
            })?;
            let slot = &mut self.decoded.slots[at];
            (slot.column, slot.head) = (column, head);
            slot.times.clear();
        }
        Ok(self.decoded.slots[at].head)
    }

    /// The slot of a column, whatever is in it.
    fn slot(&mut self, id: u32) -> usize {
        let at = id as usize % SLOTS;
        if at >= self.decoded.slots.len() {
            self.decoded.slots.resize_with(at + 1, Slot::default);
        }
        at
    }

    /// The row of one column. Series are read in the order in which their columns
    /// were numbered: the next row is mostly the wanted one, without a search.
    fn row(&mut self, id: u32) -> Result<Option<Row>, Trouble> {
        let key = (
            self.generation.window_start_s,
            self.generation.generation,
            id,
        );
        let follows = self
            .last
            .is_some_and(|last| last.checked_add(1) == Some(id));
        self.last = Some(id);
        if !follows {
            self.behind = None;
            return Ok(self.table.get(key)?);
        }
        let behind = match &mut self.behind {
            Some(behind) => behind,
            none => none.insert(self.table.range(key..=(key.0, key.1, u32::MAX))?),
        };
        let next = behind.next().transpose()?;
        Ok(next
            .filter(|(found, _)| found.value() == key)
            .map(|(_, row)| row))
    }

    /// Hands over the bytes of a column.
    fn with_column(
        &mut self,
        id: u32,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Trouble> {
        let (window, number) = (self.generation.window_start_s, self.generation.generation);
        let name = || format!("{}, times {id}", place(window, number));
        let missing = || Trouble::Damaged(format!("{} are missing", name()));
        if !self.generation.packed {
            let row = self.row(id)?.ok_or_else(missing)?;
            return tables::open_times(row.value(), (window, number, id))
                .and_then(take)
                .map_err(|err| Trouble::at(name())(err));
        }
        if self
            .pack
            .as_ref()
            .is_none_or(|pack| pack.column(id).is_none())
        {
            let range = (window, number, 0)..=(window, number, id);
            let (key, row) = self.table.range(range)?.next_back().ok_or_else(missing)??;
            let first = key.value().2;
            let columns = tables::open_pack(row.value(), window, number, first)
                .map_err(|err| Trouble::at(name())(err))?;
            self.pack = Some(Pack {
                first,
                row,
                columns,
            });
        }
        let column = self.pack.as_ref().and_then(|pack| pack.column(id));
        take(column.ok_or_else(missing)?).map_err(|err| Trouble::at(name())(err))
    }
}

/// A row of timestamp columns. Neighbouring series have neighbouring columns, so
/// the last one is kept.
struct Pack {
    /// The id of the first column.
    first: u32,
    row: Row,
    columns: Vec<Range<usize>>,
}

impl Pack {
    fn column(&self, id: u32) -> Option<&[u8]> {
        let at = id.checked_sub(self.first)?;
        let column = self.columns.get(at as usize)?;
        Some(&self.row.value()[column.clone()])
    }
}
