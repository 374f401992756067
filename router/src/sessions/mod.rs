//! One client's session: four small tasks around a connection.
//!
//! The control reader takes requests, the control writer answers; the publish reader takes events through the
//! pipeline; the delivery writer sends what waits in the outbox. Readers and writers never wait for each other's
//! credit: a task that reads and awaits its own writes deadlocks when both sides run out of it.

mod control;
mod inbox;
mod proof;
mod publish;

use self::control::Answers;
use self::inbox::Inbox;
use self::proof::Proof;
use crate::delivery::{self, Outstanding};
use crate::fanout::gone;
use crate::ledger::Term;
use crate::local::{Ending, Local, Seat};
use crate::outbox::Outbox;
use crate::shared::{Phase, Presence, TableChange, TableCommand};
use crate::tenants::Member;
use myelin_core::SessionKey;
use myelin_policy::Service;
use myelin_transport::{Connection, RecvStream, SendStream};
use myelin_wire::limits::{CLIENT_NAME_BYTES_MAX, HELLO_TIMEOUT_MS};
use myelin_wire::message::{GoAway, Hello, Message, MessageDecoder, Token, Welcome};
use myelin_wire::{Code, FrameType, Refusal, VERSION};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How long a client may take for its HELLO.
const HELLO_TIMEOUT: Duration = Duration::from_millis(HELLO_TIMEOUT_MS as u64);
/// How long the last bytes of a session may take to reach its client before the connection is closed.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// What the tasks of a session share.
#[derive(Debug)]
pub struct Session {
    key: SessionKey,
    service: Service,
    /// Its place among the sessions of its identity.
    presence: Presence,
    /// Its place among the connections of its tenant.
    member: Option<Member>,
    /// What says who this is.
    proof: Proof,
    inbox: Inbox,
    connection: Connection,
    seat: Seat,
    answers: RefCell<Answers>,
    /// Wakes the control writer.
    wake_writer: Notify,
    /// Wakes whoever waits for the control writer.
    room: Notify,
    outstanding: Rc<Outstanding>,
}

/// Serves a connection from its first frame to its close. The session's end is told to the client by the close code.
pub async fn serve(local: Rc<Local>, connection: Connection) {
    match timeout(HELLO_TIMEOUT, greet(&local, &connection)).await {
        Err(_) => {
            close(&local, &connection, &Refusal::new(Code::HelloTimeout, "no HELLO within 5 s of the handshake"));
        }
        Ok(Err(refusal)) => close(&local, &connection, &refusal),
        Ok(Ok((send, recv, decoder, hello, who))) => match Session::open(&local, &connection, &hello, who) {
            Err(refusal) => close(&local, &connection, &refusal),
            Ok(session) => {
                tracing::debug!(identity = session.service.id(), client = %cut(&hello.client), "session opened");
                Rc::new(session).run(&local, send, recv, decoder).await;
            }
        },
    }
}

/// Who a client is.
struct Who {
    service: Service,
    proof: Proof,
}

/// Who the client is: by its certificate, and only where it has shown none by its token.
async fn identify(local: &Local, connection: &Connection, token: Option<&Token>) -> Result<Who, Refusal> {
    if !connection.identity().is_nobody() {
        let proof = Proof::certificate(connection.certificate_not_after_unix_s());
        return Ok(Who { service: Service::new(connection.identity().as_str()), proof });
    }
    let unknown = |why: String| Refusal::new(Code::Unauthenticated, why);
    let (Some(tokens), Some(Token(token))) = (&local.shared.tokens, token) else {
        return Err(unknown("show a client certificate, or a token in HELLO".to_owned()));
    };
    let believed = tokens.verify(token.as_bytes()).await;
    let bearer = believed.map_err(|refused| unknown(format!("{}: {refused}", refused.code())))?;
    let service = Service::new(bearer.identity.as_str()).with_groups(bearer.groups.iter().map(|group| &**group));
    Ok(Who { service, proof: Proof::Token { ends_unix_s: bearer.expires_unix_s } })
}

/// Takes the control stream and the client's HELLO, and finds out who it is.
async fn greet(
    local: &Local,
    connection: &Connection,
) -> Result<(SendStream, RecvStream, MessageDecoder, Hello, Who), Refusal> {
    let lost = |what: &str| Refusal::new(Code::OutOfOrder, format!("{what} before HELLO"));
    let (send, mut recv) = connection.accept_bi().await.map_err(|_| lost("the connection ended"))?;
    let mut decoder = MessageDecoder::new();
    loop {
        match decoder.poll_if(|kind| kind == FrameType::Hello)? {
            Some(Message::Hello(hello)) if (hello.min..=hello.max).contains(&VERSION) => {
                let who = identify(local, connection, hello.token.as_ref()).await?;
                return Ok((send, recv, decoder, hello, who));
            }
            Some(Message::Hello(hello)) => {
                let message =
                    format!("the client speaks versions {} to {}, this router {VERSION}", hello.min, hello.max);
                return Err(Refusal::new(Code::Version, message));
            }
            Some(other) => return Err(lost(&format!("a {:?} frame came", other.frame_type()))),
            None => match recv.read_chunk().await {
                Ok(Some(bytes)) => decoder.push(&bytes),
                _ => return Err(lost("the control stream ended")),
            },
        }
    }
}

/// A client's name as it is logged.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(CLIENT_NAME_BYTES_MAX)]
}

fn close(local: &Local, connection: &Connection, refusal: &Refusal) {
    if connection.close_reason().is_none() {
        local.shared.refusals.count(refusal.code);
        tracing::info!(
            identity = connection.identity().as_str(),
            code = refusal.code.name(),
            "session refused: {}",
            refusal.message
        );
    }
    connection.close(u32::from(refusal.code.number()), &refusal.to_string());
}

impl Session {
    /// A session for a client that has said who it is, where there is room for one more of its own.
    fn open(local: &Local, connection: &Connection, hello: &Hello, who: Who) -> Result<Self, Refusal> {
        let Who { service, proof } = who;
        let full = |message: String| Refusal::new(Code::TooManySessions, message);
        let (identities, identity) = (&local.shared.identities, service.id());
        let presence = identities.enter(identity).ok_or_else(|| {
            let most = identities.sessions_max();
            full(format!(
                "{identity} has {most} sessions at this router, the most for one identity ([node] sessions_per_identity); \
                 close some, or give its programs identities of their own"
            ))
        })?;
        let member = local.tenant_of(&service).map(|tenant| tenant.connect()).transpose()?;
        let usage = member.as_ref().map(Member::usage);
        let inbox = Inbox::make(local.shared.origin, usage.map(|usage| &**usage))?;
        let whose = format!("{identity} at {}", connection.remote());
        let tenant = usage.map(|usage| usage.name().clone());
        let outbox = Rc::new(Outbox::new(&whose, tenant, hello.overflow, local.shared.outbox));
        let seat = Seat { outbox, ending: Rc::new(Ending::default()) };
        let key = local
            .take_seat(seat.clone())
            .ok_or_else(|| full("this router has as many sessions as it takes; connect to another one".to_owned()))?;
        if let (Some(gauge), Ok(mut gauges)) = (seat.outbox.gauge(), local.shared.gauges.write()) {
            gauges.insert(key, gauge);
        }
        if let Ok(mut services) = local.shared.services.write() {
            services.insert(key, service.clone());
        }
        Ok(Self {
            key,
            service,
            presence,
            member,
            proof,
            inbox,
            connection: connection.clone(),
            seat,
            answers: RefCell::default(),
            wake_writer: Notify::new(),
            room: Notify::new(),
            outstanding: Rc::default(),
        })
    }

    /// The life of the session, then its end.
    async fn run(self: Rc<Self>, local: &Rc<Local>, send: SendStream, recv: RecvStream, decoder: MessageDecoder) {
        local.shared.sessions.fetch_add(1, Ordering::Relaxed);
        self.answer(Message::Welcome(self.welcome(local)));
        let mut writer = spawn_local(self.clone().part(control::write(self.clone(), send)));
        let reader = spawn_local(self.clone().part(control::read(self.clone(), local.clone(), recv, decoder)));
        let publisher = spawn_local(self.clone().part(publish::accept(self.clone(), local.clone())));
        let (connection, seat) = (self.connection.clone(), self.seat.clone());
        let delivery = delivery::write(local.clone(), connection, seat, self.outstanding.clone());
        let delivery = spawn_local(self.clone().part(delivery));
        let end = self.wait_for_end(local).await;
        self.seat.ending.set(end.clone());
        // The publisher may be in the middle of a batch: it ends by itself, at the batch's end.
        self.farewell(&mut writer).await;
        close_session(local, &self.connection, &end);
        reader.abort();
        writer.abort();
        for task in [publisher, delivery] {
            if task.await.is_err_and(|error| error.is_panic()) {
                tracing::error!("a session task panicked: this is a defect of the router");
            }
        }
        self.leave(local).await;
        local.shared.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Does a part of the session's work. Where that panics, the session ends: its client would wait for an answer for ever.
    async fn part(self: Rc<Self>, work: impl Future<Output = ()>) {
        struct Part(Rc<Session>);
        impl Drop for Part {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let message =
                        "the router has failed, by a defect of its own; what it has not acknowledged is unknown";
                    self.0.seat.ending.set(Refusal::new(Code::Internal, message));
                }
            }
        }
        let _part = Part(self);
        work.await;
    }

    fn welcome(&self, local: &Local) -> Welcome {
        let shared = &local.shared;
        let (site, router) = (shared.site.clone(), shared.router.clone());
        Welcome { version: VERSION, site, router, inbox: self.inbox.to_string(), limits: shared.limits }
    }

    /// Waits for the session's end, and takes it through the router's draining.
    async fn wait_for_end(&self, local: &Local) -> Refusal {
        let mut phase = local.shared.phase.subscribe();
        let draining = async {
            let is_over = |phase: &Phase| matches!(phase, Phase::Flushing(_));
            if let Ok(Phase::Draining(until)) =
                phase.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase)
            {
                self.say_goodbye(until);
            }
            let until = match phase.wait_for(is_over).await.map(|phase| *phase) {
                Ok(Phase::Flushing(until)) => until,
                _ => Instant::now(),
            };
            let left = until.saturating_duration_since(Instant::now());
            let _ = timeout(left, self.outstanding.settled(&self.seat.outbox)).await;
            Refusal::new(Code::Draining, "the router is shutting down; connect to another one, or again later")
        };
        tokio::select! {
            reason = self.seat.ending.reason() => reason,
            reason = self.proof.over() => reason,
            reason = self.connection.closed() => Refusal::new(Code::OutOfOrder, reason.to_string()),
            reason = draining => reason,
        }
    }

    fn say_goodbye(&self, until: Instant) {
        let drain_ms = u32::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u32::MAX);
        let message = "the router is shutting down: finish what is in flight, then connect to another one".to_owned();
        self.answer(Message::GoAway(GoAway { code: Code::Draining, message, drain_ms }));
    }

    /// Lets the control writer write what it has, for a while.
    async fn farewell(&self, writer: &mut tokio::task::JoinHandle<()>) {
        if self.connection.close_reason().is_none() {
            self.wake_writer.notify_one();
            let _ = timeout(FAREWELL_TIMEOUT, writer).await;
        }
    }

    /// Gives up the seat and the subscriptions, and counts what did not reach the client.
    async fn leave(&self, local: &Local) {
        self.seat.outbox.close();
        let (done, live) = oneshot::channel();
        let command = TableCommand { session: self.key, change: TableChange::DropSession, done };
        if local.shared.table_writer.send(command).await.is_ok() {
            let _ = live.await;
        }
        if let Ok(mut gauges) = local.shared.gauges.write() {
            gauges.remove(&self.key);
        }
        if let Ok(mut services) = local.shared.services.write() {
            services.remove(&self.key);
        }
        local.leave_seat(self.key);
        let mut queued = Vec::new();
        while self.seat.outbox.take(usize::MAX, &mut queued) {}
        for delivery in queued {
            gone(local, self.seat.outbox.whose(), &delivery, Term::Lost);
        }
        for (generation, count) in self.outstanding.drain() {
            local.ledger.settle(generation, Term::Lost, count);
        }
    }
}

/// Ends the connection: code 0 when the client said BYE.
fn close_session(local: &Local, connection: &Connection, end: &Refusal) {
    if end.code == Code::OutOfOrder && end.message == BYE {
        return connection.close(0, "bye");
    }
    close(local, connection, end);
}

/// The reason of a session that its client ended; never sent.
const BYE: &str = "bye";

/// Awaits `work`, unless the session ends first.
async fn until_end<T>(session: &Session, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        _ = session.seat.ending.reason() => None,
    }
}
