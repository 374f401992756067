//! The topics on which a session receives answers.

use crate::names::INBOX;
use crate::tenants::{Usage, inbox_suffix};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use myelin_wire::{Code, Refusal};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt;

/// Random bytes in the name of an inbox: whoever was not told it cannot guess it, however many they try.
const RANDOM_BYTES: usize = 16;

/// The inbox of a session: `$inbox/ROUTER/RANDOM`, with `:TENANT` behind it where the session is of one.
#[derive(Debug)]
pub(super) struct Inbox(String);

impl Inbox {
    /// A new one at the router of the number `origin`, by which answers find their way from other sites, too.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(super) fn make(origin: u32, tenant: Option<&Usage>) -> Result<Self, Refusal> {
        let mut random = [0; RANDOM_BYTES];
        let filled = SystemRandom::new().fill(&mut random);
        filled.map_err(|_| Refusal::new(Code::Internal, "the operating system gives this router no random bytes"))?;
        Ok(Self(format!("{INBOX}{origin:x}/{}{}", URL_SAFE_NO_PAD.encode(random), inbox_suffix(tenant))))
    }

    /// Whether all topics of a pattern are below it.
    pub(super) fn holds(&self, pattern: &str) -> bool {
        pattern.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_wire::Topic;
    use std::collections::HashSet;

    /// What makes an inbox hard to guess.
    fn secret(inbox: &Inbox) -> &str {
        let session = inbox.0.strip_prefix("$inbox/a/").unwrap();
        session.split_once(':').map_or(session, |(secret, _)| secret)
    }

    #[test]
    fn nobody_guesses_the_next_inbox_from_the_own_one() {
        let inboxes: Vec<_> = (0..1_000).map(|_| Inbox::make(10, None).unwrap()).collect();
        let secrets: HashSet<_> = inboxes.iter().map(secret).collect();
        assert_eq!(secrets.len(), inboxes.len());
        let mut ones = [0u32; RANDOM_BYTES * 8];
        for secret in secrets {
            let bytes = URL_SAFE_NO_PAD.decode(secret).unwrap();
            assert_eq!(bytes.len(), RANDOM_BYTES);
            ones.iter_mut().enumerate().for_each(|(bit, ones)| *ones += u32::from(bytes[bit / 8] >> (bit % 8) & 1));
        }
        // 15.8 is the standard deviation of a fair coin: no bit is a counter's, and none always the same.
        assert!(ones.iter().all(|ones| (350..650).contains(ones)), "{ones:?}");
    }

    #[test]
    fn the_longest_inbox_leaves_room_for_the_levels_of_a_client() {
        let tenant = Usage::new(&"t".repeat(63));
        let inbox = Inbox::make(u32::MAX, Some(&tenant)).unwrap();
        let name = inbox.to_string();
        assert_eq!(name.len(), "$inbox/ffffffff/".len() + 22 + 1 + 63);
        Topic::new(&format!("{name}/{}", "x".repeat(100))).unwrap();
        assert!(inbox.holds(&format!("{name}/**")) && inbox.holds(&format!("{name}/a")));
        for other in [name.clone(), format!("{name}2/**"), "$inbox/**".to_owned(), "$inbox/ffffffff/*/a".to_owned()] {
            assert!(!inbox.holds(&other), "{other}");
        }
    }
}
