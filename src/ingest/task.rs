//! The ingest task: hands from the lanes into batches, batches into the store,
//! verdicts back.
//!
//! Up to [`FLIGHTS_MAX`] batches are under way, so that the next one is decoded
//! while the former commits. While all are under way messages gather in the
//! lanes, and the next batch is larger: group commit needs no timer here.
//!
//! A message ends in one of four ways. Its rows are stored, or were before: its
//! commit ends it. It is refused here: its dead letter rides in the same batch
//! and its commit ends it. The writer refuses it: its dead letter needs a commit
//! of its own, after which it ends. Or it is not stored at all (`Retry`).
//!
//! A message that is stored in part counts as refused, with the reason of its
//! first refused row, and has a dead letter; the rows that were taken stay.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio_util::sync::CancellationToken;

use super::batch::{Encoded, Encoder, Pass, Rest, is_full, pairs};
use super::decode::Refused;
use super::lanes::{Lanes, Room};
use super::letter::dead_letter;
use super::plan::Active;
use super::registry::Registry;
use super::validate::{Lot, Moment};
use super::{Core, Details, Hand, Message, Origin, Reply};
use crate::model::{Clock, Timestamp};
use crate::store::{Committed, Error, Item, Refusal, RefusedRow, StateOp, Store, WriteBatch};
use crate::telemetry::metrics::{Ending, Reason, Registered, ServiceName};

/// Batches under way.
const FLIGHTS_MAX: usize = 4;

/// How often a message is written again before what stands in its way counts as
/// a refusal.
const PASSES_MAX: u32 = 64;

/// A hand whose messages have not all ended.
struct Open {
    origin: Arc<Origin>,
    active: Arc<Active>,
    endings: Vec<Ending>,
    details: Details,
    left: usize,
    reply: Option<Reply>,
    _room: Room,
}

/// Also when the task panics every message is answered: with `Retry`.
impl Drop for Open {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply.answer(&self.endings, &mut self.details);
        }
    }
}

/// A message on its way.
struct Entry {
    hand: u64,
    index: usize,
    lot: Lot,
    message: Message,
    /// Rows that were new, in all passes together.
    added: u32,
    passes: u32,
    /// The values that are written again, after the first pass.
    rest: Vec<Rest>,
    /// Why a row was refused for good.
    refusal: Option<Refusal>,
    stage: Stage,
}

impl Entry {
    /// Sorts the refused rows of a pass into those that are tried again and those
    /// that are refused for good. Says whether a series has to be looked up anew.
    fn sort_out(&mut self, encoded: &Encoded, refused: &[RefusedRow]) -> bool {
        let tried = std::mem::take(&mut self.rest);
        let is_last = self.passes >= PASSES_MAX;
        for row in refused {
            let may_move = encoded.stamped && !encoded.twins.contains(&row.row);
            let moved = row.why == Refusal::Conflict && may_move;
            if is_last || !(moved || row.why == Refusal::UnknownSeries) {
                self.refusal.get_or_insert(row.why);
                continue;
            }
            let at = row.row - encoded.rows.start;
            self.rest.push(Rest {
                value: tried.get(at).map_or(at, |rest| rest.value),
                start: row.t.plus_ms(i64::from(moved)),
                moved,
            });
        }
        let is_unknown = |row: &RefusedRow| row.why == Refusal::UnknownSeries;
        refused.iter().any(is_unknown)
    }
}

enum Stage {
    /// Its rows are in the batch.
    Written(Encoded),
    /// It ends so with the commit.
    Final(Ending),
}

/// A batch under way.
struct Landed {
    number: u64,
    entries: Vec<Entry>,
    result: Result<Committed, Error>,
    seconds: f64,
}

/// A batch being filled.
#[derive(Default)]
struct Load {
    write: WriteBatch,
    entries: Vec<Entry>,
    letter_bytes: usize,
}

pub(super) struct Worker {
    core: Arc<Core>,
    store: Store,
    clock: Clock,
    encoder: Encoder,
    /// What the encoder's topics were learned under.
    learned: Option<Arc<Active>>,
    open: HashMap<u64, Open, ahash::RandomState>,
    next_hand: u64,
    backlog: std::collections::VecDeque<(u64, usize, (Lot, Message))>,
    flights: FuturesOrdered<BoxFuture<'static, Landed>>,
    flown: u64,
    /// First sights whose commit is under way, by the device's key.
    registering: HashMap<u64, Instant, ahash::RandomState>,
}

impl Worker {
    pub(super) fn new(core: Arc<Core>, store: Store, registry: Registry) -> Worker {
        Worker {
            clock: core.clock.clone(),
            encoder: Encoder::new(store.clone(), registry),
            core,
            store,
            learned: None,
            open: HashMap::default(),
            next_hand: 0,
            backlog: std::collections::VecDeque::new(),
            flights: FuturesOrdered::new(),
            flown: 0,
            registering: HashMap::default(),
        }
    }

    /// Runs until `stop`, then finishes what is queued.
    pub(super) async fn run(mut self, lanes: &mut Lanes, stop: &CancellationToken) {
        let mut hands = Vec::new();
        let mut open = true;
        loop {
            let has_room = self.flights.len() < FLIGHTS_MAX;
            let has_backlog = !self.backlog.is_empty();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !lanes.is_closed() => lanes.close(),
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => self.settle(landed),
                () = std::future::ready(()), if has_room && has_backlog => self.fill(),
                more = lanes.next(&mut hands), if open && has_room && !has_backlog => {
                    open = more;
                    hands.drain(..).for_each(|hand| self.take(hand));
                }
                else => return,
            }
        }
    }

    fn take(&mut self, mut hand: Hand) {
        let id = self.next_hand;
        self.next_hand += 1;
        let count = hand.messages.len();
        let messages = pairs(&mut hand).map(|(index, pair)| (id, index, pair));
        self.backlog.extend(messages);
        let open = Open {
            origin: hand.origin,
            active: hand.active,
            endings: vec![Ending::Retry(Reason::Storage); count],
            details: Details::default(),
            left: count,
            reply: Some(hand.reply),
            _room: hand.room,
        };
        if count > 0 {
            self.open.insert(id, open);
        }
    }

    /// Makes a batch of the backlog and sends it off.
    fn fill(&mut self) {
        let mut load = Load::default();
        let at = Moment::of(&self.clock);
        while !is_full(&load.write, load.letter_bytes)
            && let Some((hand, index, (lot, message))) = self.backlog.pop_front()
        {
            let entry = Entry {
                hand,
                index,
                lot,
                message,
                added: 0,
                passes: 0,
                rest: Vec::new(),
                refusal: None,
                stage: Stage::Final(Ending::Retry(Reason::Storage)),
            };
            self.load(entry, &at, &mut load);
        }
        self.launch(load);
    }

    fn load(&mut self, entry: Entry, at: &Moment, load: &mut Load) {
        match entry.lot.refused {
            None => self.encode(entry, at, false, load),
            Some((reason @ Reason::Overload, _)) => self.end(&entry, Ending::Retry(reason)),
            Some((reason, detail)) if !reason.is_kept() => {
                self.explain(&entry, detail);
                self.end(&entry, Ending::Rejected(reason));
            }
            Some((reason, detail)) => self.bury(entry, &Refused::new(reason, detail), at.now, load),
        }
    }

    fn encode(&mut self, mut entry: Entry, at: &Moment, afresh: bool, load: &mut Load) {
        let active = Arc::clone(&self.open[&entry.hand].active);
        if !self
            .learned
            .as_ref()
            .is_some_and(|l| Arc::ptr_eq(l, &active))
        {
            self.encoder.forget_topics();
            self.learned = Some(Arc::clone(&active));
        }
        let pass = match entry.passes {
            0 => Pass::First,
            _ => Pass::Rest {
                values: &entry.rest,
                afresh,
                added: entry.added > 0,
            },
        };
        let pair = (&entry.lot, &entry.message);
        match self
            .encoder
            .encode(&active, pair, at, pass, &mut load.write)
        {
            Ok(encoded) => {
                let registrations = &entry.lot.tenant.meter.registrations;
                if encoded.unregistered && entry.passes == 0 {
                    registrations.refused.inc();
                }
                if let Some(device) = encoded.registers {
                    registrations.submitted.inc();
                    self.registering.insert(device, Instant::now());
                    self.show_registering();
                }
                entry.stage = Stage::Written(encoded);
                load.entries.push(entry);
            }
            Err(refused) if !refused.reason.is_kept() => {
                self.explain(&entry, &refused.detail);
                self.end(&entry, Ending::Rejected(refused.reason));
            }
            Err(refused) => self.bury(entry, &refused, at.now, load),
        }
    }

    /// Puts a message's dead letter into the batch, whose commit ends the message.
    fn bury(&mut self, mut entry: Entry, refused: &Refused, now: Timestamp, load: &mut Load) {
        self.explain(&entry, &refused.detail);
        let origin = &self.open[&entry.hand].origin;
        let tenant = entry.lot.tenant_id.as_str();
        let letter = dead_letter(origin, &entry.message, tenant, refused, now);
        load.letter_bytes += letter.payload.len();
        load.write.push(
            [],
            Item {
                always: vec![StateOp::Bury(Box::new(letter))],
                ..Item::default()
            },
        );
        entry.stage = Stage::Final(Ending::Rejected(refused.reason));
        load.entries.push(entry);
    }

    /// Keeps what is wrong with a message for a source that wants to know.
    fn explain(&mut self, entry: &Entry, detail: &str) {
        let hand = self.open.get_mut(&entry.hand);
        if let Some(hand) = hand
            && hand.reply.as_ref().is_some_and(Reply::wants_details)
        {
            let detail = (detail.to_owned(), entry.added);
            hand.details.insert(entry.index, detail);
        }
    }

    fn launch(&mut self, load: Load) {
        if load.entries.is_empty() {
            return;
        }
        self.flown += 1;
        let (number, store, start) = (self.flown, self.store.clone(), Instant::now());
        self.flights.push_back(Box::pin(async move {
            let result = store.write(load.write).await;
            Landed {
                number,
                entries: load.entries,
                result,
                seconds: start.elapsed().as_secs_f64(),
            }
        }));
    }

    /// Ends the messages of a batch, or sends them on another round.
    fn settle(&mut self, landed: Landed) {
        let commit = &self.core.metrics.service;
        commit
            .observe(ServiceName::Ingest, "commit")
            .observe(landed.seconds);
        let committed = match landed.result {
            Ok(committed) => committed,
            Err(err) => {
                tracing::warn!(messages = landed.entries.len(), error = %err, "batch was not stored");
                landed
                    .entries
                    .into_iter()
                    .for_each(|entry| self.lose(&entry));
                return;
            }
        };
        let mut again = Load::default();
        let at = Moment::of(&self.clock);
        for mut entry in landed.entries {
            match std::mem::replace(&mut entry.stage, Stage::Final(Ending::Accepted)) {
                Stage::Final(ending) => self.end(&entry, ending),
                Stage::Written(encoded) => {
                    entry.lot.tenant.time_commit(landed.number, landed.seconds);
                    self.judge(entry, &encoded, &committed, &at, &mut again);
                }
            }
        }
        self.launch(again);
    }

    /// What the writer's answer means for a message.
    fn judge(
        &mut self,
        mut entry: Entry,
        encoded: &Encoded,
        committed: &Committed,
        at: &Moment,
        again: &mut Load,
    ) {
        let added = committed.outcomes[encoded.item].added;
        let refused = within(&committed.refused, &encoded.rows);
        entry.added += added;
        entry.lot.tenant.meter.samples.inc_by(u64::from(added));
        let is_refused = !refused.is_empty();
        self.registered(&entry.lot, encoded.registers, added > 0, is_refused);
        entry.passes += 1;
        let afresh = entry.sort_out(encoded, refused);
        match entry.refusal {
            _ if !entry.rest.is_empty() => self.encode(entry, at, afresh, again),
            Some(refusal) => self.bury(entry, &refused_by_writer(refusal), at.now, again),
            None if entry.added > 0 => self.end(&entry, Ending::Accepted),
            None => self.end(&entry, Ending::Duplicate),
        }
    }

    /// Ends a device's registration.
    fn registered(&mut self, lot: &Lot, device: Option<u64>, is_written: bool, refused: bool) {
        let Some(device) = device else { return };
        if !is_written {
            self.encoder.registry.withdraw(&lot.tenant_id, device);
        }
        let how = match (is_written, refused) {
            (true, _) => Registered::Created,
            (false, true) => Registered::Refused,
            (false, false) => Registered::Exists,
        };
        self.count_registered(lot, device, how);
    }

    fn count_registered(&mut self, lot: &Lot, device: u64, how: Registered) {
        let since = self.registering.remove(&device);
        let seconds = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        lot.tenant.meter.registrations.end(how, seconds);
        self.show_registering();
    }

    fn show_registering(&self) {
        let waiting = i64::try_from(self.registering.len()).unwrap_or(i64::MAX);
        let metrics = &self.core.metrics;
        metrics.ingest.onboarding.queue_length.set(waiting);
        let queue = metrics.service.queue(ServiceName::Ingest, "onboarding");
        queue.set(waiting);
    }

    /// A message whose batch the store did not take: it has to come again.
    fn lose(&mut self, entry: &Entry) {
        if let Stage::Written(Encoded {
            registers: Some(device),
            ..
        }) = entry.stage
        {
            self.encoder.registry.withdraw(&entry.lot.tenant_id, device);
            self.count_registered(&entry.lot, device, Registered::Storage);
        }
        self.end(entry, Ending::Retry(Reason::Storage));
    }

    /// Counts a message and answers its hand when it was the last one.
    fn end(&mut self, entry: &Entry, ending: Ending) {
        let hand = self.open.get_mut(&entry.hand);
        let hand = hand.expect("a hand is open until all its messages have ended");
        let meter = &entry.lot.tenant.meter;
        meter.end(entry.lot.kind(&hand.active), ending);
        if let Ending::Rejected(reason) = ending
            && reason.is_kept()
        {
            let dlq = &self.core.metrics.delivery.dlq;
            dlq.with_label_values(&[meter.label()]).inc();
        }
        hand.endings[entry.index] = ending;
        hand.left -= 1;
        if hand.left == 0 {
            self.open.remove(&entry.hand);
        }
    }
}

/// The refused rows that are in a range of a batch's rows.
fn within<'a>(refused: &'a [RefusedRow], rows: &Range<usize>) -> &'a [RefusedRow] {
    let from = refused.partition_point(|row| row.row < rows.start);
    let to = refused.partition_point(|row| row.row < rows.end);
    &refused[from..to]
}

fn refused_by_writer(refusal: Refusal) -> Refused {
    let (reason, detail) = match refusal {
        Refusal::Conflict => (
            Reason::Conflict,
            "another value is stored at the same time; the first one is kept",
        ),
        Refusal::TooOld => (Reason::Timestamp, "older than the store takes"),
        Refusal::TooNew => (Reason::Timestamp, "too far in the future"),
        Refusal::SeriesLimit => (
            Reason::SeriesLimit,
            "a new series, but the tenant or the store has as many as it may",
        ),
        Refusal::NoRoom => (
            Reason::SeriesLimit,
            "a new series, but disk or memory are nearly full",
        ),
        Refusal::SeriesRate => (Reason::SeriesLimit, "too many new series in this hour"),
        Refusal::Labels => (Reason::Parse, "more or longer labels than limits allow"),
        Refusal::Overload => (Reason::Storage, "the store takes no samples"),
        Refusal::UnknownSeries => (
            Reason::Storage,
            "the series leaves the store again and again",
        ),
    };
    Refused::new(reason, detail)
}
