//! What a publisher's topic references mean.

use crate::local::{INBOX, Local, TopicEntry};
use hashbrown::HashMap;
use myelin_wire::limits::TOPIC_REFS_MAX;
use myelin_wire::{Code, Refusal, topic, validate_topic};
use std::cell::Cell;
use std::rc::Rc;

/// References below this are looked up by index: enough for nearly every publisher, who counts from 1, and at most
/// 24 KiB for one who begins at the end. All others take as much memory as they are many.
const DENSE_REFS: u32 = 1024;

/// What a reference stands for.
#[derive(Clone, Debug)]
pub(super) enum Announced {
    /// Not announced.
    Nothing,
    /// Events may be published to it, as far as the policies let the publisher.
    Topic(Rc<TopicEntry>, Rights),
    /// Events that name it are refused.
    Refused(Code, Rc<str>),
}

/// What the rules let a publisher do with a topic, of the version that was asked: the lowest bit says whether it may
/// publish, the next whether it may request, the others are the version. As small as that, since a publisher may have
/// many topics.
#[derive(Clone, Debug, Default)]
pub(super) struct Rights(Cell<u64>);

impl Rights {
    /// Whether these are of the rules of that version.
    #[inline]
    pub(super) fn are_of(&self, version: u64) -> bool {
        self.0.get() >> 2 == version
    }

    /// Whether an event may be sent, which asks for an answer or does not.
    #[inline]
    pub(super) fn let_pass(&self, is_request: bool) -> bool {
        self.0.get() >> u32::from(is_request) & 1 == 1
    }

    /// Remembers what was asked.
    pub(super) fn set(&self, (version, [publish, request]): (u64, [bool; 2])) {
        self.0.set(version << 2 | u64::from(request) << 1 | u64::from(publish));
    }
}

/// The topics that one publisher announced.
#[derive(Debug, Default)]
pub(super) struct Topics {
    dense: Vec<Announced>,
    sparse: HashMap<u32, Announced, foldhash::fast::RandomState>,
}

impl Topics {
    /// What `reference` means.
    #[inline]
    pub(super) fn get(&self, reference: u32) -> &Announced {
        match self.dense.get(reference as usize) {
            Some(meaning) => meaning,
            None => self.sparse.get(&reference).unwrap_or(&Announced::Nothing),
        }
    }

    /// Gives `reference` the meaning `name`; a name that is no topic for publishers is remembered as refused.
    ///
    /// # Errors
    /// [`Code::Malformed`] for a reference over the limit: nothing that follows on the stream could be trusted.
    pub(super) fn announce(&mut self, local: &Local, reference: u32, name: &str) -> Result<(), Refusal> {
        if reference >= TOPIC_REFS_MAX {
            let message = format!("topic reference {reference} is over the limit of {}", TOPIC_REFS_MAX - 1);
            return Err(Refusal::new(Code::Malformed, message));
        }
        let meaning = match validate_topic(name) {
            Err(error) => Announced::Refused(Code::InvalidTopic, Rc::from(error.to_string())),
            Ok(()) if topic::is_reserved(name) && !name.starts_with(INBOX) => {
                Announced::Refused(Code::ReservedTopic, Rc::from("topics that begin with `$` belong to the router"))
            }
            Ok(()) => Announced::Topic(local.topic(name), Rights::default()),
        };
        self.set(reference, meaning);
        Ok(())
    }

    fn set(&mut self, reference: u32, meaning: Announced) {
        if reference >= DENSE_REFS {
            self.sparse.insert(reference, meaning);
            return;
        }
        let at = reference as usize;
        if self.dense.len() <= at {
            self.dense.resize(at + 1, Announced::Nothing);
        }
        self.dense[at] = meaning;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_of_one_version() {
        let rights = Rights::default();
        assert!(!rights.are_of(1) && !rights.let_pass(false) && !rights.let_pass(true));
        rights.set((7, [true, false]));
        assert!(rights.are_of(7) && !rights.are_of(8) && rights.let_pass(false) && !rights.let_pass(true));
        rights.set((8, [false, true]));
        assert!(rights.are_of(8) && !rights.let_pass(false) && rights.let_pass(true));
        assert_eq!(size_of::<Announced>(), 24);
    }

    #[test]
    fn every_reference_has_its_own_meaning_and_takes_no_room_for_others() {
        let mut topics = Topics::default();
        let references = [0, 1, DENSE_REFS - 1, DENSE_REFS, DENSE_REFS + 1, TOPIC_REFS_MAX - 1];
        let refused = |number: u32| Announced::Refused(Code::InvalidTopic, Rc::from(number.to_string()));
        references.into_iter().for_each(|reference| topics.set(reference, refused(reference)));
        for reference in references {
            let Announced::Refused(_, text) = topics.get(reference) else { panic!("{reference} was announced") };
            assert_eq!(**text, reference.to_string());
        }
        for other in [2, DENSE_REFS + 2, TOPIC_REFS_MAX - 2, TOPIC_REFS_MAX, u32::MAX] {
            assert!(matches!(topics.get(other), Announced::Nothing), "{other} was not");
        }
        topics.set(1, refused(7));
        assert!(matches!(topics.get(1), Announced::Refused(_, text) if &**text == "7"), "the newest meaning holds");
        assert_eq!((topics.dense.len(), topics.sparse.len()), (DENSE_REFS as usize, 3));
    }
}
