//! The bounds of policies. All are checked before Cedar sees a text, or right after it has read it.

/// Bytes of one text: some hundred statements; a larger one is easier to read as several.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Statements of all texts together: each is kept parsed, some kilobytes of memory.
pub const STATEMENTS_MAX: usize = 4_096;
/// Operators, dots and brackets of one statement. They bound how deep its expression is, and Cedar evaluates by
/// recursion: a statement that ran out of stack would be passed over, and a `forbid` must never be.
pub const OPERATORS_MAX: usize = 256;
/// Statements that stand in one place of the index, all of which are evaluated for every decision that needs one of
/// them: what keeps a decision that is not remembered within a fraction of a millisecond.
pub const TOGETHER_MAX: usize = 256;
/// Places of the index in which one statement may stand, one for each topic or service that it names in `||`.
pub const PLACES_MAX: usize = 64;
/// Bytes of the beginning of a topic or a service's name by which statements are found. What is longer is cut.
pub const PREFIX_BYTES_MAX: usize = 256;
/// Errors that are told of one text; further ones are rarely news.
pub const ERRORS_MAX: usize = 16;
/// Bytes of what Cedar says about a fault: it repeats the author's words, however long they are.
pub const SAID_BYTES_MAX: usize = 512;
/// Decisions that one thread remembers; all are made anew when there are more. At some 150 bytes each they are few
/// megabytes.
pub const REMEMBERED_MAX: usize = 16_384;
