#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use myelin_wire::{AttrsBuilder, Pattern};
use proptest::prelude::*;

const NOW: (u64, u64) = (0, 1_700_000_000_000);

fn spec(pattern: &str) -> CaptureSpec {
    CaptureSpec::new(Pattern::new(pattern).unwrap())
}

fn start(captures: &Captures, spec: CaptureSpec) -> u64 {
    captures.start(spec, ("eu1", "r1"), "ann".into(), NOW).unwrap().id
}

fn views<'a>(topics: &[&'a str], attrs: &'a [u8], payload: &'a [u8]) -> Vec<EventView<'a>> {
    topics.iter().map(|topic| EventView { topic, attrs, payload, identity: "spiffe://test/service/a" }).collect()
}

fn offer(captures: &Captures, views: &[EventView<'_>], now_ms: u64) -> usize {
    let chosen = captures.choose(views, now_ms, |_| true);
    let taken = Taken {
        views,
        now_unix_ns: 7,
        worker: 1,
        generation: 3,
        side: Side::Ingress,
        entry: true,
        chain: &[],
        tape: None,
    };
    chosen.iter().for_each(|capture| capture.record(&taken));
    chosen.len()
}

fn recording(captures: &Captures, id: u64) -> Recording {
    Recording::read(&captures.find(id).unwrap().file()).unwrap()
}

#[test]
fn a_capture_keeps_what_matches_and_marks_it() {
    let captures = Captures::default();
    assert!(!captures.is_on());
    let whole = start(&captures, spec("a/**"));
    let alone = start(&captures, CaptureSpec { neighbours: false, ..spec("a/**") });
    assert!(captures.is_on());
    let mut block = AttrsBuilder::new();
    block.header("x", "y").own(myelin_wire::attrs::KEY, &[0, 255]);
    assert_eq!(offer(&captures, &views(&["a/b", "b/c"], block.as_bytes(), b"\xff"), 0), 2);
    assert_eq!(offer(&captures, &views(&["b/c"], b"", b""), 0), 0, "nothing matches");
    let read = recording(&captures, whole);
    let batch = &read.batches[0];
    assert_eq!((batch.worker, batch.generation, batch.now_unix_ns, batch.cut), (1, 3, 7, false));
    let marks: Vec<_> = batch.events.iter().map(|event| (event.topic.as_str(), event.matched)).collect();
    assert_eq!(marks, [("a/b", true), ("b/c", false)]);
    let back = batch.with_views(&[(0, None)], |views| (views[0].attrs.to_vec(), views[0].payload.to_vec())).unwrap();
    assert_eq!(back, (block.into_bytes(), vec![255]));
    let read = recording(&captures, alone);
    assert_eq!((read.batches[0].events.len(), read.batches[0].cut, read.end.events), (1, true, 1));
}

#[test]
fn a_capture_ends_by_time_by_hand_and_when_it_is_full() {
    let captures = Captures::default();
    let state = |id, now_ms| captures.find(id).unwrap().info(now_ms).state;
    let timed = start(&captures, CaptureSpec { seconds: 1, ..spec("a") });
    assert_eq!(offer(&captures, &views(&["a"], b"", b""), 999), 1);
    assert_eq!(state(timed, 999), "running");
    assert_eq!(offer(&captures, &views(&["a"], b"", b""), 1_000), 0);
    assert_eq!((state(timed, 1_000).as_str(), captures.is_on()), ("time", false), "no batch pays for it any more");
    let full = start(&captures, CaptureSpec { events_max: 1, ..spec("a") });
    assert_eq!((offer(&captures, &views(&["a"], b"", b""), 0), offer(&captures, &views(&["a"], b"", b""), 0)), (1, 0));
    assert_eq!((state(full, 0).as_str(), captures.is_on()), ("full", false));
    let stopped = start(&captures, spec("a"));
    assert_eq!(captures.stop(stopped, 0).unwrap().state, "stopped");
    assert!(!captures.is_on() && captures.stop(99, 0).is_none());
    assert_eq!(captures.list(0).iter().map(|info| info.id).collect::<Vec<_>>(), [timed, full, stopped]);
    assert!(captures.remove(full) && !captures.remove(full) && captures.find(full).is_none());
    assert_eq!(start(&captures, spec("a")), stopped + 1, "a number is never used twice");
}

#[test]
fn a_router_bounds_all_its_captures_together() {
    let captures = Captures::default();
    let begin = |spec| captures.start(spec, ("eu1", "r1"), "ann".into(), NOW).map(|info| info.id);
    let large = || CaptureSpec { bytes_max: 32 << 20, ..spec("a") };
    let first = begin(large()).unwrap();
    begin(large()).unwrap();
    let refused = begin(spec("a")).unwrap_err();
    assert_eq!((refused.code(), refused.to_string().contains("rm")), ("capture-room", true));
    captures.remove(first);
    let small = || CaptureSpec { bytes_max: 64 << 10, ..spec("a") };
    for _ in 1..CAPTURES_MAX {
        begin(small()).unwrap();
    }
    assert_eq!(begin(small()).unwrap_err().code(), "too-many-captures");
    assert_eq!(begin(CaptureSpec { seconds: 0, ..small() }).unwrap_err().code(), "invalid-capture");
}

/// A capture with everything that a file can hold.
fn rich() -> Vec<u8> {
    let attrs = |value: &str| vec![Attribute { header: Some("x-key".into()), tag: None, value: Data::text(value) }];
    let verdict = |kind: &str| Verdict {
        kind: kind.into(),
        reason: Some("no".into()),
        routes: vec!["topic:b".into()],
        detail: Some("/id".into()),
        attrs: Some(attrs("made")),
        payload: Some(Data(vec![0, 1])),
        emitted: vec![Emitted { topic: "b".into(), attrs: attrs("emitted"), payload: Data::text("e") }],
    };
    let said = |event, verdict, fault| Said { event, attrs: None, payload: Some(Data::text("p")), verdict, fault };
    let event = |topic: &str| Event {
        topic: topic.into(),
        attrs: attrs("brought"),
        payload: Data::text("{}"),
        identity: "spiffe://test/service/a".into(),
        matched: true,
    };
    let fault = Fault { code: "trap".into(), detail: "unreachable".into() };
    let calls = vec![
        Call::Take { bucket: "b".into(), n: 1, amount: 1, period_ms: 1_000, burst: 2, answer: true },
        Call::Seen { key: "k".into(), ttl_ms: 5, answer: false },
        Call::Schema { subject: "s".into(), answer: Some(Data(vec![200])) },
    ];
    let judged = vec![Judged {
        binding: 0,
        events: vec![said(0, Some(verdict("deny")), None), said(1, None, Some(fault))],
        calls,
    }];
    let batch = Batch {
        number: 0,
        worker: 0,
        generation: 1,
        now_unix_ns: u64::MAX,
        side: Side::Egress,
        entry: true,
        cut: true,
        events: vec![event("a/b"), event("a/c")],
        judged,
    };
    let head = Head {
        format: FORMAT,
        id: 1,
        site: "eu1".into(),
        router: "r1".into(),
        version: "0.1.0".into(),
        started_unix_ms: 1,
        pattern: "a/**".into(),
        binding: Some("b".into()),
        sample: Some("1%".into()),
        redacted: vec!["x-secret".into()],
        neighbours: true,
    };
    let bound = Bound {
        name: "b".into(),
        module: "m@1.0.0".into(),
        digest: "0".repeat(64),
        revision: 1,
        stage: "egress".into(),
        pattern: "a/**".into(),
        config: Some(Data::text("{}")),
    };
    let end = End { state: "full".into(), batches: 1, events: 2, evicted: 0, sampled_out: 3, too_large: 0 };
    [Line::Capture(head), Line::Binding(bound), Line::Batch(batch), Line::End(end)]
        .iter()
        .flat_map(Line::bytes)
        .collect()
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let read = Recording::read(&rich()).unwrap();
    let lines = [
        Line::Capture(read.head),
        Line::Binding(read.bindings[0].clone()),
        Line::Batch(read.batches[0].clone()),
        Line::End(read.end),
    ];
    let again: Vec<u8> = lines.iter().flat_map(Line::bytes).collect();
    assert_eq!(String::from_utf8(again), String::from_utf8(rich()));
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_line() {
    let text = String::from_utf8(rich()).unwrap();
    let code = |text: &str| {
        let error = Recording::read(text.as_bytes()).unwrap_err();
        assert!(error.to_string().len() > 20, "{error}");
        error.code()
    };
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        code(&text.replacen(from, to, 1))
    };
    assert_eq!([code(""), code("{}\n"), code("\u{1}\n"), code("[1]\n")], ["capture-format"; 4]);
    assert_eq!(with("\"format\":1", "\"format\":2"), "capture-version");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    assert_eq!(code(&lines[..3].concat()), "capture-truncated");
    assert_eq!(code(&text[..text.len() - 1]), "capture-truncated");
    for (from, to) in [
        ("\"topic\":\"a/b\"", "\"topic\":\"a//b\""),
        ("\"binding\":0", "\"binding\":1"),
        ("{\"event\":1", "{\"event\":2"),
        ("{\"event\":1", "{\"event\":0"),
        ("\"events\":2", "\"events\":3"),
        ("\"header\":\"x-key\",\"value\":\"brought\"", "\"header\":\"\",\"value\":\"brought\""),
        ("\"worker\":0", "\"worker\":0,\"wrong\":1"),
    ] {
        assert_eq!(with(from, to), "capture-invalid", "{from} -> {to}");
    }
    assert_eq!(code(&[lines[0], lines[2], lines[1], lines[3]].concat()), "capture-invalid");
    assert_eq!(code(&[lines[0], lines[0]].concat()), "capture-invalid");
    assert_eq!(code(&(text.clone() + "{}\n")), "capture-invalid");
    let large = vec![b' '; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
    assert_eq!(Recording::read(&large).unwrap_err().code(), "capture-too-large");
}

#[test]
fn ten_thousand_mangled_files_are_read_or_refused() {
    let whole = rich();
    let mut dice = fastrand::Rng::with_seed(9);
    let mut refused = 0;
    for _ in 0..10_000 {
        let mut file = whole.clone();
        for _ in 0..dice.usize(1..6) {
            let at = dice.usize(..file.len());
            match dice.u8(..5) {
                0 => file[at] = dice.u8(..),
                1 => file.truncate(at.max(1)),
                2 => drop(file.drain(at..(at + dice.usize(1..40)).min(file.len()))),
                3 => file.splice(at..at, [b"{}[],:\"0\n9"[dice.usize(..10)]; 3]).for_each(drop),
                _ => {
                    let part = file[at..(at + 60).min(file.len())].to_vec();
                    let to = dice.usize(..file.len());
                    file.splice(to..to, part).for_each(drop);
                }
            }
            if file.is_empty() {
                file.push(b'{');
            }
        }
        match Recording::read(&file) {
            Err(error) => {
                refused += 1;
                let told = error.to_string();
                assert!(error.code().starts_with("capture-") && told.len() < 2_000, "{told}");
            }
            // What is read can be used: no index leads out of it.
            Ok(read) => {
                for batch in &read.batches {
                    for judged in &batch.judged {
                        assert!(judged.binding < read.bindings.len());
                        batch.with_views(&judged.seen(), |views| views.len()).unwrap();
                    }
                }
            }
        }
    }
    assert!(refused > 5_000, "{refused} of 10,000");
}

/// A batch in which a filter has put `secret` wherever a filter can put something.
fn leaky(header: &str, secret: &str) -> Batch {
    let mut batch = Recording::read(&rich()).unwrap().batches.remove(0);
    let attr = |name: &str| Attribute { header: Some(name.into()), tag: None, value: Data::text(secret) };
    let around = |text: &str| format!("before {text} after {text}");
    batch.events[0].attrs.push(attr(header));
    let said = &mut batch.judged[0].events[0];
    said.attrs = Some(vec![attr(header), attr("x-copy")]);
    said.payload = Some(Data::text(&around(secret)));
    said.fault = Some(Fault { code: "trap".into(), detail: around(secret) });
    let verdict = said.verdict.as_mut().unwrap();
    verdict.detail = Some(around(secret));
    verdict.attrs = Some(vec![attr("x-copy")]);
    verdict.payload = Some(Data::text(&around(secret)));
    verdict.emitted[0] =
        Emitted { topic: format!("b/{secret}"), attrs: vec![attr(header)], payload: Data::text(&around(secret)) };
    let key = around(secret);
    batch.judged[0].calls = vec![
        Call::Seen { key: key.clone(), ttl_ms: 1, answer: true },
        Call::Take { bucket: key.clone(), n: 1, amount: 1, period_ms: 1, burst: 1, answer: true },
        Call::Schema { subject: key, answer: None },
    ];
    batch
}

proptest! {
    #[test]
    fn a_redacted_header_is_nowhere_in_the_line(secret in "[A-Za-z0-9+/=]{12,40}", upper: bool) {
        let header = if upper { "X-Secret" } else { "x-secret" };
        let mut batch = leaky(header, &secret);
        prop_assert!(String::from_utf8(Line::Batch(batch.clone()).bytes()).unwrap().contains(&secret));
        Redaction::new(["x-secret"]).unwrap().apply(&mut batch);
        let line = String::from_utf8(Line::Batch(batch.clone()).bytes()).unwrap();
        prop_assert!(!line.contains(&secret), "{}", line);
        prop_assert!(line.contains("brought"), "what nobody named stays");
        let once = batch.clone();
        Redaction::new(["x-secret"]).unwrap().apply(&mut batch);
        prop_assert_eq!(batch, once, "twice is once: a replay compares redacted with redacted");
    }

    #[test]
    fn a_redacted_payload_is_nowhere_in_the_line(secret in "[A-Za-z0-9]{12,40}") {
        let mut batch = leaky("x-other", &secret);
        // Only the payload brought it; the filter has made headers of it.
        batch.events[0].attrs.pop();
        batch.events[0].payload = Data::text(&secret);
        batch.judged[0].events[0].verdict.as_mut().unwrap().emitted[0].topic = "b".into();
        Redaction::new(["payload"]).unwrap().apply(&mut batch);
        let line = String::from_utf8(Line::Batch(batch).bytes()).unwrap();
        prop_assert!(!line.contains(&secret), "{}", line);
    }
}

#[test]
fn identities_and_configurations_are_redacted_too() {
    let redaction = Redaction::new(["identity", "config", "header:payload"]).unwrap();
    let mut batch = leaky("payload", "a secret of a header");
    let who = batch.events[0].identity.clone();
    batch.judged[0].events[0].verdict.as_mut().unwrap().detail = Some(format!("{who} may not"));
    redaction.apply(&mut batch);
    let line = String::from_utf8(Line::Batch(batch).bytes()).unwrap();
    assert!(!line.contains(&who) && !line.contains("a secret of a header"), "{line}");
    let mut bound = Recording::read(&rich()).unwrap().bindings.remove(0);
    redaction.apply_to_binding(&mut bound);
    assert_eq!(bound.config, None);
    assert!(Redaction::new(["a\nb"]).is_err() && Redaction::new([""]).is_err());
}

#[test]
fn recorded_events_are_judged_by_others_once_where_they_came_in() {
    let captures = Captures::default();
    for pattern in ["a/**", "b/**"] {
        start(&captures, spec(pattern));
    }
    offer(&captures, &views(&["a/1", "a/2", "b/1"], b"", b"1"), 0);
    offer(&captures, &views(&["a/1"], b"", b"bad"), 0);
    let mut tallies = Tallies::default();
    let recordings: Vec<_> = captures.recordings().collect();
    assert_eq!(recordings.len(), 2);
    for recording in &recordings {
        tallies.add(recording, |event| {
            let is_meant = event.topic != "a/2";
            is_meant.then(|| if event.payload.0 == b"bad" { Err("it is bad".to_owned()) } else { Ok(()) })
        });
    }
    assert_eq!(tallies.total(), (3, 1));
    let tally = Tally { events: 2, turned_back: 1, reason: "it is bad".into() };
    assert_eq!(tallies.turned_back(), [("a/1", "spiffe://test/service/a", &tally)]);
}
