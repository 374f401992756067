//! Peers that get no link.

use super::{Attacked, EVIL};
use anyhow::{Context, Result};
use myelin_mesh::control::{Drain, Hello};
use myelin_mesh::{Control, RouterNumber, SiteNumber, ViolationCode};
use myelin_tests::hostile::{HostileRouter, code_of, encoded, frame};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_who_it_says_or_says_it_wrongly_gets_no_link_and_is_told_why() -> Result<()> {
    use ViolationCode as C;
    let attacked = Attacked::start().await?;
    let (evil, hello) = (&attacked.evil, attacked.evil.hello());
    let says = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello.clone();
        change(&mut hello);
        encoded(&Control::Hello(hello))
    };
    let honest = says(&|_| {})?;
    let mut broken_map = honest.clone();
    broken_map[5] = 0x93;
    let attacks = [
        ("a version from the future", says(&|hello| (hello.min, hello.max) = (9, 12))?, C::Version),
        ("the version before the first", says(&|hello| (hello.min, hello.max) = (0, 0))?, C::Version),
        ("the version after this one", says(&|hello| (hello.min, hello.max) = (2, 2))?, C::Version),
        ("a range that holds nothing", says(&|hello| (hello.min, hello.max) = (2, 1))?, C::Version),
        ("another's name", says(&|hello| hello.site_name = "s1".to_owned())?, C::Identity),
        ("another's number", says(&|hello| hello.router = RouterNumber(2))?, C::Identity),
        ("a number that nobody has", says(&|hello| hello.router = RouterNumber(77))?, C::Identity),
        ("another's site", says(&|hello| hello.site = SiteNumber::new(1).expect("a site"))?, C::Identity),
        ("the attacked router's number", says(&|hello| hello.router = RouterNumber(1))?, C::OwnIdentity),
        ("no hello", encoded(&Control::Drain(Drain { drain_ms: 1 }))?, C::OutOfOrder),
        ("an unknown frame", frame(0, 0x55, &[]), C::UnknownFrame),
        ("a giant length", frame(u32::MAX, 1, &[]), C::FrameTooLarge),
        ("a hello that is no map", broken_map, C::Malformed),
        ("a hello that never ends", honest[..honest.len() - 1].to_vec(), C::OutOfOrder),
    ];
    let mut expected = BTreeMap::new();
    for (what, bytes, code) in attacks {
        let reason = evil.begin(&bytes).await.with_context(|| what.to_owned())?;
        assert_eq!(code_of(&reason).with_context(|| what.to_owned())?, code, "{what}: {reason:?}");
        // A hello that does not come may have been lost on its way: nobody's fault.
        if !what.ends_with("never ends") {
            *expected.entry(code).or_insert(0) += 1;
        }
    }
    for (code, times) in expected {
        attacked.counts(code, times).await?;
    }
    // Who speaks an older or a newer version as well is spoken to in the one that both know.
    for (min, max) in [(0, 1), (1, 2), (0, 9)] {
        let connection = evil.connect().await?;
        let (mut control, mut answers) = connection.open_bi().await?;
        control.write_all(&says(&|hello| (hello.min, hello.max) = (min, max))?).await?;
        let answer = tokio::time::timeout(super::PATIENCE, answers.read_chunk()).await??.context("an answer")?;
        assert_eq!(answer.get(4), Some(&1), "{min} to {max}: a hello");
        connection.close(0, "that was all");
        attacked.unlinked().await?;
    }
    // What a newer router may add to its hello, or say before it, changes nothing.
    let skippable = [frame(3, 0xd5, b"new"), honest].concat();
    let connection = evil.connect().await?;
    let (mut control, mut answers) = connection.open_bi().await?;
    control.write_all(&skippable).await?;
    let answer = tokio::time::timeout(super::PATIENCE, answers.read_chunk()).await??.context("an answer")?;
    assert_eq!(answer.get(4), Some(&1), "a hello");
    attacked.ends_unharmed(16 * 1024).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_holder_of_an_identity_is_refused_and_the_first_keeps_its_links() -> Result<()> {
    let attacked = Attacked::start().await?;
    // The key of site 1's router was copied: it comes as a later start, as an earlier one, and as the same.
    let copy = HostileRouter::new(&attacked.sites, "s1", 2, 0)?;
    for (epoch, code) in
        [(9, ViolationCode::IdentityInUse), (0, ViolationCode::IdentityInUse), (1, ViolationCode::DuplicateLink)]
    {
        let hello = Hello { epoch, ..copy.hello() };
        let reason = copy.begin(&encoded(&Control::Hello(hello))?).await?;
        assert_eq!(code_of(&reason)?, code, "epoch {epoch}: {reason:?}");
    }
    attacked.counts(ViolationCode::IdentityInUse, 2).await?;
    assert!(attacked.counted("alarms", "identity-in-use")? >= 2);
    // And the attacked router's own.
    let own = HostileRouter::new(&attacked.sites, "s0", 1, 0)?;
    let reason = own.begin(&encoded(&Control::Hello(own.hello()))?).await?;
    assert_eq!(code_of(&reason)?, ViolationCode::OwnIdentity);
    super::super::eventually("alarm", || Ok(attacked.counted("alarms", "own-identity")? >= 1)).await?;
    assert_eq!(attacked.evil.hello().router, RouterNumber(EVIL));
    attacked.ends_unharmed(16 * 1024).await
}
