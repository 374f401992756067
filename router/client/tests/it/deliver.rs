//! Subscriptions, dispatch, receipts.

use std::time::Duration;

use myelin_client::{ClientConfig, Code, Delivered, Event, Stamp, SubscribeOptions, Subscription};
use myelin_wire::attrs::{self, AttrsBuilder};
use myelin_wire::message::{Message, SubscriptionId};
use myelin_wire::stream::write_name;

use crate::fake::{Fake, FakeSession, delivery, in_time, settle};

const SHOP: &str = "spiffe://test.example/service/shop";

fn stamp(seq: u64) -> Stamp {
    Stamp { origin: 1, epoch: 3, seq, source_ref: 9, time_ns: 77, generation: 12, ..Stamp::default() }
}

async fn subscribe(
    client: &myelin_client::Client,
    router: &mut FakeSession,
    pattern: &str,
    options: SubscribeOptions,
) -> (Subscription, u32) {
    let (subscription, asked) = tokio::join!(client.subscribe(pattern, options.clone()), router.confirm_subscribe());
    assert_eq!((asked.pattern.as_str(), asked.group), (pattern, options.group));
    (subscription.unwrap(), asked.id)
}

async fn next(subscription: &mut Subscription) -> Delivered {
    in_time(subscription.next()).await.expect("an event")
}

#[tokio::test(start_paused = true)]
async fn a_delivered_event_says_everything_about_itself() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (mut orders, _) = subscribe(&client, &mut router, "orders/**", SubscribeOptions::default()).await;
    let mut block = AttrsBuilder::new();
    block.own(attrs::KEY, b"k7").header("x-a", "1").header("x-b", "2").own(attrs::TYPE, b"order.placed");
    let events: [(u32, &[u8], &[u8]); 2] = [(5, &[], b"first"), (5, block.as_bytes(), b"second")];
    router.deliver(stamp(4096), &[(5, "orders/eu"), (9, SHOP)], &events).await;

    let first = next(&mut orders).await;
    assert_eq!((first.topic(), first.payload()), ("orders/eu", &b"first"[..]));
    assert_eq!((first.publisher(), first.source()), (Some(SHOP), Some(SHOP)));
    assert_eq!((first.time_ns(), first.generation(), first.seq()), (77, 12, 4096));
    assert_eq!(first.id(), "00000001-00000003-00-0000000000001000");
    assert!(first.attrs().is_empty() && first.key().is_none() && !first.is_request());

    let second = next(&mut orders).await;
    assert_eq!((second.seq(), second.key(), second.event_type()), (4097, Some(&b"k7"[..]), Some("order.placed")));
    assert_eq!(second.headers().collect::<Vec<_>>(), [("x-a", "1"), ("x-b", "2")]);
    assert_eq!((second.header("x-b"), second.payload_bytes()), (Some("2"), "second".into()));

    // Made by the router itself.
    router.deliver(Stamp { source_ref: 0, ..stamp(1) }, &[], &[(5, &[], b"third")]).await;
    let third = next(&mut orders).await;
    assert_eq!((third.publisher(), third.source()), (None, None));
    router.hear_receipt(3).await;
}

#[tokio::test(start_paused = true)]
async fn one_copy_goes_to_every_plain_subscription_that_matches() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (mut all, _) = subscribe(&client, &mut router, "a/**", SubscribeOptions::default()).await;
    let (mut one, _) = subscribe(&client, &mut router, "a/*", SubscribeOptions::default()).await;
    let (mut group, group_id) = subscribe(&client, &mut router, "a/**", SubscribeOptions::group("g")).await;
    let names = [(1, "a/b"), (2, "a/b/c"), (9, SHOP)];
    router.deliver(stamp(0), &names, &[(1, &[], b"1"), (2, &[], b"2"), (1, &[], b"3")]).await;
    router.deliver(Stamp { subscription: group_id, ..stamp(0) }, &[], &[(2, &[], b"for the member")]).await;
    for payload in ["1", "2", "3"] {
        assert_eq!(next(&mut all).await.payload(), payload.as_bytes());
    }
    for payload in ["1", "3"] {
        assert_eq!(next(&mut one).await.payload(), payload.as_bytes());
    }
    assert_eq!(next(&mut group).await.payload(), b"for the member");
    router.hear_receipt(4).await;
    assert!(all.try_next().is_none() && one.try_next().is_none() && group.try_next().is_none());
    assert_eq!(client.stats().delivered, 4, "one copy counts once, however many took it");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_made_later_gets_events_of_topics_known_before() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (mut first, _) = subscribe(&client, &mut router, "a/**", SubscribeOptions::default()).await;
    router.deliver(stamp(0), &[(1, "a/b"), (9, SHOP)], &[(1, &[], b"1")]).await;
    assert_eq!(next(&mut first).await.payload(), b"1");
    let (mut second, _) = subscribe(&client, &mut router, "a/b", SubscribeOptions::default()).await;
    router.deliver(stamp(1), &[], &[(1, &[], b"2")]).await;
    assert_eq!(next(&mut first).await.payload(), b"2");
    assert_eq!(next(&mut second).await.payload(), b"2");

    drop(first);
    assert_eq!(router.hear().await, Message::Unsubscribe(SubscriptionId { id: 1 }));
    // Still under way: nobody wants it, and the router hears of it all the same.
    router.deliver(stamp(2), &[(2, "a/c")], &[(2, &[], b"late")]).await;
    router.say(Message::Unsubscribed(SubscriptionId { id: 1 })).await;
    router.hear_receipt(3).await;
    assert_eq!((client.stats().unclaimed, client.stats().subscriptions), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_redefined_name_means_the_new_topic_from_there_on() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (mut all, _) = subscribe(&client, &mut router, "**", SubscribeOptions::default()).await;
    let mut bytes = delivery(stamp(0), &[(1, "old"), (9, SHOP)], &[(1, &[], b"1")]);
    bytes.extend(delivery(stamp(1), &[(1, "new"), (9, "spiffe://test.example/service/other")], &[(1, &[], b"2")]));
    // In one piece, so that both meanings are found in one read.
    router.deliver_bytes(bytes).await;
    let (old, new) = (next(&mut all).await, next(&mut all).await);
    assert_eq!((old.topic(), old.publisher()), ("old", Some(SHOP)));
    assert_eq!((new.topic(), new.publisher()), ("new", Some("spiffe://test.example/service/other")));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_cut_anywhere_is_put_together() {
    let bytes = delivery(stamp(0), &[(1, "a"), (9, SHOP)], &[(1, &[], b"one"), (1, &[], b"two")]);
    for cut in 1..bytes.len() {
        let mut fake = Fake::new();
        let (client, mut router) = fake.client(ClientConfig::default()).await;
        let (mut all, _) = subscribe(&client, &mut router, "a", SubscribeOptions::default()).await;
        router.deliver_bytes(bytes[..cut].to_vec()).await;
        tokio::task::yield_now().await;
        router.deliver_bytes(bytes[cut..].to_vec()).await;
        let (one, two) = (next(&mut all).await, next(&mut all).await);
        assert_eq!((one.payload(), two.payload()), (&b"one"[..], &b"two"[..]), "cut at {cut}");
        assert_eq!((one.seq(), two.seq()), (0, 1));
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn receipts_follow_the_taking_over() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (mut all, _) = subscribe(&client, &mut router, "a", SubscribeOptions::default()).await;
    let start = tokio::time::Instant::now();
    router.deliver(stamp(0), &[(1, "a"), (9, SHOP)], &[(1, &[], b"1")]).await;
    router.hear_receipt(1).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "after a quiet while at once");
    router.deliver(stamp(1), &[], &[(1, &[], b"2")]).await;
    router.hear_receipt(2).await;
    assert!((1..=20).contains(&start.elapsed().as_millis()), "then within 20 ms: {:?}", start.elapsed());
    let before = tokio::time::Instant::now();
    let many: Vec<(u32, &[u8], &[u8])> = vec![(1, &[], b""); 1_000];
    router.deliver(stamp(2), &[], &many).await;
    router.hear_receipt(1_002).await;
    assert_eq!(before.elapsed(), Duration::ZERO, "1,000 events do not wait");
    let mut batch = Vec::new();
    while batch.len() < 1_002 {
        assert!(in_time(all.next_batch(&mut batch, 100)).await <= 100);
    }
    assert!(batch.iter().zip(0..).all(|(event, seq)| event.seq() == seq));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_not_read_stops_the_reading_and_loses_nothing() {
    let mut fake = Fake::new();
    let config = ClientConfig { queue_events_max: 4, ..ClientConfig::default() };
    let (client, mut router) = fake.client(config).await;
    let (mut slow, _) = subscribe(&client, &mut router, "slow", SubscribeOptions::default()).await;
    let (mut quick, _) = subscribe(&client, &mut router, "quick", SubscribeOptions::default()).await;
    router.deliver(stamp(0), &[(1, "slow"), (2, "quick"), (9, SHOP)], &[]).await;
    for seq in 0..20 {
        router.deliver(stamp(seq), &[], &[(1, &[], b"s")]).await;
        settle().await;
    }
    router.deliver(stamp(20), &[], &[(2, &[], b"q")]).await;
    settle().await;
    assert_eq!(client.stats().delivered, 4, "the bound holds");
    assert!(quick.try_next().is_none(), "what comes after is not read");
    // Acks are not held up by it.
    let ticket = client.publish(Event::new("t", "x")).await.unwrap();
    router.events(1).await;
    router.ack(1, &[]).await;
    in_time(ticket).await;
    for seq in 0..20 {
        assert_eq!(next(&mut slow).await.seq(), seq);
    }
    assert_eq!(next(&mut quick).await.payload(), b"q");
    router.hear_receipt(21).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_full_subscription_lets_the_others_go_on() {
    let mut fake = Fake::new();
    let config = ClientConfig { queue_bytes_max: 10, ..ClientConfig::default() };
    let (client, mut router) = fake.client(config).await;
    let (full, _) = subscribe(&client, &mut router, "full", SubscribeOptions::default()).await;
    let (mut other, _) = subscribe(&client, &mut router, "other", SubscribeOptions::default()).await;
    let names = [(1, "full"), (2, "other"), (9, SHOP)];
    let events: [(u32, &[u8], &[u8]); 3] = [(1, &[], &[0; 50]), (1, &[], &[0; 50]), (2, &[], b"o")];
    router.deliver(stamp(0), &names, &events).await;
    settle().await;
    assert_eq!(client.stats().queued, 1, "one event larger than the bound goes in, a second one waits");
    assert!(other.try_next().is_none());
    drop(full);
    assert_eq!(next(&mut other).await.payload(), b"o");
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_says_why() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (refused, _) = tokio::join!(
        client.subscribe("$sys/**", SubscribeOptions::default()),
        router.refuse_subscribe(Code::ReservedTopic)
    );
    assert_eq!(refused.unwrap_err().code(), "reserved-topic");
    for (pattern, group, code) in
        [("a//b", "g", "invalid-pattern"), ("a", "", "invalid-group"), ("a", "\n", "invalid-group")]
    {
        let error = client.subscribe(pattern, SubscribeOptions::group(group)).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    assert_eq!(client.stats().subscriptions, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_for_a_subscription_does_not_keep_it() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let never = tokio::time::timeout(Duration::from_secs(1), client.subscribe("a", SubscribeOptions::default())).await;
    assert!(never.is_err());
    let Message::Subscribe(asked) = router.hear().await else { panic!() };
    assert_eq!(router.hear().await, Message::Unsubscribe(SubscriptionId { id: asked.id }));
    router.say(Message::Subscribed(SubscriptionId { id: asked.id })).await;
    router.say(Message::Unsubscribed(SubscriptionId { id: asked.id })).await;
    settle().await;
    assert_eq!(client.stats().subscriptions, 0);
}

#[tokio::test(start_paused = true)]
async fn malformed_deliveries_close_the_connection_with_the_fault() {
    let named = |name: &[u8]| {
        let mut bytes = Vec::new();
        write_name(&mut bytes, 3, &"n".repeat(name.len()));
        let at = bytes.len() - name.len();
        bytes[at..].copy_from_slice(name);
        bytes
    };
    let zero = {
        let mut bytes = Vec::new();
        write_name(&mut bytes, 0, "x");
        bytes
    };
    let cases = [
        ("topic-ref without a name", delivery(stamp(0), &[(9, SHOP)], &[(1, &[], b"x")]), Code::Malformed),
        ("source-ref without a name", delivery(stamp(0), &[(1, "a")], &[(1, &[], b"x")]), Code::Malformed),
        ("a name that is not UTF-8", named(&[0xff, 0xfe]), Code::Malformed),
        ("ref 0", zero, Code::Malformed),
        ("an EVENTS frame", vec![0, 0, 0, 0, 0x11, 0, 0, 0], Code::OutOfOrder),
        ("an unknown frame", vec![0, 0, 0, 0, 0x7e, 0, 0, 0], Code::UnknownFrame),
        ("a reserved flag", vec![0, 0, 0, 0, 0x12, 2, 0, 0], Code::Malformed),
    ];
    for (what, bytes, code) in cases {
        let mut fake = Fake::new();
        let (client, mut router) = fake.client(ClientConfig::default().with_reconnect(false)).await;
        let (mut all, _) = subscribe(&client, &mut router, "**", SubscribeOptions::default()).await;
        // A good one before the fault still arrives.
        let mut stream = delivery(Stamp { source_ref: 0, ..stamp(0) }, &[(2, "good")], &[(2, &[], b"good")]);
        stream.extend(bytes);
        router.deliver_bytes(stream).await;
        let reason = router.closed().await;
        assert_eq!((reason.code, reason.by_peer), (code.number().into(), true), "{what}: {reason}");
        assert_eq!(next(&mut all).await.payload(), b"good", "{what}");
        assert!(in_time(all.next()).await.is_none());
        assert_eq!(all.error().unwrap().code(), code.name(), "{what}");
    }
}
