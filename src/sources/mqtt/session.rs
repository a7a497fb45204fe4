//! The life of one connection: read, hand over, acknowledge.
//!
//! One task owns the connection, the messages and the acknowledgements, so the
//! epoch guard needs no lock: a message remembers the epoch of its connection,
//! and its acknowledgement is written only while that connection lives. A stale
//! one would be silent loss: after a lost session the broker uses packet ids
//! again, and the late acknowledgement would delete a message that we never saw.
//!
//! Nothing here waits for ingest or the store, so pings are answered and
//! acknowledgements written also while the queue is full; then only reading
//! stops, and TCP holds the broker back.
//!
//! Acknowledgements of one hand leave in one write. rumqttc's event loop writes
//! and flushes each by itself, which was over half of the CPU time of a message;
//! that is why this loop is our own and only the codecs are rumqttc's.
//!
//! A broker sends each message by itself. Reading each at once would cost a read,
//! a hand, two wake-ups and a write for every one of them, so while messages come
//! in quick succession, reads are a millisecond apart. A message after a pause is
//! read at once.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::{self, Error, Reader, Writer};
use super::inflight::Inflight;
use super::options::Options;
use super::subscription::{Changes, Subscription};
use super::wire::{self, Answer, ConnAck, Packet, Publish};
use crate::ingest::{Message, Stopped, Verdict};
use crate::model::{Clock, Timestamp};
use crate::sources::handover::{Handover, Received};
use crate::sources::link::Link;
use crate::sources::stamps::Sweep;
use crate::store::{self, Committed, StateOp, Store, WriteBatch};
use crate::telemetry::metrics;

/// For the verdicts of what was received, and their acknowledgements.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(2_500);
/// For the last bytes and the clean end.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a refused filter is tried again.
const RESUBSCRIBE_AFTER: Duration = Duration::from_secs(60);
/// Between two reads while messages come in quick succession.
const READ_PACE: Duration = Duration::from_millis(1);
/// So many bytes show that there is more: the next read does not wait.
const READ_BYTES_MANY: usize = 16 << 10;
/// What a message costs beside its bytes.
const MESSAGE_OVERHEAD: usize = 200;
const SUBSCRIBE_ID: u16 = 1;
const UNSUBSCRIBE_ID: u16 = 2;

/// A message until it is answered.
pub(super) struct Waiting {
    topic: Bytes,
    payload: Bytes,
    dup: bool,
    stamp: Timestamp,
    state: Vec<StateOp>,
    /// The source refuses it itself.
    refusal: Option<&'static str>,
    answer: Answer,
    /// In order of receipt.
    number: u64,
    /// Of the connection that it came by.
    epoch: i64,
}

impl Received for Waiting {
    fn message(&self) -> Message {
        Message {
            // Ingest refuses the replacement character, so a bad topic becomes a dead letter.
            topic: String::from_utf8_lossy(&self.topic).into_owned(),
            payload: self.payload.clone(),
            stamp: self.stamp,
            delivered: 1 + u32::from(self.dup),
            tenant: None,
            state: self.state.clone(),
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        self.refusal
    }

    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + MESSAGE_OVERHEAD
    }
}

/// What outlives a connection.
pub(super) struct Source {
    pub(super) options: Options,
    /// `mqtt:NAME`
    pub(super) id: String,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) link: Link,
    pub(super) metrics: metrics::Mqtt,
    pub(super) handover: Handover<Waiting>,
    pub(super) inflight: Inflight,
    /// The number of the connection.
    pub(super) epoch: i64,
}

/// How a connection ended.
pub(super) enum End {
    /// Connect again.
    Broken(Error),
    /// We were told to stop; everything is answered, or the time was up.
    Stopped,
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> End {
        End::Stopped
    }
}

impl From<Error> for End {
    fn from(err: Error) -> End {
        End::Broken(err)
    }
}

/// A connection in use.
pub(super) struct Session<'a> {
    source: &'a mut Source,
    reader: Reader,
    writer: Writer,
    /// What the broker may want instead of ours.
    keep_alive: Duration,
    /// When the broker last said anything.
    heard: Instant,
    /// Not to be read before this.
    read_after: Instant,
    wanted: Subscription,
    /// The filters of an unanswered subscribe.
    subscribing: Vec<String>,
    /// When to try refused filters again.
    resubscribe_at: Option<Instant>,
    /// Storing what we are subscribed to.
    saving: Option<Saving>,
    sweep: Sweep,
    oversize_was_logged: bool,
}

type Saving = Pin<Box<dyn Future<Output = Result<Committed, store::Error>> + Send>>;

impl<'a> Session<'a> {
    /// Takes over a connection that the broker has just accepted.
    ///
    /// # Errors
    /// When the state of the session cannot be read or written.
    pub(super) async fn start(
        source: &'a mut Source,
        (reader, writer, ack): (Reader, Writer, ConnAck),
    ) -> Result<Session<'a>, Error> {
        source.epoch += 1;
        source.metrics.epoch.set(source.epoch);
        source.inflight.reconnected();
        if source.epoch > 1 {
            source.metrics.reconnects.inc();
        }
        if !ack.session_present
            && let Some(row) = source.inflight.forget()
        {
            // Durable first: a message of the new session must not meet the old stamps.
            source.store.write(WriteBatch::of_state(vec![row])).await?;
        }
        let asked = source.options.keep_alive;
        let keep_alive = ack.keep_alive.map(u64::from).map(Duration::from_secs);
        let wanted = Subscription::wanted(&source.options);
        let stored = Subscription::stored(&source.id, &source.store)?;
        let changes = wanted.changes(stored.as_ref(), ack.session_present);
        tracing::info!(
            source = source.id,
            session_present = ack.session_present,
            subscribe = changes.add.len(),
            "broker accepted the connection"
        );
        if ack.session_expiry == Some(0) {
            tracing::warn!(
                source = source.id,
                "broker keeps no session: it loses messages while we are away"
            );
        }
        let mut session = Session {
            source,
            reader,
            writer,
            keep_alive: keep_alive.filter(|k| !k.is_zero()).unwrap_or(asked),
            heard: Instant::now(),
            read_after: Instant::now(),
            wanted,
            subscribing: Vec::new(),
            resubscribe_at: None,
            saving: None,
            sweep: Sweep::default(),
            oversize_was_logged: false,
        };
        session.subscribe(changes);
        Ok(session)
    }

    /// Runs until the connection breaks or `stop` is cancelled. On a stop what
    /// was received is answered first.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> End {
        let end = match self.serve(stop).await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        };
        if matches!(end, End::Stopped) {
            wire::disconnect(&mut self.writer.out);
            // Without it the broker has to find out, and sends again what it did not read.
            let close = connection::close(self.reader, self.writer);
            let _ = tokio::time::timeout(CLOSE_TIME_MAX, close).await;
        }
        end
    }

    async fn serve(&mut self, stop: &CancellationToken) -> Result<(), End> {
        let period = self.keep_alive / 2;
        let mut tick = interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            if deadline.is_none() {
                self.take_packets()?;
            }
            self.observe();
            if deadline.is_some() && self.is_done() {
                return Ok(());
            }
            let may_read = deadline.is_none() && !self.source.handover.is_full();
            let rests = may_read && Instant::now() < self.read_after;
            tokio::select! {
                filled = self.reader.fill(), if may_read && !rests => self.filled(filled?),
                () = sleep_until(self.read_after), if rests => {}
                written = self.writer.write(), if self.writer.is_dirty() => {
                    written.map_err(Error::Lost)?;
                }
                judged = self.source.handover.judged() => {
                    self.acknowledge(judged?);
                    // All that is there, so that it leaves in one write.
                    while let Some(more) = self.source.handover.judged().now_or_never() {
                        self.acknowledge(more?);
                    }
                }
                saved = saved(&mut self.saving) => self.saved(saved),
                () = self.sweep.ended() => {}
                _ = tick.tick() => self.keep_alive(may_read)?,
                () = stop.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + DRAIN_TIME_MAX);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Ok(());
                }
            }
        }
    }

    fn filled(&mut self, bytes: usize) {
        let now = Instant::now();
        if bytes < READ_BYTES_MANY && now.duration_since(self.heard) < READ_PACE * 2 {
            self.read_after = now + READ_PACE;
        }
        self.heard = now;
    }

    /// Whether a stop has nothing to wait for.
    fn is_done(&self) -> bool {
        self.source.handover.messages() == 0 && self.saving.is_none()
    }

    /// Takes what was read as far as there is room for it.
    fn take_packets(&mut self) -> Result<(), Error> {
        let now = self.source.clock.now();
        let mut received = 0;
        while !self.source.handover.is_full() {
            match self.reader.next()? {
                None => break,
                Some(Packet::Publish(publish)) => {
                    received += 1;
                    self.take(publish, now);
                }
                Some(other) => self.control(other)?,
            }
        }
        if received > 0 {
            self.source.metrics.received.inc_by(received);
            self.source.link.received(received);
        }
        Ok(())
    }

    fn take(&mut self, publish: Publish, now: Timestamp) {
        let source = &mut *self.source;
        let Publish {
            topic,
            payload,
            dup,
            answer,
        } = publish;
        let marked = match answer {
            Answer::None if source.handover.is_nearly_full() => {
                source.metrics.dropped_overload.inc();
                return;
            }
            Answer::None => source.inflight.mark_once(&topic, now),
            Answer::PubAck(id) | Answer::PubRec(id) => {
                source.inflight.mark(id, dup, &topic, &payload, now)
            }
        };
        if dup {
            source.metrics.redelivered.inc();
        }
        source.handover.push(Waiting {
            topic,
            payload,
            dup,
            stamp: marked.stamp,
            state: marked.state,
            refusal: None,
            answer,
            number: marked.number,
            epoch: source.epoch,
        });
    }

    fn control(&mut self, packet: Packet) -> Result<(), Error> {
        match packet {
            Packet::Oversize(answer) => self.refuse_oversize(answer),
            Packet::SubAck(results) => self.subscribed(&results),
            Packet::PubRel(id) => wire::complete(id, &mut self.writer.out),
            Packet::PingResp => self.source.inflight.ping_answered(),
            Packet::Disconnect(reason) => return Err(Error::Disconnected(reason)),
            Packet::ConnAck(_) | Packet::Publish(_) | Packet::Other => {}
        }
        Ok(())
    }

    /// Its acknowledgement waits for its turn like any other.
    fn refuse_oversize(&mut self, answer: Answer) {
        self.source.metrics.dropped_size.inc();
        if !self.oversize_was_logged {
            self.oversize_was_logged = true;
            tracing::warn!(
                source = self.source.id,
                packet_max = self.source.options.packet_max,
                "skipped a message above the maximum packet size; further ones are only counted"
            );
        }
        self.source.handover.push(Waiting {
            topic: Bytes::new(),
            payload: Bytes::new(),
            dup: false,
            stamp: Timestamp::from_ms(0),
            state: Vec::new(),
            refusal: Some("size"),
            answer,
            number: 0,
            epoch: self.source.epoch,
        });
    }

    /// Acknowledges what came by this connection. The rest comes again, or its
    /// session is lost; in both cases an acknowledgement would be wrong.
    fn acknowledge(&mut self, judged: Vec<(Waiting, Verdict)>) {
        for (waiting, verdict) in judged {
            debug_assert!(verdict != Verdict::Retry, "it is handed over again");
            let (Answer::PubAck(id) | Answer::PubRec(id)) = waiting.answer else {
                continue;
            };
            if waiting.epoch == self.source.epoch {
                wire::acknowledge(waiting.answer, &mut self.writer.out);
                self.source.inflight.acknowledged(id, waiting.number);
            } else {
                self.source.metrics.stale_acks.inc();
            }
        }
    }

    fn subscribe(&mut self, changes: Changes) {
        let Changes { add, remove } = changes;
        let out = &mut self.writer.out;
        let removes = !remove.is_empty();
        if removes {
            wire::unsubscribe(self.source.options.protocol, remove, UNSUBSCRIBE_ID, out);
        }
        if add.is_empty() {
            if removes {
                self.save();
            }
            self.source.link.up();
        } else {
            wire::subscribe(
                &self.source.options,
                &add,
                SUBSCRIBE_ID,
                &mut self.writer.out,
            );
            self.subscribing = add;
        }
    }

    /// The broker's answer. Filters that it granted work also when it refused
    /// others; the source is shown as down until it grants all.
    fn subscribed(&mut self, results: &[Result<u8, String>]) {
        let filters = std::mem::take(&mut self.subscribing);
        let answered = || filters.iter().zip(results);
        let refused = answered().find_map(|(f, result)| Some((f, result.as_ref().err()?)));
        if let Some((filter, reason)) = refused {
            let (filter, reason) = (filter.clone(), reason.clone());
            let err = Error::FilterRefused { filter, reason };
            self.source.link.down(&err.to_string());
            self.resubscribe_at = Some(Instant::now() + RESUBSCRIBE_AFTER);
            return;
        }
        let wanted = self.source.options.qos;
        for (filter, _) in answered().filter(|(_, r)| r.as_ref().is_ok_and(|qos| *qos < wanted)) {
            tracing::warn!(
                source = self.source.id,
                filter,
                "broker grants a lower QoS than asked for: messages can get lost"
            );
        }
        self.save();
        self.source.link.up();
    }

    fn save(&mut self) {
        let row = self.wanted.row(&self.source.id);
        let store = self.source.store.clone();
        self.saving = Some(Box::pin(async move {
            store.write(WriteBatch::of_state(vec![row])).await
        }));
    }

    /// Without the row the next connection only subscribes once more than needed.
    fn saved(&mut self, result: Result<Committed, store::Error>) {
        self.saving = None;
        if let Err(err) = result {
            tracing::warn!(source = self.source.id, error = %err, "cannot store the subscription");
        }
    }

    /// Twice in each keep-alive time.
    fn keep_alive(&mut self, may_read: bool) -> Result<(), Error> {
        if !may_read {
            // We do not listen, so silence means nothing.
            self.heard = Instant::now();
        }
        if self.heard.elapsed() >= self.keep_alive * 3 / 2 {
            return Err(Error::Silent(self.heard.elapsed()));
        }
        self.source.inflight.pinged();
        let source = &mut *self.source;
        self.sweep.start(&source.store, || source.inflight.sweep());
        wire::ping(&mut self.writer.out);
        if self.resubscribe_at.is_some_and(|at| at <= Instant::now()) {
            self.resubscribe_at = None;
            let all = self.wanted.changes(None, false);
            self.subscribe(all);
        }
        Ok(())
    }

    fn observe(&self) {
        self.source.observe();
    }
}

impl Source {
    /// Waits for `future` while verdicts still come in; their connection is gone.
    ///
    /// # Errors
    /// When the process stops.
    pub(super) async fn meanwhile<F: Future>(
        handover: &mut Handover<Waiting>,
        metrics: &metrics::Mqtt,
        future: F,
    ) -> Result<F::Output, Stopped> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Ok(output),
                judged = handover.judged() => {
                    let stale = judged?.iter().filter(|(w, _)| w.answer != Answer::None).count();
                    metrics.stale_acks.inc_by(u64::try_from(stale).unwrap_or(u64::MAX));
                }
            }
        }
    }

    /// Shows what is held.
    pub(super) fn observe(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.unacked.set(gauge(self.handover.messages()));
        self.metrics.queue_bytes.set(gauge(self.handover.bytes()));
    }
}

async fn saved(saving: &mut Option<Saving>) -> Result<Committed, store::Error> {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}
