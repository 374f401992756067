//! Request and reply.

use std::time::Duration;

use myelin_client::{Attrs, Client, ClientConfig, Code, Delivered, Event, RequestError, Stamp, SubscribeOptions};
use myelin_wire::attrs::{self, AttrsBuilder};
use myelin_wire::event::{FLAG_REQUEST, FLAG_TTL};

use crate::fake::{Fake, FakeSession, Published, in_time, settle};

const WAIT: Duration = Duration::from_secs(5);

fn ask(client: &Client, payload: &'static str) -> tokio::task::JoinHandle<Result<Delivered, RequestError>> {
    let client = client.clone();
    tokio::spawn(async move { client.request("ask/time", payload, WAIT).await })
}

/// Answers `request` below the inbox of session `index`.
async fn answer(router: &mut FakeSession, request: &Published, payload: &[u8]) {
    let asked = Attrs::new(&request.attrs);
    let reply_to = asked.text(attrs::REPLY_TO).unwrap();
    assert!(reply_to.starts_with(&format!("$inbox/s{}/", router.index)), "{reply_to}");
    let mut block = AttrsBuilder::new();
    block.own(attrs::CORRELATION, asked.own(attrs::CORRELATION).unwrap());
    router.deliver(Stamp::default(), &[(1, reply_to)], &[(1, block.as_bytes(), payload)]).await;
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_requests_whatever_their_order() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (first, second) = (ask(&client, "first"), ask(&client, "second"));
    let inbox = router.confirm_subscribe().await;
    assert_eq!((inbox.pattern.as_str(), inbox.group), ("$inbox/s0/**", None));
    let requests = router.events(2).await;
    for request in &requests {
        assert_eq!((request.topic.as_str(), request.flags), ("ask/time", FLAG_REQUEST | FLAG_TTL));
        assert_eq!(Attrs::new(&request.attrs).ttl_ms(), Some(5_000));
    }
    router.ack(2, &[]).await;
    for request in requests.iter().rev() {
        let mut payload = b"re: ".to_vec();
        payload.extend(&request.payload);
        answer(&mut router, request, &payload).await;
        // A second answer is nobody's.
        answer(&mut router, request, b"too late").await;
    }
    assert_eq!(in_time(first).await.unwrap().unwrap().payload(), b"re: first");
    assert_eq!(in_time(second).await.unwrap().unwrap().payload(), b"re: second");
    router.hear_receipt(4).await;
    // The inbox is made once.
    let third = ask(&client, "third");
    let requests = router.events(1).await;
    answer(&mut router, &requests[0], b"x").await;
    in_time(third).await.unwrap().unwrap();
    assert_eq!(client.stats().subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_with_the_topic_and_the_correlation_of_its_request_only() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (first, second) = (ask(&client, "first"), ask(&client, "second"));
    router.confirm_subscribe().await;
    let requests = router.events(2).await;
    router.ack(2, &[]).await;
    let correlation = |request: &Published| {
        let correlation = Attrs::new(&request.attrs).own(attrs::CORRELATION).unwrap();
        u64::from_le_bytes(correlation.try_into().unwrap())
    };
    // Whoever was asked one question cannot answer another one: neither by counting on nor by counting from 1.
    let known = correlation(&requests[0]);
    let guesses = (1..20).chain((1..20).flat_map(|step| [known.wrapping_add(step), known.wrapping_sub(step)]));
    let mut forged: Vec<_> = guesses.map(|guess| (1, guess, "guessed")).collect();
    forged.push((2, correlation(&requests[1]), "elsewhere"));
    let blocks: Vec<_> = forged
        .iter()
        .map(|(topic, guess, text)| {
            let mut block = AttrsBuilder::new();
            block.own(attrs::CORRELATION, &guess.to_le_bytes());
            (*topic, block, *text)
        })
        .collect();
    let events: Vec<_> =
        blocks.iter().map(|(topic, block, text)| (*topic, block.as_bytes(), text.as_bytes())).collect();
    router.deliver(Stamp::default(), &[(1, "$inbox/s0/reply"), (2, "$inbox/s0/else")], &events).await;
    router.hear_receipt(events.len() as u64).await;
    for request in &requests {
        answer(&mut router, request, b"true").await;
    }
    for asked in [first, second] {
        assert_eq!(in_time(asked).await.unwrap().unwrap().payload(), b"true");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_takes_fails_at_once() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (lonely, denied) = (ask(&client, "lonely"), ask(&client, "denied"));
    router.confirm_subscribe().await;
    router.events(2).await;
    router.ack(2, &[(1, Code::NoResponder, ""), (2, Code::Denied, "no tenant")]).await;
    assert_eq!(in_time(lonely).await.unwrap().unwrap_err(), RequestError::NoResponder);
    let denied = in_time(denied).await.unwrap().unwrap_err();
    assert_eq!(
        (denied.code(), denied.to_string()),
        ("denied", "the request was refused: denied: no tenant".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out_and_a_late_one_is_thrown_away() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let asked = ask(&client, "slow");
    router.confirm_subscribe().await;
    let requests = router.events(1).await;
    router.ack(1, &[]).await;
    assert_eq!(in_time(asked).await.unwrap().unwrap_err(), RequestError::Timeout { waited_ms: 5_000 });
    answer(&mut router, &requests[0], b"late").await;
    router.hear_receipt(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_ends_requests_and_the_next_session_has_an_inbox_of_its_own() {
    let mut fake = Fake::with_routers(2);
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let asked = ask(&client, "lost");
    router.confirm_subscribe().await;
    router.events(1).await;
    router.ack(1, &[]).await;
    settle().await;
    fake.fail_next(1);
    drop(router);
    assert_eq!(in_time(asked).await.unwrap().unwrap_err(), RequestError::Unknown);

    let asked = ask(&client, "again");
    let mut router = fake.session().await;
    assert_eq!(router.index, 1, "after a failure the next router is asked");
    assert_eq!(router.confirm_subscribe().await.pattern, "$inbox/s1/**");
    let requests = router.events(1).await;
    answer(&mut router, &requests[0], b"here").await;
    assert_eq!(in_time(asked).await.unwrap().unwrap().payload(), b"here");
}

#[tokio::test(start_paused = true)]
async fn a_responder_answers_to_the_topic_and_with_the_correlation_of_the_request() {
    let mut fake = Fake::new();
    let (client, mut router) = fake.client(ClientConfig::default()).await;
    let (asks, confirmed) =
        tokio::join!(client.subscribe("ask/*", SubscribeOptions::group("clock")), router.confirm_subscribe());
    let mut asks = asks.unwrap();
    let mut block = AttrsBuilder::new();
    block.own(attrs::REPLY_TO, b"$inbox/other/reply").own(attrs::CORRELATION, &[1, 2, 3]);
    let stamp = Stamp { subscription: confirmed.id, ..Stamp::default() };
    router.deliver(stamp, &[(1, "ask/time")], &[(1, block.as_bytes(), b"?"), (1, &[], b"told")]).await;
    let (request, told) = (in_time(asks.next()).await.unwrap(), in_time(asks.next()).await.unwrap());
    client.reply(&request, "noon").await.unwrap();
    assert_eq!(client.reply(&told, "noon").await.unwrap_err().code(), "no-reply-to");
    let [reply] = router.events(1).await.try_into().unwrap();
    assert_eq!((reply.topic.as_str(), &reply.payload[..], reply.flags), ("$inbox/other/reply", &b"noon"[..], 0));
    assert_eq!(Attrs::new(&reply.attrs).own(attrs::CORRELATION), Some(&[1, 2, 3][..]));
    assert!(Event::reply(&told, "x").is_none());
}
