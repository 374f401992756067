//! Dials other routers: the seeds, and whoever tells an address and has no link to this one yet.

use super::link::{End, serve};
use super::state::Links;
use myelin_mesh::control::ALPN_MESH;
use myelin_mesh::{RouterNumber, ViolationCode};
use myelin_transport::{Backoff, DialConfig, Dialer, IdentityKind, TlsIdentity};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_local};

/// First and longest pause between two attempts to reach a router; full jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// How often the links are looked at, beside every change of them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps a task for each address that is worth dialling, and tells how things stand.
pub(super) async fn dial_all(links: Rc<Links>, seeds: Vec<String>, tls: TlsIdentity) {
    let dialer = match Dialer::new(super::quic()) {
        Ok(dialer) => Rc::new(dialer),
        Err(errors) => return tracing::error!(?errors, "no dialler: other routers have to dial this one"),
    };
    let mut running: HashMap<String, JoinHandle<()>> = HashMap::new();
    loop {
        running.retain(|_, task| !task.is_finished());
        let found = links.read(|mesh| {
            let others = mesh.link_states().filter(|state| state.owner.0 != links.local.shared.origin);
            let told =
                others.flat_map(|state| state.status.addresses.iter().map(|address| (address.clone(), state.owner)));
            told.collect::<Vec<_>>()
        });
        for seed in &seeds {
            running.entry(seed.clone()).or_insert_with(|| {
                spawn_local(keep_dialling(links.clone(), dialer.clone(), seed.clone(), tls.clone()))
            });
        }
        for (address, router) in found {
            // Of two routers the one with the lower number dials; the other would only be refused.
            if router.0 > links.local.shared.origin && !links.is_linked(router) && !running.contains_key(&address) {
                let once = dial_until_linked(links.clone(), dialer.clone(), address.clone(), router, tls.clone());
                running.insert(address, spawn_local(once));
            }
        }
        links.tell_status();
        tokio::select! {
            () = links.changed.notified() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Dials a seed whenever there is no link to the router that was last found there.
async fn keep_dialling(links: Rc<Links>, dialer: Rc<Dialer>, address: String, tls: TlsIdentity) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
    let mut found = None;
    loop {
        while found.is_some_and(|router| links.is_linked(router)) {
            links.changed.notified().await;
        }
        let outcome = dial(&links, &dialer, &address, &tls).await;
        found = outcome.as_ref().and_then(|(router, _)| *router).or(found);
        match outcome {
            Some((_, End::Ended)) => backoff.succeeded(),
            Some((_, End::Refused(violation))) if violation.code == ViolationCode::OwnIdentity => {
                return tracing::info!(address, "a seed is this very router; it is not dialled again");
            }
            _ => {}
        }
        tokio::time::sleep(backoff.next_wait(random())).await;
    }
}

/// Dials a router that told its address, until there is a link to it.
async fn dial_until_linked(
    links: Rc<Links>,
    dialer: Rc<Dialer>,
    address: String,
    router: RouterNumber,
    tls: TlsIdentity,
) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
    while !links.is_linked(router) && links.read(|mesh| mesh.link_state(router).is_some()) {
        if let Some((_, End::Ended)) = dial(&links, &dialer, &address, &tls).await {
            backoff.succeeded();
        }
        tokio::time::sleep(backoff.next_wait(random())).await;
    }
}

/// Evenly spread over all of `u64`, by the random keys of the standard library's hash maps.
fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0)
}

/// One attempt, and the link that comes of it; which member was found there, as far as its certificate says.
async fn dial(
    links: &Rc<Links>,
    dialer: &Dialer,
    address: &str,
    tls: &TlsIdentity,
) -> Option<(Option<RouterNumber>, End)> {
    if links.stops() {
        return None;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let resolved = match tokio::net::lookup_host(address).await {
        Ok(mut found) => found.next(),
        Err(error) => {
            tracing::warn!(address, %error, "the name of a router does not resolve");
            None
        }
    };
    let alpn = String::from_utf8_lossy(ALPN_MESH).into_owned();
    let config = DialConfig { addr: resolved?, server_name: host.to_owned(), alpn, tls: tls.clone() };
    match dialer.connect(&config).await {
        Ok(connection) if links.stops() => {
            connection.close(0, "the router stops");
            None
        }
        Ok(connection) => {
            let router = match connection.identity().kind() {
                IdentityKind::Router { site, name } => links.read(|mesh| mesh.directory().by_name(site, name)),
                _ => None,
            };
            Some((router, serve(links.clone(), connection, true).await))
        }
        Err(error) => {
            tracing::debug!(address, code = error.code(), %error, "a router is not reached");
            None
        }
    }
}
