//! Changes of whom the mesh trusts, as they are proposed, signed and applied.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TrustRefusal;
use crate::limits::{
    NAME_LEN_MAX, NOTE_LEN_MAX_BYTES, TRUST_ACTIONS_MAX, TRUST_PATTERNS_MAX, TRUST_ROOTS_MAX, TRUST_SIGNATURES_MAX,
};
use crate::minisign::{KeyId, MinisignKey, MinisignSignature};
use crate::names::Name;
use crate::record::Head;

/// What is signed begins with this, so that it is never taken for anything else.
const DOMAIN: &str = "myelin trust change 1\n";

/// A change of whom the mesh trusts, with the signatures of those who agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustChange {
    /// The record of the change before; of none where this is the first. With it a change is good for one mesh, once.
    pub after: Head,
    /// What is done, in this order, all of it or nothing.
    pub actions: Vec<TrustAction>,
    /// Who agrees: needed since there is a root set.
    #[serde(default)]
    pub signatures: Vec<MinisignSignature>,
}

/// One part of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TrustAction {
    /// A key may sign modules.
    AddKey {
        /// The key.
        public_key: MinisignKey,
        /// The modules.
        modules: Vec<ModulePattern>,
        /// Whose it is, for people.
        note: String,
    },
    /// A key may sign no further modules, and what it has signed is not rolled out again.
    RemoveKey {
        /// Which.
        key_id: KeyId,
    },
    /// Changes of trust need signatures by so many of these keys from now on.
    SetRoots {
        /// The keys.
        keys: Vec<MinisignKey>,
        /// How many of them.
        threshold: u8,
    },
}

/// Names of modules: one name, or a beginning with `*` behind it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModulePattern(String);

impl TrustChange {
    /// What is signed: the change without its signatures, in the one form in which it can be written.
    pub fn statement(&self) -> String {
        let Self { after, actions, .. } = self;
        let body = serde_json::json!({"actions": actions, "after": {"hash": after.hash, "rev": after.rev}});
        format!("{DOMAIN}{}\n", sorted(body))
    }

    /// Checks what the types do not.
    pub(super) fn validate(&self) -> Result<(), TrustRefusal> {
        let refuse = |why: String| Err(TrustRefusal::InvalidChange(why));
        if !(1..=TRUST_ACTIONS_MAX).contains(&self.actions.len()) {
            return refuse(format!("it does {} things; 1 to {TRUST_ACTIONS_MAX} are possible", self.actions.len()));
        }
        if self.signatures.len() > TRUST_SIGNATURES_MAX {
            return refuse(format!("it has more than {TRUST_SIGNATURES_MAX} signatures"));
        }
        self.actions.iter().try_for_each(TrustAction::validate)
    }
}

/// The text of a value whose objects have their keys sorted, whether or not `serde_json` keeps their order.
fn sorted(mut value: serde_json::Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

impl TrustAction {
    fn validate(&self) -> Result<(), TrustRefusal> {
        let refuse = |why: String| Err(TrustRefusal::InvalidChange(why));
        match self {
            Self::AddKey { modules, .. } if !(1..=TRUST_PATTERNS_MAX).contains(&modules.len()) => {
                refuse(format!("a key signs for 1 to {TRUST_PATTERNS_MAX} patterns of names, such as `orders-*`"))
            }
            Self::AddKey { note, .. } if note.len() > NOTE_LEN_MAX_BYTES || note.chars().any(char::is_control) => {
                refuse(format!("a note has at most {NOTE_LEN_MAX_BYTES} bytes and no control characters"))
            }
            Self::SetRoots { keys, threshold } => {
                if !(1..=TRUST_ROOTS_MAX).contains(&keys.len()) {
                    return refuse(format!("a root set has 1 to {TRUST_ROOTS_MAX} keys, not {}", keys.len()));
                }
                if !(1..=keys.len()).contains(&usize::from(*threshold)) {
                    return refuse(format!("{threshold} of {} root keys cannot be: give 1 to {0}", keys.len()));
                }
                let mut ids: Vec<_> = keys.iter().map(MinisignKey::id).collect();
                ids.sort_unstable();
                match ids.windows(2).find(|pair| pair[0] == pair[1]) {
                    Some(pair) => refuse(format!("root key {} is named twice", pair[0])),
                    None => Ok(()),
                }
            }
            Self::AddKey { .. } | Self::RemoveKey { .. } => Ok(()),
        }
    }
}

impl ModulePattern {
    /// Whether a module of that name is meant.
    pub fn matches(&self, name: &Name) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.as_str().starts_with(beginning),
            None => name.as_str() == self.0,
        }
    }
}

impl FromStr for ModulePattern {
    type Err = TrustRefusal;

    fn from_str(text: &str) -> Result<Self, TrustRefusal> {
        let beginning = text.strip_suffix('*').unwrap_or(text);
        let has_form = beginning.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if text.is_empty() || text.len() > NAME_LEN_MAX || !has_form {
            let why =
                "a pattern of modules is a name, or the beginning of names with `*` behind it, such as `orders-*`";
            return Err(TrustRefusal::InvalidChange(why.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ModulePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModulePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Serialize for ModulePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModulePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
