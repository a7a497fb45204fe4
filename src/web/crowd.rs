//! Connections that wait for a request, and who has to go when there is no room.
//!
//! A connection without a request costs a slot and does nothing: it is idle, or
//! its client drips the head byte by byte. When all slots are taken, the one that
//! has waited longest is closed, so that a few hundred such clients never keep
//! out one that asks for something. A connection whose request is under way is
//! never closed for that.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// The connections that wait, in the order in which they began to.
#[derive(Default)]
pub(super) struct Crowd(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    leave: BTreeMap<u64, CancellationToken>,
}

impl Crowd {
    /// Closes the connection that has waited longest; says whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let longest = self.lock().leave.pop_first();
        longest.inspect(|(_, leave)| leave.cancel()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among the others.
pub(super) struct Place {
    crowd: Arc<Crowd>,
    /// Cancelled when it has to go.
    pub(super) leave: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Its number among those that wait.
    waits: Option<u64>,
    has_served: bool,
}

impl Place {
    /// A new connection: it waits for its first request.
    pub(super) fn new(crowd: Arc<Crowd>) -> Arc<Place> {
        let place = Arc::new(Place {
            crowd,
            leave: CancellationToken::new(),
            state: Mutex::default(),
        });
        place.wait();
        place
    }

    /// Whether it ever had a request: then an answer may still be on its way out.
    pub(super) fn has_served(&self) -> bool {
        self.state().has_served
    }

    /// A request has come; until the guard is gone the connection stays.
    pub(super) fn serve(self: &Arc<Place>) -> Serving {
        let mut state = self.state();
        state.has_served = true;
        if let Some(number) = state.waits.take() {
            self.crowd.lock().leave.remove(&number);
        }
        Serving(Arc::clone(self))
    }

    fn wait(&self) {
        let mut state = self.state();
        let mut waiting = self.crowd.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.leave.insert(number, self.leave.clone());
        state.waits = Some(number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.state().waits {
            self.crowd.lock().leave.remove(&number);
        }
    }
}

/// A request under way.
pub(super) struct Serving(Arc<Place>);

impl Serving {
    /// Holds on until the answer's body has been taken.
    pub(super) fn with_body(self, body: Body) -> Body {
        Body::new(Held {
            body,
            _serving: self,
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.wait();
    }
}

struct Held {
    body: Body,
    _serving: Serving,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_longest_goes_and_who_serves_stays() {
        let crowd = Arc::new(Crowd::default());
        let [first, second, third] = [0; 3].map(|_| Place::new(Arc::clone(&crowd)));
        let serving = second.serve();
        assert!(crowd.make_room());
        assert!(first.leave.is_cancelled());
        // The second is busy, and waits less long than the third afterwards.
        drop(serving.with_body(Body::from("x")));
        assert!(crowd.make_room());
        assert!(third.leave.is_cancelled() && !second.leave.is_cancelled());
        assert!(second.has_served() && !third.has_served());
        drop((first, third));
        drop(second);
        assert!(!crowd.make_room());
    }
}
