//! The two queues in front of the ingest task: live messages and replays of old ones.
//!
//! Each is bounded by hands and by bytes, so a replay can neither fill the live
//! queue nor wait for ever: of five turns four ask the live queue first.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Hand, Message, Stopped};

/// Hands in one queue.
const HANDS_MAX: usize = 256;

/// Bytes that one queue and what was taken from it may hold.
const BYTES_MAX: usize = 32 << 20;

/// What a message costs in memory besides its texts.
const MESSAGE_BYTES: usize = 256;

/// Hands taken in one turn.
const TURN_HANDS: usize = 16;

/// Of so many turns one asks the replays first.
const TURNS: usize = 5;

/// The sending end of a queue.
#[derive(Clone)]
pub(super) struct Lane {
    queue: mpsc::Sender<Hand>,
    room: Arc<Semaphore>,
    waiting: IntGauge,
}

/// Room in a queue, given back when the messages are answered.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
    messages: i64,
    waiting: IntGauge,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.sub(self.messages);
    }
}

impl Lane {
    /// A lane in front of `queue`; `waiting` shows the messages in it.
    pub(super) fn new(queue: mpsc::Sender<Hand>, waiting: IntGauge) -> Lane {
        Lane {
            queue,
            room: Arc::new(Semaphore::new(BYTES_MAX)),
            waiting,
        }
    }

    /// Waits for room for these messages. Cancel-safe.
    pub(super) async fn room(&self, messages: &[Message]) -> Result<Room, Stopped> {
        let bytes: usize = messages.iter().map(cost).sum();
        // A hand that is larger than the queue goes alone.
        let bytes = u32::try_from(bytes.clamp(1, BYTES_MAX)).expect("clamped far below 4 GiB");
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| Stopped)?;
        let messages = i64::try_from(messages.len()).unwrap_or(i64::MAX);
        self.waiting.add(messages);
        Ok(Room {
            _permit: permit,
            messages,
            waiting: self.waiting.clone(),
        })
    }

    /// Waits for a place in the queue. Cancel-safe.
    pub(super) async fn place(&self) -> Result<mpsc::Permit<'_, Hand>, Stopped> {
        self.queue.reserve().await.map_err(|_| Stopped)
    }
}

fn cost(message: &Message) -> usize {
    MESSAGE_BYTES + message.topic.len() + message.payload.len()
}

/// The receiving end of both queues.
pub(super) struct Lanes {
    live: mpsc::Receiver<Hand>,
    historical: mpsc::Receiver<Hand>,
    /// What the second queue of a turn gave; empty between turns.
    other: Vec<Hand>,
    turn: usize,
}

/// Both queues: live, historical, and their receiving end.
pub(super) fn open(waiting: &IntGauge) -> (Lane, Lane, Lanes) {
    let (live, from_live) = mpsc::channel(HANDS_MAX);
    let (historical, from_historical) = mpsc::channel(HANDS_MAX);
    (
        Lane::new(live, waiting.clone()),
        Lane::new(historical, waiting.clone()),
        Lanes {
            live: from_live,
            historical: from_historical,
            other: Vec::new(),
            turn: 0,
        },
    )
}

impl Lanes {
    /// Refuses what comes from now on. What is queued can still be taken.
    pub(super) fn close(&mut self) {
        self.live.close();
        self.historical.close();
    }

    /// Whether [`Lanes::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.live.is_closed() && self.historical.is_closed()
    }

    /// Waits for hands and appends them to `out`. `false`: there will be none
    /// any more. Cancel-safe.
    pub(super) async fn next(&mut self, out: &mut Vec<Hand>) -> bool {
        let historical_first = self.turn % TURNS == TURNS - 1;
        let (first, second) = match historical_first {
            true => (&mut self.historical, &mut self.live),
            false => (&mut self.live, &mut self.historical),
        };
        let taken = tokio::select! {
            biased;
            n = first.recv_many(out, TURN_HANDS), if !is_over(first) => n,
            n = second.recv_many(&mut self.other, TURN_HANDS), if !is_over(second) => n,
            else => return false,
        };
        out.append(&mut self.other);
        self.turn += 1;
        // A queue that was closed while we waited gives nothing; the other may.
        taken > 0 || !(is_over(&self.live) && is_over(&self.historical))
    }
}

fn is_over(queue: &mpsc::Receiver<Hand>) -> bool {
    queue.is_closed() && queue.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::{message, plain_hand};

    async fn push(lane: &Lane, name: &str) {
        let messages = vec![message(name, "{}")];
        let room = lane.room(&messages).await.unwrap();
        let hand = plain_hand(messages, room);
        lane.place().await.unwrap().send(hand);
    }

    #[tokio::test]
    async fn replays_get_one_turn_of_five() {
        let waiting = IntGauge::new("w", "w").unwrap();
        let (live, historical, mut lanes) = open(&waiting);
        for _ in 0..4 * TURN_HANDS {
            push(&live, "live").await;
            push(&historical, "old").await;
        }
        assert_eq!(waiting.get(), 128);
        let mut order = String::new();
        drop((live, historical));
        let mut out = Vec::new();
        while lanes.next(&mut out).await {
            let topics = out.drain(..).map(|hand| hand.messages[0].topic.clone());
            let topics: Vec<String> = topics.collect();
            assert_eq!(topics.len(), TURN_HANDS);
            order.push_str(&topics[0][..1]);
        }
        assert_eq!(order, "lllloooo");
        assert_eq!(waiting.get(), 0);
    }

    #[tokio::test]
    async fn a_live_flood_does_not_starve_replays() {
        let (live, historical, mut lanes) = open(&IntGauge::new("w", "w").unwrap());
        let mut order = String::new();
        for _ in 0..TURN_HANDS {
            push(&historical, "old").await;
        }
        for _ in 0..6 {
            for _ in 0..TURN_HANDS {
                push(&live, "live").await;
            }
            let mut out = Vec::new();
            lanes.next(&mut out).await;
            order.push_str(&out[0].messages[0].topic[..1]);
        }
        assert_eq!(order, "llllol");
    }

    #[tokio::test]
    async fn a_queue_is_bounded_by_bytes() {
        let (live, _historical, _lanes) = open(&IntGauge::new("w", "w").unwrap());
        let large = [message("t", &"x".repeat(BYTES_MAX))];
        let room = live.room(&large).await.unwrap();
        let small = [message("t", "x")];
        let mut waits = std::pin::pin!(live.room(&small));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(room);
        assert!(waits.await.is_ok());
    }
}
