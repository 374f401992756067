//! Forms of payloads that a schema can speak of: the same bytes of ours, in JSON, Avro or Protobuf.

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::Serialize;

/// Bytes of what every payload says: its number, when it was due, and whose it is.
pub(crate) const STAMP_BYTES: usize = 20;

/// In which form a payload says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// As it is.
    #[default]
    Raw,
    /// An object: hexadecimal digits, and a note as long as it must be.
    Json,
    /// A record with one field of bytes.
    Avro,
    /// A message with one field of bytes.
    Protobuf,
}

const JSON_HEAD: &[u8] = br#"{"stamp":""#;
const JSON_MIDDLE: &[u8] = br#"","note":""#;
const JSON_END: &[u8] = br#""}"#;
/// Field 1, with a length.
const PROTOBUF_TAG: u8 = 0x0a;

impl Form {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The schema that such payloads are as, with its type as a registry names it; none of raw ones.
    pub fn schema(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Raw => None,
            Self::Json => Some((
                "JSON",
                r#"{"type": "object", "properties": {"stamp": {"type": "string", "minLength": 40, "maxLength": 40},
                "note": {"type": "string"}}, "required": ["stamp", "note"], "additionalProperties": false}"#,
            )),
            Self::Avro => {
                Some(("AVRO", r#"{"type": "record", "name": "Event", "fields": [{"name": "body", "type": "bytes"}]}"#))
            }
            Self::Protobuf => Some(("PROTOBUF", "syntax = \"proto3\"; message Event { bytes body = 1; }")),
        }
    }

    /// A payload of `bytes` bytes that says nothing yet.
    pub(crate) fn empty(self, bytes: usize) -> anyhow::Result<Vec<u8>> {
        let mut payload = vec![b'.'; bytes];
        match self {
            Self::Raw => ensure!(bytes >= STAMP_BYTES, "a payload has at least {STAMP_BYTES} bytes"),
            Self::Json => {
                let digits_end = JSON_HEAD.len() + 2 * STAMP_BYTES;
                let least = digits_end + JSON_MIDDLE.len() + JSON_END.len();
                ensure!(bytes >= least, "a payload in JSON has at least {least} bytes");
                payload[..JSON_HEAD.len()].copy_from_slice(JSON_HEAD);
                payload[digits_end..digits_end + JSON_MIDDLE.len()].copy_from_slice(JSON_MIDDLE);
                payload[bytes - JSON_END.len()..].copy_from_slice(JSON_END);
            }
            Self::Avro | Self::Protobuf => {
                let head =
                    self.head(bytes).context("no payload of this form has exactly so many bytes; take others")?;
                ensure!(
                    bytes >= head.len() + STAMP_BYTES,
                    "a payload has at least {STAMP_BYTES} bytes beside its head"
                );
                payload[..head.len()].copy_from_slice(&head);
            }
        }
        Ok(payload)
    }

    /// What stands before the bytes of Avro and Protobuf, where all together are `bytes`.
    fn head(self, bytes: usize) -> Option<Vec<u8>> {
        (1..=6.min(bytes)).find_map(|head| {
            let length = u64::try_from(bytes - head).ok()?;
            let (tag, value) = if self == Self::Protobuf { (Some(PROTOBUF_TAG), length) } else { (None, 2 * length) };
            let written: Vec<u8> = tag.into_iter().chain(variable(value)).collect();
            (written.len() == head).then_some(written)
        })
    }

    /// Writes what a payload says into one that was [made empty](Self::empty), whose stamp stands at `at`.
    pub(crate) fn write(self, payload: &mut [u8], at: usize, stamp: &[u8; STAMP_BYTES]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if self == Self::Json {
            for (digits, byte) in payload[at..].chunks_exact_mut(2).zip(stamp) {
                digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        } else {
            payload[at..at + STAMP_BYTES].copy_from_slice(stamp);
        }
    }

    /// What a payload says whose stamp stands at `at`; `None` where it is none of this form.
    pub(crate) fn read(self, payload: &[u8], at: usize) -> Option<[u8; STAMP_BYTES]> {
        if self != Self::Json {
            return payload.get(at..at + STAMP_BYTES)?.try_into().ok();
        }
        let digits = payload.get(at..at + 2 * STAMP_BYTES)?;
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut stamp = [0; STAMP_BYTES];
        for (byte, digits) in stamp.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(digits[0])? << 4 | value(digits[1])?;
        }
        Some(stamp)
    }

    /// Where the stamp stands in a payload of `bytes` bytes.
    pub(crate) fn stamp_at(self, bytes: usize) -> usize {
        match self {
            Self::Raw => 0,
            Self::Json => JSON_HEAD.len(),
            Self::Avro | Self::Protobuf => self.head(bytes).map_or(0, |head| head.len()),
        }
    }
}

/// A number in as few bytes of seven bits as it takes, the lowest first.
fn variable(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn what_is_written_is_read_again_in_every_form_and_size() {
        let stamp: [u8; STAMP_BYTES] = std::array::from_fn(|at| u8::try_from(at * 13).unwrap());
        for form in [Form::Raw, Form::Json, Form::Avro, Form::Protobuf] {
            for bytes in [64, 128, 1_024, 16_384] {
                let mut payload = form.empty(bytes).unwrap();
                let at = form.stamp_at(bytes);
                form.write(&mut payload, at, &stamp);
                assert_eq!((payload.len(), form.read(&payload, at)), (bytes, Some(stamp)), "{form:?} {bytes}");
            }
            assert!(form.empty(10).is_err());
        }
        let json = String::from_utf8(Form::Json.empty(128).unwrap()).unwrap();
        assert!(json.starts_with("{\"stamp\":\"") && json.ends_with(".\"}"), "{json}");
        assert_eq!(Form::Avro.empty(128).unwrap()[..2], [0xfc, 0x01], "126 bytes, zigzag");
        assert_eq!(Form::Protobuf.empty(128).unwrap()[..2], [0x0a, 126]);
        assert!(Form::Avro.empty(65).is_err(), "64 bytes need a head of two, 63 one of one");
    }
}
