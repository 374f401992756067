//! Modules that bide their time: they pass every check and misbehave when a certain event comes.

use super::Stop::{Borne, Call};
use super::guest::{Guest, HEAP_AT, entries};
use super::{Hostile, hostile};

/// Bits of a verdict.
const DENY: u64 = 1;
const REDIRECT: u64 = 4;
const NEW_PAYLOAD: u64 = 1 << 3;
const DETAIL: u64 = 1 << 5;
const fn emit(events: u64) -> u64 {
    events << 8
}

pub(super) const MODULES: &[Hostile] = &[
    // Time.
    hostile("endless-loop", Call("deadline"), || act("(loop $again (br $again))")),
    hostile("fills-memory-for-ever", Call("deadline"), || {
        act(&format!("(loop $again (memory.fill (i32.const {HEAP_AT}) (i32.const 7) (i32.const 917504)) (br $again))"))
    }),
    hostile("copies-memory-for-ever", Call("deadline"), || {
        act("(loop $again (memory.copy (i32.const 0) (i32.const 8) (i32.const 1048000)) (br $again))")
    }),
    hostile("fills-a-table-for-ever", Call("deadline"), || {
        let act = "(loop $again (table.fill $t (i32.const 0) (ref.null func) (i32.const 10000)) (br $again))";
        Guest { fields: "(table $t 10000 funcref)".into(), ..Guest::acting(act) }.wasm()
    }),
    hostile("slow-but-finite", Borne, || {
        act("(local $n i32) (loop $again
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $again (i32.lt_u (local.get $n) (i32.const 100000))))")
    }),
    // Memory and stack.
    hostile("recursion", Call("stack-overflow"), || act("(drop (call $recurse (i32.const 1)))")),
    hostile("memory-to-the-end", Call("memory"), || {
        act("(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable")
    }),
    hostile("four-gigabytes-at-once", Call("memory"), || act("(drop (memory.grow (i32.const 65535)))")),
    hostile("table-to-the-end", Call("memory"), || {
        let act = "(loop $more (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $more))";
        Guest { fields: "(table $t 1 funcref)".into(), ..Guest::acting(act) }.wasm()
    }),
    // Host calls.
    hostile("ten-million-counts", Call("host-call-budget"), || {
        act("(loop $again (call $count (i32.const 0) (i64.const 1)) (br $again))")
    }),
    hostile("ten-million-payloads", Call("host-call-budget"), || {
        act("(loop $again (call $payload (local.get $index) (i32.const 0) (i32.const 1) (i32.const 536)) (br $again))")
    }),
    hostile("gigabyte-of-log", Call("host-call-budget"), || {
        act(&format!("(loop $again (call $log (i32.const 1) (i32.const {HEAP_AT}) (i32.const 917504)) (br $again))"))
    }),
    hostile("million-log-lines", Call("host-call-budget"), || {
        act("(loop $again (call $log (i32.const 3) (i32.const 2048) (i32.const 1)) (br $again))")
    }),
    hostile("log-that-is-no-text", Call("malformed-output"), || {
        act("(i32.store8 (i32.const 600) (i32.const 255)) (call $log (i32.const 1) (i32.const 600) (i32.const 1))")
    }),
    hostile("log-from-nowhere", Call("malformed-output"), || {
        act("(call $log (i32.const 1) (i32.const 0x7fffff00) (i32.const 4096))")
    }),
    hostile("log-of-no-level", Call("malformed-output"), || {
        act("(call $log (i32.const 77) (i32.const 2048) (i32.const 1))")
    }),
    hostile("payload-of-another-batch", Call("bad-host-call"), || {
        act("(call $payload (i32.const 64) (i32.const 0) (i32.const 1) (i32.const 536))")
    }),
    hostile("counter-that-is-not-declared", Call("bad-host-call"), || act("(call $count (i32.const 1) (i64.const 1))")),
    // Traps.
    hostile("trap", Call("trap"), || act("unreachable")),
    hostile("division-by-zero", Call("trap"), || act("(drop (i32.div_u (local.get $index) (i32.const 0)))")),
    hostile("calls-a-null", Call("trap"), || {
        let fields = "(type $void (func)) (table $t 2 funcref)".into();
        Guest { fields, ..Guest::acting("(call_indirect $t (type $void) (i32.const 1))") }.wasm()
    }),
    hostile("reads-outside", Call("out-of-bounds"), || act("(drop (i32.load (i32.const 0x7ffffff0)))")),
    hostile("table-outside", Call("out-of-bounds"), || {
        Guest { fields: "(table $t 1 funcref)".into(), ..Guest::acting("(drop (table.get $t (i32.const 99)))") }.wasm()
    }),
    // Outcomes that lie about themselves.
    hostile("verdict-too-many", Call("malformed-output"), || {
        act("(i32.store (i32.const 516) (i32.add (local.get $count) (i32.const 1)))")
    }),
    hostile("no-verdicts", Call("malformed-output"), || act("(i32.store (i32.const 516) (i32.const 0))")),
    hostile("verdicts-nowhere", Call("malformed-output"), || act("(i32.store (i32.const 512) (i32.const 0x7fffff00))")),
    hostile("verdicts-askew", Call("malformed-output"), || act("(i32.store (i32.const 512) (i32.const 65537))")),
    hostile("seven-million-verdicts", Call("malformed-output"), || {
        let act = "(i32.store (i32.const 512) (i32.const 0)) (i32.store (i32.const 516) (i32.const 7000000))";
        Guest { pages: Some(1_000), ..Guest::acting(act) }.wasm()
    }),
    hostile("output-nowhere", Call("malformed-output"), || {
        act("(i32.store (i32.const 520) (i32.const 0x7fffff00)) (i32.store (i32.const 524) (i32.const 4096))")
    }),
    hostile("output-of-fifty-megabytes", Call("malformed-output"), || {
        let act = "(i32.store (i32.const 520) (i32.const 0)) (i32.store (i32.const 524) (i32.const 52428800))";
        Guest { pages: Some(1_000), ..Guest::acting(act) }.wasm()
    }),
    // Verdicts that lie.
    hostile("verdict-of-no-kind", Call("malformed-output"), || lie(7)),
    hostile("reserved-bits", Call("malformed-output"), || lie(1 << 6)),
    hostile("reason-that-is-not-declared", Call("malformed-output"), || lie(DENY | 9 << 16)),
    hostile("route-that-is-not-declared", Call("malformed-output"), || lie(REDIRECT | 1 << 63)),
    hostile("redirect-to-nowhere", Call("malformed-output"), || lie(REDIRECT)),
    hostile("routes-of-an-allow", Call("malformed-output"), || lie(1 << 32)),
    hostile("replaces-what-it-denies", Call("malformed-output"), || {
        Guest::lying(DENY | NEW_PAYLOAD, entries(&[("", b"", b"x")])).wasm()
    }),
    // Output that lies.
    hostile("announced-and-missing", Call("malformed-output"), || lie(emit(1))),
    hostile("output-that-is-not-announced", Call("malformed-output"), || {
        Guest::lying(0, entries(&[("audit/log", b"", b"x")])).wasm()
    }),
    hostile("output-with-four-billion-entries", Call("malformed-output"), || {
        Guest::lying(emit(1), [&[0xff; 4][..], &[0; 60]].concat()).wasm()
    }),
    hostile("entry-that-points-outside", Call("malformed-output"), || {
        let mut output = entries(&[("audit/log", b"", b"x")]);
        // The payload's offset, in the first entry.
        output[24..28].copy_from_slice(&0x7fff_ff00_u32.to_le_bytes());
        Guest::lying(emit(1), output).wasm()
    }),
    hostile("topic-that-is-no-text", Call("malformed-output"), || {
        let mut output = entries(&[("audit/log", b"", b"x")]);
        let at = output.windows(9).position(|window| window == b"audit/log").expect("it stands there");
        output[at] = 0xff;
        Guest::lying(emit(1), output).wasm()
    }),
    hostile("emits-outside-the-grant", Call("malformed-output"), || emits("orders/stolen", b"", b"x")),
    hostile("emits-to-the-router", Call("malformed-output"), || emits("$sys/config", b"", b"x")),
    hostile("emits-to-a-pattern", Call("malformed-output"), || emits("audit/**", b"", b"x")),
    hostile("emits-broken-attributes", Call("malformed-output"), || emits("audit/log", b"\xff\0\0", b"x")),
    hostile("emits-sixty-five", Call("malformed-output"), || {
        Guest::lying(emit(65), entries(&[("audit/log", &b""[..], &b""[..]); 65])).wasm()
    }),
    hostile("emits-sixty-four", Borne, || {
        Guest::lying(emit(64), entries(&[("audit/log", &b""[..], &b"x"[..]); 64])).wasm()
    }),
    hostile("more-output-than-promised", Call("malformed-output"), || emits("audit/log", b"", &[b'x'; 2_000])),
    hostile("replacement-with-a-topic", Call("malformed-output"), || {
        Guest::lying(NEW_PAYLOAD, entries(&[("audit/log", b"", b"x")])).wasm()
    }),
    hostile("detail-that-is-no-text", Call("malformed-output"), || {
        Guest::lying(DENY | DETAIL, entries(&[("", b"", b"\xff\xfe")])).wasm()
    }),
];

fn act(act: &str) -> Vec<u8> {
    Guest::acting(act).wasm()
}

fn lie(bits: u64) -> Vec<u8> {
    Guest::lying(bits, Vec::new()).wasm()
}

fn emits(topic: &str, attrs: &[u8], payload: &[u8]) -> Vec<u8> {
    Guest::lying(emit(1), entries(&[(topic, attrs, payload)])).wasm()
}
