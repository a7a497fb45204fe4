//! A plain subscription: what is not stored when we stop or fall behind is gone.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::stream::{SelectAll, select_all};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::stamps::Sweep;
use super::{BURST_MAX, Connection, DRAIN_TIME_MAX, End, Error, Source, Waiting};

/// Between two sweeps of stamps.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs until the subscription is of no use any more or `stop` is cancelled. On
/// a stop what was received is stored first.
pub(super) async fn serve(
    source: &mut Source,
    connection: Connection,
    stop: &CancellationToken,
) -> End {
    match subscribed(source, connection, stop).await {
        Ok(()) => End::Stopped,
        Err(end) => end,
    }
}

async fn subscribed(
    source: &mut Source,
    mut connection: Connection,
    stop: &CancellationToken,
) -> Result<(), End> {
    let mut subscribers = Vec::new();
    for subject in &source.options.subjects {
        let subscriber = connection.client.subscribe(subject.clone()).await;
        subscribers.push(subscriber.map_err(|err| Error::Subscribe {
            subject: subject.clone(),
            reason: err.to_string(),
        })?);
    }
    let mut messages = select_all(subscribers);
    source.up();
    let mut deadline = None;
    let mut sweep = Sweep::default();
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        source.observe();
        if deadline.is_some() && source.handover.messages() == 0 {
            return Ok(());
        }
        tokio::select! {
            first = messages.next(), if deadline.is_none() => {
                let first = first.ok_or(Error::Closed)?;
                source.take_burst(first, &mut messages);
            }
            judged = source.handover.judged() => drop(judged?),
            event = connection.events.recv() => source.event(event, &mut connection.is_up)?,
            () = sweep.ended() => {}
            _ = tick.tick() => sweep.start(&source.store, || source.sequences.sweep()),
            () = stop.cancelled(), if deadline.is_none() => {
                deadline = Some(Instant::now() + DRAIN_TIME_MAX);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                return Ok(());
            }
        }
    }
}

impl Source {
    /// Takes what the client has got, and drops the newest when the queue is full.
    fn take_burst(&mut self, first: Message, messages: &mut SelectAll<Subscriber>) {
        let now = self.clock.now();
        let mut next = Some(first);
        let mut received = 0;
        while let Some(message) = next {
            received += 1;
            if self.handover.is_full() {
                self.metrics.dropped_overload.inc();
            } else {
                let (stamp, state) = self.sequences.mark_once(message.subject.as_bytes(), now);
                self.handover.push(Waiting {
                    subject: message.subject,
                    payload: message.payload,
                    reply: None,
                    stamp,
                    state,
                    delivered: 1,
                    sequence: 0,
                    touched: Instant::now(),
                });
            }
            if received >= BURST_MAX {
                break;
            }
            next = messages.next().now_or_never().flatten();
        }
        let received = u64::try_from(received).unwrap_or(u64::MAX);
        self.metrics.received.inc_by(received);
        self.link.received(received);
    }
}
