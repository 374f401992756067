//! How an event is printed: a format string, or one JSON object a line.

use myelin_client::Delivered;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

/// What `-v` prints.
pub(super) const VERBOSE: &str = "%T %t id=%i source=%s key=%k generation=%g headers=%h\\n%p\\n";
/// What is printed where nothing else is asked for.
pub(super) const PLAIN: &str = "%p\\n";
/// Explains format strings in `--help`.
pub(super) const HELP: &str = "\
Formats (-F):
  %t topic   %p payload   %k key       %h all headers   %h{NAME} one header
  %i id      %s source    %T time      %g generation    %% a percent sign
  \\n newline \\t tab       \\\\ backslash  \\0 zero byte";

/// How events are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object a line.
    Json,
    /// By a format string.
    Pieces(Vec<Piece>),
}

/// A part of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Printed as it stands.
    Text(String),
    Topic,
    Payload,
    Key,
    Headers,
    Header(String),
    Id,
    Source,
    Time,
    Generation,
}

impl Format {
    /// Parses a format string.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            let piece = match character {
                '\\' => {
                    plain.push(escape(rest.next())?);
                    continue;
                }
                '%' => match rest.next() {
                    Some('%') => {
                        plain.push('%');
                        continue;
                    }
                    Some('t') => Piece::Topic,
                    Some('p') => Piece::Payload,
                    Some('k') => Piece::Key,
                    Some('i') => Piece::Id,
                    Some('s') => Piece::Source,
                    Some('T') => Piece::Time,
                    Some('g') => Piece::Generation,
                    Some('h') => header(&mut rest)?,
                    Some(other) => return Err(format!("`%{other}` is unknown; there are %t %p %k %h %i %s %T %g %%")),
                    None => return Err("a format ends in `%`; write `%%` for a percent sign".into()),
                },
                other => {
                    plain.push(other);
                    continue;
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self::Pieces(pieces))
    }

    /// Prints `event`. On a terminal, bytes that would act on it are shown as `?`.
    pub(super) fn write(&self, out: &mut impl Write, event: &Delivered, is_terminal: bool) -> io::Result<()> {
        let mut put = |bytes: &[u8]| put(out, bytes, is_terminal);
        match self {
            Self::Json => {
                serde_json::to_writer(&mut *out, &json(event))?;
                out.write_all(b"\n")
            }
            Self::Pieces(pieces) => pieces.iter().try_for_each(|piece| match piece {
                Piece::Text(text) => put(text.as_bytes()),
                Piece::Topic => put(event.topic().as_bytes()),
                Piece::Payload => put(event.payload()),
                Piece::Key => put(event.key().unwrap_or_default()),
                Piece::Headers => put(headers(event).as_bytes()),
                Piece::Header(name) => put(event.header(name).unwrap_or_default().as_bytes()),
                Piece::Id => put(event.id().as_bytes()),
                Piece::Source => put(event.source().unwrap_or_default().as_bytes()),
                Piece::Time => put(time(event).as_bytes()),
                Piece::Generation => put(event.generation().to_string().as_bytes()),
            }),
        }
    }
}

fn escape(letter: Option<char>) -> Result<char, String> {
    match letter {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('r') => Ok('\r'),
        Some('0') => Ok('\0'),
        Some('\\') => Ok('\\'),
        Some(other) => Err(format!("`\\{other}` is unknown; there are \\n \\t \\r \\0 \\\\")),
        None => Err("a format ends in a backslash; write two for one".into()),
    }
}

/// What follows `%h`: a name in braces, or nothing.
fn header(rest: &mut std::str::Chars<'_>) -> Result<Piece, String> {
    let Some(named) = rest.as_str().strip_prefix('{') else { return Ok(Piece::Headers) };
    let (name, after) = named.split_once('}').ok_or("`%h{` has no closing brace; write %h{NAME}")?;
    if name.is_empty() {
        return Err("`%h{}` names no header; write %h{NAME}, or %h for all".into());
    }
    *rest = after.chars();
    Ok(Piece::Header(name.to_owned()))
}

fn put(out: &mut impl Write, bytes: &[u8], is_terminal: bool) -> io::Result<()> {
    if !is_terminal {
        return out.write_all(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let acts = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    let safe: String = text.chars().map(|character| if acts(character) { '?' } else { character }).collect();
    out.write_all(safe.as_bytes())
}

fn headers(event: &Delivered) -> String {
    event.headers().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn time(event: &Delivered) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_nanos(event.time_ns())).to_string()
}

/// The event as JSON: what it lacks is left out; bytes that are not UTF-8 are hex in `.._hex`.
fn json(event: &Delivered) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), event.topic().into());
    object.insert("id".into(), event.id().into());
    object.insert("time".into(), time(event).into());
    object.insert("generation".into(), event.generation().into());
    let texts = [
        ("source", event.source()),
        ("type", event.event_type()),
        ("content_type", event.content_type()),
        ("schema", event.schema()),
        ("traceparent", event.traceparent()),
        ("reply_to", event.reply_to()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            object.insert(name.into(), text.into());
        }
    }
    if let Some(ttl_ms) = event.ttl_ms() {
        object.insert("ttl_ms".into(), ttl_ms.into());
    }
    let headers: Vec<Value> = event.headers().map(|(name, value)| json!([name, value])).collect();
    if !headers.is_empty() {
        object.insert("headers".into(), headers.into());
    }
    let mut bytes = |name: &str, bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => object.insert(format!("{name}_hex"), hex::encode(bytes).into()),
    };
    if let Some(key) = event.key() {
        bytes("key", key);
    }
    bytes("payload", event.payload());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<Piece> {
        match Format::parse(text) {
            Ok(Format::Pieces(pieces)) => pieces,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_format_is_text_and_places() {
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces("%t: %p\\n"), [Piece::Topic, text(": "), Piece::Payload, text("\n")]);
        assert_eq!(
            pieces("%h{x-tenant}%h|%k%i%s%T%g"),
            [
                Piece::Header("x-tenant".into()),
                Piece::Headers,
                text("|"),
                Piece::Key,
                Piece::Id,
                Piece::Source,
                Piece::Time,
                Piece::Generation
            ]
        );
        assert_eq!(pieces("100%% \\t\\\\\\0"), [text("100% \t\\\0")]);
        assert_eq!(pieces(""), []);
        assert_eq!(pieces("%hx"), [Piece::Headers, text("x")]);
    }

    #[test]
    fn the_presets_parse() {
        for preset in [PLAIN, VERBOSE] {
            assert!(Format::parse(preset).is_ok(), "{preset}");
        }
    }

    #[test]
    fn what_is_no_format_says_what_is() {
        for (bad, part) in
            [("%x", "%t %p"), ("%", "%%"), ("\\x", "\\n"), ("\\", "two"), ("%h{a", "closing"), ("%h{}", "NAME")]
        {
            let told = Format::parse(bad).expect_err(bad);
            assert!(told.contains(part), "{bad}: {told}");
        }
    }

    #[test]
    fn nothing_acts_on_a_terminal() {
        let shown = |is_terminal| {
            let mut out = Vec::new();
            put(&mut out, b"a\x1b[2Jb\n\xff", is_terminal).map(|()| out)
        };
        assert_eq!(shown(true).ok(), Some("a?[2Jb\n\u{fffd}".as_bytes().to_vec()));
        assert_eq!(shown(false).ok(), Some(b"a\x1b[2Jb\n\xff".to_vec()));
    }
}
