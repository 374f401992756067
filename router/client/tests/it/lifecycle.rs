//! Losing and making connections, GOAWAY, closing.

use std::time::Duration;

use myelin_client::{
    Client, ClientConfig, ClientError, Code, Event, Outcome, Overflow, Stamp, Status, SubscribeOptions,
};
use myelin_transport::{DialError, Refusal as TlsRefusal};
use myelin_wire::message::{Message, SubscriptionId};

use crate::fake::{Fake, in_time, settle};

#[tokio::test(start_paused = true)]
async fn a_lost_connection_leaves_events_in_doubt_and_subscribes_again() {
    let mut fake = Fake::new();
    let config = ClientConfig::default().with_overflow(Overflow::Pause);
    let (client, mut router) = fake.client(config).await;
    assert_eq!(router.hello.overflow, Overflow::Pause);
    let (orders, asked) =
        tokio::join!(client.subscribe("orders/**", SubscribeOptions::group("g")), router.confirm_subscribe());
    let (mut orders, id) = (orders.unwrap(), asked.id);
    let mut tickets = Vec::new();
    for payload in ["one", "two", "three"] {
        tickets.push(client.publish(Event::new("t", payload)).await.unwrap());
    }
    router.events(3).await;
    router.ack(1, &[]).await;
    settle().await;
    router.connection.close(Code::Internal.number().into(), "internal: fell over");
    let mut outcomes = Vec::new();
    for ticket in tickets {
        outcomes.push(in_time(ticket).await);
    }
    assert_eq!(outcomes, [Outcome::Acked, Outcome::Unknown, Outcome::Unknown]);
    let summary = in_time(client.flush()).await;
    assert_eq!((summary.acked, summary.unknown, summary.in_flight()), (1, 2, 0));

    // While there is no session, publishing waits; it goes on when the subscriptions are live again.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.publish(Event::new("t", "four")).await }
    });
    let mut router = fake.session().await;
    assert_eq!(client.try_send(&Event::new("t", "x")).unwrap_err().code(), "disconnected");
    assert!(!waiting.is_finished());
    let again = router.confirm_subscribe().await;
    assert_eq!((again.id, again.pattern.as_str(), again.group.as_deref()), (id, "orders/**", Some("g")));
    let ticket = in_time(waiting).await.unwrap().unwrap();
    assert_eq!(ticket.number(), 4);
    let events = router.events(1).await;
    assert_eq!((events[0].topic.as_str(), &events[0].payload[..]), ("t", &b"four"[..]), "nothing is sent again");
    router.ack(1, &[]).await;
    assert_eq!(in_time(ticket).await, Outcome::Acked);

    let stamp = Stamp { subscription: id, ..Stamp::default() };
    router.deliver(stamp, &[(1, "orders/eu")], &[(1, &[], b"o")]).await;
    assert_eq!(in_time(orders.next()).await.unwrap().payload(), b"o");
    router.hear_receipt(1).await;
    let stats = client.stats();
    assert_eq!((stats.sessions, stats.sessions_lost, stats.published, stats.unknown), (2, 1, 4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_refused_the_second_time_ends_with_the_reason() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (asked, _) = tokio::join!(client.subscribe("a", SubscribeOptions::default()), router.confirm_subscribe());
    let mut subscription = asked.unwrap();
    drop(router);
    let mut router = fake.session().await;
    router.refuse_subscribe(Code::TooManySubscriptions).await;
    assert!(in_time(subscription.next()).await.is_none());
    assert_eq!(subscription.error().unwrap().code(), "too-many-subscriptions");
    // And does not keep publishers waiting.
    in_time(client.send(Event::new("t", "x"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_all_routers_are_tried() {
    let mut fake = Fake::with_routers(3);
    let (client, router) = fake.client(ClientConfig::default()).await;
    fake.fail_next(7);
    let lost = tokio::time::Instant::now();
    drop(router);
    let router = fake.session().await;
    assert_eq!(router.index, 7 % 3);
    settle().await;
    assert_eq!(client.stats().connect_failures, 7);
    // Full jitter: eight pauses with bounds of 0.2, 0.4, .. 25.6 s.
    assert!(lost.elapsed() < Duration::from_millis(51_000 + 300), "{:?}", lost.elapsed());
    assert!(lost.elapsed() > Duration::from_millis(500), "eight draws are not all next to nothing");
}

/// Every router turns a client away that wants to connect again, with these words in turn; how its subscription ends.
async fn turned_away(words: &[(Code, &str)], attempts: usize) -> Option<ClientError> {
    let mut fake = Fake::with_routers(2);
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (asked, _) = tokio::join!(client.subscribe("a", SubscribeOptions::default()), router.confirm_subscribe());
    let mut subscription = asked.unwrap();
    router.connection.close(Code::TokenExpired.number().into(), "token-expired: over");
    for (code, text) in words.iter().cycle().take(attempts) {
        let dialled = tokio::select! {
            ended = subscription.next() => {
                assert!(ended.is_none());
                return subscription.error();
            }
            dialled = fake.dialled() => dialled,
        };
        dialled.1.close(code.number().into(), text);
    }
    subscription.error()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_no_router_believes_any_more_ends_with_the_reason() {
    let expired = (Code::Unauthenticated, "unauthenticated: token-expired: the token is over; get a new one");
    let error = turned_away(&[expired], 1_000).await.unwrap();
    assert_eq!(error.code(), "unauthenticated");
    assert!(error.to_string().contains("token-expired"), "{error}");
    // What passes by itself does not end it, nor one router among others that has trouble.
    for word in ["token-no-keys: not read yet", "token-key: not among those", "token-not-yet: check both clocks"] {
        let text = format!("unauthenticated: {word}");
        assert_eq!(turned_away(&[(Code::Unauthenticated, &text)], 50).await, None, "{word}");
    }
    assert_eq!(turned_away(&[expired, (Code::Internal, "internal: fell over")], 50).await, None);
}

/// A certificate is renewed by others, in files that are read for each attempt: who is late by some seconds goes on, and
/// who is not renewed at all says so.
#[tokio::test(start_paused = true)]
async fn a_client_whose_certificate_is_over_ends_with_the_reason() {
    for (refusal, ends) in [(TlsRefusal::OutsideValidity, true), (TlsRefusal::Busy, false)] {
        let mut fake = Fake::with_routers(2);
        let (client, mut router) = fake.client(ClientConfig::default()).await;
        let (asked, _) = tokio::join!(client.subscribe("a", SubscribeOptions::default()), router.confirm_subscribe());
        let mut subscription = asked.unwrap();
        let refused = ClientError::Dial(DialError::Refused { refusal });
        fake.fail_with(refused.clone());
        let began = tokio::time::Instant::now();
        router.connection.close(Code::CertificateExpired.number().into(), "certificate-expired: over");
        let ended = tokio::time::timeout(Duration::from_secs(600), subscription.next()).await;
        assert_eq!((ended.is_ok_and(|event| event.is_none()), began.elapsed().as_secs() >= 10), (ends, true));
        assert_eq!(subscription.error(), ends.then_some(refused));
    }
}

/// Only the time since it was first turned away counts: while nobody answered, nobody could have believed it.
#[tokio::test(start_paused = true)]
async fn an_outage_is_no_time_in_which_a_client_was_turned_away() {
    let mut fake = Fake::with_routers(1);
    let (client, router) = fake.client(ClientConfig::default()).await;
    router.connection.close(Code::Internal.number().into(), "internal: down");
    let lost = tokio::time::Instant::now();
    while lost.elapsed() < Duration::from_secs(90) {
        in_time(fake.dialled()).await.1.close(Code::Internal.number().into(), "internal: still down");
    }
    in_time(fake.dialled())
        .await
        .1
        .close(Code::Unauthenticated.number().into(), "unauthenticated: token-expired: late");
    let (_, connection) = in_time(fake.dialled()).await;
    assert!(!matches!(*client.status().borrow(), Status::Closed(_)), "the token may have been renewed by now");
    drop(connection);
}

#[tokio::test(start_paused = true)]
async fn without_reconnecting_the_first_loss_is_the_end() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default().with_reconnect(false)).await;
    let (asked, _) = tokio::join!(client.subscribe("a", SubscribeOptions::default()), router.confirm_subscribe());
    let mut subscription = asked.unwrap();
    router.connection.close(Code::SlowConsumer.number().into(), "slow-consumer: 4,096 events behind");
    assert!(in_time(subscription.next()).await.is_none());
    let error = subscription.error().unwrap();
    assert_eq!((error.code(), error.to_string().contains(": 4,096 events behind")), ("slow-consumer", true));
    assert_eq!(client.send(Event::new("t", "x")).await.unwrap_err(), error);
    assert_eq!(client.subscribe("a", SubscribeOptions::default()).await.unwrap_err(), error);
    assert_eq!(in_time(client.session()).await.unwrap_err(), error);
    assert_eq!(in_time(client.next_exception()).await, None);
    in_time(client.close()).await;
}

#[tokio::test(start_paused = true)]
async fn goaway_finishes_what_is_in_flight_and_moves_to_the_next_router() {
    let mut fake = Fake::with_routers(2);
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (asked, _) = tokio::join!(client.subscribe("a", SubscribeOptions::default()), router.confirm_subscribe());
    let mut subscription = asked.unwrap();
    let ticket = client.publish(Event::new("t", "in flight")).await.unwrap();
    router.events(1).await;
    router.goaway(30_000).await;
    settle().await;
    assert_eq!(client.try_send(&Event::new("t", "x")).unwrap_err().code(), "disconnected");
    assert!(router.publish_is_open().await, "an ack is missing");
    router.ack(1, &[]).await;
    assert_eq!(in_time(ticket).await, Outcome::Acked);
    router.publish_end().await;
    // Deliveries are taken as long as they come.
    for seq in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        router.deliver(Stamp { seq, ..Stamp::default() }, &[(1, "a")], &[(1, &[], b"d")]).await;
        assert_eq!(in_time(subscription.next()).await.unwrap().seq(), seq);
    }
    let quiet = tokio::time::Instant::now();
    assert_eq!(router.hear().await, Message::Bye);
    assert!(quiet.elapsed() <= Duration::from_secs(1), "{:?}", quiet.elapsed());
    assert_eq!(router.receipted, 3);
    router.connection.close(0, "");
    let mut next = fake.session().await;
    assert_eq!(next.index, 1, "elsewhere");
    next.confirm_subscribe().await;
    in_time(client.send(Event::new("t", "x"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn goaway_is_left_in_time_even_when_acks_do_not_come() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let ticket = client.publish(Event::new("t", "x")).await.unwrap();
    router.events(1).await;
    let start = tokio::time::Instant::now();
    router.goaway(2_000).await;
    assert_eq!(router.hear().await, Message::Bye);
    assert_eq!(start.elapsed().as_millis() / 100, 20, "after drain_ms");
    assert_eq!(router.closed().await.code, 0, "the client closes when the router does not");
    assert_eq!(in_time(ticket).await, Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_acks_sends_the_last_receipt_and_says_bye() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (asked, _) = tokio::join!(client.subscribe("a", SubscribeOptions::default()), router.confirm_subscribe());
    let mut subscription = asked.unwrap();
    router.deliver(Stamp::default(), &[(1, "a")], &[(1, &[], b"1"), (1, &[], b"2")]).await;
    router.hear_receipt(2).await;
    let ticket = client.publish(Event::new("t", "last")).await.unwrap();
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    router.events(1).await;
    settle().await;
    assert_eq!(client.send(Event::new("t", "x")).await.unwrap_err(), ClientError::ClientClosed);
    assert!(!closing.is_finished(), "an ack is missing");
    // The second of these is taken over while the pause between receipts runs.
    for payload in ["3", "4"] {
        router.deliver(Stamp::default(), &[], &[(1, &[], payload.as_bytes())]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    router.ack(1, &[]).await;
    assert_eq!(in_time(ticket).await, Outcome::Acked);
    assert_eq!(router.hear().await, Message::Bye);
    assert_eq!(router.receipted, 4);
    router.publish_end().await;
    router.connection.close(0, "");
    let summary = in_time(closing).await.unwrap();
    assert_eq!((summary.published, summary.acked, summary.unknown), (1, 1, 0));
    for payload in ["1", "2", "3", "4"] {
        assert_eq!(subscription.next().await.unwrap().payload(), payload.as_bytes(), "what was taken over is there");
    }
    assert!(subscription.next().await.is_none() && subscription.error().is_none());
    assert_eq!(*client.status().borrow(), Status::Closed(ClientError::ClientClosed));
}

#[tokio::test(start_paused = true)]
async fn close_is_bounded_when_the_router_is_silent() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let ticket = client.publish(Event::new("t", "x")).await.unwrap();
    router.events(1).await;
    let start = tokio::time::Instant::now();
    let summary = in_time(client.close()).await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!((summary.published, summary.unknown), (1, 1));
    assert_eq!(in_time(ticket).await, Outcome::Unknown);
    assert_eq!(router.closed().await.code, 0);
    // While there is no session at all, there is nothing to wait for.
    let (client, router) = fake.client(ClientConfig::default()).await;
    fake.fail_next(usize::MAX);
    drop(router);
    settle().await;
    let start = tokio::time::Instant::now();
    in_time(client.close()).await;
    assert!(start.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_takes_the_connection_with_it() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (asked, _) = tokio::join!(client.subscribe("a", SubscribeOptions::default()), router.confirm_subscribe());
    let subscription = asked.unwrap();
    drop(client);
    settle().await;
    assert_eq!(router.connection.close_reason(), None, "a subscription is a handle, too");
    drop(subscription);
    let reason = router.closed().await;
    assert_eq!((reason.code, reason.by_peer), (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_router_that_does_not_greet_or_breaks_the_protocol_is_left() {
    // No WELCOME at all.
    let mut fake = Fake::new();
    let start = tokio::time::Instant::now();
    let (connected, _held) =
        tokio::join!(Client::connect_with(ClientConfig::default(), fake.connector()), fake.dialled());
    assert_eq!((connected.unwrap_err().code(), start.elapsed().as_secs()), ("handshake-timeout", 5));

    // Another frame first.
    let (connected, ()) = tokio::join!(Client::connect_with(ClientConfig::default(), fake.connector()), async {
        let (_, connection) = in_time(fake.dialled()).await;
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        let mut bytes = Vec::new();
        Message::Subscribed(SubscriptionId { id: 1 }).encode(&mut bytes).unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(connection.closed().await.code, Code::OutOfOrder.number().into());
    });
    assert_eq!(connected.unwrap_err().code(), "out-of-order");

    // No version in common: the router says so and closes.
    let (connected, ()) = tokio::join!(Client::connect_with(ClientConfig::default(), fake.connector()), async {
        let (_, connection) = in_time(fake.dialled()).await;
        connection.close(Code::Version.number().into(), "version: this router speaks 2 to 3");
    });
    let error = connected.unwrap_err();
    assert_eq!((error.code(), error.to_string().contains(": this router speaks 2 to 3")), ("version", true));
}

#[tokio::test(start_paused = true)]
async fn a_control_frame_that_does_not_belong_closes_the_connection() {
    for (bytes, code) in [
        (vec![0, 0, 0, 0, 0x05, 0, 0, 0], Code::OutOfOrder),
        (vec![1, 0, 0, 0, 0x44, 0, 0, 0, 0x90], Code::Malformed),
        (vec![0, 0, 0, 0, 0x7e, 0, 0, 0], Code::UnknownFrame),
        (vec![1, 0, 1, 0, 0x44, 0, 0, 0], Code::FrameTooLarge),
    ] {
        let mut fake = Fake::new();
        let (client, mut router) = fake.client(ClientConfig::default().with_reconnect(false)).await;
        // A skippable one is skipped.
        router.say_bytes(vec![2, 0, 0, 0, 0x7e, 1, 0, 0, 9, 9]).await;
        settle().await;
        assert_eq!(router.connection.close_reason(), None);
        router.say_bytes(bytes).await;
        assert_eq!(router.closed().await.code, code.number().into());
        let mut status = client.status();
        in_time(status.wait_for(|status| matches!(status, Status::Closed(error) if error.code() == code.name())))
            .await
            .unwrap();
    }
}
