//! What each source is doing, for pages, `/api/v1/targets` and `pulse_source_up`.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::model::Timestamp;

/// Whether a source works.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "error")]
pub enum SourceState {
    /// Trying for the first time.
    Connecting,
    /// Connected and subscribed, or reading.
    Up,
    /// Not connected; the error of the last try.
    Down(String),
}

/// One source as pages show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SourceView {
    /// The configured name.
    pub name: String,
    /// `mqtt`, `nats`, `http`, `self`, `host`.
    pub kind: &'static str,
    /// Where it connects to, without credentials.
    pub url: String,
    /// What it promises: `at least once`, `at most once`.
    pub guarantee: &'static str,
    /// Whether it works.
    pub state: SourceState,
    /// Since when.
    pub since: Timestamp,
    /// When the last message or collection came in.
    pub last_message: Option<Timestamp>,
    /// How many messages or samples came in since the start.
    pub messages: u64,
    /// How often it connected.
    pub connects: u64,
}

/// The state of all sources. Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Vec<Arc<Mutex<SourceView>>>>>);

/// A source's own entry on the board.
#[derive(Clone)]
pub struct Status(Arc<Mutex<SourceView>>);

impl Board {
    /// Adds a source.
    pub fn add(
        &self,
        name: &str,
        kind: &'static str,
        url: &str,
        guarantee: &'static str,
        now: Timestamp,
    ) -> Status {
        let view = Arc::new(Mutex::new(SourceView {
            name: name.to_owned(),
            kind,
            url: url.to_owned(),
            guarantee,
            state: SourceState::Connecting,
            since: now,
            last_message: None,
            messages: 0,
            connects: 0,
        }));
        self.entries().push(Arc::clone(&view));
        Status(view)
    }

    /// Removes a source, when a reload takes it away.
    pub fn remove(&self, status: &Status) {
        self.entries()
            .retain(|entry| !Arc::ptr_eq(entry, &status.0));
    }

    /// All sources, in the order in which they were added.
    pub fn list(&self) -> Vec<SourceView> {
        self.entries()
            .iter()
            .map(|entry| lock(entry).clone())
            .collect()
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Mutex<SourceView>>>> {
        lock(&self.0)
    }
}

impl Status {
    /// Says that the source is connected and subscribed.
    pub fn up(&self, now: Timestamp) {
        let mut view = lock(&self.0);
        view.connects += 1;
        view.set(SourceState::Up, now);
    }

    /// Says that it is not, and why.
    pub fn down(&self, error: &str, now: Timestamp) {
        lock(&self.0).set(SourceState::Down(error.to_owned()), now);
    }

    /// Counts messages that came in.
    pub fn received(&self, count: u64, now: Timestamp) {
        let mut view = lock(&self.0);
        view.messages += count;
        view.last_message = Some(now);
    }

    /// The entry as it is now.
    pub fn view(&self) -> SourceView {
        lock(&self.0).clone()
    }
}

impl SourceView {
    fn set(&mut self, state: SourceState, now: Timestamp) {
        if self.state != state {
            self.since = now;
            self.state = state;
        }
    }
}

/// A panic elsewhere leaves the entry readable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
