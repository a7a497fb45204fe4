//! A webhook receiver that records every attempt and checks its signature.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The secret that senders must sign with.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// One received request.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) body: String,
}

/// The receiver; it stops with its runtime.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<Attempt>>>);

impl Sink {
    /// Listens on the port and answers 200 to everything.
    pub(crate) async fn start(port: u16) -> Sink {
        let sink = Sink::default();
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(sink.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        sink
    }

    /// What came in so far, in order.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.0.lock().unwrap().clone()
    }

    /// The distinct ids in the order of their first attempt; every repeat must
    /// have the body of the first.
    pub(crate) fn deliveries(&self) -> Vec<Attempt> {
        let mut first: Vec<Attempt> = Vec::new();
        for attempt in self.attempts() {
            match first.iter().find(|known| known.id == attempt.id) {
                Some(known) => assert_eq!(known.body, attempt.body, "{}", attempt.id),
                None => first.push(attempt),
            }
        }
        first
    }
}

async fn receive(State(sink): State<Sink>, headers: HeaderMap, body: Bytes) -> &'static str {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let id = header("webhook-id");
    verify(
        &id,
        &header("webhook-timestamp"),
        &body,
        &header("webhook-signature"),
    );
    let body = String::from_utf8(body.to_vec()).unwrap();
    sink.0.lock().unwrap().push(Attempt { id, body });
    "ok"
}

/// Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.
fn verify(id: &str, timestamp: &str, body: &[u8], signatures: &str) {
    let secret = STANDARD
        .decode(SECRET.trim_start_matches("whsec_"))
        .unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    let valid = signatures.split(' ').any(|signature| {
        let tag = STANDARD
            .decode(signature.trim_start_matches("v1,"))
            .unwrap();
        hmac::verify(&key, &signed, &tag).is_ok()
    });
    assert!(valid, "a request with a wrong signature");
}
