#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

const TWO: Bounds = Bounds::fixed(2, Duration::from_secs(60));
const DAY_S: u64 = 24 * 60 * 60;

fn read(actor: &str) -> Note {
    Note::new(Kind::Admin, actor, "GET /v1/modules", "ok")
}

fn counted() -> Counted<Box<str>> {
    Counted::new(TWO, several(Kind::Admin, "*", "*"))
}

fn told(counted: &mut Counted<Box<str>>, now: Instant) -> Vec<(String, u64)> {
    counted.take(Some(now), &mut |_| true).into_iter().map(|note| (note.actor, note.count)).collect()
}

fn due(counted: &Counted<Box<str>>) -> Option<Instant> {
    counted.all().map(|sort| sort.due).min()
}

#[test]
fn the_first_is_told_at_once_and_while_more_come_one_entry_a_window() {
    let (mut counted, begin) = (counted(), Instant::now());
    assert!(counted.add("a".into(), read("a"), begin));
    assert_eq!((due(&counted), told(&mut counted, begin)), (Some(begin), vec![("a".into(), 1)]));
    assert!(!counted.count_known("a", begin), "its note says what it is about");
    assert!(!counted.add("a".into(), read("a"), begin));
    assert!((0..8).all(|_| counted.count_known("a", begin)));
    assert!(counted.add("b".into(), read("b"), begin), "somebody else's are others");
    assert_eq!(told(&mut counted, begin), [("b".into(), 1)]);
    let (next, last) = (begin + TWO.window, begin + 3 * TWO.window);
    assert_eq!((due(&counted), told(&mut counted, next)), (Some(next), vec![("a".into(), 9)]));
    assert!(!counted.add("a".into(), read("a"), next), "it goes on");
    assert_eq!(told(&mut counted, next + TWO.window), [("a".into(), 1)]);
    assert!(told(&mut counted, last).is_empty());
    assert_eq!(due(&counted), None);
    assert!(counted.add("a".into(), read("a"), last), "at once again after a silence");
    assert_eq!(counted.take(None, &mut |_| true).len(), 1, "all at the end");
}

#[test]
fn more_sorts_than_there_is_room_for_are_one() {
    let (mut counted, begin) = (counted(), Instant::now());
    let mut entries = 0;
    // Ten a second, each another one, for ten windows.
    for number in 0..6_000_u32 {
        let now = begin + Duration::from_millis(100) * number;
        if !counted.count_known(&*number.to_string(), now) {
            counted.add(number.to_string().into(), read(&number.to_string()), now);
        }
        entries += told(&mut counted, now).len();
    }
    assert!(entries <= 11 * (TWO.sorts_max + 1), "{entries}");
    let (mut counted, mut sum) = (self::counted(), 0);
    for number in 0..1_000 {
        counted.add(number.to_string().into(), read("x"), begin);
    }
    for note in counted.take(None, &mut |_| true) {
        sum += note.count;
        assert!(note.actor == "x" || (note.detail.contains("more than 2 sorts") && note.result == "*"), "{note:?}");
    }
    assert_eq!(sum, 1_000, "none is lost");
}

#[test]
fn a_plan_that_reads_a_thousand_things_is_an_entry_or_two() {
    let counts = Counts::default();
    let read = |action: &str, path: String, result: &str| {
        let mut note = Note::new(Kind::Admin, "ops", action, result);
        (note.from, note.subject) = (Some("10.0.0.7".into()), path);
        counts.request(note, true);
    };
    let route = "GET /registry/subjects/{subject}/versions/{version}";
    for number in 0..1_500 {
        read(route, format!("/registry/subjects/s{number}/versions/1"), "ok");
        if number == 0 {
            assert_eq!(counts.take(Some(Instant::now())).len(), 1, "the first at once");
        }
    }
    read(route, "/registry/subjects/none/versions/1".into(), "subject-not-found");
    read("GET /v1/status", "/v1/status".into(), "ok");
    let told = counts.take(None).into_iter().map(|note| (note.action, note.subject, note.result, note.count));
    let entry =
        |action: &str, subject: &str, result: &str, count| (action.into(), subject.into(), result.into(), count);
    assert_eq!(
        told.collect::<Vec<(String, String, String, u64)>>(),
        [
            entry(route, "/registry/subjects/none/versions/1", "subject-not-found", 1),
            entry("GET /v1/status", "/v1/status", "ok", 1),
            // It was told before, and waits longest.
            entry(route, "/registry/subjects/s1/versions/1", "ok", 1_499),
        ]
    );
}

#[test]
fn denials_are_told_by_service_and_action_and_none_is_forgotten() {
    let counts = Counts::default();
    for (service, action, times) in
        [("a", Action::Publish, 1_000), ("b", Action::Publish, 3), ("a", Action::Subscribe, 2)]
    {
        (0..times).for_each(|_| counts.denial(service, action, "orders/1"));
    }
    let of = |notes: Vec<Note>| -> Vec<_> {
        notes.into_iter().map(|note| (note.actor, note.action, note.subject, note.count)).collect()
    };
    let begin = counts.due().unwrap();
    let entry = |service: &str, action: &str, count| (service.into(), action.into(), "orders/1".into(), count);
    let told = of(counts.take(Some(Instant::now())));
    assert_eq!(told, [entry("a", "publish", 1_000), entry("b", "publish", 3), entry("a", "subscribe", 2)]);
    // A burst after the first was told, and then nobody denies anything any more.
    (0..1_000).for_each(|_| counts.denial("b", Action::Publish, "orders/1"));
    assert!(counts.due().unwrap() <= Instant::now() + DENIALS.window && begin <= counts.due().unwrap());
    assert_eq!(of(counts.take(Some(Instant::now() + DENIALS.window))), [entry("b", "publish", 1_000)]);
    for number in 0..2 * DENIALS.sorts_max {
        counts.denial(&format!("c{number}"), Action::Request, "orders/1");
    }
    let told = counts.take(None);
    let sum: u64 = told.iter().map(|note| note.count).sum();
    assert_eq!((told.len(), sum), (DENIALS.sorts_max + 1, 2 * DENIALS.sorts_max as u64));
    assert!(told.last().is_some_and(|note| (&*note.actor, &*note.action) == ("*", "request")), "{told:?}");
}
/// What is told of a day in which `denied` says, for each second, who is denied something; and how often they were.
fn day(counts: &Counts, begin: Instant, denied: impl Fn(u64) -> Vec<String>) -> (Vec<(u64, Note)>, u64) {
    let (mut told, mut sum) = (Vec::new(), 0);
    for second in 0..DAY_S {
        let now = begin + Duration::from_secs(second);
        for service in denied(second) {
            for action in Action::ALL {
                counts.denial_at(now, &service, action, &"t".repeat(250));
                sum += 1;
            }
        }
        if counts.due_after(now).is_some_and(|due| due <= now) {
            told.extend(counts.take(Some(now)).into_iter().map(|note| (second, note)));
        }
    }
    (told, sum)
}

fn sum(told: &[(u64, Note)], rest: &[Note]) -> u64 {
    told.iter().map(|(_, note)| note).chain(rest).map(|note| note.count).sum()
}

#[test]
fn who_goes_on_being_denied_is_told_ever_less_often_whatever_pauses_are_made() {
    for pause_s in [1, 10, 11, 60, 3_601, 7_300] {
        let counts = Counts::default();
        let denied = |second: u64| if second.is_multiple_of(pause_s) { vec!["x".repeat(200)] } else { Vec::new() };
        let (told, times) = day(&counts, Instant::now(), denied);
        assert!(told.len() <= Action::ALL.len() * 60, "every {pause_s} s: {} entries", told.len());
        assert_eq!(told.iter().filter(|(second, _)| *second == 0).count(), Action::ALL.len(), "the first at once");
        assert_eq!(sum(&told, &counts.take(None)), times, "every {pause_s} s");
    }
}

#[test]
fn whoever_floods_neither_fills_the_log_nor_hides_who_begins() {
    let (counts, begin) = (Counts::default(), Instant::now());
    let flood = |second: u64| -> Vec<String> {
        let newcomer = (second == DAY_S / 2).then(|| "newcomer".to_owned());
        // Each of a hundred once in 50 seconds, with names that are as long as may be.
        let others = [second % 50, 50 + second % 50].map(|number| format!("{number:03}{}", "\\".repeat(253)));
        others.into_iter().chain(newcomer).collect()
    };
    let (told, times) = day(&counts, begin, flood);
    let newcomer = told.iter().filter(|(_, note)| note.actor == "newcomer");
    assert!(newcomer.clone().all(|(second, _)| *second == DAY_S / 2) && newcomer.count() == 4);
    let line = |note: &Note| crate::audit::Head { seq: 1 << 40, ..Default::default() }.next(note.clone(), 1 << 41).1;
    let bytes: usize = told.iter().map(|(_, note)| line(note).len() + 1).sum();
    assert!(bytes < 3_000_000 && told.len() > 2_000, "{bytes} bytes, {} entries", told.len());
    let rest = counts.take(None);
    assert_eq!(sum(&told, &rest), times, "none is lost");
    let cut = format!("{}...", "t".repeat(TOPIC_BYTES_MAX));
    assert!(told.iter().all(|(_, note)| note.actor == "*" || note.subject == cut));
}

#[test]
fn who_begins_gets_the_place_of_one_that_is_quiet() {
    let (counts, begin) = (Counts::default(), Instant::now());
    for number in 0..DENIALS.sorts_max {
        counts.denial_at(begin, &format!("a{number}"), Action::Publish, "x");
    }
    counts.take(Some(begin));
    let later = begin + DENIALS.pause;
    counts.denial_at(later, "b", Action::Publish, "x");
    let told = counts.take(Some(later));
    assert_eq!(told.iter().map(|note| (&*note.actor, note.count)).collect::<Vec<_>>(), [("b", 1)]);
}
