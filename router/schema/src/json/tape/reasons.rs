//! How much may be spent on saying why a payload is not as its schema says.
//!
//! The library collects the errors of all branches of a choice before it says that none fits, however many those are: a
//! payload of a megabyte can make gigabytes of them. It offers no bound, so there is one here: each error asks for what it
//! is about, and where too many have, the search is left by unwinding.

use crate::limits::{JSON_REASON_PARTS_MAX, JSON_REASONS_MAX};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What a search is left with.
struct Spent;

thread_local! {
    /// Errors, and parts of the objects that they are about, so far; none while nobody looks.
    static SPENT: Cell<Option<(u32, usize)>> = const { Cell::new(None) };
}

/// Looks for reasons; none where there are too many.
pub(in crate::json) fn within_bounds<T>(search: impl FnOnce() -> T) -> Option<T> {
    SPENT.set(Some((0, 0)));
    // What the search has built is dropped on the way; nothing else is touched.
    let found = catch_unwind(AssertUnwindSafe(search));
    SPENT.set(None);
    match found {
        Ok(found) => Some(found),
        Err(left) if left.is::<Spent>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// One more error, about an object of so many parts; the first one may be about any.
pub(super) fn spend(parts: usize) {
    let Some((errors, all)) = SPENT.get() else { return };
    let (errors, all) = (errors + 1, all.saturating_add(parts));
    if errors > JSON_REASONS_MAX || (errors > 1 && all > JSON_REASON_PARTS_MAX) {
        // Not a panic: no hook is called, and nobody is told but the search's caller.
        resume_unwind(Box::new(Spent));
    }
    SPENT.set(Some((errors, all)));
}
