//! The batch loop, the same in the component and in the harness.

use crate::filter::{REASON_BYTES_MAX, REASONS_MAX, ROUTES_MAX, is_route};
use crate::verdict::Output;
use crate::{EventView, Filter, Needs};
use myelin_arena::{Arena, ArenaBuilder};

/// What a filter tells about itself.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub(crate) needs: Needs,
    pub(crate) routes: Vec<String>,
    pub(crate) reasons: Vec<String>,
    pub(crate) max_output: u32,
}

/// What a batch gives: one verdict for each event, and what goes out beside them.
pub(crate) struct Outcome {
    pub(crate) verdicts: Vec<u64>,
    pub(crate) output: Vec<u8>,
}

/// A filter and the memory of its batch loop.
pub(crate) struct Instance<F> {
    pub(crate) filter: F,
    /// Most bytes of output for one event.
    output_bytes_max: usize,
    /// Outputs of the running batch; the list's memory is kept.
    #[allow(clippy::vec_box, reason = "the verdicts bring them boxed: moving the box is cheaper than the content")]
    pending: Vec<Box<Output>>,
    /// How many details had no room at all in `MAX_OUTPUT`: a slip of the author that the harness reports.
    pub(crate) details_lost: u64,
}

impl<F: Filter> Instance<F> {
    /// Makes the filter and checks what it declares.
    pub(crate) fn new(config: &[u8], previous: Option<&[u8]>) -> Result<(Self, Info), String> {
        let filter = F::new(config, previous)?;
        let info = Info {
            needs: Needs { headers: F::NEEDS.headers, ..filter.needs() },
            routes: filter.routes(),
            reasons: filter.reasons(),
            max_output: filter.max_output(),
        };
        check_info(&info)?;
        let output_bytes_max = info.max_output as usize;
        Ok((Self { filter, output_bytes_max, pending: Vec::new(), details_lost: 0 }, info))
    }

    /// Judges a batch. The only allocation for an event without output is its share of the list of verdicts.
    ///
    /// # Panics
    /// When the host breaks the contract: an arena that is not whole, or another count than the arena's.
    pub(crate) fn run(&mut self, arena: &[u8], count: u32, now_unix_ns: u64) -> Outcome {
        let arena = Arena::new(arena).expect("the host gives a whole arena");
        assert_eq!(arena.len(), count as usize, "the host counts what it gives");
        let mut verdicts = Vec::with_capacity(arena.len());
        for (index, entry) in (0..count).zip(arena.entries()) {
            let entry = entry.expect("the host gives entries within the arena");
            let verdict = self.filter.on_event(EventView { entry, index, now_unix_ns, headers: F::NEEDS.headers });
            let Some(mut output) = verdict.output else {
                verdicts.push(verdict.bits.0);
                continue;
            };
            self.details_lost += u64::from(output.cut_detail(self.output_bytes_max));
            verdicts.push(output.announce(verdict.bits).0);
            self.pending.push(output);
        }
        Outcome { verdicts, output: self.write_output() }
    }

    /// Writes the pending outputs as an arena; empty where there are none.
    fn write_output(&mut self) -> Vec<u8> {
        let count = self.pending.iter().map(|output| output.entries().count()).sum();
        if count == 0 {
            self.pending.clear();
            return Vec::new();
        }
        let mut arena = ArenaBuilder::new(count);
        self.pending.drain(..).for_each(|output| output.entries().for_each(|entry| arena.push(&entry)));
        arena.into_bytes()
    }
}

/// Checks what follows from the configuration; what is constant was checked at compile time.
fn check_info(info: &Info) -> Result<(), String> {
    if info.routes.len() > ROUTES_MAX {
        return Err(format!("the configuration gives {} routes; a filter has at most {ROUTES_MAX}", info.routes.len()));
    }
    if let Some(route) = info.routes.iter().find(|route| !is_route(route)) {
        return Err(format!("the route \"{route}\" is neither \"topic:NAME\" nor \"site:NAME\""));
    }
    if info.reasons.len() > REASONS_MAX {
        return Err(format!(
            "the configuration gives {} reasons; a filter has at most {REASONS_MAX}",
            info.reasons.len()
        ));
    }
    match info.reasons.iter().find(|reason| reason.is_empty() || reason.len() > REASON_BYTES_MAX) {
        Some(reason) => Err(format!("the reason \"{reason}\" has {} bytes; 1 to {REASON_BYTES_MAX} fit", reason.len())),
        None => Ok(()),
    }
}
