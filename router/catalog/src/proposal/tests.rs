#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::testing::{Story, add};

fn proposal(story: &Story, nonce: u8, reference: &str) -> Proposal {
    let (nonce, at) = (Nonce::from_bytes([nonce; 16]), story.catalog.head());
    Proposal { nonce, at, actor: "ada".into(), op: add(reference) }
}

fn obey(story: &mut Story, inbox: &mut Inbox, proposal: &Proposal) -> Result<u64, CatalogError> {
    match inbox.admit(proposal, &story.catalog.head())? {
        Admission::Settled { rev } => Ok(rev),
        Admission::Fresh => {
            let rev = story.try_add(proposal.op.clone())?;
            inbox.settle(proposal, rev);
            Ok(rev)
        }
    }
}

#[test]
fn a_proposal_counts_once_however_often_it_comes() {
    let (mut story, mut inbox) = (Story::default(), Inbox::default());
    let first = proposal(&story, 1, "m@1.0.0");
    assert_eq!(obey(&mut story, &mut inbox, &first), Ok(1));
    let second = proposal(&story, 2, "m@2.0.0");
    assert_eq!(obey(&mut story, &mut inbox, &second), Ok(2));
    // Asked again because the answer was lost, even after other changes.
    assert_eq!(obey(&mut story, &mut inbox, &first), Ok(1));
    assert_eq!(story.log.len(), 2);
}

#[test]
fn a_proposal_for_another_head_is_refused_with_what_to_do() {
    let (mut story, mut inbox) = (Story::default(), Inbox::default());
    let late = proposal(&story, 1, "m@1.0.0");
    let other = proposal(&story, 2, "m@2.0.0");
    obey(&mut story, &mut inbox, &other).unwrap();
    let refused = obey(&mut story, &mut inbox, &late).unwrap_err();
    assert!(refused.code() == "conflict" && refused.to_string().contains("look at what has changed"), "{refused}");
    // A writer that forgot its answers, after a restart, takes a replay no more than a stranger's.
    assert_eq!(obey(&mut story, &mut Inbox::default(), &other).unwrap_err().code(), "conflict");
}

#[test]
fn a_nonce_stands_for_one_proposal() {
    let (mut story, mut inbox) = (Story::default(), Inbox::default());
    let first = proposal(&story, 1, "m@1.0.0");
    obey(&mut story, &mut inbox, &first).unwrap();
    let reused = proposal(&story, 1, "m@2.0.0");
    assert!(obey(&mut story, &mut inbox, &reused).unwrap_err().to_string().contains("nonce"));
}

#[test]
fn answers_are_remembered_up_to_the_bound() {
    let mut inbox = Inbox::default();
    let story = Story::default();
    let numbered = |n: u16| Proposal {
        nonce: Nonce::from_bytes(std::array::from_fn(|at| n.to_le_bytes()[at % 2])),
        ..proposal(&story, 0, "m@1.0.0")
    };
    for n in 0..=u16::try_from(PROPOSALS_REMEMBERED).unwrap() {
        inbox.settle(&numbered(n), u64::from(n));
    }
    assert_eq!(inbox.settled.len(), PROPOSALS_REMEMBERED);
    let later = Head { rev: 5, ..Head::EMPTY };
    assert_eq!(inbox.admit(&numbered(0), &later).unwrap_err().code(), "conflict", "forgotten, and too late");
    assert_eq!(inbox.admit(&numbered(1), &later), Ok(Admission::Settled { rev: 1 }));
}

#[test]
fn a_proposal_has_one_encoding() {
    let proposal = proposal(&Story::default(), 7, "m@1.0.0");
    let bytes = proposal.encode();
    assert_eq!(Proposal::decode(&bytes).unwrap(), proposal);
    for at in 0..bytes.len() {
        assert_eq!(Proposal::decode(&bytes[..at]).unwrap_err().code(), "invalid-record");
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Proposal::decode(&damaged).map_or(true, |read| read.encode() == damaged && read != proposal));
    }
    let mut longer = bytes;
    longer.push(0xc0);
    assert_eq!(Proposal::decode(&longer).unwrap_err().code(), "invalid-record");
}
