//! Certificates that change under running connections.

use std::sync::Arc;
use std::time::Duration;

use myelin_transport::ca::CertificateAuthority;
use myelin_transport::{DialError, Refusal, ReloadOutcome, TlsError, TlsErrorKind, TlsIdentity, TlsReloader};

use crate::common::*;

fn failed(outcome: ReloadOutcome) -> TlsError {
    let ReloadOutcome::Failed(error) = outcome else { panic!("not failed: {outcome:?}") };
    error
}

#[tokio::test]
async fn new_handshakes_use_new_files_and_old_connections_live_on() {
    let world = World::new();
    let files = world.files("r", &issue_router(&world.ca));
    let reloader = TlsReloader::open(files.clone()).unwrap();
    let mut server = Server::start(listener_config(), &reloader.tls());
    let old_friend = world.service("old-friend");
    let before = dial(server.addr, &old_friend).await.unwrap();
    let before_there = server.next().await;
    assert_eq!(reloader.check(), ReloadOutcome::Unchanged);

    // The whole fleet moves to a new CA of the same trust domain.
    let new_ca = CertificateAuthority::create(TRUST_DOMAIN, 30).unwrap();
    issue_router(&new_ca).save(world.dir.path(), "r").unwrap();
    replace(&files.ca, new_ca.cert_pem());
    assert_eq!(reloader.check(), ReloadOutcome::Reloaded);
    assert_eq!(reloader.check(), ReloadOutcome::Unchanged);
    assert_eq!(reloader.stats().reloads, 1);

    echo_once(&before, &before_there, b"still here").await;
    echo_once(&before_there, &before, b"both ways").await;
    let error = dial(server.addr, &old_friend).await.unwrap_err();
    assert_eq!(
        error,
        DialError::Untrusted { refusal: Refusal::WrongAuthority },
        "the router shows its new certificate"
    );
    let new_friend = new_ca.issue_service("new-friend", 1).unwrap();
    let new_friend = TlsIdentity::load(&world.files_trusting("nf", &new_friend, new_ca.cert_pem())).unwrap();
    let after = dial(server.addr, &new_friend).await.unwrap();
    echo_once(&after, &server.next().await, b"welcome").await;
    // A client of the old CA that trusts the new one is refused by the router's new roots, not by its own.
    let half_moved = world.ca.issue_service("half-moved", 1).unwrap();
    let half_moved = TlsIdentity::load(&world.files_trusting("hm", &half_moved, new_ca.cert_pem())).unwrap();
    let error = dial(server.addr, &half_moved).await.unwrap_err();
    assert_eq!(error, DialError::Refused { refusal: Refusal::WrongAuthority });
}

#[tokio::test]
async fn both_roots_serve_both_while_a_ca_is_replaced() {
    let world = World::new();
    let new_ca = CertificateAuthority::create(TRUST_DOMAIN, 30).unwrap();
    let both = format!("{}\n{}", world.ca.cert_pem(), new_ca.cert_pem());
    let router = world.files_trusting("r", &issue_router(&world.ca), &both);
    let server = Server::start(listener_config(), &TlsIdentity::load(&router).unwrap());
    for (stem, ca) in [("old", &world.ca), ("new", &new_ca)] {
        let files = world.files_trusting(stem, &ca.issue_service(stem, 1).unwrap(), &both);
        dial(server.addr, &TlsIdentity::load(&files).unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn bad_new_files_keep_the_old_and_are_told_once() {
    let world = World::new();
    let files = world.files("r", &issue_router(&world.ca));
    let reloader = TlsReloader::open(files.clone()).unwrap();
    let mut server = Server::start(listener_config(), &reloader.tls());
    let good_key = std::fs::read_to_string(&files.key).unwrap();

    replace(&files.key, "nonsense");
    let error = failed(reloader.check());
    assert_eq!((error.kind, &error.file), (TlsErrorKind::Empty, &files.key));
    assert_eq!(reloader.check(), ReloadOutcome::Unchanged, "told once, not at every look");
    assert_eq!(reloader.reload().unwrap_err().kind, TlsErrorKind::Empty, "an explicit reload tells again");

    // Certificate first, key later: between the two they do not match.
    replace(&files.key, &good_key);
    let renewed = issue_router(&world.ca);
    replace(&files.cert, &renewed.cert_pem);
    assert_eq!(failed(reloader.check()).kind, TlsErrorKind::KeyMismatch);
    assert_eq!(reloader.stats().failures, 3);
    assert!(reloader.stats().last_error.is_some());
    let served = dial(server.addr, &world.service("alice")).await.unwrap();
    echo_once(&served, &server.next().await, b"as before").await;

    replace(&files.key, &renewed.key_pem);
    assert_eq!(reloader.check(), ReloadOutcome::Reloaded);
    assert_eq!(reloader.stats().last_error, None);
    dial(server.addr, &world.service("bob")).await.unwrap();
}

#[tokio::test]
async fn a_reload_cannot_change_who_this_is() {
    let world = World::new();
    let files = world.files("r", &issue_router(&world.ca));
    let reloader = TlsReloader::open(files).unwrap();
    let other = world.ca.issue_router("lab", "r2", &["localhost".into()], 1).unwrap();
    other.save(world.dir.path(), "r").unwrap();
    assert_eq!(failed(reloader.check()).kind, TlsErrorKind::IdentityChanged);
    assert_eq!(reloader.tls().identity().name(), "r1");
}

#[tokio::test]
async fn the_task_finds_changes_by_itself() {
    let world = World::new();
    let files = world.files("r", &issue_router(&world.ca));
    let reloader = Arc::new(TlsReloader::open(files).unwrap());
    let (told_tx, mut told) = tokio::sync::mpsc::channel(4);
    let task = tokio::spawn({
        let reloader = reloader.clone();
        async move { reloader.run(Duration::from_millis(20), |outcome| told_tx.try_send(outcome).unwrap()).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(told.try_recv().is_err(), "nothing has changed");
    issue_router(&world.ca).save(world.dir.path(), "r").unwrap();
    // A look may fall between the two files; the one after it sees both.
    let mut last = in_time(told.recv()).await.unwrap();
    if last != ReloadOutcome::Reloaded {
        last = in_time(told.recv()).await.unwrap();
    }
    assert_eq!(last, ReloadOutcome::Reloaded);
    task.abort();
}
