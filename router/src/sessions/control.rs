//! The control stream: requests and receipts in, answers and acks out.

use super::{BYE, Session};
use crate::delivery;
use crate::ledger::Term;
use crate::local::Local;
use crate::shared::{Subscribed, TableChange, TableCommand};
use crate::tenants::group_name;
use bytes::Bytes;
use myelin_policy::Action;
use myelin_transport::{RecvStream, SendStream};
use myelin_wire::limits::{ACK_EXCEPTIONS_MAX, GROUP_BYTES_MAX};
use myelin_wire::message::{Ack, Exception, Message, MessageDecoder, Refused, Subscribe, SubscriptionId};
use myelin_wire::{Code, FrameType, Pattern, Refusal, topic};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Exceptions that may wait for the control writer; a publisher with more waits.
const EXCEPTIONS_WAITING_MAX: usize = 4096;
/// Answers that may wait for the control writer; a client that does not read them is not read either.
const ANSWERS_WAITING_MAX: usize = 256;

/// What the control writer has to write.
#[derive(Debug, Default)]
pub(super) struct Answers {
    messages: VecDeque<Message>,
    /// Cumulative sequence to acknowledge.
    seq: u64,
    acked: u64,
    exceptions: VecDeque<Exception>,
}

impl Answers {
    fn have_room(&self) -> bool {
        self.messages.len() < ANSWERS_WAITING_MAX && self.exceptions.len() < EXCEPTIONS_WAITING_MAX
    }

    /// Encodes everything that can be written now.
    fn encode(&mut self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        for message in self.messages.drain(..) {
            message.encode(out)?;
        }
        while self.seq > self.acked {
            let told = self.exceptions.len().min(ACK_EXCEPTIONS_MAX);
            let exceptions: Vec<_> = self.exceptions.drain(..told).collect();
            // The sequence never passes an exception that was not told yet.
            let seq = match exceptions.last() {
                Some(last) if !self.exceptions.is_empty() => last.0,
                _ => self.seq,
            };
            self.acked = seq;
            Message::Ack(Ack { seq, exceptions }).encode(out)?;
        }
        Ok(())
    }
}

/// Writes answers and acks as they come.
pub(super) async fn write(session: Rc<Session>, mut send: SendStream) {
    send.set_priority(1);
    loop {
        let mut out = Vec::new();
        let encoded = session.answers.borrow_mut().encode(&mut out);
        if let Err(refusal) = encoded {
            return session.seat.ending.set(refusal);
        }
        if out.is_empty() && session.seat.ending.is_set() {
            // Everything was written: closing now would throw away what the client has not got yet.
            let _ = send.finish();
            let _ = send.stopped().await;
            return;
        }
        if out.is_empty() {
            session.room.notify_waiters();
            session.wake_writer.notified().await;
        } else if send.write_chunk(Bytes::from(out)).await.is_err() {
            return delivery::end_stopped(&session.connection, &session.seat, "control");
        }
        session.room.notify_waiters();
    }
}

/// Takes requests and receipts.
pub(super) async fn read(session: Rc<Session>, local: Rc<Local>, mut recv: RecvStream, mut decoder: MessageDecoder) {
    let mut subscriptions = Subscriptions::new();
    let mut rules = local.shared.rules_version.subscribe();
    // The tenants may have changed since the session was given its own; from here on that is told.
    if let Err(refusal) = session.check_tenant(&local) {
        return session.seat.ending.set(refusal);
    }
    let end = loop {
        // All requests that have come are asked for together: the table is published at most once a millisecond.
        let (mut asked, mut is_more) = (Vec::new(), false);
        let taken = loop {
            match decoder.poll_if(|kind| kind.is_from_client() && kind != FrameType::Hello) {
                Ok(Some(message)) => match session.take_message(&local, message, &mut subscriptions).await {
                    Ok(request) => asked.extend(request),
                    Err(refusal) => break Err(refusal),
                },
                Ok(None) => break Ok(()),
                Err(refusal) => break Err(refusal),
            }
            if asked.len() >= ANSWERS_WAITING_MAX {
                is_more = true;
                break Ok(());
            }
        };
        // In the order of the requests, refused ones among them: a client may name one id several times in a row.
        for request in asked {
            session.settle(&local, request, &mut subscriptions).await;
        }
        if let Err(refusal) = taken {
            break refusal;
        }
        session.wait_for_room().await;
        if is_more {
            continue;
        }
        let read = tokio::select! {
            read = recv.read_chunk() => read,
            // It is part of what all workers share: whoever changes the rules outlives every session.
            _ = rules.changed() => match session.look_again(&local, &mut subscriptions).await {
                Ok(()) => continue,
                Err(refusal) => break refusal,
            },
        };
        match read {
            Ok(Some(bytes)) => decoder.push(&bytes),
            Ok(None) if !decoder.is_at_boundary() => {
                break Refusal::new(Code::Malformed, "the control stream ends inside a frame");
            }
            Ok(None) | Err(_) => break Refusal::new(Code::OutOfOrder, BYE),
        }
    };
    session.seat.ending.set(end);
}

/// A session's subscriptions, by the ids that it gave them.
type Subscriptions = HashMap<u32, Held>;

/// A subscription.
struct Held {
    pattern: Pattern,
    /// Among those of the identity.
    _place: Subscribed,
}

/// A request that was looked at, and what it is answered.
enum Request {
    /// It changes the table: `answer` when the change is live.
    Asked { id: u32, answer: Message, live: oneshot::Receiver<Result<(), Refusal>> },
    /// It is refused.
    Refused { id: u32, refusal: Refusal },
}

impl Session {
    /// Queues a message for the control writer.
    pub(super) fn answer(&self, message: Message) {
        self.answers.borrow_mut().messages.push_back(message);
        self.wake_writer.notify_one();
    }

    /// Queues an ack for the control writer.
    pub(super) fn acknowledge(&self, seq: u64, exceptions: Vec<Exception>) {
        let mut answers = self.answers.borrow_mut();
        answers.seq = seq;
        answers.exceptions.extend(exceptions);
        self.wake_writer.notify_one();
    }

    /// Waits until the control writer has less to write than the bounds.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.answers.borrow().have_room() {
                return;
            }
            room.await;
        }
    }

    /// One control message. Refusals of single requests are answered; an error ends the session.
    async fn take_message(
        &self,
        local: &Local,
        message: Message,
        subscriptions: &mut Subscriptions,
    ) -> Result<Option<Request>, Refusal> {
        match message {
            Message::Subscribe(request) => {
                let id = request.id;
                let (pattern, group) = match self.check_subscribe(local, &request, subscriptions) {
                    Ok(checked) => checked,
                    Err(refusal) => return Ok(Some(Request::Refused { id, refusal })),
                };
                let Some(place) = self.presence.subscribe() else {
                    return Ok(Some(Request::Refused { id, refusal: self.too_many() }));
                };
                subscriptions.insert(id, Held { pattern: pattern.clone(), _place: place });
                let live = self.ask(local, TableChange::Subscribe { id, pattern, group }).await?;
                Ok(Some(Request::Asked { id, answer: Message::Subscribed(SubscriptionId { id }), live }))
            }
            Message::Unsubscribe(SubscriptionId { id }) => {
                if subscriptions.remove(&id).is_none() {
                    let message = format!("there is no subscription {id} in this session");
                    return Ok(Some(Request::Refused { id, refusal: Refusal::new(Code::SubscriptionId, message) }));
                }
                let live = self.ask(local, TableChange::Unsubscribe { id }).await?;
                Ok(Some(Request::Asked { id, answer: Message::Unsubscribed(SubscriptionId { id }), live }))
            }
            Message::Receipt(receipt) => {
                self.outstanding.receipt(receipt.events, |generation, count| {
                    local.ledger.settle(generation, Term::Delivered, count);
                })?;
                self.seat.outbox.nudge();
                Ok(None)
            }
            Message::Bye => Err(Refusal::new(Code::OutOfOrder, BYE)),
            other => {
                Err(Refusal::new(Code::OutOfOrder, format!("a client does not send {:?} here", other.frame_type())))
            }
        }
    }

    fn check_subscribe(
        &self,
        local: &Local,
        request: &Subscribe,
        subscriptions: &Subscriptions,
    ) -> Result<(Pattern, Option<Arc<str>>), Refusal> {
        let limit = local.shared.limits.subscriptions;
        if subscriptions.len() >= limit as usize {
            return Err(Refusal::new(Code::TooManySubscriptions, format!("a session may have {limit} subscriptions")));
        }
        if request.id == 0 || subscriptions.contains_key(&request.id) {
            let message = format!("subscription id {} is 0 or in use; choose another", request.id);
            return Err(Refusal::new(Code::SubscriptionId, message));
        }
        let pattern =
            Pattern::new(&request.pattern).map_err(|error| Refusal::new(Code::InvalidPattern, error.to_string()))?;
        let own = self.inbox.holds(pattern.as_str());
        if topic::is_reserved(pattern.as_str()) && !own && !pattern.as_str().starts_with("$dead/") {
            let message =
                format!("of the router's own topics a client may subscribe to $dead/... and {}/**", self.inbox);
            return Err(Refusal::new(Code::ReservedTopic, message));
        }
        if !own {
            local.permit(&self.service, Action::Subscribe, pattern.as_str())?;
        }
        let group = match request.group.as_deref() {
            Some(name) if name.is_empty() || name.len() > GROUP_BYTES_MAX || name.chars().any(char::is_control) => {
                let message = format!("a group's name has 1 to {GROUP_BYTES_MAX} bytes and no control characters");
                return Err(Refusal::new(Code::InvalidGroup, message));
            }
            group => group.map(|name| group_name(self.member.as_ref().map(|member| &**member.usage()), name)),
        };
        Ok((pattern, group))
    }

    /// All sessions of its identity have as many subscriptions as they may have together.
    fn too_many(&self) -> Refusal {
        let (identity, most) = (self.service.id(), self.presence.subscriptions_max());
        let message = format!(
            "the sessions of {identity} at this router have {most} subscriptions, the most for one identity ([node] \
             subscriptions_per_identity); end some, or give its programs identities of their own"
        );
        Refusal::new(Code::TooManySubscriptions, message)
    }

    /// A session is of one tenant, or of none, as long as it lives: its inbox and its quota say which.
    fn check_tenant(&self, local: &Local) -> Result<(), Refusal> {
        let (then, now) = (self.member.as_ref().map(|member| member.usage()), local.tenant_of(&self.service));
        let is_same = match (then, &now) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return Ok(());
        }
        let name = now.as_ref().map_or("none", |tenant| tenant.name());
        let message = format!("the tenant of this service is another one now ({name}); connect again");
        Err(Refusal::new(Code::Forbidden, message))
    }

    /// Ends the subscriptions that the rules allow no longer, and tells the client so.
    async fn look_again(&self, local: &Local, subscriptions: &mut Subscriptions) -> Result<(), Refusal> {
        self.check_tenant(local)?;
        let own = |pattern: &Pattern| self.inbox.holds(pattern.as_str());
        let permit = |pattern: &Pattern| local.permit(&self.service, Action::Subscribe, pattern.as_str());
        let others = subscriptions.iter().filter(|(_, held)| !own(&held.pattern));
        let denied: Vec<_> = others.filter_map(|(id, held)| Some((*id, permit(&held.pattern).err()?))).collect();
        for (id, refusal) in denied {
            subscriptions.remove(&id);
            let live = self.ask(local, TableChange::Unsubscribe { id }).await?;
            // Whatever the table says: it is no longer there.
            let _ = live.await;
            self.settle(local, Request::Refused { id, refusal }, subscriptions).await;
            self.wait_for_room().await;
        }
        Ok(())
    }

    async fn ask(&self, local: &Local, change: TableChange) -> Result<oneshot::Receiver<Result<(), Refusal>>, Refusal> {
        let (done, live) = oneshot::channel();
        let command = TableCommand { session: self.key, change, done };
        let stopped = |_| Refusal::new(Code::Draining, "the router has stopped");
        local.shared.table_writer.send(command).await.map_err(stopped)?;
        Ok(live)
    }

    /// Answers a request, once what it changes is live.
    async fn settle(&self, local: &Local, request: Request, subscriptions: &mut Subscriptions) {
        let (id, refusal) = match request {
            Request::Refused { id, refusal } => (id, refusal),
            Request::Asked { id, answer, live } => {
                match live.await.unwrap_or_else(|_| Err(Refusal::new(Code::Draining, "the router has stopped"))) {
                    Ok(()) => return self.answer(answer),
                    Err(refusal) => {
                        subscriptions.remove(&id);
                        (id, refusal)
                    }
                }
            }
        };
        local.shared.refusals.count(refusal.code);
        self.answer(Message::Refused(Refused { id, code: refusal.code, message: refusal.message.into_owned() }));
    }
}
