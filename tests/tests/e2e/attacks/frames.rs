//! Bad frames over real connections, and bad bodies over HTTP, at a router that must stay up.

use super::{assert_growth, eventually};
use anyhow::{Context, Result, ensure};
use myelin_attacks::{Dice, frames};
use myelin_tests::attacker::{Attacker, hello};
use myelin_tests::{Healthy, Router};
use myelin_wire::message::Overflow;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that send bad frames, in each of two ways.
const CONNECTIONS: u64 = 200;
/// Of them at the same time.
const TOGETHER: usize = 10;
/// Bodies that must be refused.
const BODIES: usize = 10_000;
/// How long the router may take to end a bad session: a HELLO that never comes is waited for for 5 seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends one bad control stream, with HELLO before it or instead of it, and waits for the router to end the session.
async fn bad_control(attacker: Arc<Attacker>, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let connection = attacker.connect().await?;
    let (mut control, _answers) = connection.open_bi().await?;
    let mut bytes = if dice.once_in(2) { hello(Overflow::DropOldest)? } else { Vec::new() };
    (0..4).for_each(|_| bytes.extend(frames::control(&mut dice)));
    // The router may have ended it already.
    let _ = control.write_all(&bytes).await;
    let _ = control.finish();
    timeout(PATIENCE, connection.closed()).await.with_context(|| format!("control seed {seed}: still open"))?;
    Ok(())
}

/// Sends one bad publish stream in a session, and waits for the router to end it, or for the end of the attacker's own.
async fn bad_publish(attacker: Arc<Attacker>, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let mut session = attacker.session(Overflow::DropOldest).await?;
    let mut publish = session.connection.open_uni().await?;
    let bytes: Vec<u8> = (0..4).flat_map(|_| frames::publish(&mut dice)).collect();
    let _ = publish.write_all(&bytes).await;
    let _ = publish.finish();
    let _ = session.control.finish();
    let closed = timeout(PATIENCE, session.connection.closed()).await;
    closed.with_context(|| format!("publish seed {seed}: still open"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_bad_streams_end_their_own_sessions_only() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(10).await?;
    let (attacker, before) = (Arc::new(Attacker::of(&router)?), router.own_memory_kib()?);
    let mut attacks = JoinSet::new();
    for seed in 0..CONNECTIONS {
        attacks.spawn(bad_control(attacker.clone(), seed));
        attacks.spawn(bad_publish(attacker.clone(), seed));
        while attacks.len() >= TOGETHER {
            attacks.join_next().await.context("there are some")???;
        }
        if seed % 20 == 0 {
            healthy.beat(1).await?;
        }
    }
    while let Some(done) = attacks.join_next().await {
        done??;
    }
    healthy.beat(50).await?;
    eventually("the attackers' sessions are gone", || Ok(router.metric("myelin_sessions")? == 2)).await?;
    let refusals = router.metric("myelin_refusals_total")?;
    ensure!(refusals > CONNECTIONS, "{refusals} refusals were counted");
    println!("{} bad streams, {refusals} refusals", 2 * CONNECTIONS);
    assert_growth(&router, before, 48 * 1024)?;
    assert_eq!(router.settled_ledger()?["balances"], true);
    Ok(())
}

/// A connection to the admin API that is kept as long as the router keeps it.
struct Kept {
    addr: std::net::SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Kept {
    /// Sends a body and gives the status of the answer.
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.addr)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let (addr, len) = (self.addr, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n"
        );
        stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no HTTP: {line:?}"))?;
        let (mut length, mut is_kept) = (0, true);
        while line != "\r\n" {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the answer broke off");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            is_kept &= !lower.starts_with("connection: close");
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        if is_kept {
            self.stream = Some(stream);
        }
        Ok(status)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_bad_bodies_are_refused_and_change_nothing() -> Result<()> {
    let router = Router::start()?;
    let mut healthy = Healthy::start(&router, "calm").await?;
    healthy.beat(1).await?;
    let (before, revision) = (router.own_memory_kib()?, router.ask("GET", "/v1/status", &[], b"")?.json());
    let addr = router.admin_addr();
    let refused = tokio::task::spawn_blocking(move || -> Result<usize> {
        let (mut kept, mut dice) = (Kept { addr, stream: None }, Dice::new(11));
        let (mut refused, mut asked) = (0, 0);
        while refused < BODIES {
            let body = frames::body(&mut dice);
            // Of a binding only: an empty rollout is a good one, and would be another test.
            let status = kept.ask("PUT", "/v1/bindings/attack", &body)?;
            ensure!((400..500).contains(&status), "body {asked}: {status} {:?}", String::from_utf8_lossy(&body));
            refused += 1;
            asked += 1;
        }
        Ok(refused)
    });
    assert_eq!(refused.await??, BODIES);
    healthy.beat(20).await?;
    let after = router.ask("GET", "/v1/status", &[], b"")?.json();
    assert_eq!(after["revision"], revision["revision"], "nothing was staged");
    assert_growth(&router, before, 32 * 1024)?;
    Ok(())
}
