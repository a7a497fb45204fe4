//! What one hand-over to the writer carries, and what the writer answers.

use bytes::Bytes;

use super::Table;
use crate::model::{DeadLetter, Delivery, Labels, Timestamp};

/// A stored series. Ids grow and are never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesId(pub u32);

/// The number of a transaction. Grows by one with each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CommitSeq(pub u64);

/// Which series a row belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SeriesKey {
    /// Known from [`super::Store::resolve`].
    Id(SeriesId),
    /// Looked up, and made when it is new.
    Labels(Labels),
}

/// One sample of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The series.
    pub series: SeriesKey,
    /// The time.
    pub t: Timestamp,
    /// The value.
    pub v: f64,
}

/// A change of the state tables, made in the transaction of its batch.
#[derive(Clone, PartialEq, Debug)]
pub enum StateOp {
    /// Writes a row.
    Put {
        /// The table.
        table: Table,
        /// The key; tables are sorted by its bytes.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Writes a row, if it is there: one that was removed meanwhile stays away.
    Replace {
        /// The table.
        table: Table,
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes a row, if it is there.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Bytes,
    },
    /// Adds a row to the outbox under the next sequence number of its destination.
    Enqueue(Box<Delivery>),
    /// Adds a row to the dead letters.
    Bury(Box<DeadLetter>),
}

/// The rows and state changes of one message (or rule, or scrape): judged as one.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Item {
    /// How many of the batch's rows are its own; they follow those of the item before.
    pub rows: u32,
    /// Applied only if at least one row was new: what a repeated message must not cause again.
    pub on_new: Vec<StateOp>,
    /// Applied in any case.
    pub always: Vec<StateOp>,
}

/// Whether somebody waits for the commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Urgency {
    /// The answer comes after the durable commit.
    #[default]
    Commit,
    /// The answer comes as soon as the samples are visible; they are durable within 10 s.
    RideAlong,
    /// The same within a second.
    Soon,
}

/// Everything that one transaction writes on behalf of one caller.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WriteBatch {
    /// The rows of all items, one item after the other.
    pub rows: Vec<Row>,
    /// The items.
    pub items: Vec<Item>,
    /// Whether somebody waits.
    pub urgency: Urgency,
    /// Whether the samples are left out rather than waited for when the store takes
    /// none: for rules, whose state changes have to go on.
    pub sheds: bool,
    /// Whether the state changes count before they are durable when the disk refuses
    /// transactions for more than a few seconds: for alerts and notifications, which
    /// have to go on then. The samples are left out meanwhile.
    pub volatile: bool,
    /// Whether it brings our own metrics, whose series are not counted as new ones of
    /// this hour: nobody else would get any.
    pub is_own: bool,
}

impl WriteBatch {
    /// Adds an item made of these rows and changes.
    pub fn push(&mut self, rows: impl IntoIterator<Item = Row>, item: Item) {
        let before = self.rows.len();
        self.rows.extend(rows);
        let rows = u32::try_from(self.rows.len() - before).expect("a batch is far below 4 G rows");
        self.items.push(Item { rows, ..item });
    }

    /// The same batch, [`WriteBatch::volatile`].
    #[must_use]
    pub fn even_unsaved(mut self) -> WriteBatch {
        self.volatile = true;
        self
    }

    /// A batch that only changes state and is waited for.
    pub fn of_state(ops: Vec<StateOp>) -> WriteBatch {
        let mut batch = WriteBatch::default();
        batch.push(
            [],
            Item {
                always: ops,
                ..Item::default()
            },
        );
        batch
    }
}

/// Why the writer did not take a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Another value is stored at the same time; the first one is kept.
    Conflict,
    /// Older than `[store] max_late` or the retention.
    TooOld,
    /// Further in the future than clocks may differ.
    TooNew,
    /// The tenant or the store has as many series as it may.
    SeriesLimit,
    /// A new series, but disk or memory are nearly full.
    NoRoom,
    /// A new series, but there were too many in this hour.
    SeriesRate,
    /// More or longer labels than `[limits]` allows.
    Labels,
    /// Samples are not taken at the moment, and the batch does not wait.
    Overload,
    /// The id is of a series that has left the store; resolve its labels again.
    UnknownSeries,
}

impl Refusal {
    /// All of them, in their order.
    pub const ALL: [Refusal; 9] = [
        Refusal::Conflict,
        Refusal::TooOld,
        Refusal::TooNew,
        Refusal::SeriesLimit,
        Refusal::NoRoom,
        Refusal::SeriesRate,
        Refusal::Labels,
        Refusal::Overload,
        Refusal::UnknownSeries,
    ];
}

/// What became of an item's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ItemOutcome {
    /// Rows that are new.
    pub added: u32,
    /// Rows that were there already with the same value.
    pub duplicates: u32,
    /// Rows that were refused.
    pub refused: u32,
    /// Why the first of them was.
    pub refusal: Option<Refusal>,
    /// How many of them for each reason, in the order of [`Refusal::ALL`].
    pub refusals: [u32; Refusal::ALL.len()],
}

/// A row that the writer did not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusedRow {
    /// Its place among the rows of the batch.
    pub row: usize,
    /// Its time.
    pub t: Timestamp,
    /// Why it was refused.
    pub why: Refusal,
}

/// The writer's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The transaction.
    pub seq: CommitSeq,
    /// One for each item, in order.
    pub outcomes: Vec<ItemOutcome>,
    /// The rows that were refused, in order.
    pub refused: Vec<RefusedRow>,
}
