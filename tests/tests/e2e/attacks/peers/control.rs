//! Peers that lie on their control stream.

use super::{Attacked, EVIL};
use anyhow::{Context, Result};
use bytes::Bytes;
use myelin_mesh::control::{Digest, Entry, FixedBytes, InterestDelta, InterestHead, LinkState};
use myelin_mesh::{Control, RouterNumber, ViolationCode};
use myelin_tests::hostile::{encoded, frame, state};
use std::collections::BTreeMap;

/// Versions of link states stay below this.
const VERSION_MAX: u64 = 1 << 62;
/// Routers of the sites 1 and 2.
const OTHERS: [u32; 2] = [2, 3];

fn head(epoch: u32, seq: u64) -> InterestHead {
    InterestHead { epoch, seq, hash: FixedBytes([7; 16]) }
}

fn delta(owner: u32, head: InterestHead, added: &[&str], removed: &[&str]) -> Control {
    let entries = |texts: &[&str]| texts.iter().map(|text| Entry(text.parse().expect("a pattern"), None)).collect();
    let owner = RouterNumber(owner);
    Control::InterestDelta(InterestDelta { owner, head, added: entries(added), removed: entries(removed) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_breaks_the_control_protocol_loses_its_link_and_nobody_else_one() -> Result<()> {
    use ViolationCode as C;
    let mut attacked = Attacked::start().await?;
    let own = |links: &[(u32, u32)]| Control::LinkState(state((EVIL, 1, 1), links));
    let wrong_epoch = LinkState { interest: head(2, 0), ..state((EVIL, 1, 1), &[(1, 10)]) };
    let attacks = [
        ("an unknown frame", frame(0, 0x55, &[]), C::UnknownFrame),
        ("a giant length", frame(u32::MAX, 3, &[]), C::FrameTooLarge),
        ("a hello again", encoded(&Control::Hello(attacked.evil.hello()))?, C::OutOfOrder),
        ("noise", frame(64, 3, &[0xc1; 64]), C::Malformed),
        ("a link that costs nothing", encoded(&own(&[(1, 0)]))?, C::Malformed),
        ("a link that costs everything", encoded(&own(&[(1, u32::MAX)]))?, C::Malformed),
        ("a link to itself", encoded(&own(&[(EVIL, 10)]))?, C::Malformed),
        ("a neighbour twice", encoded(&own(&[(1, 10), (1, 20)]))?, C::Malformed),
        ("an interest of another epoch", encoded(&Control::LinkState(wrong_epoch))?, C::Malformed),
        ("the last version of all", encoded(&Control::LinkState(state((EVIL, 1, u64::MAX), &[])))?, C::Malformed),
        (
            "the last version of another's",
            encoded(&Control::Digest(Digest { entries: vec![(RouterNumber(2), 1, u64::MAX)], reply: false }))?,
            C::Malformed,
        ),
        ("the last number of deltas", encoded(&delta(EVIL, head(1, u64::MAX), &["a"], &[]))?, C::Malformed),
        (
            "a receipt for what was not sent",
            encoded(&Control::Application { kind: 1, body: Bytes::copy_from_slice(&99u64.to_le_bytes()) })?,
            C::OutOfOrder,
        ),
        (
            "a receipt of no number",
            encoded(&Control::Application { kind: 1, body: Bytes::from_static(b"no") })?,
            C::Malformed,
        ),
    ];
    let mut expected = BTreeMap::new();
    for (what, bytes, code) in attacks {
        let mut link = attacked.evil.link().await.with_context(|| what.to_owned())?;
        link.say(&own(&[(1, 10)])).await?;
        link.is_answered().await.with_context(|| what.to_owned())?;
        link.say_raw(&bytes).await?;
        assert_eq!(link.ended().await.with_context(|| what.to_owned())?, code, "{what}");
        *expected.entry(code).or_insert(0) += 1;
        attacked.beat(1).await?;
    }
    for (code, times) in expected {
        attacked.counts(code, times).await?;
    }
    attacked.ends_unharmed(32 * 1024).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_is_skipped() -> Result<()> {
    let attacked = Attacked::start().await?;
    let mut link = attacked.evil.link().await?;
    for kind in [0x80, 0x8b, 0xff] {
        link.say_raw(&frame(100, kind, &[9; 100])).await?;
    }
    link.say(&Control::Application { kind: 200, body: Bytes::from_static(b"of a newer router") }).await?;
    link.is_answered().await?;
    attacked.ends_unharmed(16 * 1024).await
}

/// Link states in the name of others: the routers next to them know better, and say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_about_other_routers_cut_nobody_off() -> Result<()> {
    let mut attacked = Attacked::start().await?;
    for other in OTHERS {
        // Versions that it will never reach, so that it could not say otherwise.
        for version in [1 << 40, VERSION_MAX - 1] {
            let mut link = attacked.evil.link().await?;
            link.say(&Control::LinkState(state((other, 1, version), &[]))).await?;
            assert_eq!(link.ended().await?, ViolationCode::Malformed);
            attacked.beat(2).await?;
        }
    }
    let mut link = attacked.evil.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(1, 1), (2, 1), (3, 1)]))).await?;
    for other in OTHERS {
        // Without links, with links to nobody but the liar, leaving; with ever later versions, and of a later start.
        let claims = [
            state((other, 1, 1 << 20), &[]),
            state((other, 1, 1 << 21), &[(EVIL, 1)]),
            LinkState { draining: true, ..state((other, 1, 1 << 22), &[(1, 1)]) },
            state((other, 7, 1), &[]),
            state((other, u32::MAX, 1 << 30), &[(EVIL, 1)]),
        ];
        for claim in claims {
            link.say(&Control::LinkState(claim)).await?;
            link.is_answered().await?;
            attacked.beat(2).await?;
        }
    }
    super::super::eventually("alarms", || Ok(attacked.counted("alarms", "identity-in-use")? >= 4)).await?;
    // The attacked router itself is said to be gone, and to have started anew.
    for claim in [state((1, 1, 1 << 30), &[]), state((1, 1, VERSION_MAX - 1), &[]), state((1, 9, 1), &[])] {
        link.say(&Control::LinkState(claim)).await?;
        link.is_answered().await?;
        attacked.beat(2).await?;
    }
    super::super::eventually("alarm", || Ok(attacked.counted("alarms", "own-identity")? >= 1)).await?;
    // Long enough for the answers to go around, and for everybody to act on them.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    attacked.ends_unharmed(32 * 1024).await
}

/// Interest in the name of others: what they want is theirs to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_about_what_others_want_change_nothing() -> Result<()> {
    let mut attacked = Attacked::start().await?;
    let mut link = attacked.evil.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(1, 1)]))).await?;
    // Site 2 wants `calm`, said to be over; and site 1 is said to want everything.
    for seq in 1..200 {
        link.say(&delta(3, head(1, seq), &[], &["calm"])).await?;
        link.say(&delta(2, head(1, seq), &["**"], &[])).await?;
    }
    link.say(&delta(3, head(7, 1), &[], &[])).await?;
    link.is_answered().await?;
    // From site 0, which was lied to, to site 2.
    let near = attacked.sites.client(0, "near", myelin_client::Overflow::Pause).await?;
    for _ in 0..5 {
        near.send(myelin_client::Event::new("calm", &attacked.sent.to_string())).await?;
        near.flush().await;
        for (_, events) in &mut attacked.subscribers {
            let event = tokio::time::timeout(super::PATIENCE, events.next()).await?.context("an event")?;
            assert_eq!(event.payload(), attacked.sent.to_string().as_bytes());
        }
        attacked.sent += 1;
    }
    attacked.ends_unharmed(32 * 1024).await
}
