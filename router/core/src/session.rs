//! The name of a session inside one router.

/// Which session: the worker that owns it, its slot there, and how often that slot was used before.
///
/// A key is never reused: a slot that gets a new session gets a new generation, so a delivery that was decided for
/// the old session cannot reach the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The worker that owns the session.
    pub worker: u8,
    /// The session's place among that worker's sessions.
    pub slot: u32,
    /// How many sessions had that place before.
    pub generation: u32,
}
