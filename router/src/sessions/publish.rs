//! The publish stream: events in, batch by batch.

use super::{Session, until_end};
use crate::local::Local;
use crate::pipeline::Publisher;
use bytes::Bytes;
use myelin_transport::{ReadError, RecvStream};
use myelin_wire::{Code, Refusal};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Chunks that are taken from a stream in one read: 32 packets are what one receive batch brings.
const READ_CHUNKS: usize = 32;
/// A quota may change while a publisher waits for it: it is looked at again so often, in nanoseconds.
const PAUSE_MAX_NS: u64 = 1_000_000_000;

/// Takes the one publish stream of a session.
pub(super) async fn accept(session: Rc<Session>, local: Rc<Local>) {
    let Some(stream) = until_end(&session, session.connection.accept_uni()).await.and_then(Result::ok) else { return };
    let counted = Counted::new(&local.shared.publishers);
    let second = async {
        match session.connection.accept_uni().await {
            Ok(_) => session.seat.ending.set(Refusal::new(Code::OutOfOrder, "a session has one publish stream")),
            Err(_) => std::future::pending().await,
        }
    };
    // The publisher's own future runs to the end of its batch whatever happens: it is not cancelled by the others.
    let mut second = std::pin::pin!(second);
    let mut publish = std::pin::pin!(read(&session, &local, stream));
    let end = tokio::select! {
        end = &mut publish => end,
        // The session ends with the second stream; the batch under way is finished all the same.
        () = &mut second => {
            let _ = publish.await;
            return;
        }
    };
    drop(counted);
    if let Err(refusal) = end {
        return session.seat.ending.set(refusal);
    }
    // The end of the stream is the end of publishing: a further stream is one too many all the same.
    until_end(&session, second).await;
}

/// One more for as long as it lives, however that ends.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits as long as the quota of the session's tenant says. Whoever sends meanwhile is held back by the stream's window.
async fn pause(session: &Session, local: &Local) {
    let Some(member) = &session.member else { return };
    loop {
        let wait_ns = member.usage().wait_ns(local.shared.now_ns()).min(PAUSE_MAX_NS);
        if wait_ns == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
        member.usage().paused(wait_ns);
    }
}

/// Reads the publish stream to its end, batch by batch.
async fn read(session: &Session, local: &Local, mut stream: RecvStream) -> Result<(), Refusal> {
    let tenant = session.member.as_ref().map(|member| member.usage().clone());
    let mut publisher = Publisher::new(local, session.service.clone(), tenant);
    let mut chunks: [Bytes; READ_CHUNKS] = std::array::from_fn(|_| Bytes::new());
    loop {
        let read = until_end(session, stream.read_chunks(&mut chunks)).await;
        let count = match read {
            None | Some(Err(ReadError::ConnectionLost(_))) => return Ok(()),
            Some(Ok(Some(count))) => count,
            Some(Ok(None)) if publisher.is_at_boundary() => return Ok(()),
            Some(Ok(None)) => return Err(Refusal::new(Code::Malformed, "the publish stream ends inside a frame")),
            Some(Err(error)) => return Err(Refusal::new(Code::OutOfOrder, format!("the publish stream: {error}"))),
        };
        for chunk in &mut chunks[..count] {
            publisher.push(&std::mem::take(chunk));
        }
        loop {
            if session.member.is_some() {
                until_end(session, pause(session, local)).await;
            }
            let Some(outcome) = publisher.publish(local).await? else { break };
            for exception in &outcome.exceptions {
                local.shared.refusals.count(exception.1);
            }
            session.acknowledge(outcome.seq, outcome.exceptions);
            let tenant = session.member.as_ref().map(|member| &**member.usage().name());
            // Subscribers of another tenant wait for nobody here; what does not fit into their outboxes is shed.
            for gauge in outcome.full.iter().filter(|gauge| gauge.tenant() == tenant) {
                until_end(session, gauge.room()).await;
            }
            until_end(session, session.wait_for_room()).await;
        }
    }
}
