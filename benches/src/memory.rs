//! `memory`: what a router needs to be there, and for each thing that it holds.

use crate::goals::{Better, Goal};
use crate::load::{channel, dial};
use crate::micro::{PartArgs, bind};
use crate::server::Server;
use anyhow::{Context, ensure};
use myelin_client::{Client as Publisher, ClientConfig, Event};
use myelin_load::{Cell, Client, ROLE_SUBSCRIBER, Session, Target, block_on, memory_mib};
use myelin_transport::{Dialer, QuicConfig, TlsFiles};
use std::thread;
use std::time::Duration;

/// How long a router is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// Bindings of one filter beside the first; a topic is seen by 32 at most.
const BINDINGS: usize = 31;
/// Clients that are connected and subscribed, and silent.
const IDLE_CLIENTS: usize = 2_000;
/// All of them have one certificate.
const SESSIONS: [(&str, &str); 1] = [("MYELIN_NODE__SESSIONS_PER_IDENTITY", "2000")];
/// Handshakes at a time.
const HANDSHAKES: usize = 16;
/// Events that wait for a subscriber that reads nothing.
const QUEUED_EVENTS: usize = 40_000;
/// Their payload.
const QUEUED_BYTES: usize = 1_024;
/// An outbox that takes them all.
const OUTBOX: [(&str, &str); 2] = [("MYELIN_OUTBOX__BYTES", "134217728"), ("MYELIN_OUTBOX__EVENTS", "1000000")];
/// KiB in a MiB.
const KIB: f64 = 1_024.0;

/// Measures and prints all of it.
pub(crate) fn run(arguments: &PartArgs) -> anyhow::Result<()> {
    let router = arguments.beside("myelin")?;
    let mut goals = Vec::new();
    let goal = |what: &str, figure: f64, reach: f64, unit| {
        // One bound only: there is no further aim.
        Goal::new(what, figure, (reach, reach), Better::Lower).unit(unit)
    };
    eprintln!("idle, and {BINDINGS} bindings ..");
    let server = Server::router(&router, 1)?;
    let idle = settled(&server)?;
    goals.push(goal("idle, without modules", idle, 25.0, "MiB"));
    bind(&server, &arguments.filter(), "memory/**", 1)?;
    let one = settled(&server)?;
    bind(&server, &arguments.filter(), "memory/**", BINDINGS + 1)?;
    let instance = (settled(&server)? - one) * KIB / BINDINGS as f64;
    goals.push(goal("a filter instance", instance, 100.0, "KiB"));
    server.stop()?;

    eprintln!("{IDLE_CLIENTS} idle clients ..");
    let server = Server::router_with(&router, 1, &SESSIONS)?;
    let before = settled(&server)?;
    let after = block_on(async {
        let dialer = Dialer::new(QuicConfig::default()).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let clients = idle_clients(&server, &dialer).await?;
        tokio::time::sleep(SETTLE).await;
        let (after, _) = memory_mib(server.pid())?;
        drop(clients);
        Ok(after)
    })?;
    goals.push(goal("an idle client with a subscription", (after - before) * KIB / IDLE_CLIENTS as f64, 64.0, "KiB"));
    server.kill()?;

    eprintln!("{QUEUED_EVENTS} events that wait ..");
    goals.push(goal(
        "a queued event of 1 KiB",
        block_on(queued_kib(&Server::router_with(&router, 1, &OUTBOX)?))?,
        1.5,
        "KiB",
    ));
    arguments.finish("Memory", &goals)
}

fn settled(server: &Server) -> anyhow::Result<f64> {
    thread::sleep(SETTLE);
    Ok(memory_mib(server.pid())?.0)
}

fn subscriber(server: &Server) -> anyhow::Result<Client> {
    let cell = Cell { payload_bytes: QUEUED_BYTES, publishers: 1, subscribers: 1 };
    let dial = dial(server.client_addr(), server.certificates())?;
    Ok(Client::new(Target::Router, channel(), &cell, Vec::new(), dial))
}

async fn idle_clients(server: &Server, dialer: &Dialer) -> anyhow::Result<Vec<Session>> {
    let client = subscriber(server)?;
    let mut sessions = Vec::with_capacity(IDLE_CLIENTS);
    while sessions.len() < IDLE_CLIENTS {
        let begin = sessions.len();
        let open = |number: usize| {
            let client = &client;
            async move {
                let mut session = client.open(dialer, ROLE_SUBSCRIBER).await?;
                session.subscribe(&format!("idle/{number}/**")).await?;
                anyhow::Ok(session)
            }
        };
        let handshakes = (begin..IDLE_CLIENTS.min(begin + HANDSHAKES)).map(open);
        sessions.extend(futures_util::future::try_join_all(handshakes).await?);
    }
    Ok(sessions)
}

/// A subscriber subscribes and reads nothing; its events wait in the router.
async fn queued_kib(server: &Server) -> anyhow::Result<f64> {
    let dialer = Dialer::new(QuicConfig::default()).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let mut slow = subscriber(server)?.open(&dialer, ROLE_SUBSCRIBER).await?;
    slow.subscribe("slow/**").await?;
    let dir = server.certificates();
    let keys = ["client.key", "client-key.pem"].map(|name| dir.join(name));
    let key = keys.into_iter().find(|file| file.exists()).context("no client.key beside the certificates")?;
    let tls = TlsFiles { cert: dir.join("client.pem"), key, ca: dir.join("ca.pem") };
    let config = ClientConfig::new(server.client_addr().to_string(), tls);
    let publisher = Publisher::connect(config).await?;
    publisher.publish(Event::new("slow/first", b"")).await?.await;
    tokio::time::sleep(SETTLE).await;
    let (before, _) = memory_mib(server.pid())?;
    let payload = vec![7; QUEUED_BYTES];
    for _ in 0..QUEUED_EVENTS {
        publisher.send(Event::new("slow/events", &payload)).await?;
    }
    let summary = publisher.flush().await;
    ensure!(summary.refused == 0, "the router refused events: {summary:?}");
    tokio::time::sleep(SETTLE).await;
    let (after, _) = memory_mib(server.pid())?;
    publisher.close().await;
    Ok((after - before) * KIB / QUEUED_EVENTS as f64)
}
