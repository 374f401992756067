//! The ledger: what became of every event, per generation, at one worker.
//!
//! Two balances hold for every generation, summed over the workers:
//! * events: `accepted + emitted + received =
//!    rejected + dropped + dead_lettered + expired + unmatched + matched + in_pipeline`
//! * copies: `targets = delivered + forwarded + egress_rejected + copies_expired + shed + lost + in_queue`
//!
//! Every term is counted where it happens; none is computed from the others, so that a forgotten event shows. The
//! cells of a worker are plain numbers that only this worker writes; a reader asks each worker for a copy between two
//! batches. A copy that crosses from one worker to another is added to `in_queue` here and taken off there: a single
//! worker's gauge may wrap, their sum does not.

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use utoipa::ToSchema;

/// How many generations a worker tells apart. Older ones are added up into the oldest kept: the sums still balance.
pub(crate) const GENERATIONS_MAX: usize = 128;

macro_rules! terms {
    ($($(#[doc = $doc:literal])* $term:ident: $variant:ident,)*) => {
        /// One term of the balances.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Term { $($(#[doc = $doc])* $variant,)* }

        impl Term {
            /// Every term.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The term's name in metrics and the API.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($term),)* }
            }
        }

        /// The terms of one generation.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct Counts { $($(#[doc = $doc])* pub $term: u64,)* }

        impl Counts {
            /// The value of `term`.
            pub const fn get(&self, term: Term) -> u64 {
                match term { $(Term::$variant => self.$term,)* }
            }

            fn cell(&mut self, term: Term) -> &mut u64 {
                match term { $(Term::$variant => &mut self.$term,)* }
            }

            /// Adds `other`, term by term. Gauges of single workers wrap, their sums do not.
            pub fn add(&mut self, other: &Self) {
                $(self.$term = self.$term.wrapping_add(other.$term);)*
            }
        }
    };
}

terms! {
    /// Events that publishers sent.
    accepted: Accepted,
    /// Events that filters or the router made.
    emitted: Emitted,
    /// Events that routers of other sites sent here.
    received: Received,
    /// Events refused: by admission, a filter's denial, or a fault with verdict `reject`.
    rejected: Rejected,
    /// Events that a filter dropped.
    dropped: Dropped,
    /// Events sent to a dead-letter topic.
    dead_lettered: DeadLettered,
    /// Events whose time to live ran out before they were routed.
    expired: Expired,
    /// Events that nobody wanted.
    unmatched: Unmatched,
    /// Events offered to at least one subscriber.
    matched: Matched,
    /// Events that are being judged.
    in_pipeline: InPipeline,
    /// Copies that matched events were to become.
    targets: Targets,
    /// Copies that the subscriber's receipt covers.
    delivered: Delivered,
    /// Copies handed to another site.
    forwarded: Forwarded,
    /// Copies that an egress filter refused.
    egress_rejected: EgressRejected,
    /// Copies whose time to live ran out in a queue.
    copies_expired: CopiesExpired,
    /// Copies dropped because their subscriber's outbox was full.
    shed: Shed,
    /// Copies lost with their subscriber's connection.
    lost: Lost,
    /// Copies on their way: between workers, in an outbox, or sent without receipt.
    in_queue: InQueue,
}

impl Counts {
    /// What is missing in the balance of the events: 0 when it balances.
    pub fn events_off_by(&self) -> i64 {
        let entered = self.accepted.wrapping_add(self.emitted).wrapping_add(self.received);
        let left = [self.rejected, self.dropped, self.dead_lettered, self.expired, self.unmatched, self.matched];
        off(entered, &left, self.in_pipeline)
    }

    /// What is missing in the balance of the copies: 0 when it balances.
    pub fn copies_off_by(&self) -> i64 {
        let left = [self.delivered, self.forwarded, self.egress_rejected, self.copies_expired, self.shed, self.lost];
        off(self.targets, &left, self.in_queue)
    }

    /// Whether both balances hold.
    pub fn balances(&self) -> bool {
        self.events_off_by() == 0 && self.copies_off_by() == 0
    }

    /// Whether nothing is on its way any more.
    pub fn is_settled(&self) -> bool {
        self.in_pipeline == 0 && self.in_queue == 0
    }
}

#[expect(clippy::cast_possible_wrap, reason = "the difference of two wrapping sums is small and may be negative")]
fn off(entered: u64, left: &[u64], inside: u64) -> i64 {
    left.iter().fold(entered.wrapping_sub(inside), |rest, term| rest.wrapping_sub(*term)) as i64
}

/// What went to and came from a neighbour since this router's start, over however many links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exchanged {
    /// Site of the neighbour.
    pub site: String,
    /// Name of the neighbour.
    pub router: String,
    /// How often the neighbour was started: each of its runs stands for itself.
    pub epoch: u32,
    /// Events that were sent to it.
    pub sent: u64,
    /// Those of them that it has acknowledged.
    pub acknowledged: u64,
    /// Those that were on their way when their link ended: whether they arrived, the neighbour knows.
    pub lost: u64,
    /// Events that came from it.
    pub received: u64,
}

/// The ledger is off: somewhere an event or a copy was not counted. A defect of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger does not balance: off by {events} events and {copies} copies, a defect of the router")]
pub struct Unbalanced {
    /// By how many the balance of the events is off.
    pub events: i64,
    /// By how many the balance of the copies is off.
    pub copies: i64,
}

/// Checks the balances over all generations. Workers may have added up different old ones, so that only the whole is
/// proof.
///
/// # Errors
/// By how much it is off.
pub fn check(ledger: &BTreeMap<u64, Counts>) -> Result<(), Unbalanced> {
    let mut total = Counts::default();
    ledger.values().for_each(|counts| total.add(counts));
    if total.balances() {
        return Ok(());
    }
    Err(Unbalanced { events: total.events_off_by(), copies: total.copies_off_by() })
}

/// The cells of one worker.
#[derive(Debug, Default)]
pub struct Ledger {
    generations: RefCell<VecDeque<(u64, Counts)>>,
    #[cfg(feature = "sabotage")]
    skipped: std::cell::Cell<Option<Term>>,
}

impl Ledger {
    /// Adds `by` to `term` of `generation`.
    #[inline]
    pub fn add(&self, generation: u64, term: Term, by: u64) {
        self.with(generation, |counts, skipped| {
            if skipped != Some(term) {
                let cell = counts.cell(term);
                *cell = cell.wrapping_add(by);
            }
        });
    }

    /// Takes `by` off the gauge `term` of `generation`.
    #[inline]
    pub fn sub(&self, generation: u64, term: Term, by: u64) {
        self.add(generation, term, by.wrapping_neg());
    }

    /// Moves `by` copies of `generation` out of the queue and into `term`.
    #[inline]
    pub fn settle(&self, generation: u64, term: Term, by: u64) {
        self.sub(generation, Term::InQueue, by);
        self.add(generation, term, by);
    }

    /// A copy of all cells, oldest generation first.
    pub fn snapshot(&self) -> Vec<(u64, Counts)> {
        self.generations.borrow().iter().copied().collect()
    }

    /// Stops counting `term`: for the test that shows that the balance notices.
    #[cfg(feature = "sabotage")]
    pub fn sabotage(&self, term: Option<Term>) {
        self.skipped.set(term);
    }

    #[inline]
    fn with(&self, generation: u64, change: impl FnOnce(&mut Counts, Option<Term>)) {
        #[cfg(feature = "sabotage")]
        let skipped = self.skipped.get();
        #[cfg(not(feature = "sabotage"))]
        let skipped = None;
        let mut generations = self.generations.borrow_mut();
        // Nearly always the newest one.
        let at = match generations.iter().rposition(|(number, _)| *number <= generation) {
            Some(at) if generations[at].0 == generation => at,
            Some(at) => insert(&mut generations, at + 1, generation),
            // Older than all that are told apart: it was added up into the oldest.
            None if generations.len() == GENERATIONS_MAX => 0,
            None => insert(&mut generations, 0, generation),
        };
        change(&mut generations[at].1, skipped);
    }
}

/// Makes room for `generation` at `at`; where there are too many, the two oldest become one. Returns its place.
fn insert(generations: &mut VecDeque<(u64, Counts)>, mut at: usize, generation: u64) -> usize {
    if generations.len() == GENERATIONS_MAX {
        if let Some((_, oldest)) = generations.pop_front()
            && let Some((_, next)) = generations.front_mut()
        {
            next.add(&oldest);
        }
        at -= 1;
    }
    generations.insert(at, (generation, Counts::default()));
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_copy_balances_and_a_forgotten_one_shows() {
        let ledger = Ledger::default();
        for term in [Term::Accepted, Term::Matched, Term::Targets, Term::InQueue] {
            ledger.add(7, term, 3);
        }
        assert!(ledger.snapshot()[0].1.balances());
        ledger.settle(7, Term::Delivered, 2);
        ledger.sub(7, Term::InQueue, 1);
        let (generation, counts) = ledger.snapshot()[0];
        assert_eq!((generation, counts.copies_off_by(), counts.events_off_by()), (7, 1, 0));
    }

    #[test]
    fn the_whole_is_checked_whatever_the_generations() {
        let counts = |accepted, rejected| Counts { accepted, rejected, ..Counts::default() };
        assert_eq!(check(&BTreeMap::new()), Ok(()));
        // One worker has added generation 1 up into generation 2, the other has not.
        let mut ledger = BTreeMap::from([(1, counts(0, 5)), (2, counts(7, 2))]);
        assert_eq!(check(&ledger), Ok(()));
        ledger.insert(3, Counts { targets: 2, delivered: 3, ..counts(1, 0) });
        assert_eq!(check(&ledger), Err(Unbalanced { events: 1, copies: -1 }));
    }

    #[test]
    fn gauges_may_wrap_at_one_worker_but_not_in_the_sum() {
        let (here, there) = (Ledger::default(), Ledger::default());
        here.add(1, Term::Targets, 5);
        here.add(1, Term::InQueue, 5);
        there.settle(1, Term::Delivered, 5);
        let mut sum = here.snapshot()[0].1;
        sum.add(&there.snapshot()[0].1);
        assert!(sum.balances() && sum.is_settled());
    }

    #[test]
    fn old_generations_are_added_up_not_forgotten() {
        let ledger = Ledger::default();
        for generation in 0..1_000 {
            ledger.add(generation, Term::Accepted, 1);
        }
        ledger.add(3, Term::Accepted, 1);
        let cells = ledger.snapshot();
        assert_eq!(cells.len(), GENERATIONS_MAX);
        assert_eq!(cells.iter().map(|(_, counts)| counts.accepted).sum::<u64>(), 1_001);
        assert!(cells.is_sorted_by_key(|(generation, _)| *generation));
    }
}
