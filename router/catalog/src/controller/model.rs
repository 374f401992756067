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

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::governance::GovernanceChange;
use crate::policy::Policy;
use crate::testing::{Story, add, binding, name, stage};

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

/// What a log wants of a router; sets are numbered by the rollout that brought them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Want {
    generation: Rev,
    set: u8,
    prepare: Option<u8>,
    /// The running rollout; 0 = none.
    rollout: Rev,
    /// How many have started.
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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Node {
    is_up: bool,
    /// What the log wants of it, as far as it has read.
    want: WantId,
    /// Sets that are warm, one bit each.
    warm: u8,
    /// The generation that judges events, and its set; 0 = none yet.
    runs: Rev,
    runs_set: u8,
    /// It has run that for as long as steps observe.
    is_long: bool,
    /// It faults more often than the gates allow.
    is_bad: bool,
    /// The rollout whose set it refused.
    refused: Rev,
    /// The generation that it left on its own.
    left: Rev,
}

/// What the controller heard of a router last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Heard {
    /// Nothing, or nothing that helps.
    Nothing,
    Prepared {
        rollout: Rev,
    },
    Refused {
        rollout: Rev,
    },
    Left {
        from: Rev,
    },
    Active {
        rollout: Rev,
        generation: Rev,
        is_long: bool,
        is_bad: bool,
    },
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
    decisions: HashMap<(LogId, [Heard; 3], Ledger, bool), Does>,
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
        let (logs, known, wants, decisions) = (Vec::new(), HashMap::new(), Vec::new(), HashMap::new());
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

impl Want {
    /// Whether a router that runs `generation` runs the candidate of the running rollout.
    fn runs_candidate(self, generation: Rev) -> bool {
        self.rollout != 0 && generation == self.generation && self.set == self.started
    }
}

impl Node {
    /// Reads the log. A word of the log ends a retreat from another generation, and a refusal of another rollout.
    fn reads(self, id: WantId, want: Want) -> Self {
        let left = if self.left == want.generation { self.left } else { 0 };
        let refused = if self.refused == want.rollout && want.prepare.is_some() { self.refused } else { 0 };
        // Only of a candidate does anybody ask how it does, and for how long.
        let is_long = self.is_long || !want.runs_candidate(self.runs);
        let is_bad = self.is_bad && want.runs_candidate(self.runs);
        Self { want: id, left, refused, is_long, is_bad, ..self }
    }

    /// The next thing that a router does by itself: prepare what it must run, run it, prepare what it shall.
    fn work(self, want: Want) -> Option<Self> {
        let has = |set: u8| self.warm & (1 << set) != 0;
        let has_left = self.left == want.generation;
        if !has(want.set) && !has_left {
            return Some(Self { warm: self.warm | 1 << want.set, ..self });
        }
        if self.runs != want.generation && !has_left {
            assert!(has(want.set), "never activate what is not prepared");
            // Warm are the new set and the one before.
            let warm = self.warm & (1 << want.set | 1 << self.runs_set);
            let (runs, runs_set) = (want.generation, want.set);
            let is_long = !want.runs_candidate(runs);
            return Some(Self { runs, runs_set, warm, is_long, is_bad: false, left: 0, ..self });
        }
        let prepare = want.prepare.filter(|set| !has(*set) && self.refused != want.rollout)?;
        Some(Self { warm: self.warm | 1 << prepare, ..self })
    }

    /// What it reports.
    fn says(self, want: Want) -> Heard {
        let rollout = want.rollout;
        let is_warm = |set: u8| self.warm & (1 << set) != 0;
        if self.left == want.generation {
            Heard::Left { from: self.left }
        } else if want.prepare.is_some() && self.refused == rollout {
            Heard::Refused { rollout }
        } else if self.runs != want.generation {
            Heard::Nothing
        } else {
            match want.prepare {
                Some(set) if is_warm(set) => Heard::Prepared { rollout },
                Some(_) => Heard::Nothing,
                None => {
                    let Self { is_long, is_bad, .. } = self;
                    Heard::Active { rollout, generation: self.runs, is_long, is_bad }
                }
            }
        }
    }
}

fn report(heard: Heard) -> Option<Report> {
    let mut metrics = Metrics::default();
    let (rollout, phase) = match heard {
        Heard::Nothing => return None,
        Heard::Prepared { rollout } => (rollout, Phase::Prepared),
        Heard::Refused { rollout } => (rollout, Phase::Nack { code: "self-test-failed".into(), reason: "no".into() }),
        Heard::Left { from } => (0, Phase::Retreated { from: from.into(), to: 0, reason: "boot guard".into() }),
        Heard::Active { rollout, generation, is_long, is_bad } => {
            metrics = Metrics { events: 10, traps: if is_bad { 5 } else { 0 }, ..metrics };
            (rollout, Phase::Active { generation: generation.into(), for_ms: if is_long { 1_000 } else { 0 } })
        }
    };
    Some(Report { seen_ms: NOW_MS, rollout: rollout.into(), phase, metrics })
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

/// If from now on nobody answers, the controller alone brings the rollout to an end.
fn check_ends(model: &mut Model, state: &State) {
    let heard = state.nodes.map(|(_, heard)| heard);
    let (mut head, mut ledger) = (state.head, state.ledger);
    for _ in 0..10 {
        if model.logs[usize::from(head)].rollout == 0 {
            return;
        }
        match model.decide(head, heard, ledger, true) {
            Does::Writes(next) => (head, ledger) = (next, Ledger::Unread),
            // Nobody answers.
            Does::Reads => ledger = Ledger::Off,
            Does::Waits => panic!("a deadline is never waited out twice"),
        }
    }
    panic!("a rollout without an end: {state:?}");
}

/// All states, and the transitions between them: where to, where from.
fn explore(model: &mut Model, first: State) -> (Vec<State>, Vec<(u32, u32)>) {
    let mut numbers: HashMap<State, u32> = HashMap::from([(first.normal(model), 0)]);
    let (mut states, mut transitions) = (vec![first.normal(model)], Vec::new());
    let (mut waiting, mut found) = (VecDeque::from([0u32]), Vec::new());
    while let Some(number) = waiting.pop_front() {
        let state = states[number as usize];
        check_ends(model, &state);
        found.clear();
        model.successors(&state, &mut found);
        for next in found.drain(..).map(|next| next.normal(model)) {
            let known = *numbers.entry(next).or_insert_with(|| {
                states.push(next);
                let new = u32::try_from(states.len() - 1).unwrap();
                waiting.push_back(new);
                new
            });
            if known != number {
                transitions.push((known, number));
            }
        }
        assert!(states.len() < STATES_MAX, "{STATES_MAX} states are not all");
    }
    transitions.sort_unstable();
    (states, transitions)
}

#[test]
fn every_rollout_ends_with_one_set_whatever_happens_on_its_way() {
    let (mut model, first) = Model::new();
    let (states, transitions) = explore(&mut model, first);

    // From everywhere there is a way to where both are over and all routers have caught up from the log.
    let mut can_settle: Vec<bool> = states.iter().map(|state| state.is_settled(&model)).collect();
    let mut waiting: Vec<u32> = (0u32..).zip(&can_settle).filter(|(_, settled)| **settled).map(|(n, _)| n).collect();
    while let Some(number) = waiting.pop() {
        let begin = transitions.partition_point(|(to, _)| *to < number);
        for (_, from) in transitions[begin..].iter().take_while(|(to, _)| *to == number) {
            if !std::mem::replace(&mut can_settle[*from as usize], true) {
                waiting.push(*from);
            }
        }
    }
    let stuck = states.iter().zip(&can_settle).find(|(_, can_settle)| !**can_settle);
    assert!(stuck.is_none(), "{stuck:?}");

    let settled_at = states.iter().filter(|state| state.is_settled(&model));
    let mut ends: Vec<u8> = settled_at.map(|state| model.logs[usize::from(state.head)].wants[0].set).collect();
    println!(
        "{} states, {} transitions, {} logs, {} settled",
        states.len(),
        transitions.len(),
        model.logs.len(),
        ends.len()
    );
    ends.sort_unstable();
    ends.dedup();
    assert_eq!(ends, [0, 1, 2], "both are rolled back, or the first stays, or the second");
    // The check that finds nothing because it looks at nothing.
    assert!(states.len() > 1_000_000, "{} states", states.len());
}
