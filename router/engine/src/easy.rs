//! The world `easy`: the arena's events as typed records, and typed verdicts as the `u64`s of the world `fast`.
//!
//! From here on both worlds are one: the same checks, faults, limits and cells. Converting costs a pass over the batch;
//! what goes in is bounded by the batch, what comes back by the fuel of the call and by the checks behind it.

use myelin_arena::{Arena, ArenaBuilder, Attrs, AttrsBuilder, Entry, Kind, Verdict as Bits, attrs};

use crate::bindings::easy::exports::myelin::filter::easy_filter as typed;
use crate::fault::{FaultCode, FilterFault};
use crate::info::{FilterInfo, RouteTarget};
use crate::limits::EMITTED_MAX;

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// The events of the host's own arena as typed records.
pub(crate) fn events(arena: &[u8]) -> Result<Vec<typed::Event>, FilterFault> {
    let broken = |e| FilterFault::new(FaultCode::Host, format!("the host's own arena: {e}"));
    let entries = Arena::new(arena).map_err(broken)?.entries();
    entries.map(|entry| entry.map(|entry| event(&entry)).map_err(broken)).collect()
}

fn event(entry: &Entry<'_>) -> typed::Event {
    typed::Event {
        topic: entry.topic.to_owned(),
        attributes: attributes(Attrs::new(entry.attrs)),
        payload: entry.payload.to_vec(),
        payload_total: entry.payload_total,
        identity: entry.identity.map(str::to_owned),
    }
}

/// One pass over the block, which was validated at admission.
fn attributes(block: Attrs<'_>) -> typed::Attributes {
    let mut read =
        typed::Attributes { time: block.time_ns().map(timestamp), ttl_ms: block.ttl_ms(), ..no_attributes() };
    for attr in block.iter() {
        let text = || attr.text().map(str::to_owned);
        match attr.tag {
            attrs::HEADER => {
                let value = text().unwrap_or_default();
                read.headers.push(typed::Header { name: attr.name.to_owned(), value });
            }
            attrs::ID => read.id = text(),
            attrs::SOURCE => read.source = text(),
            attrs::TYPE => read.event_type = text(),
            attrs::KEY => read.key = Some(attr.value.to_vec()),
            attrs::CONTENT_TYPE => read.content_type = text(),
            attrs::SCHEMA => read.schema = text(),
            attrs::TRACEPARENT => read.traceparent = text(),
            attrs::REPLY_TO => read.reply_to = text(),
            attrs::CORRELATION => read.correlation = Some(attr.value.to_vec()),
            _ => {}
        }
    }
    read
}

fn no_attributes() -> typed::Attributes {
    typed::Attributes {
        id: None,
        source: None,
        event_type: None,
        time: None,
        key: None,
        content_type: None,
        schema: None,
        traceparent: None,
        ttl_ms: None,
        reply_to: None,
        correlation: None,
        headers: Vec::new(),
    }
}

/// Unix nanoseconds as a timestamp.
pub(crate) fn timestamp(unix_ns: u64) -> typed::Timestamp {
    // The remainder is below a thousand million.
    let nanoseconds = u32::try_from(unix_ns % SECOND_NS).unwrap_or(0);
    typed::Timestamp { seconds: unix_ns / SECOND_NS, nanoseconds }
}

/// Typed verdicts as verdicts and output. What cannot be said in those is named; the rest is checked where the output
/// of every filter is.
pub(crate) fn answer(verdicts: &[typed::Verdict], info: &FilterInfo) -> Result<(Vec<u64>, Vec<u8>), FilterFault> {
    let count = verdicts.iter().map(output_entries).sum();
    let mut output = ArenaBuilder::new(count);
    let mut words = Vec::with_capacity(verdicts.len());
    for (index, verdict) in verdicts.iter().enumerate() {
        let word = write(verdict, info, &mut output);
        words.push(word.map_err(|what| FilterFault::malformed(format!("verdict {index}: {what}")))?.0);
    }
    Ok((words, if count == 0 { Vec::new() } else { output.into_bytes() }))
}

fn output_entries(verdict: &typed::Verdict) -> usize {
    let replaces = verdict.payload.is_some() || verdict.attributes.is_some();
    usize::from(replaces) + usize::from(verdict.detail.is_some()) + verdict.emit.len()
}

/// Writes one verdict's output and gives its word.
fn write(verdict: &typed::Verdict, info: &FilterInfo, output: &mut ArenaBuilder) -> Result<Bits, String> {
    let replaces_payload = verdict.payload.is_some();
    let replaces_attrs = verdict.attributes.is_some();
    let mut word = decision(&verdict.decision, info)?.with_replacement(replaces_payload, replaces_attrs);
    if replaces_payload || replaces_attrs {
        let block = verdict.attributes.as_ref().map(block).transpose()?.unwrap_or_default();
        push(output, "", &block, verdict.payload.as_deref().unwrap_or_default());
    }
    if let Some(detail) = &verdict.detail {
        word = word.with_detail();
        push(output, "", &[], detail.as_bytes());
    }
    if verdict.emit.len() > EMITTED_MAX {
        return Err(format!("{} emitted events: at most {EMITTED_MAX} for one event", verdict.emit.len()));
    }
    for event in &verdict.emit {
        let topic_is_too_long = || "an emitted event's topic has over 65535 bytes".to_owned();
        u16::try_from(event.topic.len()).map_err(|_| topic_is_too_long())?;
        push(output, &event.topic, &block(&event.attributes)?, &event.payload);
    }
    Ok(word.with_emitted(u8::try_from(verdict.emit.len()).unwrap_or(u8::MAX)))
}

fn push(output: &mut ArenaBuilder, topic: &str, attrs: &[u8], payload: &[u8]) {
    // An answer is bounded by the fuel of its call, far below 4 GiB.
    let payload_total = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    output.push(&Entry { topic, attrs, payload, payload_total, identity: None });
}

/// The word of a decision, its texts found among those that the filter has declared.
fn decision(decision: &typed::Decision, info: &FilterInfo) -> Result<Bits, String> {
    use typed::Decision as D;
    Ok(match decision {
        D::Allow => Bits::ALLOW,
        D::Deny(text) => Bits::of(Kind::Deny).with_reason(reason(text, info)?),
        D::DeadLetter(text) => Bits::of(Kind::DeadLetter).with_reason(reason(text, info)?),
        D::Drop => Bits::of(Kind::Drop),
        D::Redirect(names) => Bits::of(Kind::Redirect).with_routes(routes(names, info)?),
        D::Add(names) => Bits::of(Kind::Add).with_routes(routes(names, info)?),
    })
}

fn reason(text: &str, info: &FilterInfo) -> Result<u16, String> {
    if text.is_empty() && info.reasons.is_empty() {
        return Ok(0);
    }
    let place = info.reasons.iter().position(|declared| declared == text);
    let id = place.and_then(|place| u16::try_from(place).ok());
    id.ok_or_else(|| format!("the reason `{}` is not among the `reasons` that `init` gave", shown(text)))
}

fn routes(names: &[String], info: &FilterInfo) -> Result<u32, String> {
    names.iter().try_fold(0, |set, name| {
        let is_called = |route: &RouteTarget| match route {
            RouteTarget::Topic(topic) => name.strip_prefix("topic:") == Some(topic.as_str()),
            RouteTarget::Site(site) => name.strip_prefix("site:") == Some(&**site),
        };
        let place = info.routes.iter().position(is_called);
        let place =
            place.ok_or_else(|| format!("the route `{}` is not among the `routes` that `init` gave", shown(name)))?;
        // At most 32 are declared.
        Ok(set | 1_u32.checked_shl(u32::try_from(place).unwrap_or(u32::MAX)).unwrap_or(0))
    })
}

/// As much of a filter's text as fits into a message.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

/// Typed attributes as an attribute block.
fn block(attributes: &typed::Attributes) -> Result<Vec<u8>, String> {
    let mut block = AttrsBuilder::new();
    let time = attributes.time.map(unix_ns).transpose()?.map(u64::to_le_bytes);
    let ttl = attributes.ttl_ms.map(u32::to_le_bytes);
    let text = |text: &'_ Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let own = [
        (attrs::ID, text(&attributes.id)),
        (attrs::SOURCE, text(&attributes.source)),
        (attrs::TYPE, text(&attributes.event_type)),
        (attrs::TIME, time.map(Vec::from)),
        (attrs::KEY, attributes.key.clone()),
        (attrs::CONTENT_TYPE, text(&attributes.content_type)),
        (attrs::SCHEMA, text(&attributes.schema)),
        (attrs::TRACEPARENT, text(&attributes.traceparent)),
        (attrs::TTL, ttl.map(Vec::from)),
        (attrs::REPLY_TO, text(&attributes.reply_to)),
        (attrs::CORRELATION, attributes.correlation.clone()),
    ];
    for (tag, value) in &own {
        let Some(value) = value else { continue };
        fits("an attribute", value.len(), usize::from(u16::MAX))?;
        block.own(*tag, value);
    }
    for header in &attributes.headers {
        fits("a header's name", header.name.len(), usize::from(u8::MAX))?;
        fits("a header's value", header.value.len(), usize::from(u16::MAX))?;
        block.header(&header.name, &header.value);
    }
    Ok(block.into_bytes())
}

/// The builder cuts what is too long for its length field; a filter is told instead.
fn fits(what: &str, bytes: usize, bytes_max: usize) -> Result<(), String> {
    if bytes <= bytes_max { Ok(()) } else { Err(format!("{what} has {bytes} bytes: at most {bytes_max} are allowed")) }
}

fn unix_ns(time: typed::Timestamp) -> Result<u64, String> {
    let typed::Timestamp { seconds, nanoseconds } = time;
    let is_whole = u64::from(nanoseconds) < SECOND_NS;
    let ns = seconds.checked_mul(SECOND_NS).and_then(|ns| ns.checked_add(u64::from(nanoseconds)));
    ns.filter(|_| is_whole).ok_or_else(|| format!("no time has {seconds} seconds and {nanoseconds} nanoseconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> FilterInfo {
        FilterInfo {
            routes: ["topic:audit/log", "site:eu-1"].map(|route| RouteTarget::parse(route).expect("a route")).into(),
            reasons: vec!["first".into(), "second".into()],
            ..FilterInfo::default()
        }
    }

    fn verdict(decision: typed::Decision) -> typed::Verdict {
        typed::Verdict { decision, payload: None, attributes: None, detail: None, emit: Vec::new() }
    }

    fn word(verdict: &typed::Verdict) -> Result<Bits, String> {
        let answer = answer(std::slice::from_ref(verdict), &info());
        answer.map(|(words, _)| Bits(words[0])).map_err(|fault| fault.detail)
    }

    fn header(name: &str, value: &str) -> typed::Header {
        typed::Header { name: name.into(), value: value.into() }
    }

    #[test]
    fn events_become_records_that_share_their_bytes() {
        let mut first = AttrsBuilder::new();
        first.own(attrs::ID, b"id-1").header("a", "1").own(attrs::TIME, &1_500_000_007_u64.to_le_bytes());
        first.own(attrs::KEY, b"\xff").header("b", "2").header("a", "3").own(attrs::TTL, &9_u32.to_le_bytes());
        let mut second = AttrsBuilder::new();
        second.own(attrs::TYPE, b"t").header("c", "");
        let mut arena = ArenaBuilder::new(3);
        for (attrs, identity) in [(first.as_bytes(), Some("me")), (second.as_bytes(), None), (&[][..], None)] {
            arena.push(&Entry { topic: "orders/eu", attrs, payload: b"pay", payload_total: 7, identity });
        }
        let arena = arena.into_bytes();
        let list = events(&arena).expect("a whole arena");
        let headers = |at: usize| {
            let headers = list[at].attributes.headers.iter();
            headers.map(|header| (header.name.as_str(), header.value.as_str())).collect::<Vec<_>>()
        };
        assert_eq!(headers(0), [("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!((headers(1), headers(2)), (vec![("c", "")], vec![]));
        let attributes = &list[0].attributes;
        let (id, key) = (attributes.id.as_deref(), attributes.key.as_deref());
        assert_eq!((id, key, attributes.ttl_ms), (Some("id-1"), Some(&b"\xff"[..]), Some(9)));
        let time = attributes.time.expect("a time");
        assert_eq!((time.seconds, time.nanoseconds), (1, 500_000_007));
        assert_eq!((list[0].identity.as_deref(), &list[1].identity), (Some("me"), &None));
        assert_eq!(list[1].attributes.event_type.as_deref(), Some("t"));
        assert_eq!(
            (list[2].topic.as_str(), &list[2].payload[..], list[2].payload_total),
            ("orders/eu", &b"pay"[..], 7)
        );
        assert!(events(&arena[..20]).is_err());
    }

    #[test]
    fn a_record_gives_back_the_block_that_it_was_made_of() {
        let mut whole = AttrsBuilder::new();
        for tag in [attrs::ID, attrs::SOURCE, attrs::TYPE] {
            whole.own(tag, format!("value {tag}").as_bytes());
        }
        whole.own(attrs::TIME, &1_764_000_000_123_456_789_u64.to_le_bytes());
        for tag in [attrs::KEY, attrs::CONTENT_TYPE, attrs::SCHEMA, attrs::TRACEPARENT] {
            whole.own(tag, format!("value {tag}").as_bytes());
        }
        whole.own(attrs::TTL, &500_u32.to_le_bytes()).own(attrs::REPLY_TO, b"a/b").own(attrs::CORRELATION, &[0, 0xff]);
        whole.header("a", "1").header("b", "").header("a", "2");
        assert_eq!(attrs::validate(whole.as_bytes(), 64), Ok(()));
        let read = attributes(Attrs::new(whole.as_bytes()));
        assert_eq!(
            block(&read).expect("it fits"),
            whole.as_bytes(),
            "every attribute of this version is in the record"
        );
        let tags = Attrs::new(whole.as_bytes()).iter().filter(|attr| attr.tag != attrs::HEADER).count();
        assert_eq!(tags, usize::from(attrs::LAST), "and this test names each of them");
    }

    #[test]
    fn decisions_are_the_words_of_the_fast_world() {
        use typed::Decision as D;
        assert_eq!(word(&verdict(D::Allow)), Ok(Bits::ALLOW));
        assert_eq!(word(&verdict(D::Deny("second".into()))), Ok(Bits::of(Kind::Deny).with_reason(1)));
        assert_eq!(word(&verdict(D::DeadLetter("first".into()))), Ok(Bits::of(Kind::DeadLetter)));
        assert_eq!(word(&verdict(D::Drop)), Ok(Bits::of(Kind::Drop)));
        let both = vec!["site:eu-1".to_owned(), "topic:audit/log".to_owned()];
        assert_eq!(word(&verdict(D::Add(both))), Ok(Bits::of(Kind::Add).with_routes(0b11)));
        let complaint = |decision| word(&verdict(decision)).expect_err("not declared");
        assert_eq!(
            complaint(D::Deny("third".into())),
            "verdict 0: the reason `third` is not among the `reasons` that `init` gave"
        );
        assert!(complaint(D::Redirect(vec!["audit/log".into()])).contains("route `audit/log`"));
        assert!(complaint(D::Deny("ü".repeat(99))).len() < 200);
        let bare = answer(&[verdict(D::Deny(String::new()))], &FilterInfo::default());
        assert_eq!(bare, Ok((vec![1], Vec::new())), "a filter without reasons may still deny");
    }

    #[test]
    fn output_is_an_arena_in_the_order_of_the_contract() {
        let attributes = typed::Attributes {
            id: Some("i".into()),
            time: Some(typed::Timestamp { seconds: 2, nanoseconds: 3 }),
            correlation: Some(vec![0xff]),
            headers: vec![header("k", "v")],
            ..no_attributes()
        };
        let emitted = typed::Emitted { topic: "audit/log".into(), attributes: no_attributes(), payload: b"e".into() };
        let rich = typed::Verdict {
            payload: Some(b"new".into()),
            attributes: Some(attributes),
            detail: Some("why".into()),
            emit: vec![emitted],
            ..verdict(typed::Decision::Allow)
        };
        let (words, output) = answer(&[verdict(typed::Decision::Drop), rich], &info()).expect("well-formed");
        assert_eq!(words[1], Bits::ALLOW.with_replacement(true, true).with_detail().with_emitted(1).0);
        let entries: Vec<_> =
            Arena::new(&output).expect("an arena").entries().map(|entry| entry.expect("whole")).collect();
        let parts: Vec<_> = entries.iter().map(|entry| (entry.topic, entry.payload)).collect();
        assert_eq!(parts, [("", &b"new"[..]), ("", b"why"), ("audit/log", b"e")]);
        assert_eq!(attrs::validate(entries[0].attrs, 64), Ok(()));
        let block = Attrs::new(entries[0].attrs);
        assert_eq!(
            (block.text(attrs::ID), block.time_ns(), block.header("k")),
            (Some("i"), Some(2_000_000_003), Some("v"))
        );
        assert_eq!(block.own(attrs::CORRELATION), Some(&[0xff][..]));
    }

    #[test]
    fn what_cannot_be_written_down_is_named() {
        let allow = || verdict(typed::Decision::Allow);
        let with = |attributes| typed::Verdict { attributes: Some(attributes), ..allow() };
        let complaint = |verdict: &typed::Verdict| word(verdict).expect_err("refused");
        let time = Some(typed::Timestamp { seconds: 1, nanoseconds: 1_000_000_000 });
        assert!(complaint(&with(typed::Attributes { time, ..no_attributes() })).contains("nanoseconds"));
        let time = Some(typed::Timestamp { seconds: u64::MAX, nanoseconds: 0 });
        assert!(complaint(&with(typed::Attributes { time, ..no_attributes() })).contains("seconds"));
        let long = typed::Attributes { headers: vec![header(&"n".repeat(256), "")], ..no_attributes() };
        assert!(complaint(&with(long)).contains("name has 256 bytes"));
        let long = typed::Attributes { headers: vec![header("n", &"v".repeat(65_536))], ..no_attributes() };
        assert!(complaint(&with(long)).contains("value has 65536 bytes"));
        let long = typed::Attributes { key: Some(vec![0; 65_536]), ..no_attributes() };
        assert!(complaint(&with(long)).contains("attribute has 65536"));
        let emitted =
            |topic: &str| typed::Emitted { topic: topic.into(), attributes: no_attributes(), payload: Vec::new() };
        let flood = typed::Verdict { emit: (0..65).map(|_| emitted("a")).collect(), ..allow() };
        assert!(complaint(&flood).contains("65 emitted events"));
        let long = typed::Verdict { emit: vec![emitted(&"t".repeat(65_536))], ..allow() };
        assert!(complaint(&long).contains("topic"));
    }
}
