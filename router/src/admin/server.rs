//! The thread, the socket and the connections.

use super::stall::Stalling;
use super::{AdminListen, AdminState, Context};
use crate::config::LEEWAY_S;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use myelin_transport::{ClientAuthentication, Identity, certificate_not_after_unix_s};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Connections at a time. Further ones wait in the socket's queue.
const CONNECTIONS_MAX: u32 = 256;
/// Bytes of a request's line and headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// How long a request's headers may take, and how long a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long an answer may wait for its client to read.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long requests under way may take to end once the listener stops.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How long to wait when the operating system gives no further connection, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running admin API. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct AdminHandle {
    addr: SocketAddr,
    is_tls: bool,
    stop: watch::Sender<bool>,
    stopped: oneshot::Receiver<()>,
}

impl AdminHandle {
    /// Where it listens, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address as a URL without a path.
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Takes no more connections, lets requests under way end within 5 seconds, and waits for that.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // An error says that the thread has ended, too.
        let _ = (&mut self.stopped).await;
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The identity of its certificate, where it showed one.
    pub(super) identity: Option<Identity>,
    /// Until when that is valid, in Unix seconds.
    pub(super) not_after_unix_s: Option<i64>,
    /// Its address.
    pub(super) addr: SocketAddr,
}

impl Peer {
    /// Whether its certificate is over. It counts as much longer as it does for a session, for clocks that differ.
    pub(super) fn is_over(&self, now_unix_s: u64) -> bool {
        let ends = |not_after| u64::try_from(not_after).unwrap_or(0).saturating_add(LEEWAY_S);
        self.not_after_unix_s.is_some_and(|not_after| ends(not_after) <= now_unix_s)
    }
}

/// The place of a connection among [`CONNECTIONS_MAX`]: taken until all that was asked for by it is done.
#[derive(Clone, Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

/// Binds the socket and starts the thread.
pub(super) fn start(listen: AdminListen, state: AdminState) -> io::Result<AdminHandle> {
    let is_tls = listen.is_tls();
    let acceptor = match (&listen.tls, is_tls) {
        (_, false) => None,
        (Some(tls), true) => {
            let config = tls.server_config(&["http/1.1"], ClientAuthentication::Optional);
            Some(TlsAcceptor::from(Arc::new(config)))
        }
        (None, true) => {
            let message =
                format!("the admin API at {} speaks TLS only and there is no certificate; see [tls]", listen.addr);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    };
    let socket = TcpListener::bind(listen.addr)?;
    socket.set_nonblocking(true)?;
    let addr = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let router = Context::routes(listen, addr, is_tls, state);
    let (stop, stopping) = watch::channel(false);
    let (ended, stopped) = oneshot::channel();
    thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(run(socket, acceptor, router, stopping));
        // Whoever started it may have gone.
        let _ = ended.send(());
    })?;
    Ok(AdminHandle { addr, is_tls, stop, stopped })
}

async fn run(socket: TcpListener, acceptor: Option<TlsAcceptor>, router: Router, mut stopping: watch::Receiver<bool>) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "the admin API does not start"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            Ok(place) = places.clone().acquire_owned() => place,
        };
        let stream = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, addr)) = stream else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let acceptor = acceptor.clone();
        let router = router.clone().layer(Extension(Place(Arc::new(place))));
        connections.spawn(greet((stream, addr), acceptor, router, stopping.clone()));
        while connections.try_join_next().is_some() {}
    }
    drop(socket);
    let all = async {
        while connections.join_next().await.is_some() {}
        // Changes whose clients have hung up still hold places.
        let _ = places.acquire_many(CONNECTIONS_MAX).await;
    };
    let _ = timeout(STOP_TIME, all).await;
}

/// Finds out who is there, then serves.
async fn greet(
    (stream, addr): (TcpStream, SocketAddr),
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stopping: watch::Receiver<bool>,
) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return converse(stream, Peer { identity: None, not_after_unix_s: None, addr }, router, stopping).await;
    };
    match timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            // The verifier has read the identity already: a certificate without one does not get here.
            let identity = shown.and_then(|leaf| Identity::from_certificate(leaf).ok());
            let not_after_unix_s = shown.and_then(|leaf| certificate_not_after_unix_s(leaf));
            converse(stream, Peer { identity, not_after_unix_s, addr }, router, stopping).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake at the admin API failed"),
        Err(_) => tracing::debug!("a TLS handshake at the admin API took too long"),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_header_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Stalling::new(stream, WRITE_TIME)), service);
    let mut connection = pin!(connection);
    let stop = async { drop(stopping.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        served = connection.as_mut() => Some(served),
        () = stop => None,
    };
    let served = match ended {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin API broke off");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::admin::access::{certificate_over, turned_away};
    use axum::http::Uri;
    use axum::response::IntoResponse;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_connection_whose_certificate_is_over_is_told_so_and_closed() {
        let peer = Peer { identity: None, not_after_unix_s: Some(1), addr: ([127, 0, 0, 1], 1).into() };
        let is_over = |uri: Uri, Extension(peer): Extension<Peer>| async move {
            match peer.is_over(61) {
                true => turned_away(&uri, certificate_over()),
                false => "still good".into_response(),
            }
        };
        assert!(!peer.is_over(60) && !Peer { not_after_unix_s: None, ..peer.clone() }.is_over(u64::MAX));
        let router = Router::new().route("/", axum::routing::get(is_over));
        let ((mut client, server), (_stop, stopping)) = (tokio::io::duplex(64 * 1024), watch::channel(false));
        let served = tokio::spawn(converse(server, peer, router, stopping));
        // Two on one connection: the second is not answered any more.
        client.write_all(&b"GET / HTTP/1.1\r\nHost: r\r\n\r\n".repeat(2)).await.unwrap();
        let mut read = String::new();
        timeout(Duration::from_secs(20), client.read_to_string(&mut read)).await.unwrap().unwrap();
        assert_eq!(read.matches("HTTP/1.1 401").count(), 1, "{read}");
        assert!(read.contains("certificate-expired") && read.to_lowercase().contains("connection: close"), "{read}");
        timeout(Duration::from_secs(20), served).await.unwrap().unwrap();
    }
}
