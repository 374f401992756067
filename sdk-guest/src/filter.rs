//! The trait that an author implements.

use crate::{EventView, Needs, Verdict};

/// Most routes that a filter may declare: a verdict has one bit for each.
pub(crate) const ROUTES_MAX: usize = 32;
/// Most reasons that a filter may declare.
pub(crate) const REASONS_MAX: usize = 1024;
/// Most counters that a filter may declare.
pub(crate) const COUNTERS_MAX: usize = 64;
/// Longest name of the filter, its version or a counter, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest text of a reason, in bytes.
pub(crate) const REASON_BYTES_MAX: usize = 256;

/// What the component is called. `#[filter]` implements it from the package's name and version.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not marked as a filter",
    label = "not a filter yet",
    note = "put `#[myelin_filter::filter]` above `{Self}`"
)]
pub trait Described {
    /// Name of the module.
    const NAME: &'static str;
    /// Version of the module.
    const VERSION: &'static str;
}

/// A filter: one instance for each worker of a router, called by one thread.
pub trait Filter: Described + Sized {
    /// What the router copies for each event. By default only the topic.
    const NEEDS: Needs = Needs::NOTHING;
    /// Where the filter may send events besides or instead of their topic, at most 32: `topic:NAME` or `site:NAME`.
    /// Verdicts name them by index ([`route!`](crate::route)); the operator grants them to the binding.
    const ROUTES: &[&str] = &[];
    /// Why the filter denies or dead-letters, at most 1,024 texts; [`reason!`](crate::reason) finds their index.
    const REASONS: &[&str] = &[];
    /// Metrics that the filter may raise, at most 64, named with `a-z`, `0-9` and `_`; [`counter!`](crate::counter) finds their index.
    const COUNTERS: &[&str] = &[];
    /// Most bytes that the filter puts out for one event: replaced payload and attributes, detail, emitted events.
    /// 0 = it only judges. More than this is a fault.
    const MAX_OUTPUT: u32 = 0;

    /// Makes the filter from the binding's configuration (JSON as the operator wrote it, empty where none was given)
    /// and from what [`Filter::save`] of the version before gave.
    ///
    /// # Errors
    /// A sentence for the operator: which key is wrong, and how to mend it. The configuration is then refused.
    fn new(config: &[u8], previous: Option<&[u8]>) -> Result<Self, String>;

    /// Judges one event.
    fn on_event(&mut self, event: EventView<'_>) -> Verdict;

    /// What the next version's `new` gets as `previous`, asked before a swap. Empty = nothing to hand over.
    fn save(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// What the router copies, where that follows from the configuration; its headers are those of [`Filter::NEEDS`].
    /// Asked once, after [`Filter::new`].
    fn needs(&self) -> Needs {
        Self::NEEDS
    }

    /// The routes, where they follow from the configuration. Asked once, after [`Filter::new`].
    fn routes(&self) -> Vec<String> {
        owned(Self::ROUTES)
    }

    /// The reasons, where they follow from the configuration. Asked once, after [`Filter::new`].
    fn reasons(&self) -> Vec<String> {
        owned(Self::REASONS)
    }

    /// The output bound in bytes, where it follows from the configuration. Asked once, after [`Filter::new`].
    fn max_output(&self) -> u32 {
        Self::MAX_OUTPUT
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Refuses to compile declarations that no router would take. `#[filter]` calls it.
pub const fn check_declarations<F: Filter>() {
    assert!(is_between(F::NAME, NAME_BYTES_MAX), "the filter's name has 1 to 64 bytes");
    assert!(is_between(F::VERSION, NAME_BYTES_MAX), "the filter's version has 1 to 64 bytes");
    assert!(F::ROUTES.len() <= ROUTES_MAX, "a filter declares at most 32 routes");
    assert!(F::REASONS.len() <= REASONS_MAX, "a filter declares at most 1024 reasons");
    assert!(F::COUNTERS.len() <= COUNTERS_MAX, "a filter declares at most 64 counters");
    let mut at = 0;
    while at < F::ROUTES.len() {
        assert!(is_route(F::ROUTES[at]), "each of ROUTES is written `topic:NAME` or `site:NAME`");
        at += 1;
    }
    at = 0;
    while at < F::REASONS.len() {
        assert!(is_between(F::REASONS[at], REASON_BYTES_MAX), "each of REASONS has 1 to 256 bytes");
        at += 1;
    }
    at = 0;
    while at < F::COUNTERS.len() {
        assert!(is_metric(F::COUNTERS[at]), "each of COUNTERS is named with a-z, 0-9 and _, 1 to 64 bytes");
        at += 1;
    }
}

const fn is_between(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max
}

const fn is_metric(name: &str) -> bool {
    let mut at = 0;
    while at < name.len() {
        if !matches!(name.as_bytes()[at], b'a'..=b'z' | b'0'..=b'9' | b'_') {
            return false;
        }
        at += 1;
    }
    is_between(name, NAME_BYTES_MAX)
}

/// Whether `route` is `topic:NAME` or `site:NAME`.
pub(crate) const fn is_route(route: &str) -> bool {
    has_prefix(route.as_bytes(), b"topic:") || has_prefix(route.as_bytes(), b"site:")
}

const fn has_prefix(text: &[u8], prefix: &[u8]) -> bool {
    text.len() > prefix.len() && equal(text.split_at(prefix.len()).0, prefix)
}

/// Where `wanted` stands in `declared`; panics with `message`, at compile time when called from the macros.
pub const fn index_of(declared: &[&str], wanted: &str, message: &str) -> usize {
    let mut at = 0;
    while at < declared.len() {
        if equal(declared[at].as_bytes(), wanted.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("{}", message)
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// `name`, a zero byte, `version`: the section by which the build tool names the component's file.
#[cfg(target_arch = "wasm32")]
pub const fn label<const BYTES: usize>(name: &str, version: &str) -> [u8; BYTES] {
    let (name, version) = (name.as_bytes(), version.as_bytes());
    let mut bytes = [0; BYTES];
    let mut at = 0;
    while at < name.len() {
        bytes[at] = name[at];
        at += 1;
    }
    at = 0;
    while at < version.len() {
        bytes[name.len() + 1 + at] = version[at];
        at += 1;
    }
    bytes
}
