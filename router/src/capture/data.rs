//! Bytes and attributes in JSON: readable where they are text, exact in any case.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use myelin_wire::attrs::{self, Attr};
use myelin_wire::{Attrs, AttrsBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes: a JSON string where they are plain text, `{"base64": ".."}` where not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

impl Data {
    /// The bytes of a text.
    pub fn text(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Either {
    Text(String),
    Encoded(Encoded),
}

/// Text that JSON writes without long escapes: a control character would take six bytes instead of one.
fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.bytes().all(|byte| byte >= b' ' || matches!(byte, b'\n' | b'\r' | b'\t')).then_some(text)
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match plain(&self.0) {
            Some(text) => text.serialize(serializer),
            None => Encoded { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Text(text) => Self(text.into_bytes()),
            Either::Encoded(Encoded { base64 }) => Self(STANDARD.decode(base64).map_err(de::Error::custom)?),
        })
    }
}

/// One attribute of an event: a header by its name, or one of the event's own by its tag in docs/PROTOCOL.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// The header's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The tag of one of the event's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<u8>,
    /// The value.
    pub value: Data,
}

/// The attributes of a block.
pub fn unpacked(block: &[u8]) -> Vec<Attribute> {
    let attribute = |attr: Attr<'_>| {
        let is_header = attr.tag == attrs::HEADER;
        Attribute {
            header: is_header.then(|| attr.name.to_owned()),
            tag: (!is_header).then_some(attr.tag),
            value: Data(attr.value.to_vec()),
        }
    };
    Attrs::new(block).iter().map(attribute).collect()
}

/// The block of attributes. What no block can hold is told; the rest is up to
/// [`validate`](myelin_wire::attrs::validate).
pub fn packed(attributes: &[Attribute]) -> Result<Vec<u8>, String> {
    let mut block = AttrsBuilder::new();
    for Attribute { header, tag, value } in attributes {
        let (tag, name) = match (header, tag) {
            (Some(name), None) => (attrs::HEADER, name.as_str()),
            (None, Some(tag)) if *tag != attrs::HEADER => (*tag, ""),
            _ => return Err("an attribute has a `header`, or a `tag` from 1 on, and not both".into()),
        };
        if name.len() > usize::from(u8::MAX) || value.0.len() > usize::from(u16::MAX) {
            return Err("the name or the value of an attribute is longer than a block can hold".into());
        }
        block.attr(&Attr { tag, name, value: &value.0 });
    }
    Ok(block.into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back_as_they_were(bytes: Vec<u8>, text: String) {
            for data in [Data(bytes), Data(text.into_bytes())] {
                let json = serde_json::to_string(&data).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Data>(&json).unwrap(), &data);
                prop_assert!(json.len() <= 2 * data.0.len() + 32, "{}", json);
            }
        }

        #[test]
        fn a_block_comes_back_byte_for_byte(
            headers in prop::collection::vec(("[a-z]{1,20}", any::<String>()), 0..5),
            key in prop::collection::vec(any::<u8>(), 0..64),
            ttl: u32,
        ) {
            let mut block = AttrsBuilder::new();
            block.own(attrs::KEY, &key).own(attrs::TTL, &ttl.to_le_bytes());
            for (name, value) in &headers {
                block.header(name, value);
            }
            let json = serde_json::to_string(&unpacked(block.as_bytes())).unwrap();
            let read: Vec<Attribute> = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(packed(&read).unwrap(), block.into_bytes());
        }
    }

    #[test]
    fn text_is_readable_and_odd_attributes_are_refused() {
        assert_eq!(serde_json::to_string(&Data::text("{\n}")).unwrap(), r#""{\n}""#);
        assert_eq!(serde_json::to_string(&Data(vec![0, 0])).unwrap(), r#"{"base64":"AAA="}"#);
        assert!(serde_json::from_str::<Data>(r#"{"base64":"%"}"#).is_err());
        for json in [r#"{"value":""}"#, r#"{"header":"a","tag":1,"value":""}"#, r#"{"tag":0,"value":""}"#] {
            assert!(packed(&[serde_json::from_str(json).unwrap()]).is_err(), "{json}");
        }
        let long = Attribute { header: Some("x".repeat(256)), tag: None, value: Data::default() };
        assert!(packed(&[long]).is_err());
    }
}
