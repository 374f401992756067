//! Request and reply: one inbox for each session, answers told apart by their correlation.
//!
//! Whoever was asked before knows the inbox. Each correlation is therefore random: only who was asked this very question
//! can answer it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hashbrown::HashMap;
use myelin_wire::{Code, Pattern, Refusal};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::oneshot;

use crate::delivered::Delivered;
use crate::error::{ClientError, RequestError};
use crate::event::Event;
use crate::notify::lock;
use crate::publisher::{Blocked, Outcome};
use crate::registry::Sink;
use crate::shared::Shared;

/// Requests that wait for answers, at most.
const REQUESTS_MAX: usize = 65_536;
/// The level below the inbox that answers are published to. One topic for all: names and caches stay small.
const REPLY_LEVEL: &str = "reply";

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    waiting: Mutex<HashMap<u64, Asked>>,
}

/// A request that waits, as whoever brings answers sees it.
#[derive(Debug)]
struct Asked {
    /// Where its answer comes to.
    topic: Arc<str>,
    answered: oneshot::Sender<Delivered>,
}

/// The inbox of a session that the router confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    session: u64,
    topic: Arc<str>,
}

/// One waiting request; dropped, it waits no more.
struct Waiting<'a> {
    replies: &'a Replies,
    id: u64,
    answer: oneshot::Receiver<Delivered>,
}

impl Replies {
    /// Gives an answer to whoever waits for it; nobody does when it is late, a repetition, or forged.
    pub(crate) fn resolve(&self, answer: Delivered) {
        let Some(id) = answer.correlation().and_then(|id| id.try_into().ok()).map(u64::from_le_bytes) else { return };
        let mut waiting = lock(&self.waiting);
        if waiting.get(&id).is_none_or(|asked| *asked.topic != *answer.topic()) {
            return;
        }
        let asked = waiting.remove(&id);
        drop(waiting);
        if let Some(asked) = asked {
            // Its time may have run out this moment.
            let _ = asked.answered.send(answer);
        }
    }

    /// The session and its inbox are over: no answer will come.
    pub(crate) fn end_session(&self) {
        lock(&self.waiting).clear();
    }

    fn wait(&self, topic: &Arc<str>) -> Result<Waiting<'_>, RequestError> {
        let (answered, answer) = oneshot::channel();
        let mut id = [0; size_of::<u64>()];
        SystemRandom::new().fill(&mut id).map_err(|_| {
            let message = "the operating system gives no random bytes to recognise an answer by";
            ClientError::Invalid(Refusal::new(Code::Internal, message))
        })?;
        let id = u64::from_le_bytes(id);
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= REQUESTS_MAX {
            return Err(RequestError::TooMany { waiting: waiting.len() });
        }
        waiting.insert(id, Asked { topic: topic.clone(), answered });
        Ok(Waiting { replies: self, id, answer })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.replies.waiting).remove(&self.id);
    }
}

/// Publishes `event` as a request and waits for its first answer.
pub(crate) async fn request(shared: &Shared, event: Event<'_>, timeout: Duration) -> Result<Delivered, RequestError> {
    let event = if event.has_ttl() { event } else { event.ttl(timeout) };
    match tokio::time::timeout(timeout, attempt(shared, &event)).await {
        Ok(ended) => ended,
        Err(_) => Err(RequestError::Timeout { waited_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) }),
    }
}

async fn attempt(shared: &Shared, event: &Event<'_>) -> Result<Delivered, RequestError> {
    loop {
        let inbox = inbox(shared).await?;
        let mut waiting = shared.replies.wait(&inbox.topic)?;
        let id = waiting.id.to_le_bytes();
        let request = event.clone().reply_to(&inbox.topic).correlation(id).request();
        let (ticket, outcome) = oneshot::channel();
        match shared.publisher.enqueue(&request, Some(inbox.session), &mut Some(ticket)).await {
            Ok(_) => return answer(&mut waiting, outcome).await,
            Err(Blocked::Error(error)) => return Err(error.into()),
            // Not sent. The inbox of the next session is another.
            Err(_) => shared.session_after(inbox.session).await?,
        }
    }
}

/// Waits for the answer, and for word that there will be none.
async fn answer(waiting: &mut Waiting<'_>, mut outcome: oneshot::Receiver<Outcome>) -> Result<Delivered, RequestError> {
    let decided = tokio::select! {
        // An answer that is there counts, whatever became of the ack.
        biased;
        answer = &mut waiting.answer => return answer.map_err(|_| RequestError::Unknown),
        decided = &mut outcome => decided.unwrap_or(Outcome::Unknown),
    };
    match decided {
        Outcome::Acked => (&mut waiting.answer).await.map_err(|_| RequestError::Unknown),
        Outcome::Refused { code: Code::NoResponder, .. } => Err(RequestError::NoResponder),
        Outcome::Refused { code, detail } => Err(RequestError::Refused(Refusal::new(code, detail))),
        Outcome::Unknown => Err(RequestError::Unknown),
    }
}

/// The inbox of the running session, subscribed to by the first request that needs it.
async fn inbox(shared: &Shared) -> Result<Inbox, ClientError> {
    let mut made = shared.inbox.lock().await;
    loop {
        let session = shared.session().await?;
        if let Some(inbox) = made.as_ref().filter(|inbox| inbox.session == session.number) {
            return Ok(inbox.clone());
        }
        let refuse = |error: myelin_wire::TopicError| {
            ClientError::protocol(Code::Malformed, format!("the inbox that WELCOME announced: {error}"))
        };
        let pattern = Pattern::new(&format!("{}/**", session.inbox)).map_err(refuse)?;
        let sink = Sink::Replies(shared.replies.clone());
        let (id, confirmation) = shared.registry.subscribe(pattern, None, sink)?;
        let undo = Undo { shared, id: Some(id) };
        shared.control.notify_one();
        match confirmation.await {
            Ok(Ok(())) => {
                undo.keep();
                let topic = format!("{}/{REPLY_LEVEL}", session.inbox).into();
                *made = Some(Inbox { session: session.number, topic });
            }
            Ok(Err(error)) => return Err(error),
            // The session was lost, and the subscription with it.
            Err(_) => shared.session_after(session.number).await?,
        }
    }
}

/// Ends a subscription that nobody waits for any more.
struct Undo<'a> {
    shared: &'a Shared,
    id: Option<u32>,
}

impl Undo<'_> {
    fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.registry.unsubscribe(id);
            self.shared.control.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stops_waiting_leaves_nothing_behind() {
        let replies = Replies::default();
        let topic = Arc::from("$inbox/1/x/reply");
        let [first, second] = [(); 2].map(|()| replies.wait(&topic).expect("there is room"));
        assert!(first.id.abs_diff(second.id) > 1, "the next correlation is not to be guessed");
        drop(first);
        assert_eq!(lock(&replies.waiting).len(), 1);
        drop(second);
        assert!(lock(&replies.waiting).is_empty());
    }
}
