//! The task in the background: session after session, with pauses between failed attempts.

use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use myelin_transport::{Backoff, CloseKind};
use myelin_wire::Code;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};

use crate::connector::Connector;
use crate::error::ClientError;
use crate::session::{Control, Established, Session, establish};
use crate::shared::{Lifecycle, Loss, Shared, Status};
use crate::stats::add;

/// After BYE the router has so long to close.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// So long may the token's file be renewed too late: a router that turns this client away is asked again meanwhile.
const RENEWAL_TIME: Duration = Duration::from_secs(10);
/// So often at least it is turned away before it gives up: behind one name there may be several routers.
const TURNED_AWAY_MIN: usize = 3;
/// A session that lasted so long was a success: the next failure begins with the first pause again.
const STABLE: Duration = Duration::from_secs(5);

/// Tries each router once.
///
/// # Errors
/// That of the last one.
pub(crate) async fn first_session(
    shared: &Shared,
    connector: &dyn Connector,
) -> Result<(Established, usize), ClientError> {
    let mut failed = ClientError::Config("there is no router to connect to".to_owned());
    for index in 0..connector.routers() {
        match establish(connector, index, &shared.config).await {
            Ok(established) => return Ok((established, index)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Runs sessions until the client ends; `first` is with router number `index`.
pub(crate) async fn drive(shared: Arc<Shared>, connector: Arc<dyn Connector>, first: Established, mut index: usize) {
    let pause = |ms: u32| Duration::from_millis(ms.into());
    let config = &shared.config;
    let mut backoff = Backoff::new(pause(config.reconnect_first_ms), pause(config.reconnect_most_ms));
    let mut established = first;
    let mut number = 0;
    let end = loop {
        number += 1;
        let began = Instant::now();
        let (error, goaway) = run(&shared, established, number).await;
        let is_ours = shared.lifecycle() > Lifecycle::Running;
        if !is_ours {
            shared.lose(Loss { session: number, error: error.clone(), is_drain: goaway, failed: None });
        }
        shared.end_session();
        if is_ours {
            break ClientError::ClientClosed;
        }
        add(&shared.counters.sessions_lost, 1);
        if !config.reconnect || error.is_final() {
            break error;
        }
        if began.elapsed() >= STABLE {
            backoff.succeeded();
        }
        // A router that says GOAWAY, or that says nothing any more, is the last to ask again.
        let is_silent = matches!(&error, ClientError::Lost(reason) if reason.kind == CloseKind::TimedOut);
        index += usize::from(goaway || is_silent);
        match reconnect(&shared, &*connector, &mut backoff, &mut index).await {
            Ok(next) => established = next,
            Err(error) => break error,
        }
    };
    shared.finish(&end);
}

/// Dials until a router answers, or each has said in turn that it does not believe who this client is: the token's file is
/// read for every attempt, so that it was not renewed.
async fn reconnect(
    shared: &Shared,
    connector: &dyn Connector,
    backoff: &mut Backoff,
    index: &mut usize,
) -> Result<Established, ClientError> {
    let mut closing = pin!(shared.reached(Lifecycle::Closing));
    // How often in a row, and since when: an outage before is no time in which the token could have been renewed.
    let mut turned_away: Option<(usize, Instant)> = None;
    loop {
        tokio::select! {
            () = sleep(backoff.next_wait(random())) => {}
            () = &mut closing => return Err(ClientError::ClientClosed),
        }
        let dialled = tokio::select! {
            dialled = establish(connector, *index % connector.routers(), &shared.config) => dialled,
            () = &mut closing => return Err(ClientError::ClientClosed),
        };
        if let Err(error) = &dialled {
            shared.not_back(error);
        }
        match dialled {
            Ok(established) => return Ok(established),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                turned_away = error.is_about_us().then(|| {
                    let (count, since) = turned_away.unwrap_or((0, Instant::now()));
                    (count + 1, since)
                });
                let most = connector.routers().max(TURNED_AWAY_MIN);
                if turned_away.is_some_and(|(count, since)| count >= most && since.elapsed() >= RENEWAL_TIME) {
                    return Err(error);
                }
                add(&shared.counters.connect_failures, 1);
                *index += 1;
            }
        }
    }
}

/// Runs one session to its end: why it ended, and whether the router had asked to go elsewhere.
async fn run(shared: &Arc<Shared>, established: Established, number: u64) -> (ClientError, bool) {
    let (session, control) = Session::begin(shared, established, number);
    shared.publisher.begin(number, session.info.limits);
    if shared.registry.begin_session() {
        shared.publisher.open();
    }
    shared.status.send_replace(Status::Connected(session.info.clone()));
    add(&shared.counters.sessions, 1);
    // What was asked for in the meantime is in the outbox already.
    shared.control.notify_one();
    let mut tasks = spawn(&session, control);
    let error = supervise(&session, &mut tasks).await;
    tasks.shutdown().await;
    (error, session.is_going())
}

/// Which task has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Reader,
    Writer,
}

type Ended = (Role, Result<(), ClientError>);

fn spawn(session: &Arc<Session>, control: Control) -> JoinSet<Ended> {
    let Control { send, recv, decoder } = control;
    let mut tasks = JoinSet::new();
    let of = session.clone();
    tasks.spawn(async move { (Role::Reader, of.read_control(recv, decoder).await) });
    let of = session.clone();
    tasks.spawn(async move { (Role::Writer, of.write_control(send).await) });
    let of = session.clone();
    tasks.spawn(async move { (Role::Writer, of.write_events().await) });
    let of = session.clone();
    tasks.spawn(async move { (Role::Reader, of.read_deliveries().await) });
    tasks
}

/// Waits for both readers: they end when the connection has ended and everything that had arrived is taken over.
async fn supervise(session: &Session, tasks: &mut JoinSet<Ended>) -> ClientError {
    let mut departure = pin!(session.departure());
    let mut patience = pin!(sleep(Duration::MAX));
    let mut stopped = pin!(session.shared.reached(Lifecycle::Stopped));
    let (mut is_leaving, mut is_stopped, mut readers) = (false, false, 2);
    let mut error = None;
    while readers > 0 {
        tokio::select! {
            Some(joined) = tasks.join_next() => {
                let (role, ended) = joined.unwrap_or_else(panicked);
                readers -= usize::from(role == Role::Reader);
                if let Err(fault) = ended {
                    close_for(session, &fault);
                    error.get_or_insert(fault);
                }
            }
            () = &mut departure, if !is_leaving => {
                is_leaving = true;
                session.leave();
                patience.set(sleep(LEAVE_TIMEOUT));
            }
            () = &mut patience, if is_leaving && !is_stopped => {
                is_stopped = true;
                session.connection.close(0, "the router did not close after BYE");
            }
            () = &mut stopped, if !is_stopped => {
                is_stopped = true;
                session.connection.close(0, "");
            }
        }
    }
    error.unwrap_or_else(|| ClientError::protocol(Code::OutOfOrder, "both streams ended before the session"))
}

/// A session cannot go on without one of its tasks: the router learns why.
fn close_for(session: &Session, fault: &ClientError) {
    match fault {
        ClientError::Protocol(refusal) => {
            session.connection.close(refusal.code.number().into(), &refusal.to_string());
        }
        // The connection has ended, else this does no harm to it.
        _ => session.connection.close(0, ""),
    }
}

/// A task that panicked: the others could wait for it for ever.
fn panicked(error: JoinError) -> Ended {
    (Role::Writer, Err(ClientError::protocol(Code::Internal, format!("a task of this client ended: {error}"))))
}

/// Evenly spread over `u64`; the standard library's seeds are the system's.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(())
}
