//! The sockets: bound before anything else, served until the stop.
//!
//! HTTP/1.1 only. A connection has 10 s for the head of each request (an idle one
//! more), and heads are at most 64 KiB, so a client that drips bytes holds a slot for
//! a bounded time. When all slots are taken, the connection that has waited longest
//! for a request makes room (see [`Crowd`]); while all have one under way, further
//! clients wait in the kernel's queue, where they cost nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::DeadlineBody;

use super::Web;
use super::crowd::{Crowd, Place};
use super::patience::Patient;
use super::target::PlainTargets;
use crate::tasks::Tasks;
use crate::telemetry::metrics::Relay;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// For a whole request body, however it trickles in.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What requests under way are allowed after the stop.
const DRAIN: Duration = Duration::from_millis(2_500);
/// Between two looks for a connection that can make room, while there is none.
const ROOM_AGAIN: Duration = Duration::from_millis(20);
/// What is left of an answer may take this long when a connection makes room.
const LEAVE: Duration = Duration::from_millis(250);
/// After an accept that failed, for want of file descriptors for instance.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Bound sockets that nobody serves yet: clients that connect already wait.
pub struct Listeners {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds all addresses.
    ///
    /// # Errors
    /// With the address that cannot be bound.
    pub async fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Listeners> {
        let mut sockets = Vec::new();
        for address in addresses {
            let socket = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}"))?;
            sockets.push(socket);
        }
        let addresses = sockets
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()
            .context("cannot read a listener's address")?;
        Ok(Listeners { sockets, addresses })
    }

    /// The bound addresses, with the ports that port 0 became.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Serves the sockets until `stop`, then lets requests under way end.
pub(super) fn spawn(
    web: &Web,
    listeners: Listeners,
    slots: usize,
    tasks: &Tasks,
    stop: &CancellationToken,
) {
    let slots = Arc::new(Slots {
        free: Arc::new(Semaphore::new(slots.clamp(1, Semaphore::MAX_PERMITS))),
        crowd: Arc::default(),
    });
    for socket in listeners.sockets {
        let accepting = accept(
            web.clone(),
            socket,
            Arc::clone(&slots),
            tasks.clone(),
            stop.clone(),
        );
        tasks.spawn_vital("web", accepting);
    }
}

/// How many connections there may be, and those that could make room.
struct Slots {
    free: Arc<Semaphore>,
    crowd: Arc<Crowd>,
}

impl Slots {
    /// Waits for room. Cancel-safe.
    async fn room(&self, web: &Web) -> OwnedSemaphorePermit {
        loop {
            if let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() {
                return slot;
            }
            if self.crowd.make_room() {
                web.metrics().http.closed_for_room.inc();
            }
            let freed = Arc::clone(&self.free).acquire_owned();
            if let Ok(slot) = tokio::time::timeout(ROOM_AGAIN, freed).await {
                return slot.expect("the semaphore is never closed");
            }
        }
    }
}

async fn accept(
    web: Web,
    socket: TcpListener,
    slots: Arc<Slots>,
    tasks: Tasks,
    stop: CancellationToken,
) {
    loop {
        // Accepted first: nobody makes room before somebody needs it.
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            stream = socket.accept() => stream,
        };
        match stream {
            Ok((stream, _)) => {
                let slot = tokio::select! {
                    () = stop.cancelled() => return,
                    slot = slots.room(&web) => slot,
                };
                let place = Place::new(Arc::clone(&slots.crowd));
                let connection = serve(web.clone(), stream, place, stop.clone());
                tasks.spawn_once(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(err) => {
                tracing::warn!(error = %err, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve(web: Web, stream: TcpStream, place: Arc<Place>, stop: CancellationToken) {
    let _open = Open::new(web.metrics().http.connections.clone());
    // Answers are written in one piece; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let of_requests = Arc::clone(&place);
    let session = Session::new(web.metrics().ingest.relay.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        session.begin();
        let (web, serving) = (web.clone(), of_requests.serve());
        async move {
            let answer = web.answer(bounded(request)).await;
            let answer = answer.map(|body| serving.with_body(body));
            Ok::<Response, std::convert::Infallible>(answer)
        }
    });
    let stream = PlainTargets::new(Patient::new(stream));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let limit = tokio::select! {
        result = connection.as_mut() => return log_end(result),
        () = stop.cancelled() => DRAIN,
        () = place.leave.cancelled() => match place.has_served() {
            true => LEAVE,
            false => return,
        },
    };
    connection.as_mut().graceful_shutdown();
    // Too late is cut off: the stop has a limit, and others wait for the room.
    if let Ok(result) = tokio::time::timeout(limit, connection).await {
        log_end(result);
    }
}

fn bounded(request: Request<Incoming>) -> Request<Body> {
    request.map(|body| Body::new(DeadlineBody::new(BODY_TIMEOUT, body)))
}

fn log_end(result: hyper::Result<()>) {
    if let Err(err) = result {
        tracing::debug!(error = %err, "connection ended");
    }
}

/// A session of the pages or the API: a connection from its first request to its
/// end. There is no log-in that could be one.
struct Session {
    relay: Relay,
    has_begun: AtomicBool,
}

impl Session {
    fn new(relay: Relay) -> Session {
        Session {
            relay,
            has_begun: AtomicBool::new(false),
        }
    }

    fn begin(&self) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            self.relay.sessions_created.inc();
            self.relay.active_sessions.inc();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if *self.has_begun.get_mut() {
            self.relay.active_sessions.dec();
            self.relay.sessions_ended.inc();
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(prometheus::IntGauge);

impl Open {
    fn new(open: prometheus::IntGauge) -> Open {
        open.inc();
        Open(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
