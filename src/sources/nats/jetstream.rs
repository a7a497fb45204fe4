//! A durable pull consumer with explicit acknowledgement.
//!
//! The client reconnects and pulls again by itself; here it is only told when
//! the server is silent. Pulling follows reading: while the queue is full, we do
//! not read, and no further messages are asked for.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, Info};
use async_nats::jetstream::{self, AckKind, Message};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::sequences::settled;
use super::subjects::filters;
use super::{BURST_MAX, Connection, DRAIN_TIME_MAX, End, Error, Options, Source, Waiting};
use crate::config::NatsDeliver;
use crate::ingest::Verdict;
use crate::model::Timestamp;
use crate::sources::stamps::Sweep;
use crate::store::{Store, WriteBatch};
use crate::telemetry::metrics;

/// Messages asked for at once.
const BATCH_MESSAGES_MAX: usize = 500;
/// Bytes asked for at once; a message of the largest size that the server allows always fits.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// A pull request that the server has not fulfilled is repeated after this.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// An error follows after two of these without a word.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// So many such errors in a row, and the connection is dead.
const SILENCES_MAX: u32 = 2;
/// Between two bursts while messages come in quick succession: fewer and larger
/// hands cost less, and a message after a pause is taken at once.
const BURST_PACE: Duration = Duration::from_millis(1);
/// After so many the next burst does not wait.
const BURST_MANY: usize = 128;
const INFO_EVERY: Duration = Duration::from_secs(5);
/// For handing acknowledgements to the client, which is at once while it is connected.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
const NAK_WAIT_MIN: Duration = Duration::from_secs(1);
const NAK_WAIT_MAX: Duration = Duration::from_secs(30);

/// A consumer in use.
struct Session<'a> {
    source: &'a mut Source,
    connection: Connection,
    consumer: Consumer<pull::Config>,
    instruments: metrics::Consumer,
    silences: u32,
    last_silence: Instant,
    last_burst: Instant,
    /// Nothing is taken before this.
    take_after: Instant,
    asking: Option<Asking>,
    sweep: Sweep,
}

type Asking = Pin<Box<dyn Future<Output = Result<Info, String>> + Send>>;

/// Runs until the consumer is of no use any more or `stop` is cancelled. On a
/// stop what was received is answered first.
pub(super) async fn serve(
    source: &mut Source,
    connection: Connection,
    stop: &CancellationToken,
) -> End {
    let started = tokio::select! {
        () = stop.cancelled() => return End::Stopped,
        started = start(&source.options, &source.id, &connection) => started,
    };
    let (consumer, messages) = match started {
        Ok(started) => started,
        Err(err) => return End::Broken(err),
    };
    source.up();
    let options = &source.options;
    let instruments = source
        .all_metrics
        .sources
        .consumer(&options.stream, &options.consumer);
    let mut session = Session {
        source,
        connection,
        consumer,
        instruments,
        silences: 0,
        last_silence: Instant::now(),
        last_burst: Instant::now(),
        take_after: Instant::now(),
        asking: None,
        sweep: Sweep::default(),
    };
    let end = match session.run(messages, stop).await {
        Ok(()) => End::Stopped,
        Err(end) => end,
    };
    // Acknowledgements on their way; without them the messages come again as duplicates.
    let _ = timeout(ANSWER_TIME_MAX, session.connection.client.flush()).await;
    end
}

async fn start(
    options: &Options,
    source: &str,
    connection: &Connection,
) -> Result<(Consumer<pull::Config>, pull::Stream), Error> {
    let stream_error = |reason: String| Error::Stream {
        stream: options.stream.clone(),
        reason,
    };
    let consumer_error = |reason: String| Error::Consumer {
        consumer: options.consumer.clone(),
        reason,
    };
    let stream = jetstream::new(connection.client.clone())
        .get_stream(&options.stream)
        .await
        .map_err(|err| stream_error(err.to_string()))?;
    let server = connection.client.server_info();
    let filters = filters(&options.subjects, &stream.cached_info().config.subjects);
    if filters.len() > 1 && !filters_several(&server.version) {
        return Err(Error::Subjects {
            version: server.version,
        });
    }
    let mut wanted = wanted(options, filters);
    if let Ok(existing) = stream.consumer_info(&options.consumer).await {
        // A server refuses another start for a consumer that it has.
        if existing.config.deliver_policy != wanted.deliver_policy {
            tracing::info!(
                source,
                "the consumer exists and keeps its start: deliver has no effect"
            );
        }
        wanted.deliver_policy = existing.config.deliver_policy;
    }
    // Creating one that exists updates it; getting it would keep old settings silently.
    let consumer = stream
        .create_consumer(wanted)
        .await
        .map_err(|err| consumer_error(err.to_string()))?;
    let share = if options.historical { 4 } else { 1 };
    let batch = (usize::from(options.max_ack_pending) / 2).clamp(1, BATCH_MESSAGES_MAX / share);
    let messages = consumer
        .stream()
        .max_messages_per_batch(batch)
        .max_bytes_per_batch(BATCH_BYTES_MAX.max(server.max_payload * 2))
        .expires(PULL_EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages()
        .await
        .map_err(|err| consumer_error(err.to_string()))?;
    Ok((consumer, messages))
}

fn wanted(options: &Options, mut filters: Vec<String>) -> pull::Config {
    let (filter_subject, filter_subjects) = match filters.len() {
        1 => (filters.remove(0), Vec::new()),
        _ => (String::new(), filters),
    };
    pull::Config {
        durable_name: Some(options.consumer.clone()),
        description: Some("pulse".to_owned()),
        deliver_policy: match options.deliver {
            NatsDeliver::All => DeliverPolicy::All,
            NatsDeliver::New => DeliverPolicy::New,
        },
        ack_policy: AckPolicy::Explicit,
        ack_wait: options.ack_wait,
        max_deliver: -1,
        max_ack_pending: i64::from(options.max_ack_pending),
        filter_subject,
        filter_subjects,
        ..pull::Config::default()
    }
}

/// Whether a server knows `filter_subjects`.
fn filters_several(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= (2, 10)
}

impl Session<'_> {
    async fn run(
        &mut self,
        mut messages: pull::Stream,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let mut info = interval(INFO_EVERY);
        info.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = interval(self.source.options.ack_wait / 3);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            self.source.observe();
            if deadline.is_some() && self.source.handover.messages() == 0 {
                return Ok(());
            }
            let may_read = deadline.is_none() && !self.source.handover.is_full();
            let rests = may_read && Instant::now() < self.take_after;
            tokio::select! {
                first = messages.next(), if may_read && !rests => {
                    self.take_burst(first, &mut messages).await?;
                }
                () = sleep_until(self.take_after), if rests => {}
                judged = self.source.handover.judged() => self.answer(judged?).await,
                event = self.connection.events.recv() => {
                    self.source.event(event, &mut self.connection.is_up)?;
                }
                asked = asked(&mut self.asking) => self.show(asked),
                () = self.sweep.ended() => {}
                _ = info.tick() => {
                    let source = &mut *self.source;
                    self.sweep.start(&source.store, || source.sequences.sweep());
                    self.ask();
                }
                _ = progress.tick() => self.progress().await,
                () = stop.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + DRAIN_TIME_MAX);
                    // What the client has already got would otherwise come again after ack_wait.
                    if let Some(Some(first)) = messages.next().now_or_never() {
                        self.take_burst(Some(first), &mut messages).await?;
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Ok(());
                }
            }
        }
    }

    /// Takes what the client has got.
    async fn take_burst(&mut self, first: Next, messages: &mut pull::Stream) -> Result<(), Error> {
        let mut next = first;
        let mut received = 0;
        loop {
            match next {
                None => return Err(Error::Closed),
                Some(Ok(message)) => {
                    received += 1;
                    self.take(message)?;
                }
                Some(Err(err)) => self.pull_failed(&err).await?,
            }
            if received >= BURST_MAX || self.source.handover.is_full() {
                break;
            }
            match messages.next().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        if received > 0 {
            self.silences = 0;
            self.pace(received);
            let received = u64::try_from(received).unwrap_or(u64::MAX);
            self.source.metrics.received.inc_by(received);
            self.source.link.received(received);
        }
        Ok(())
    }

    fn pace(&mut self, received: usize) {
        let now = Instant::now();
        if received < BURST_MANY && now.duration_since(self.last_burst) < BURST_PACE * 2 {
            self.take_after = now + BURST_PACE;
        }
        self.last_burst = now;
    }

    fn take(&mut self, message: Message) -> Result<(), Error> {
        let source = &mut *self.source;
        let Ok(info) = message.info() else {
            // Somebody published into our inbox.
            return Ok(());
        };
        let delivered = u32::try_from(info.delivered).unwrap_or(u32::MAX);
        let published = i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000);
        let published = Timestamp::from_ms(published.unwrap_or(i64::MAX));
        let sequence = info.stream_sequence;
        if delivered > 1 {
            source.metrics.redelivered.inc();
        }
        let subject = message.message.subject;
        let (stamp, state) =
            source
                .sequences
                .mark(sequence, delivered > 1, subject.as_bytes(), published)?;
        source.handover.push(Waiting {
            subject,
            payload: message.message.payload,
            reply: message.message.reply,
            stamp,
            state,
            delivered,
            sequence,
            touched: Instant::now(),
        });
        Ok(())
    }

    async fn pull_failed(&mut self, err: &pull::MessagesError) -> Result<(), Error> {
        match err.kind() {
            // The client is already trying to connect again.
            _ if !self.connection.is_up => Ok(()),
            MessagesErrorKind::MissingHeartbeat => self.silent().await,
            _ => Err(Error::Pull(err.to_string())),
        }
    }

    /// A half-open connection: the client itself would notice much later.
    async fn silent(&mut self) -> Result<(), Error> {
        if self.last_silence.elapsed() > HEARTBEAT * 5 {
            self.silences = 0;
        }
        self.silences += 1;
        self.last_silence = Instant::now();
        if self.silences < SILENCES_MAX {
            return Ok(());
        }
        if self.silences > SILENCES_MAX {
            return Err(Error::Silent);
        }
        self.source.link.down(&Error::Silent.to_string());
        let reconnecting = self.connection.client.force_reconnect();
        match timeout(ANSWER_TIME_MAX, reconnecting).await {
            Ok(Ok(())) => {
                // The event that says that it is back must show it as up again.
                self.connection.is_up = false;
                Ok(())
            }
            _ => Err(Error::Silent),
        }
    }

    async fn answer(&mut self, judged: Vec<(Waiting, Verdict)>) {
        let client = self.connection.client.clone();
        // Of all, also of those whose answer is cut off below.
        let sequences = judged.iter().map(|(waiting, _)| waiting.sequence);
        self.source.sequences.judged(sequences);
        let answering = async {
            for (waiting, verdict) in judged {
                let Some(reply) = waiting.reply else {
                    continue;
                };
                let answer: Bytes = match verdict {
                    Verdict::Committed => AckKind::Ack,
                    Verdict::Rejected(_) => AckKind::Term,
                    Verdict::Retry => AckKind::Nak(Some(nak_wait(waiting.delivered))),
                }
                .into();
                // The client is gone: the messages come again.
                if client.publish(reply, answer).await.is_err() {
                    break;
                }
            }
        };
        // Cut off, the rest comes again after ack_wait and is recognised.
        let _ = timeout(ANSWER_TIME_MAX, answering).await;
    }

    /// Tells the server which messages are still being worked on.
    async fn progress(&mut self) {
        let limit = self.source.options.ack_wait / 3;
        let client = self.connection.client.clone();
        let now = Instant::now();
        let waiting = self.source.handover.iter_mut();
        let old = waiting.filter(|w| now.duration_since(w.touched) >= limit);
        let telling = async {
            for waiting in old {
                waiting.touched = now;
                let Some(reply) = waiting.reply.clone() else {
                    continue;
                };
                if client
                    .publish(reply, AckKind::Progress.into())
                    .await
                    .is_err()
                {
                    break;
                }
            }
        };
        let _ = timeout(ANSWER_TIME_MAX, telling).await;
    }

    /// Asks for the consumer's state, and cleans up behind its ack floor.
    fn ask(&mut self) {
        if self.asking.is_some() || !self.connection.is_up {
            return;
        }
        let consumer = self.consumer.clone();
        let (id, store) = (self.source.id.clone(), self.source.store.clone());
        self.asking = Some(Box::pin(async move {
            let info = consumer.get_info().await.map_err(|err| err.to_string())?;
            let floor = info.ack_floor.stream_sequence;
            clean_up(&id, &store, floor).await?;
            Ok(info)
        }));
    }

    fn show(&mut self, info: Result<Info, String>) {
        self.asking = None;
        let info = match info {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(source = self.source.id, error, "no consumer state");
                return;
            }
        };
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let pending = i64::try_from(info.num_pending).unwrap_or(i64::MAX);
        let ack_pending = gauge(info.num_ack_pending);
        self.instruments.pending.set(pending);
        self.instruments.ack_pending.set(ack_pending);
        self.instruments
            .redelivered
            .set(gauge(info.num_redelivered));
        self.source.set_pending(pending.saturating_add(ack_pending));
    }
}

type Next = Option<Result<Message, pull::MessagesError>>;

/// The more often it failed, the longer the wait.
fn nak_wait(delivered: u32) -> Duration {
    let step = 1 << delivered.saturating_sub(1).min(10);
    (NAK_WAIT_MIN * step).min(NAK_WAIT_MAX)
}

async fn asked(asking: &mut Option<Asking>) -> Result<Info, String> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Removes every row behind the ack floor, so many at a time that a commit stays small.
async fn clean_up(id: &str, store: &Store, floor: u64) -> Result<(), String> {
    loop {
        let (source, read_from) = (id.to_owned(), store.clone());
        let rows = tokio::task::spawn_blocking(move || settled(&source, &read_from, floor))
            .await
            .map_err(|err| err.to_string())?
            .map_err(|err| err.to_string())?;
        if rows.is_empty() {
            return Ok(());
        }
        let batch = WriteBatch::of_state(rows);
        store.write(batch).await.map_err(|err| err.to_string())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_servers_filter_several_subjects() {
        for (version, want) in [
            ("2.9.10", false),
            ("2.10.0", true),
            ("2.11.4-beta", true),
            ("3.0.0", true),
            ("", false),
        ] {
            assert_eq!(filters_several(version), want, "{version}");
        }
    }

    #[test]
    fn naks_wait_longer_each_time_up_to_a_bound() {
        assert_eq!(nak_wait(1), Duration::from_secs(1));
        assert_eq!(nak_wait(3), Duration::from_secs(4));
        assert_eq!(nak_wait(u32::MAX), NAK_WAIT_MAX);
    }
}
