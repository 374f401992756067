//! Questions between routers: each goes on a stream of its own to the next hop, which hands it to its control plane or
//! asks the hop after it. Whoever passes a question on holds it and its answer whole, which is why both are bounded.

use super::link::Link;
use super::state::Links;
use crate::peering::{Asked, Call, CallError, Tell};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use myelin_catalog::exchange::{ANSWER_LEN_MAX_BYTES, ASK_LEN_MAX_BYTES};
use myelin_mesh::control::{CatalogHead, FixedBytes};
use myelin_mesh::{RouterNumber, Routes};
use myelin_transport::{Connection, RecvStream, SendStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_local;

/// The version of the head before a question.
const VERSION: u8 = 1;
/// Bytes of that head: version, hops left, asker, asked.
const HEAD_BYTES: usize = 10;
/// Links that a question may cross.
const HOPS_MAX: u8 = myelin_mesh::limits::HOPS_MAX;
/// How long an answer may take: the time to compile a large module, and some.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Questions of this router that are under way at once.
const CALLS_MAX: usize = 16;
/// Bytes of the longest answer that is passed on; pages and modules come from neighbours.
const PASSED_BYTES_MAX: usize = 1024 * 1024;
/// The alarm where a neighbour asks in the name of another router, as if it had been asked by nobody.
const FOREIGN_QUESTION: &str = "foreign-question";
/// After all events: a module must not hold them up.
const PRIORITY: i32 = -10;

/// What stands before a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CallHead {
    hops_left: u8,
    from: RouterNumber,
    to: RouterNumber,
}

impl CallHead {
    fn encode(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let mut out = &mut bytes[..];
        out.put_u8(VERSION);
        out.put_u8(self.hops_left);
        out.put_u32_le(self.from.0);
        out.put_u32_le(self.to.0);
        bytes
    }

    /// Takes the head off a question; none where it is of another version or too short.
    fn take(request: &mut Bytes) -> Option<Self> {
        if request.len() < HEAD_BYTES || request.get_u8() != VERSION {
            return None;
        }
        let hops_left = request.get_u8().min(HOPS_MAX);
        let (from, to) = (RouterNumber(request.get_u32_le()), RouterNumber(request.get_u32_le()));
        Some(Self { hops_left, from, to })
    }
}

/// Carries out the calls of this router's control plane.
pub(super) async fn carry(links: Rc<Links>, mut calls: mpsc::Receiver<Call>) {
    let under_way = Arc::new(Semaphore::new(CALLS_MAX));
    while let Some(Call { to, request, answer_bytes_max, answer }) = calls.recv().await {
        let Ok(permit) = under_way.clone().acquire_owned().await else { return };
        let links = links.clone();
        spawn_local(async move {
            let from = RouterNumber(links.local.shared.origin);
            let head = CallHead { hops_left: HOPS_MAX, from, to: RouterNumber(to) };
            // Whoever asked may have gone.
            let _ = answer.send(ask(&links, head, request, answer_bytes_max).await);
            drop(permit);
        });
    }
}

/// Tells the mesh what the control plane says.
pub(super) async fn follow(links: Rc<Links>, mut told: mpsc::Receiver<Tell>) {
    while let Some(tell) = told.recv().await {
        match tell {
            Tell::Head(head) => {
                let head = CatalogHead { rev: head.rev, hash: FixedBytes(*head.hash.as_bytes()) };
                links.with_mesh(|mesh, now| mesh.set_catalog_head(now, head));
            }
            Tell::Directory(directory) => links.set_directory(directory),
        }
    }
}

/// Serves the questions that come by a link.
pub(super) async fn serve(links: Rc<Links>, link: Rc<Link>) -> &'static str {
    // As many at once as the neighbour may open streams.
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        // Who does not belong to the mesh, or does not any more, is told nothing.
        if let Some(peer) = links.read(|mesh| mesh.directory().by_name(link.site(), link.router())) {
            spawn_local(answer(links.clone(), peer, send, recv));
        }
    }
    "the connection ended"
}

/// Whether `peer` may have that question to ask: one of its own, or, from the second hop on, one of a router behind it. That
/// it hands on what it was asked, and as it was asked, is believed of a router that stands between others.
fn may_ask(routes: &Routes, peer: RouterNumber, head: CallHead) -> bool {
    head.from == peer || (head.hops_left < HOPS_MAX && routes.may_come_by(peer, head.from))
}

/// Answers one question of a neighbour; a stream that ends without an answer says that there is none.
async fn answer(links: Rc<Links>, peer: RouterNumber, mut send: SendStream, mut recv: RecvStream) {
    send.set_priority(PRIORITY);
    let answered = tokio::time::timeout(ANSWER_WAIT, async {
        let mut request = read(&mut recv, HEAD_BYTES + ASK_LEN_MAX_BYTES).await?;
        let head = CallHead::take(&mut request).ok_or(CallError::BrokenOff)?;
        if !may_ask(&links.routes(), peer, head) {
            // Later on the way it may be that links of a moment ago are not known here yet: it is asked again.
            match head.hops_left {
                HOPS_MAX => links.alarm(FOREIGN_QUESTION, &(peer, head)),
                _ => tracing::debug!(peer = peer.0, from = head.from.0, "no way is known by which that question came"),
            }
            return Err(CallError::NoRoute);
        }
        if head.to.0 == links.local.shared.origin {
            return hand_in(&links, peer, head.from, request).await;
        }
        let hops_left = head.hops_left.checked_sub(1).ok_or(CallError::NoRoute)?;
        ask(&links, CallHead { hops_left, ..head }, request, PASSED_BYTES_MAX).await
    });
    if let Ok(Ok(bytes)) = answered.await
        && send.write_chunk(bytes).await.is_ok()
    {
        let _ = send.finish();
    } else {
        send.reset(0);
    }
}

/// Hands a question to the control plane.
async fn hand_in(links: &Links, peer: RouterNumber, from: RouterNumber, request: Bytes) -> Result<Bytes, CallError> {
    let (answer, answered) = oneshot::channel();
    let by = (peer != from).then_some(peer.0);
    // Questions go by the cheapest way, which need not be the link between the two.
    let is_linked = by.is_none() || links.routes().hop(from).is_some_and(|hop| hop.neighbour == from);
    let asked = Asked { from: from.0, by, is_linked, request, answer };
    links.asked.send(asked).await.map_err(|_| CallError::Stopped)?;
    answered.await.map_err(|_| CallError::BrokenOff)
}

/// Asks the next hop.
async fn ask(links: &Links, head: CallHead, request: Bytes, most: usize) -> Result<Bytes, CallError> {
    let hop = links.routes().hop(head.to).ok_or(CallError::NoRoute)?;
    let connection = links.link(hop.link).ok_or(CallError::NoRoute)?.connection.clone();
    let asked = ask_neighbour(&connection, head, request, most.min(ANSWER_LEN_MAX_BYTES));
    tokio::time::timeout(ANSWER_WAIT, asked).await.map_err(|_| CallError::Late)?
}

async fn ask_neighbour(
    connection: &Connection,
    head: CallHead,
    request: Bytes,
    most: usize,
) -> Result<Bytes, CallError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|_| CallError::BrokenOff)?;
    send.set_priority(PRIORITY);
    send.write_all(&head.encode()).await.map_err(|_| CallError::BrokenOff)?;
    send.write_chunk(request).await.map_err(|_| CallError::BrokenOff)?;
    send.finish().map_err(|_| CallError::BrokenOff)?;
    read(&mut recv, most).await
}

/// Reads to the end of a stream, and no more than `most` bytes.
async fn read(recv: &mut RecvStream, most: usize) -> Result<Bytes, CallError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = recv.read_chunk().await.map_err(|_| CallError::BrokenOff)? {
        if all.len() + chunk.len() > most {
            recv.stop(0);
            return Err(CallError::TooLong);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_mesh::{Directory, Mesh, SiteNumber};

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = CallHead { hops_left: 3, from: RouterNumber(7), to: RouterNumber(900) };
        let mut request = Bytes::from([&head.encode()[..], b"question"].concat());
        assert_eq!(CallHead::take(&mut request), Some(head));
        assert_eq!(&request[..], b"question");
    }

    #[test]
    fn at_the_first_hop_a_router_asks_in_its_own_name() {
        let mesh = myelin_mesh::Config::new(SiteNumber::new(0).unwrap(), "a", RouterNumber(1), "r1", 1);
        let directory = Arc::new(Directory::new([], []).unwrap());
        let routes = Mesh::new(0, mesh, directory).routes();
        let head = |hops_left, from| CallHead { hops_left, from: RouterNumber(from), to: RouterNumber(1) };
        assert!(may_ask(&routes, RouterNumber(2), head(HOPS_MAX, 2)));
        assert!(!may_ask(&routes, RouterNumber(2), head(HOPS_MAX, 3)), "nobody is before it");
        assert!(!may_ask(&routes, RouterNumber(2), head(HOPS_MAX - 1, 3)), "no way leads to it by that one");
        assert!(!may_ask(&routes, RouterNumber(2), head(HOPS_MAX - 1, 1)), "nor to the router itself");
    }

    #[test]
    fn what_is_no_head_is_none_and_hops_are_bounded() {
        assert_eq!(CallHead::take(&mut Bytes::from_static(&[1; HEAD_BYTES - 1])), None);
        assert_eq!(CallHead::take(&mut Bytes::from_static(&[2; HEAD_BYTES])), None);
        let far = CallHead { hops_left: 255, from: RouterNumber(1), to: RouterNumber(2) };
        let taken = CallHead::take(&mut Bytes::copy_from_slice(&far.encode()));
        assert_eq!(taken.map(|head| head.hops_left), Some(HOPS_MAX));
    }
}
