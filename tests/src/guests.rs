//! Filters written by hand in the text format, for what no SDK would let an author do.

use anyhow::{Context, Result};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../wit/0.1.0/filter.wit");

/// What a hand-written filter does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Lets everything pass.
    Allow,
    /// Traps on every batch.
    Trap,
    /// Traps when the first event's payload begins with `P`.
    TrapOnPoison,
    /// Drops events whose payload begins with `D`.
    DropMarked,
    /// Drops what its own memory says are more than ten events, however they are cut into batches.
    DropAfterTen,
    /// Drops events whose payload the host has been asked about before.
    DropSeen,
    /// Drops every seventh event by a count in its memory, which it hands over to the next version.
    DropEverySeventh,
    /// The same, but it takes no state from a version before.
    DropEverySeventhAlone,
    /// Never comes back.
    Loop,
    /// Calls itself until the stack is gone.
    Recurse,
    /// Takes all the memory it gets, on every batch, then lets everything pass.
    Grow,
    /// Gives one verdict too many.
    SurplusVerdict,
    /// Gives verdicts of a kind that does not exist.
    UnknownKind,
    /// Says that its output lies outside of its memory.
    DanglingOutput,
}

impl Behaviour {
    /// The body of `run`, which leaves the address of the outcome.
    fn body(self) -> &'static str {
        match self {
            Self::Allow => "(call $answer (local.get $count) (i64.const 0))",
            Self::Trap => "unreachable",
            Self::TrapOnPoison => {
                "(call $poison (local.get $arena) (local.get $count)) (call $answer (local.get $count) (i64.const 0))"
            }
            Self::DropMarked => {
                "(call $each (local.get $arena) (local.get $count) (i32.const 0)) (call $outcome (local.get $count))"
            }
            Self::DropAfterTen => {
                "(call $each (local.get $arena) (local.get $count) (i32.const 1)) (call $outcome (local.get $count))"
            }
            Self::DropSeen => {
                "(call $each (local.get $arena) (local.get $count) (i32.const 2)) (call $outcome (local.get $count))"
            }
            Self::DropEverySeventh | Self::DropEverySeventhAlone => {
                "(call $each (local.get $arena) (local.get $count) (i32.const 3)) (call $outcome (local.get $count))"
            }
            Self::Loop => "(loop $again (br $again)) unreachable",
            Self::Recurse => "(call $recurse (i32.const 1)) drop unreachable",
            Self::Grow => {
                "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                 (call $answer (local.get $count) (i64.const 0))"
            }
            Self::SurplusVerdict => "(call $answer (i32.add (local.get $count) (i32.const 1)) (i64.const 0))",
            Self::UnknownKind => "(call $answer (local.get $count) (i64.const 7))",
            Self::DanglingOutput => {
                "(drop (call $answer (local.get $count) (i64.const 0)))
                 (i32.store (i32.const 1032) (i32.const 0x7fffff00)) (i32.store (i32.const 1036) (i32.const 0x1000))
                 (i32.const 1024)"
            }
        }
    }
}

impl Behaviour {
    /// What it imports, and its way to a verdict for each event: 3 (drop) or 0.
    fn judging(self) -> String {
        let import = match self {
            Self::DropSeen => {
                r#"(import "myelin:filter/host@0.1.0" "seen" (func $seen (param i32 i32 i64) (result i32)))"#
            }
            _ => "(func $seen (param i32 i32 i64) (result i32) (i32.const 0))",
        };
        format!("{import} {EACH}")
    }

    /// What `init` does with the state of a version before, before it answers.
    fn taking(self) -> &'static str {
        match self {
            Self::DropEverySeventh => {
                "(if (local.get $has_state) (then (global.set $events (i32.load (local.get $state)))))"
            }
            // An error, whose text is what the name of the filter is else.
            Self::DropEverySeventhAlone => {
                "(if (local.get $has_state) (then
                   (i32.store8 (i32.const 512) (i32.const 1))
                   (i32.store (i32.const 516) (i32.const 256)) (i32.store (i32.const 520) (i32.const 7))))"
            }
            _ => "",
        }
    }

    /// What `save` gives, as its length at 1540; what stands at 1600 is the count.
    fn state_bytes(self) -> u32 {
        match self {
            Self::DropEverySeventh | Self::DropEverySeventhAlone => 4,
            _ => 0,
        }
    }
}

/// Judges event by event: by the payload's first letter (0), by a count in memory (1: more than ten, 3: each seventh), or
/// by asking the host (2).
const EACH: &str = r#"
  (global $events (mut i32) (i32.const 0))
  (func $payload (param $arena i32) (param $entry i32) (result i32)
    (i32.add (local.get $arena) (i32.load offset=16 (local.get $entry))))
  (func $drops (param $arena i32) (param $entry i32) (param $how i32) (result i32)
    (if (i32.eq (local.get $how) (i32.const 1)) (then
      (global.set $events (i32.add (global.get $events) (i32.const 1)))
      (return (i32.gt_u (global.get $events) (i32.const 10)))))
    (if (i32.eq (local.get $how) (i32.const 3)) (then
      (global.set $events (i32.add (global.get $events) (i32.const 1)))
      (return (i32.eqz (i32.rem_u (global.get $events) (i32.const 7))))))
    (if (i32.eq (local.get $how) (i32.const 2)) (then
      (return (call $seen (call $payload (local.get $arena) (local.get $entry)) (i32.load offset=20 (local.get $entry))
        (i64.const 600000)))))
    (if (i32.eqz (i32.load offset=20 (local.get $entry))) (then (return (i32.const 0))))
    (i32.eq (i32.load8_u (call $payload (local.get $arena) (local.get $entry))) (i32.const 68)))
  (func $each (param $arena i32) (param $count i32) (param $how i32) (local $at i32)
    (loop $next
      (i64.store (i32.add (i32.const 2048) (i32.shl (local.get $at) (i32.const 3)))
        (i64.mul (i64.const 3) (i64.extend_i32_u (call $drops (local.get $arena)
          (i32.add (local.get $arena) (i32.add (i32.const 8) (i32.shl (local.get $at) (i32.const 5))))
          (local.get $how)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $count)))))
  (func $outcome (param $count i32) (result i32)
    (i32.store (i32.const 1024) (i32.const 2048))
    (i32.store (i32.const 1028) (local.get $count))
    (i64.store (i32.const 1032) (i64.const 0))
    (i32.const 1024))"#;

/// A whole component that behaves so; it asks for the full payload.
///
/// # Errors
/// A mistake in this file.
pub fn component(behaviour: Behaviour) -> Result<Vec<u8>> {
    let mut module = wat::parse_str(core_module(behaviour)).context("the text of the module")?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("filter.wit", WIT)?;
    let world = resolve.select_world(&[package], Some("fast"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&module)?.validate(true).encode()
}

/// The core module of that behaviour: not a component.
pub fn core_module(behaviour: Behaviour) -> String {
    // What `init` answers lies at 512: ok, then name, version, needs (payload full), routes, reasons, counters and
    // max-output, as the canonical ABI lays the record out.
    format!(
        r#"(module
  {judging}
  (memory (export "memory") 16)
  (data (i32.const 256) "hostile1.0.0")
  (data (i32.const 516) "\00\01\00\00\07\00\00\00\07\01\00\00\05\00\00\00")
  (data (i32.const 544) "\02")
  (func $answer (param $count i32) (param $verdict i64) (result i32) (local $at i32)
    (local.set $at (i32.const 0))
    (loop $fill
      (i64.store (i32.add (i32.const 2048) (i32.shl (local.get $at) (i32.const 3))) (local.get $verdict))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $fill (i32.lt_u (local.get $at) (local.get $count))))
    (i32.store (i32.const 1024) (i32.const 2048))
    (i32.store (i32.const 1028) (local.get $count))
    (i64.store (i32.const 1032) (i64.const 0))
    (i32.const 1024))
  (func $poison (param $arena i32) (param $count i32) (local $at i32) (local $entry i32)
    (loop $next
      (local.set $entry (i32.add (local.get $arena) (i32.add (i32.const 8) (i32.shl (local.get $at) (i32.const 5)))))
      (if (i32.eq (i32.load8_u (i32.add (local.get $arena) (i32.load offset=16 (local.get $entry)))) (i32.const 80))
        (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $count)))))
  (func $recurse (param $depth i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get $depth) (i32.const 1))) (i32.const 1)))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  (func (export "myelin:filter/filter@0.1.0#init") (param i32 i32) (param $has_state i32) (param $state i32) (param i32) (result i32)
    {taking} (i32.const 512))
  (func (export "myelin:filter/filter@0.1.0#run") (param $arena i32) (param $len i32) (param $count i32) (param $now i64) (result i32)
    {body})
  (func (export "myelin:filter/filter@0.1.0#save") (result i32)
    (i32.store (i32.const 1600) (global.get $events))
    (i32.store (i32.const 1536) (i32.const 1600)) (i32.store (i32.const 1540) (i32.const {state_bytes}))
    (i32.const 1536)))"#,
        judging = behaviour.judging(),
        taking = behaviour.taking(),
        state_bytes = behaviour.state_bytes(),
        body = behaviour.body()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_behaviour_is_a_component() {
        use Behaviour as B;
        for behaviour in [
            B::Allow,
            B::Trap,
            B::TrapOnPoison,
            B::DropMarked,
            B::DropAfterTen,
            B::DropSeen,
            B::DropEverySeventh,
            B::DropEverySeventhAlone,
            B::Loop,
            B::Recurse,
            B::Grow,
            B::SurplusVerdict,
            B::UnknownKind,
            B::DanglingOutput,
        ] {
            component(behaviour).unwrap_or_else(|error| panic!("{behaviour:?}: {error:#}"));
        }
    }
}
