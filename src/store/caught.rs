//! Work on bytes that may not be redb's: it panics on some of those, and is caught.
//!
//! Such a panic is an answer like another one, so its text is kept out of the log and
//! off the terminal; what is wrong is said in a sentence by who asked. Panics of our own
//! code stay as loud as they are.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// What `work` gives; `None` when it panics.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    enter();
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    done.ok()
}

fn enter() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match is_expected(info) {
            true => tracing::debug!(panic = %info, "the database library cannot read a file"),
            false => usual(info),
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
}

fn is_expected(info: &PanicHookInfo<'_>) -> bool {
    let is_redb = |place: &std::panic::Location<'_>| place.file().contains("/redb-");
    DEPTH.get() > 0 && info.location().is_some_and(is_redb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_leaves_no_trace() {
        assert_eq!(caught(|| caught(|| panic!("one")).unwrap_or(3)), Some(3));
        assert_eq!(caught(|| -> u8 { panic!("two") }), None);
        assert_eq!(DEPTH.get(), 0);
    }
}
