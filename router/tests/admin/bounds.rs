//! Requests that are too large, too slow or too many.

use crate::http::{exchange, request};
use crate::world::Router;
use myelin::admin::Token;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A bearer token.
const TOKEN: &str = "a-token-of-this-test-only";

#[tokio::test]
async fn headers_and_json_are_bounded() {
    let router = Router::start().await;
    let big = "x".repeat(20 * 1024);
    assert_eq!(router.ask("GET", "/livez", &[("X-Big", &big)], b"").await.status, 431);
    let many: Vec<_> = (0..100).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(router.ask("GET", "/livez", &many, b"").await.status, 431);
    let body = vec![b' '; 1024 * 1024 + 1];
    let answer = router.ask("PUT", "/v1/bindings/a", &[("Content-Type", "application/json")], &body).await;
    assert_eq!(answer.problem(), (413, "body-too-large".into()));
    let nested = "[".repeat(1_000_000);
    let answer = router.ask("PUT", "/v1/bindings/a", &[("Content-Type", "application/json")], nested.as_bytes()).await;
    assert_eq!(answer.problem().0, 400);
    assert_eq!(router.get("/livez").await.status, 200);
    router.stop().await;
}

#[tokio::test]
async fn garbage_is_answered_or_hung_up_on() {
    let router = Router::start().await;
    let host = router.addr().to_string();
    let smuggled = request(
        "PUT",
        "/v1/bindings/a",
        &host,
        &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
        b"0\r\n\r\n",
    );
    let lengths =
        request("PUT", "/v1/bindings/a", &host, &[("Content-Length", "5"), ("Content-Length", "6")], b"12345");
    let garbage: [&[u8]; 7] = [
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 9_000],
        &smuggled,
        &lengths,
    ];
    for bytes in garbage {
        let stream = TcpStream::connect(router.addr()).await.unwrap();
        if let Ok(answer) = exchange(stream, bytes).await {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    assert_eq!(router.get("/livez").await.status, 200);
    router.stop().await;
}

#[tokio::test]
async fn idlers_are_sent_away_and_do_not_keep_others_out() {
    let router = Router::start().await;
    let begin = Instant::now();
    // More than there are places for; each says a little and then no more.
    let mut idlers = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(router.addr()).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
        idlers.push(stream);
    }
    let answer = router.get("/livez").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let mut rest = Vec::new();
    for mut idler in idlers {
        timeout(Duration::from_secs(20), idler.read_to_end(&mut rest)).await.expect("hung up on").unwrap_or(0);
    }
    router.stop().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests_until_the_end() {
    let router = Router::start().await;
    let addr = router.addr();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    for _ in 0..3 {
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4_096];
        let read = timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
    }
    let Router { admin, node, .. } = router;
    let begin = Instant::now();
    admin.stop().await;
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "an idle connection does not hold the stop: {:?}",
        begin.elapsed()
    );
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(addr).await.is_err());
    node.drain().await;
}

#[tokio::test]
async fn strangers_leave_a_few_entries_in_the_audit_log_whatever_they_ask_for() {
    let router = Router::start_with(|listen| {
        listen.dev = false;
        listen.token = Some(Token::new(TOKEN).unwrap());
    });
    let router = router.await;
    let host = router.addr().to_string();
    // One connection for all: each path is another, and so are the methods.
    let mut stream = TcpStream::connect(router.addr()).await.unwrap();
    let mut asked = String::new();
    for number in 0..2_000 {
        let method = ["GET", "PUT", "X"][number % 3];
        let name = if method == "X" { format!("X{number}") } else { method.to_owned() };
        let path = if number % 2 == 0 { format!("/v1/x{number}") } else { format!("/v1/bindings/b{number}") };
        asked += &format!("{name} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    }
    asked += &format!("GET /v1/last HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (mut reading, mut writing) = stream.split();
    let (mut answers, asked) = (Vec::new(), asked.as_bytes());
    let (sent, read) = tokio::join!(writing.write_all(asked), reading.read_to_end(&mut answers));
    sent.unwrap();
    read.unwrap();
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 401").count(), 2_001);

    let bearer = format!("Bearer {TOKEN}");
    let page = router.ask("GET", "/v1/audit?limit=1000", &[("Authorization", &bearer)], b"").await.json();
    let entries = page["entries"].as_array().unwrap();
    assert_eq!(entries[0]["action"], "start", "what was there is there still");
    let strangers: Vec<_> = entries.iter().filter(|entry| entry["actor"] == "-" && entry["kind"] == "admin").collect();
    assert!((1..=6).contains(&strangers.len()), "a method and a route are a sort: {strangers:#?}");
    for entry in strangers {
        let subject = entry["subject"].as_str().unwrap();
        let method = entry["action"].as_str().unwrap().split(' ').next().unwrap();
        assert!(["-", "/v1/bindings/{name}"].contains(&subject) && ["GET", "PUT", "-"].contains(&method), "{entry}");
    }
    router.stop().await;
}
