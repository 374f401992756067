//! A model check: every reachable state of a controller, three routers and two rollouts, breadth first.
//!
//! The log, its rules and [`decide`] are the real ones. The routers are a model: they pull the log or not, prepare,
//! refuse, activate, misbehave, retreat, crash and start anew, and what they report arrives late or never. The
//! controller crashes and another one takes over, knowing the log and nothing else. Each rollout brings a policy, too.
//! Time is a choice: a step's deadline
//! has passed or not, whatever has happened; so is whether the ledger of the mesh balances when it is read. Of the faults (crashes, NACKs, failed gates, retreats, an abort by hand) at
//! most [`FAULTS_MAX`] happen in one run, at any moments; slowness and silence have no bound.
//!
//! States from which the same can follow count once: the sites `b` and `c` come in the same wave and may change names;
//! a report that [`decide`] cannot use any more is as good as none; a router is where a log is that wants the same of it;
//! and other records fill the log up to a fixed place before an abort and after an end, so that the numbers of what
//! follows are the same whenever it came.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod node;
mod search;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::*;
use crate::governance::GovernanceChange;
use crate::policy::Policy;
use crate::testing::{Story, add, binding, name, stage};
use node::{Heard, Node, Want, report};

/// Faults in one run.
const FAULTS_MAX: u8 = 2;
/// States at which the check gives up: a rule that lets them grow without bound.
const STATES_MAX: usize = 2_000_000;
const SITES: [&str; 3] = ["a", "b", "c"];
const NOW_MS: u64 = 1_000_000;
/// Records from the beginning of one rollout to that of the next.
const PLACES: u64 = 60;

/// A place in the graph of all logs.
type LogId = u16;
/// A revision: small, so that millions of states fit into memory.
type Rev = u16;
/// Which [`Want`].
type WantId = u16;

/// A log, and what it says to each site.
struct Log {
    catalog: Catalog,
    /// Which record followed, and where that leads.
    after: HashMap<Token, LogId>,
    wants: [Want; 3],
    want_ids: [WantId; 3],
    is_reached: [bool; 3],
    is_forward: bool,
    /// No step is left but the end.
    is_last: bool,
    rollout: Rev,
    started: u8,
}

/// The records that differ in more than their words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Token {
    Start,
    Advance,
    Abort,
    Complete,
    RolledBack,
}

/// What the controller read of the ledger of the mesh in the present step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Ledger {
    Unread,
    Off,
    Balances,
}

/// What a controller does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Waits,
    Reads,
    Writes(LogId),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    head: LogId,
    nodes: [(Node, Heard); 3],
    ledger: Ledger,
    has_controller: bool,
    faults: u8,
}

struct Model {
    logs: Vec<Log>,
    /// Logs by what can follow from them.
    known: HashMap<([Want; 3], String), LogId>,
    wants: Vec<Want>,
    /// The same log and the same reports lead to the same decision.
    decisions: HashMap<(LogId, [Heard; 3], Ledger, bool), Does, Quickly>,
}

/// For maps with millions of small keys, none of them a stranger's: with the hasher that guards against those the check takes
/// half as long again.
type Quickly = BuildHasherDefault<Quick>;

#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // A product's low bits, by which a map finds its places, know least of what went into it.
        self.0.rotate_left(26)
    }
}

impl Log {
    fn new(catalog: Catalog, started: u8) -> Self {
        let rollout = catalog.rollout().map_or(0, |rollout| small(rollout.id));
        let wants = SITES.map(|site| {
            let wanted = catalog.wanted(&name(site));
            let prepare = wanted.prepare.as_ref().map(|(_, set)| set_number(set, &catalog));
            let set = set_number(&wanted.active.bindings, &catalog);
            Want { generation: small(wanted.active.number), set, prepare, rollout, started }
        });
        let running = catalog.rollout();
        check_governed(&catalog, &wants);
        let is_forward = running.is_some_and(|rollout| rollout.is_forward());
        let is_last = running.is_some_and(|rollout| rollout.is_forward() && rollout.next().is_none());
        let is_reached = SITES.map(|site| running.is_some_and(|r| r.reached().any(|reached| *reached == name(site))));
        let after = HashMap::new();
        Self { wants, want_ids: [0; 3], is_reached, is_forward, is_last, rollout, started, after, catalog }
    }

    /// What a controller can still make of a report.
    fn useful(&self, at: usize, heard: Heard) -> Heard {
        let (want, is_reached) = (self.wants[at], self.is_reached[at]);
        let is_useful = match heard {
            Heard::Nothing => false,
            Heard::Prepared { rollout } => rollout == self.rollout && want.prepare.is_some(),
            Heard::Refused { rollout } => rollout == self.rollout && self.is_forward,
            Heard::Left { from } => from == want.generation && is_reached && self.is_forward,
            Heard::Active { generation, .. } => generation == want.generation && is_reached,
        };
        if is_useful { heard } else { Heard::Nothing }
    }
}

/// 0 for the set before the first rollout, else which rollout brought it: the one that started next after its binding
/// was staged.
fn set_number(set: &crate::set::BindingSet, catalog: &Catalog) -> u8 {
    let staged_rev = set.iter().next().unwrap().rev;
    let first = catalog.rollouts().next().unwrap().id;
    match staged_rev {
        rev if rev < first - 1 => 0,
        rev if rev < first => 1,
        _ => 2,
    }
}

/// The policy that comes with a set holds where that set is wanted, and there alone: neither is ever without the other.
fn check_governed(catalog: &Catalog, wants: &[Want; 3]) {
    for (site, want) in SITES.into_iter().zip(wants) {
        let governance = catalog.governance_at(Some(&name(site)));
        let texts: Vec<_> = governance.policies().map(|policy| policy.text.clone()).collect();
        assert_eq!(
            texts,
            [want.set.to_string()],
            "site {site}: {:?}",
            catalog.rollout().map(|rollout| rollout.state())
        );
    }
}

/// The policy that comes with the set of that number.
fn policy_of(set: u8) -> Policy {
    Policy { name: name("who-may"), text: set.to_string() }
}

fn small(rev: u64) -> Rev {
    Rev::try_from(rev).unwrap()
}

/// Fills the log up to `rev` with records that concern no rollout.
fn fill(catalog: &mut Catalog, rev: u64) {
    assert!(catalog.head().rev <= rev, "{PLACES} places are too few");
    while catalog.head().rev < rev {
        let other = add(&format!("other@1.0.{}", catalog.head().rev));
        catalog.apply(&catalog.draft(other, "ada", 0).unwrap()).unwrap();
    }
}

impl Model {
    fn new() -> (Self, State) {
        let mut story = Story::with_sites(3);
        story.add(Op::PolicySet { policy: policy_of(0) });
        // Right before the rollout: see `set_number`.
        story.add(Op::BindingRemoved { name: name("redact") });
        story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
        let plan = RolloutPlan {
            canary: vec![name("a")],
            waves: vec![100],
            observe_s: 1,
            events_min: 0,
            deadline_s: 1,
            changes: vec![GovernanceChange::PolicySet { policy: policy_of(1) }],
            ..RolloutPlan::default()
        };
        let base = small(story.catalog.generation());
        story.add(story.catalog.rollout_start(plan));
        let (logs, known, wants, decisions) = (Vec::new(), HashMap::new(), Vec::new(), HashMap::default());
        let mut model = Self { logs, known, wants, decisions };
        model.intern(Log::new(story.catalog, 1));
        let node = Node {
            is_up: true,
            want: model.logs[0].want_ids[0],
            warm: 1,
            runs: base,
            runs_set: 0,
            is_long: true,
            is_bad: false,
            refused: 0,
            left: 0,
        };
        let (nodes, ledger) = ([(node, Heard::Nothing); 3], Ledger::Unread);
        (model, State { head: 0, nodes, ledger, has_controller: true, faults: FAULTS_MAX })
    }

    /// The log after `op`, which the rules of the log must allow.
    fn append(&mut self, at: LogId, token: Token, ops: impl FnOnce(&Catalog) -> Vec<Op>) -> LogId {
        let log = &self.logs[usize::from(at)];
        if let Some(known) = log.after.get(&token) {
            return *known;
        }
        let (mut catalog, started) = (log.catalog.clone(), log.started + u8::from(token == Token::Start));
        let ops = ops(&catalog);
        if token == Token::Abort {
            fill(&mut catalog, u64::from(started) * PLACES - PLACES / 2);
        }
        for op in ops {
            let record = catalog.draft(op, "controller", 0).expect("no controller makes a change that the log refuses");
            catalog.apply(&record).unwrap();
        }
        if catalog.rollout().is_none() {
            assert!(catalog.is_uniform(), "at the end of a rollout there is one set");
            fill(&mut catalog, u64::from(started) * PLACES);
        }
        let id = self.intern(Log::new(catalog, started));
        self.logs[usize::from(at)].after.insert(token, id);
        id
    }

    /// The log, or the one that was there before and from which the same can follow.
    fn intern(&mut self, mut log: Log) -> LogId {
        let state = log.catalog.rollout().map_or("none".into(), |rollout| rollout.state());
        let new = LogId::try_from(self.logs.len()).unwrap();
        let id = *self.known.entry((log.wants, state)).or_insert(new);
        if id == new {
            log.want_ids = log.wants.map(|want| {
                let known = self.wants.iter().position(|known| *known == want);
                let place = known.unwrap_or_else(|| {
                    self.wants.push(want);
                    self.wants.len() - 1
                });
                WantId::try_from(place).unwrap()
            });
            self.logs.push(log);
        }
        id
    }

    /// What the controller does.
    fn decide(&mut self, at: LogId, heard: [Heard; 3], ledger: Ledger, is_late: bool) -> Does {
        if let Some(known) = self.decisions.get(&(at, heard, ledger, is_late)) {
            return *known;
        }
        let log = &self.logs[usize::from(at)];
        let mut seen = Observations::default();
        seen.follow(&log.catalog, if is_late { 0 } else { NOW_MS });
        for (site, heard) in SITES.into_iter().zip(heard) {
            let router = log.catalog.fleet().router(&name(site), &name("r1")).unwrap().number;
            if let Some(report) = report(heard) {
                seen.note(router, report);
            }
        }
        if let (Some(rollout), false) = (log.catalog.rollout(), ledger == Ledger::Unread) {
            let off = (ledger == Ledger::Off).then(|| "a router is missing".to_owned());
            seen.note_ledger(rollout.step_rev, if is_late { 0 } else { NOW_MS }, off.clone());
            seen.note_ledger(rollout.step_rev, NOW_MS, off);
        }
        let next = match decide(&log.catalog, &seen, NOW_MS) {
            Decision::Append(op) => {
                self.check_prepared(at, &op, &heard);
                check_ledger(&op, ledger, is_late);
                let token = match &op {
                    Op::RolloutAdvanced { .. } => Token::Advance,
                    Op::RolloutAborted { .. } => Token::Abort,
                    // The same becomes active.
                    Op::RolloutFinished { outcome: Outcome::Complete | Outcome::Unbalanced, .. } => Token::Complete,
                    Op::RolloutFinished { outcome: Outcome::RolledBack, .. } => Token::RolledBack,
                    other => panic!("{other:?} is not a controller's to say"),
                };
                Does::Writes(self.append(at, token, |_| vec![op]))
            }
            Decision::Reconcile { until_ms } => {
                assert!(until_ms > NOW_MS && log.is_last && (ledger == Ledger::Unread || !is_late));
                Does::Reads
            }
            Decision::Wait { until_ms } => {
                assert!(!is_late, "a step whose deadline has passed is over, one way or the other");
                assert!(until_ms.is_some_and(|until_ms| until_ms > NOW_MS), "and nobody waits in a circle");
                Does::Waits
            }
            Decision::Nothing => {
                assert_eq!(log.rollout, 0);
                Does::Waits
            }
        };
        self.decisions.insert((at, heard, ledger, is_late), next);
        next
    }

    /// The candidate becomes active only where every router said that it has prepared it.
    fn check_prepared(&self, at: LogId, op: &Op, heard: &[Heard; 3]) {
        let Op::RolloutAdvanced { sites, .. } = op else { return };
        let rollout = self.logs[usize::from(at)].rollout;
        for (site, heard) in SITES.into_iter().zip(heard) {
            if sites.contains(&name(site)) {
                assert_eq!(*heard, Heard::Prepared { rollout }, "site {site}");
            }
        }
    }

    /// A second rollout, of the version that is not active.
    fn start_again(&mut self, at: LogId) -> LogId {
        self.append(at, Token::Start, |catalog| {
            let plan = catalog.rollouts().last().unwrap().plan.clone();
            let plan = RolloutPlan { changes: vec![GovernanceChange::PolicySet { policy: policy_of(2) }], ..plan };
            let active = catalog.active().bindings.iter().next().unwrap().binding.module.to_string();
            let version = if active == "redact@1.0.0" { "redact@2.0.0" } else { "redact@1.0.0" };
            let staged = stage(binding("redact", version, "orders/**"));
            let mut then = catalog.clone();
            then.apply(&catalog.draft(staged.clone(), "ada", 0).unwrap()).unwrap();
            vec![staged, then.rollout_start(plan)]
        })
    }

    fn abort_by_hand(&mut self, at: LogId) -> LogId {
        let id = u64::from(self.logs[usize::from(at)].rollout);
        self.append(at, Token::Abort, |_| vec![Op::RolloutAborted { id, cause: Cause::Hand, reason: "by hand".into() }])
    }

    /// All that can happen next.
    fn successors(&mut self, state: &State, found: &mut Vec<State>) {
        if state.has_controller {
            let heard = state.nodes.map(|(_, heard)| heard);
            for is_late in [false, true] {
                match self.decide(state.head, heard, state.ledger, is_late) {
                    Does::Waits => {}
                    Does::Reads => {
                        found.extend([Ledger::Off, Ledger::Balances].map(|ledger| State { ledger, ..*state }));
                    }
                    Does::Writes(head) => found.push(State { head, ledger: Ledger::Unread, ..*state }),
                }
            }
        } else {
            found.push(State { has_controller: true, ..*state });
        }
        let log = &self.logs[usize::from(state.head)];
        let (is_forward, may_start) = (log.is_forward, log.rollout == 0 && log.started == 1);
        if may_start {
            found.push(State { head: self.start_again(state.head), ..*state });
        }
        if state.faults > 0 {
            let faults = state.faults - 1;
            if is_forward {
                found.push(State { head: self.abort_by_hand(state.head), faults, ..*state });
            }
            if state.has_controller {
                // What it had heard dies with it.
                let nodes = state.nodes.map(|(node, _)| (node, Heard::Nothing));
                found.push(State { has_controller: false, nodes, ledger: Ledger::Unread, faults, ..*state });
            }
        }
        for at in 0..SITES.len() {
            self.node_successors(state, at, found);
        }
    }

    fn node_successors(&self, state: &State, at: usize, found: &mut Vec<State>) {
        let (node, heard) = state.nodes[at];
        let mut push = |node: Node, heard: Heard, faults: u8| {
            let mut next = State { faults, ..*state };
            next.nodes[at] = (node, heard);
            found.push(next);
        };
        let faults = state.faults;
        if !node.is_up {
            push(Node { is_up: true, ..node }, heard, faults);
            return;
        }
        let want = self.wants[usize::from(node.want)];
        let newest = self.logs[usize::from(state.head)].want_ids[at];
        if node.want != newest {
            push(node.reads(newest, self.wants[usize::from(newest)]), heard, faults);
        }
        if let Some(next) = node.work(want) {
            push(next, heard, faults);
        }
        if node.runs == want.generation && !node.is_long {
            push(Node { is_long: true, ..node }, heard, faults);
        }
        if state.has_controller {
            push(node, node.says(want), faults);
        }
        if faults == 0 {
            return;
        }
        // Of what was in memory nothing is left; what it left on its own it finds in its boot marker.
        let gone =
            Node { is_up: false, warm: 0, runs: 0, runs_set: 0, is_long: false, is_bad: false, refused: 0, ..node };
        push(gone, heard, faults - 1);
        if want.prepare.is_some_and(|set| node.warm & (1 << set) == 0) && node.refused != want.rollout {
            push(Node { refused: want.rollout, ..node }, heard, faults - 1);
        }
        let runs_candidate = want.runs_candidate(node.runs);
        if runs_candidate && !node.is_bad {
            push(Node { is_bad: true, ..node }, heard, faults - 1);
        }
        if runs_candidate {
            let back = (0..node.runs_set).rev().find(|set| node.warm & (1 << set) != 0);
            if let Some(runs_set) = back {
                push(Node { left: node.runs, runs: 0, runs_set, is_bad: false, ..node }, heard, faults - 1);
            }
        }
    }
}

impl State {
    fn normal(mut self, model: &Model) -> Self {
        let log = &model.logs[usize::from(self.head)];
        for (at, (_, heard)) in self.nodes.iter_mut().enumerate() {
            *heard = log.useful(at, *heard);
        }
        if !log.is_last {
            self.ledger = Ledger::Unread;
        }
        if self.nodes[1] > self.nodes[2] {
            self.nodes.swap(1, 2);
        }
        self
    }

    /// Both rollouts are over, and every router has caught up and runs what the log says, or has left just that.
    fn is_settled(&self, model: &Model) -> bool {
        let log = &model.logs[usize::from(self.head)];
        let is_settled = |(at, (node, _)): (usize, &(Node, Heard))| {
            let want = log.wants[at];
            node.is_up
                && node.want == log.want_ids[at]
                && (node.runs == want.generation || node.left == want.generation)
        };
        log.rollout == 0 && log.started == 2 && self.nodes.iter().enumerate().all(is_settled)
    }
}

/// A rollout says that it is complete only where the ledger balanced, and gives that up only when its time is over.
fn check_ledger(op: &Op, ledger: Ledger, is_late: bool) {
    match op {
        Op::RolloutFinished { outcome: Outcome::Complete, .. } => assert_eq!(ledger, Ledger::Balances),
        Op::RolloutFinished { outcome: Outcome::Unbalanced, .. } => assert!(ledger != Ledger::Unread && is_late),
        _ => {}
    }
}
