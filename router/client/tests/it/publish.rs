//! Publishing, acks and exceptions.

use std::time::Duration;

use myelin_client::{Attrs, ClientConfig, ClientError, Code, Event, Outcome, PublishException, Status};

use crate::fake::{Fake, in_time, settle};

#[tokio::test(start_paused = true)]
async fn an_event_arrives_as_it_was_made_and_its_ticket_tells_the_ack() {
    let mut fake = Fake::new();
    let config = ClientConfig::default().with_name("shop/1.0");
    let (client, mut router) = fake.client(config).await;
    assert_eq!((router.hello.client.as_str(), router.hello.min, router.hello.max), ("shop/1.0", 1, 1));

    let event = Event::new("orders/eu", b"{\"n\":2}").key("k7").header("x-tenant", "acme");
    let ticket = client.publish(event.event_type("order.placed").ttl(Duration::from_secs(5))).await.unwrap();
    assert_eq!(ticket.number(), 1);
    let [event] = router.events(1).await.try_into().unwrap();
    assert_eq!((event.topic.as_str(), &event.payload[..]), ("orders/eu", &b"{\"n\":2}"[..]));
    assert_eq!(event.flags, myelin_wire::event::FLAG_TTL);
    let attrs = Attrs::new(&event.attrs);
    assert_eq!(attrs.header("x-tenant"), Some("acme"));
    assert_eq!(attrs.own(myelin_wire::attrs::KEY), Some(&b"k7"[..]));
    assert_eq!((attrs.text(myelin_wire::attrs::TYPE), attrs.ttl_ms()), (Some("order.placed"), Some(5000)));

    router.ack(1, &[]).await;
    assert_eq!(in_time(ticket).await, Outcome::Acked);
}

#[tokio::test(start_paused = true)]
async fn acks_in_parts_and_with_exceptions_reach_tickets_and_the_exception_queue() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let mut tickets = Vec::new();
    for n in 1..=8_u8 {
        let payload = [n];
        let event = Event::new("t", &payload);
        // Odd ones with a ticket, even ones without.
        if n % 2 == 1 {
            tickets.push(client.publish(event).await.unwrap());
        } else {
            assert_eq!(client.send(event).await.unwrap(), u64::from(n));
        }
    }
    let payloads: Vec<_> = router.events(8).await.into_iter().flat_map(|event| event.payload).collect();
    assert_eq!(payloads, [1, 2, 3, 4, 5, 6, 7, 8], "in order");

    let mut tickets = tickets.into_iter();
    router.ack(3, &[(2, Code::Denied, "no tenant"), (3, Code::Expired, "")]).await;
    assert_eq!(in_time(tickets.next().unwrap()).await, Outcome::Acked);
    assert_eq!(in_time(tickets.next().unwrap()).await, Outcome::Refused { code: Code::Expired, detail: String::new() });
    settle().await;
    let stats = client.stats();
    assert_eq!((stats.published, stats.acked, stats.refused, stats.unknown), (8, 1, 2, 0));

    router.ack(8, &[(5, Code::Denied, ""), (6, Code::FilterFault, "trap"), (8, Code::Denied, "")]).await;
    assert_eq!(in_time(tickets.next().unwrap()).await, Outcome::Refused { code: Code::Denied, detail: String::new() });
    assert_eq!(in_time(tickets.next().unwrap()).await, Outcome::Acked);
    let summary = in_time(client.flush()).await;
    assert_eq!((summary.published, summary.acked, summary.refused, summary.in_flight()), (8, 3, 5, 0));
    let told = |number, code, detail: &str| PublishException { number, code, detail: detail.to_owned() };
    for expected in [told(2, Code::Denied, "no tenant"), told(6, Code::FilterFault, "trap"), told(8, Code::Denied, "")]
    {
        assert_eq!(in_time(client.next_exception()).await, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_announced_once_and_events_of_many_topics_keep_their_order() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let topics = ["a", "b", "a", "c/d", "b", "a"];
    for topic in topics {
        client.send(Event::new(topic, "x")).await.unwrap();
    }
    let events = router.events(topics.len()).await;
    assert_eq!(events.iter().map(|event| event.topic.as_str()).collect::<Vec<_>>(), topics);
    assert_eq!(events.iter().map(|event| event.topic_ref).collect::<Vec<_>>(), [1, 2, 1, 3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn more_topics_than_references_are_announced_again() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let many = 65_535 + 10;
    let (mut sent, mut reused) = (0_u32, 0);
    while sent < many {
        let batch = (many - sent).min(5_000);
        for n in sent..sent + batch {
            client.send(Event::new(&format!("t/{n}"), "")).await.unwrap();
        }
        for (n, event) in (sent..).zip(router.events(batch as usize).await) {
            assert_eq!(event.topic, format!("t/{n}"));
            assert!((1..65_536).contains(&event.topic_ref));
            reused += u32::from(n >= 65_535 && event.topic_ref <= 10);
        }
        sent += batch;
        router.ack(sent.into(), &[]).await;
    }
    assert_eq!(reused, 10, "the oldest references have a new meaning");
    // The first topic has lost its reference and gets another.
    client.send(Event::new("t/0", "again")).await.unwrap();
    let [event] = router.events(1).await.try_into().unwrap();
    assert_eq!((event.topic.as_str(), event.topic_ref), ("t/0", 11));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_refused_before_it_is() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let too_large = vec![0; 1024 * 1024 + 1];
    for (event, code) in [
        (Event::new("a//b", "x"), "invalid-topic"),
        (Event::new("a/*", "x"), "invalid-topic"),
        (Event::new("a", &too_large), "payload-too-large"),
        (Event::new("a", "x").key("1").key("2"), "invalid-attributes"),
    ] {
        let error = client.send(event).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(matches!(error, ClientError::Invalid(_)), "{error}");
    }
    client.send(Event::new("a", "good")).await.unwrap();
    let [event] = router.events(1).await.try_into().unwrap();
    assert_eq!(event.payload, b"good", "the stream is whole");
    assert_eq!(client.stats().published, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_blocks_until_the_router_acknowledges() {
    let mut fake = Fake::new();
    let config = ClientConfig { unacked_events_max: 3, ..ClientConfig::default() };
    let (client, mut router) = fake.client(config).await;
    for _ in 0..3 {
        client.try_send(&Event::new("t", "x")).unwrap();
    }
    assert_eq!(client.try_send(&Event::new("t", "x")).unwrap_err().code(), "full");
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.send(Event::new("t", "fourth")).await }
    });
    router.events(3).await;
    settle().await;
    assert!(!waiting.is_finished(), "three are not acknowledged");
    router.ack(1, &[]).await;
    assert_eq!(in_time(waiting).await.unwrap().unwrap(), 4);
    assert_eq!(router.events(1).await[0].payload, b"fourth");
}

#[tokio::test(start_paused = true)]
async fn a_router_that_does_not_read_makes_publishers_wait_at_the_byte_bound() {
    let mut fake = Fake::new();
    let config = ClientConfig { pending_bytes_max: 64 * 1024, ..ClientConfig::default() };
    let (client, mut router) = fake.client(config).await;
    let payload = vec![7; 16 * 1024];
    let mut sent = 0;
    // The stream's window of 1 MiB fills, then the buffer.
    while client.try_send(&Event::new("t", &payload)).is_ok() {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(sent < 100, "the bound holds");
    }
    assert!(sent >= 64, "the window is used: {sent}");
    assert_eq!(client.try_send(&Event::new("t", &payload)).unwrap_err().code(), "full");
    assert_eq!(router.events(sent).await.len(), sent);
    settle().await;
    client.try_send(&Event::new("t", &payload)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_ack_of_what_was_not_published_closes_the_connection() {
    for (seq, exceptions) in [(2, &[][..]), (1, &[(0, Code::Denied, "")][..]), (1, &[(2, Code::Denied, "")][..])] {
        let mut fake = Fake::new();
        let (client, mut router) = fake.client(ClientConfig::default().with_reconnect(false)).await;
        let ticket = client.publish(Event::new("t", "x")).await.unwrap();
        router.events(1).await;
        router.ack(seq, exceptions).await;
        let reason = router.closed().await;
        assert_eq!((reason.code, reason.by_peer), (Code::Malformed.number().into(), true), "{reason}");
        assert_eq!(in_time(ticket).await, Outcome::Unknown);
        let mut status = client.status();
        let status = in_time(status.wait_for(|status| matches!(status, Status::Closed(_)))).await.unwrap().clone();
        assert!(matches!(status, Status::Closed(ClientError::Protocol(_))), "{status:?}");
        assert_eq!(client.send(Event::new("t", "x")).await.unwrap_err().code(), "malformed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_on_two_threads_lose_and_double_nothing() {
    const EACH: u32 = 20_000;
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let publishers: Vec<_> = (0..2_u32)
        .map(|who| {
            let client = client.clone();
            tokio::spawn(async move {
                let topic = format!("t/{who}");
                for n in 0..EACH {
                    client.send(Event::new(&topic, &n.to_le_bytes())).await.unwrap();
                }
            })
        })
        .collect();
    let mut next = [0_u32; 2];
    for done in 1..=u64::from(2 * EACH) {
        let [event] = router.events(1).await.try_into().unwrap();
        let who = usize::from(event.topic == "t/1");
        assert_eq!(event.payload, next[who].to_le_bytes(), "each publisher's events stay in order");
        next[who] += 1;
        if done % 1_000 == 0 {
            router.ack(done, &[]).await;
        }
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let summary = in_time(client.flush()).await;
    assert_eq!((summary.published, summary.acked), (u64::from(2 * EACH), u64::from(2 * EACH)));
}
