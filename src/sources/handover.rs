//! What lies between a broker's connection and ingest.
//!
//! A connection must go on reading while ingest is busy, so it only pushes here.
//! Whatever has come together goes to ingest as one hand; several hands may be
//! under way, and their verdicts come back in order of receipt, because MQTT
//! wants acknowledgements in that order.
//!
//! It belongs to the source, not to the connection: after a reconnect it still
//! holds what was received, so that a broker that lost our session loses nothing
//! that it had sent us.
//!
//! Bounded by messages and bytes. 65,600 is just above the number of packet ids,
//! so a broker that keeps the MQTT rules can never fill it by count.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::backoff::Backoff;
use crate::ingest::{Ingest, Message, Origin, Stopped, Verdict};

/// Messages held before reading stops.
pub(super) const MESSAGES_MAX: usize = 65_600;
/// Bytes held before reading stops.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// Messages in one hand. Larger hands gain nothing and delay the first verdict.
const HAND_MESSAGES_MAX: usize = 512;
/// Bytes in one hand, the last message excepted.
const HAND_BYTES_MAX: usize = 1 << 20;
/// Hands without a verdict.
const HANDS_MAX: usize = 64;
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// A message as its source keeps it until it is answered.
pub(super) trait Received {
    /// What ingest gets.
    fn message(&self) -> Message;

    /// Why the source itself refuses it: ingest never sees it, it is only
    /// answered in its turn.
    fn refusal(&self) -> Option<&'static str>;

    /// What it holds in memory, roughly.
    fn bytes(&self) -> usize;
}

/// What to do with messages that ingest could not store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnRetry {
    /// Hand them over again with back-off, and keep later verdicts waiting. For
    /// brokers that send again only after a reconnect.
    HandOverAgain,
    /// Give the verdict back like any other.
    Return,
}

/// Messages between a source and ingest.
pub(super) struct Handover<T> {
    ingest: Ingest,
    origin: Arc<Origin>,
    on_retry: OnRetry,
    hands_max: usize,
    queue: VecDeque<T>,
    entering: Option<(Vec<T>, Submission)>,
    under_way: VecDeque<Hand<T>>,
    messages: usize,
    bytes: usize,
}

type Verdicts = oneshot::Receiver<Vec<Verdict>>;
type Submission = Pin<Box<dyn Future<Output = Result<Verdicts, Stopped>> + Send>>;

/// Messages that were handed over together.
struct Hand<T> {
    entries: Vec<(T, Option<Verdict>)>,
    stage: Stage,
    backoff: Backoff,
}

enum Stage {
    /// For the verdicts of the entries that have none.
    Waiting(Verdicts),
    /// Before handing those over again.
    Resting(Pin<Box<Sleep>>),
    /// Handing those over again.
    Entering(Submission),
}

impl<T: Received> Handover<T> {
    /// For the messages of one source.
    pub(super) fn new(ingest: Ingest, origin: Arc<Origin>, on_retry: OnRetry) -> Handover<T> {
        Handover {
            ingest,
            origin,
            on_retry,
            hands_max: HANDS_MAX,
            queue: VecDeque::new(),
            entering: None,
            under_way: VecDeque::new(),
            messages: 0,
            bytes: 0,
        }
    }

    /// At most `max` hands without a verdict: a source that must yield to others has one.
    pub(super) fn with_hands_max(mut self, max: usize) -> Handover<T> {
        self.hands_max = max;
        self
    }

    /// Adds a message. It is handed over by [`Handover::judged`].
    pub(super) fn push(&mut self, received: T) {
        self.messages += 1;
        self.bytes += received.bytes();
        self.queue.push_back(received);
    }

    /// Messages received and not answered yet.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Their size in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the source has to stop reading.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= MESSAGES_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether messages that may get lost have to: the last quarter is kept for the others.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.messages >= MESSAGES_MAX / 4 * 3 || self.bytes >= BYTES_MAX / 4 * 3
    }

    /// All messages that wait, in order of receipt.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let under_way = self.under_way.iter_mut().flat_map(|hand| &mut hand.entries);
        let entering = self.entering.iter_mut().flat_map(|(entries, _)| entries);
        under_way
            .map(|(received, _)| received)
            .chain(entering)
            .chain(&mut self.queue)
    }

    /// Hands messages over and waits for the next verdicts: those of the oldest
    /// hand. Cancel-safe; nothing moves while it is not polled.
    ///
    /// # Errors
    /// When the process stops.
    pub(super) async fn judged(&mut self) -> Result<Vec<(T, Verdict)>, Stopped> {
        let judged = poll_fn(|cx| self.poll_judged(cx)).await?;
        self.messages -= judged.len();
        self.bytes -= judged.iter().map(|(t, _)| t.bytes()).sum::<usize>();
        Ok(judged)
    }

    fn poll_judged(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<(T, Verdict)>, Stopped>> {
        self.poll_entering(cx)?;
        let Some(hand) = self.under_way.front_mut() else {
            return Poll::Pending;
        };
        let submit = |messages| submission(&self.ingest, &self.origin, messages);
        ready!(hand.poll(cx, self.on_retry, submit))?;
        let hand = self.under_way.pop_front().expect("there is a front");
        Poll::Ready(Ok(hand
            .entries
            .into_iter()
            .map(|(received, verdict)| (received, verdict.expect("every entry is judged")))
            .collect()))
    }

    /// Hands over as long as ingest takes it at once.
    fn poll_entering(&mut self, cx: &mut Context<'_>) -> Result<(), Stopped> {
        loop {
            if self.entering.is_none() {
                if self.queue.is_empty() || self.under_way.len() >= self.hands_max {
                    return Ok(());
                }
                let entries = self.take_hand();
                let wanted = entries.iter().filter(|t| t.refusal().is_none());
                let messages = wanted.map(T::message).collect();
                let submission = submission(&self.ingest, &self.origin, messages);
                self.entering = Some((entries, submission));
            }
            let Some((_, submission)) = &mut self.entering else {
                return Ok(());
            };
            let Poll::Ready(verdicts) = submission.as_mut().poll(cx) else {
                return Ok(());
            };
            let (entries, _) = self.entering.take().expect("it was just polled");
            self.under_way.push_back(Hand::new(entries, verdicts?));
        }
    }

    fn take_hand(&mut self) -> Vec<T> {
        let mut bytes = 0;
        let fits = |received: &&T| {
            let had = bytes;
            bytes += received.bytes();
            had < HAND_BYTES_MAX
        };
        let count = self
            .queue
            .iter()
            .take(HAND_MESSAGES_MAX)
            .take_while(fits)
            .count();
        self.queue.drain(..count).collect()
    }
}

impl<T: Received> Hand<T> {
    fn new(entries: Vec<T>, verdicts: Verdicts) -> Hand<T> {
        let judged = |received: T| {
            let refusal = received.refusal().map(Verdict::Rejected);
            (received, refusal)
        };
        Hand {
            entries: entries.into_iter().map(judged).collect(),
            stage: Stage::Waiting(verdicts),
            backoff: Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX),
        }
    }

    /// Ready when every entry has its verdict.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        on_retry: OnRetry,
        submit: impl Fn(Vec<Message>) -> Submission,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            match &mut self.stage {
                Stage::Waiting(verdicts) => {
                    // An unanswered hand means that the process stops.
                    let verdicts = ready!(Pin::new(verdicts).poll(cx)).map_err(|_| Stopped)?;
                    if self.judge(verdicts, on_retry) {
                        return Poll::Ready(Ok(()));
                    }
                    let wait = self.backoff.step();
                    self.stage = Stage::Resting(Box::pin(tokio::time::sleep(wait)));
                }
                Stage::Resting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    let open = self.entries.iter().filter(|(_, verdict)| verdict.is_none());
                    let messages = open.map(|(received, _)| received.message());
                    self.stage = Stage::Entering(submit(messages.collect()));
                }
                Stage::Entering(submission) => {
                    let verdicts = ready!(submission.as_mut().poll(cx))?;
                    self.stage = Stage::Waiting(verdicts);
                }
            }
        }
    }

    /// Notes the verdicts of the open entries. Whether none is open any more.
    fn judge(&mut self, verdicts: Vec<Verdict>, on_retry: OnRetry) -> bool {
        let open = self.entries.iter_mut().filter(|(_, v)| v.is_none());
        let mut verdicts = verdicts.into_iter();
        let mut done = true;
        for (_, slot) in open {
            // A verdict too few would be a bug of ingest; not acknowledging is the safe reading.
            let verdict = verdicts.next().unwrap_or(Verdict::Retry);
            if verdict == Verdict::Retry && on_retry == OnRetry::HandOverAgain {
                done = false;
            } else {
                *slot = Some(verdict);
            }
        }
        done
    }
}

fn submission(ingest: &Ingest, origin: &Arc<Origin>, messages: Vec<Message>) -> Submission {
    let (ingest, origin) = (ingest.clone(), Arc::clone(origin));
    Box::pin(async move {
        if messages.is_empty() {
            let (reply, verdicts) = oneshot::channel();
            let _ = reply.send(Vec::new());
            return Ok(verdicts);
        }
        ingest.submit(&origin, messages).await
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;
    use crate::ingest::Hand as Submitted;
    use crate::model::Timestamp;

    struct Numbered(u32);

    impl Received for Numbered {
        fn message(&self) -> Message {
            Message {
                topic: self.0.to_string(),
                payload: Bytes::new(),
                stamp: Timestamp::from_ms(0),
                delivered: 1,
                tenant: None,
                state: Vec::new(),
            }
        }

        fn refusal(&self) -> Option<&'static str> {
            self.0.is_multiple_of(7).then_some("size")
        }

        fn bytes(&self) -> usize {
            1
        }
    }

    fn handover(
        capacity: usize,
        on_retry: OnRetry,
    ) -> (Handover<Numbered>, mpsc::Receiver<Submitted>) {
        let (queue, hands) = mpsc::channel(capacity);
        let origin = Arc::new(Origin {
            source: "mqtt:test".into(),
            kind: "mqtt",
            historical: false,
        });
        (
            Handover::new(Ingest::with_queue(queue), origin, on_retry),
            hands,
        )
    }

    fn numbers(hand: &Submitted) -> Vec<u32> {
        hand.messages
            .iter()
            .map(|m| m.topic.parse().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn verdicts_come_in_order_of_receipt() {
        let (mut handover, mut hands) = handover(4, OnRetry::Return);
        for n in [1, 2, 7, 3] {
            handover.push(Numbered(n));
        }
        let first = tokio::select! {
            _ = handover.judged() => unreachable!("nobody answered"),
            hand = hands.recv() => hand.unwrap(),
        };
        assert_eq!(numbers(&first), [1, 2, 3]);
        handover.push(Numbered(4));
        let second = tokio::select! {
            _ = handover.judged() => unreachable!("nobody answered"),
            hand = hands.recv() => hand.unwrap(),
        };
        second.reply.send(vec![Verdict::Committed]).unwrap();
        first
            .reply
            .send(vec![Verdict::Committed, Verdict::Retry, Verdict::Committed])
            .unwrap();
        let judged = handover.judged().await.unwrap();
        let judged: Vec<_> = judged.into_iter().map(|(t, v)| (t.0, v)).collect();
        assert_eq!(
            judged,
            [
                (1, Verdict::Committed),
                (2, Verdict::Retry),
                (7, Verdict::Rejected("size")),
                (3, Verdict::Committed)
            ]
        );
        assert_eq!(handover.messages(), 1);
        assert_eq!(handover.judged().await.unwrap()[0].0.0, 4);
        assert_eq!((handover.messages(), handover.bytes()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_was_not_stored_is_handed_over_again() {
        let (mut handover, mut hands) = handover(1, OnRetry::HandOverAgain);
        for n in [1, 2, 3] {
            handover.push(Numbered(n));
        }
        let answers = async {
            let hand = hands.recv().await.unwrap();
            let verdicts = vec![Verdict::Committed, Verdict::Retry, Verdict::Retry];
            hand.reply.send(verdicts).unwrap();
            let hand = hands.recv().await.unwrap();
            assert_eq!(numbers(&hand), [2, 3]);
            hand.reply
                .send(vec![Verdict::Retry, Verdict::Rejected("parse")])
                .unwrap();
            let hand = hands.recv().await.unwrap();
            assert_eq!(numbers(&hand), [2]);
            hand.reply.send(vec![Verdict::Committed]).unwrap();
        };
        let (judged, ()) = tokio::join!(handover.judged(), answers);
        let judged: Vec<_> = judged.unwrap().into_iter().map(|(t, v)| (t.0, v)).collect();
        let want = [
            (1, Verdict::Committed),
            (2, Verdict::Committed),
            (3, Verdict::Rejected("parse")),
        ];
        assert_eq!(judged, want);
    }

    #[tokio::test]
    async fn an_unanswered_hand_means_stop() {
        let (mut handover, mut hands) = handover(1, OnRetry::HandOverAgain);
        handover.push(Numbered(1));
        let drop_it = async { drop(hands.recv().await) };
        let (judged, ()) = tokio::join!(handover.judged(), drop_it);
        assert!(judged.is_err());
    }

    proptest! {
        /// Whatever the sizes of hands and the order of answers: every message is
        /// judged once, in order.
        #[test]
        fn every_message_is_judged_once_in_order(
            pushes in proptest::collection::vec(0usize..700, 1..12),
            newest_first in any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut handover, mut hands) = handover(2, OnRetry::HandOverAgain);
                let mut pushed = 0;
                let mut judged = Vec::new();
                let mut open = Vec::new();
                for count in pushes {
                    for _ in 0..count {
                        handover.push(Numbered(pushed));
                        pushed += 1;
                    }
                    // A hand of refused messages alone is judged without ingest.
                    if let Some(done) = handover.judged().now_or_never() {
                        judged.extend(done.unwrap().into_iter().map(|(t, _)| t.0));
                    }
                    while let Ok(hand) = hands.try_recv() {
                        open.push(hand);
                    }
                }
                while judged.len() < pushed as usize {
                    if newest_first {
                        open.reverse();
                    }
                    for hand in open.drain(..) {
                        let verdicts = vec![Verdict::Committed; hand.messages.len()];
                        hand.reply.send(verdicts).unwrap();
                    }
                    tokio::select! {
                        done = handover.judged() => judged.extend(done.unwrap().into_iter().map(|(t, _)| t.0)),
                        hand = hands.recv() => open.extend(hand),
                    }
                }
                assert_eq!(judged, (0..pushed).collect::<Vec<_>>());
                assert_eq!((handover.messages(), handover.bytes()), (0, 0));
            });
        }
    }
}
