//! Peers whose events are wrong.

use super::{Attacked, EVIL};
use anyhow::{Context, Result};
use myelin_mesh::{Control, SiteSet, Stamp, ViolationCode};
use myelin_tests::hostile::{RawLink, batch_of, raw_batch, stamp};
use std::collections::BTreeMap;

/// The destination sets of the sites.
const SITE_0: u64 = 1;
const SITE_1: u64 = 2;
const NOWHERE: u64 = 1 << 20;
/// Where fields of a stamp are in a batch.
const HOPS_AT: usize = 4 + 9;
const FLAGS_AT: usize = 4 + 10;
const GRANTS_AT: usize = 4 + 11;

/// A link that takes part in the mesh.
async fn link(attacked: &Attacked) -> Result<RawLink> {
    let mut link = attacked.evil.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(1, 10)]))).await?;
    link.is_answered().await?;
    Ok(link)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_batches_are_broken_loses_its_link_and_nobody_an_event() -> Result<()> {
    use ViolationCode as C;
    let mut attacked = Attacked::start().await?;
    let good = batch_of(stamp(EVIL, 1, SITE_0), "attack", &[b"x"])?;
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let events = |bytes: &[u8], count| raw_batch(stamp(EVIL, 1, SITE_0), &[(1, "attack")], count, bytes);
    // A number of its own: what came before is not looked at again.
    let topic = |seq, topic: &str| batch_of(stamp(EVIL, seq, SITE_0), topic, &[b"x"]);
    let attacks = [
        ("a giant length", vec![0xff; 8], C::FrameTooLarge),
        ("a batch too short for its stamp", [&8u32.to_le_bytes()[..], &[0; 8]].concat(), C::Malformed),
        ("seventeen hops", with(HOPS_AT, 17), C::HopLimit),
        ("unknown flags", with(FLAGS_AT, 0x80), C::Malformed),
        ("more grants than there may be", with(GRANTS_AT, 200), C::TooMany),
        ("grants that are not there", with(GRANTS_AT, 60), C::Malformed),
        ("an event without a head", events(&[0; 11], 1)?, C::Malformed),
        ("an event that is longer than its batch", events(&[0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], 1)?, C::Malformed),
        ("an event of 16 MiB and more", events(&[0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0], 1)?, C::FrameTooLarge),
        ("an unknown flag", events(&[7, 0, 0, 0, 0x80, 1, 0, 0, 0, 0, 0], 1)?, C::Malformed),
        ("more events than are said", events(&[[7, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]; 2].concat(), 1)?, C::Malformed),
        ("a name that was not announced", events(&[7, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0], 1)?, C::Malformed),
        ("a pattern for a topic", topic(50, "calm/**")?, C::Malformed),
        ("an empty level", topic(51, "calm//calm")?, C::Malformed),
        ("numbers beyond the last", batch_of(stamp(EVIL, u64::MAX, SITE_0), "attack", &[b"x", b"y"])?, C::Malformed),
        ("the same, for beyond", batch_of(stamp(EVIL, u64::MAX, SITE_1), "attack", &[b"x", b"y"])?, C::Malformed),
    ];
    let mut expected = BTreeMap::new();
    for (what, bytes, code) in attacks {
        let link = link(&attacked).await.with_context(|| what.to_owned())?;
        let mut stream = link.connection.open_uni().await?;
        stream.write_all(&bytes).await?;
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
async fn events_for_nowhere_or_of_nobody_are_counted_and_the_rest_goes_on() -> Result<()> {
    use ViolationCode as C;
    let mut attacked = Attacked::start().await?;
    let mut events = attacked.subscribers[0].0.subscribe("attack", myelin_client::SubscribeOptions::default()).await?;
    let mut link = link(&attacked).await?;
    let mut stream = link.connection.open_uni().await?;
    let own = |seq, sites| stamp(EVIL, seq, sites);
    let attacks = [
        ("a site that nobody knows", own(1, NOWHERE), Some(C::UnknownSite)),
        ("all of them", own(2, !7), Some(C::UnknownSite)),
        ("too many hops for the next", Stamp { hops: 8, ..own(3, SITE_1) }, Some(C::HopLimit)),
        ("not allowed here", Stamp { allowed: Some(SiteSet::EMPTY), ..own(4, SITE_0) }, Some(C::Residency)),
        (
            "not allowed there",
            Stamp { allowed: Some(SiteSet::from_bits(SITE_0.into())), ..own(5, SITE_1) },
            Some(C::Residency),
        ),
        ("for here only, and for elsewhere", Stamp { here_only: true, ..own(6, SITE_1) }, Some(C::NotHere)),
        ("of a router that nobody knows", stamp(77, 7, SITE_0), Some(C::Hearsay)),
        ("of the router itself", stamp(1, 8, SITE_0), Some(C::Hearsay)),
        // Nothing is wrong with the rest, as far as one can tell; it must be survived.
        ("of the last start of all", Stamp { epoch: u32::MAX, ..own(9, SITE_1) }, None),
        ("again, of another worker", Stamp { epoch: u32::MAX, shard: 9, ..own(10, SITE_1) }, None),
        ("of the other site, seen before", stamp(2, 2, SITE_0), None),
    ];
    let mut expected = BTreeMap::new();
    for (_, stamp, code) in &attacks {
        stream.write_all(&batch_of(stamp.clone(), "calm", &[b"forged"])?).await?;
        if let Some(code) = code {
            *expected.entry(*code).or_insert(0) += 1;
        }
    }
    for epoch in [u32::MAX, u32::MAX] {
        for shard in 0..3 {
            let last = Stamp { epoch, shard, ..own(20, SITE_0) };
            stream.write_all(&batch_of(last, "elsewhere", &[b"x"])?).await?;
        }
    }
    // What is in order in the same batch goes on.
    let mixed = Stamp { epoch: u32::MAX, ..own(100, SITE_0 | NOWHERE) };
    stream.write_all(&batch_of(mixed, "attack", &[b"good"])?).await?;
    let event = tokio::time::timeout(super::PATIENCE, events.next()).await?.context("an event")?;
    assert_eq!(event.payload(), b"good");
    *expected.entry(C::UnknownSite).or_insert(0) += 1;
    for (code, times) in expected {
        attacked.counts(code, times).await.with_context(|| format!("{code}"))?;
    }
    link.is_answered().await?;
    attacked.beat(5).await?;
    attacked.ends_unharmed(32 * 1024).await
}
