//! What all handles, subscriptions and tasks of one client have in common.

use std::sync::{Arc, Mutex};

use myelin_wire::Limits;
use tokio::sync::{Notify, watch};

use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::notify::lock;
use crate::publisher::Publisher;
use crate::registry::Registry;
use crate::request::{Inbox, Replies};
use crate::stats::{Counters, Stats};

/// The session that a client is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Counts the sessions of this client, from 1.
    pub number: u64,
    /// Which of the routers to choose from it is with: the place of its address among the client's, from 0.
    pub index: usize,
    /// Protocol version in use.
    pub version: u16,
    /// Site of the router.
    pub site: String,
    /// Name of the router.
    pub router: String,
    /// Topics below this one reach this session only.
    pub inbox: String,
    /// The limits that the router enforces.
    pub limits: Limits,
}

/// What a client is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no session; one is being made.
    Connecting,
    /// In a session.
    Connected(Arc<SessionInfo>),
    /// Over, and why; [`ClientError::ClientClosed`] after [`close`](crate::Client::close).
    Closed(ClientError),
}

/// How the last session ended that the client did not end itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The number of the session.
    pub session: u64,
    /// Why it ended.
    pub error: ClientError,
    /// Whether the router had asked to go elsewhere, so that what was in flight could be finished.
    pub is_drain: bool,
    /// Why the last attempt since then to be in another session failed.
    pub failed: Option<ClientError>,
}

/// How far a client is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lifecycle {
    Running,
    /// Everything in flight is finished, then the session ends.
    Closing,
    /// The connection is closed as it is.
    Stopped,
}

pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) publisher: Publisher,
    pub(crate) registry: Registry,
    pub(crate) replies: Arc<Replies>,
    /// Asynchronous, since the first request holds it while the router confirms.
    pub(crate) inbox: tokio::sync::Mutex<Option<Inbox>>,
    /// The session's control writer waits here.
    pub(crate) control: Notify,
    pub(crate) counters: Counters,
    loss: Mutex<Option<Loss>>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) lifecycle: watch::Sender<Lifecycle>,
}

impl Shared {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self {
            publisher: Publisher::new(config.pending_bytes_max, config.unacked_events_max),
            config,
            registry: Registry::default(),
            replies: Arc::default(),
            inbox: tokio::sync::Mutex::default(),
            control: Notify::new(),
            counters: Counters::default(),
            loss: Mutex::default(),
            status: watch::Sender::new(Status::Connecting),
            lifecycle: watch::Sender::new(Lifecycle::Running),
        }
    }

    /// Waits for a session.
    ///
    /// # Errors
    /// When the client is over.
    pub(crate) async fn session(&self) -> Result<Arc<SessionInfo>, ClientError> {
        self.session_where(|_| true).await
    }

    /// Waits until the session number `last` is over and another one is there.
    ///
    /// # Errors
    /// When the client is over.
    pub(crate) async fn session_after(&self, last: u64) -> Result<(), ClientError> {
        self.session_where(|session| session.number > last).await.map(drop)
    }

    async fn session_where(&self, wanted: impl Fn(&SessionInfo) -> bool) -> Result<Arc<SessionInfo>, ClientError> {
        let mut statuses = self.status.subscribe();
        let is_answer = |status: &Status| match status {
            Status::Connecting => false,
            Status::Connected(session) => wanted(session),
            Status::Closed(_) => true,
        };
        // The sender lives in `self`, so that waiting cannot fail.
        let status = statuses.wait_for(is_answer).await.map(|status| status.clone());
        match status {
            Ok(Status::Connected(session)) => Ok(session),
            Ok(Status::Closed(error)) => Err(error),
            Ok(Status::Connecting) | Err(_) => Err(ClientError::ClientClosed),
        }
    }

    /// Waits until the client's end has come so far.
    pub(crate) async fn reached(&self, stage: Lifecycle) {
        let mut stages = self.lifecycle.subscribe();
        // As above: the sender lives in `self`.
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    /// Moves on towards the end; never back.
    pub(crate) fn advance(&self, stage: Lifecycle) {
        self.lifecycle.send_if_modified(|now| {
            let later = stage > *now;
            *now = stage.max(*now);
            later
        });
    }

    pub(crate) fn lifecycle(&self) -> Lifecycle {
        *self.lifecycle.borrow()
    }

    /// A session was lost. To be told before its end, so that whoever sees that finds the reason.
    pub(crate) fn lose(&self, loss: Loss) {
        *lock(&self.loss) = Some(loss);
    }

    /// An attempt to be in a session again failed.
    pub(crate) fn not_back(&self, error: &ClientError) {
        if let Some(loss) = &mut *lock(&self.loss) {
            loss.failed = Some(error.clone());
        }
    }

    pub(crate) fn loss(&self) -> Option<Loss> {
        lock(&self.loss).clone()
    }

    /// The session is over; what waits for its answers is told.
    pub(crate) fn end_session(&self) {
        self.publisher.lost();
        self.registry.end_session();
        self.replies.end_session();
        self.status.send_replace(Status::Connecting);
    }

    /// No session will come: everybody who waits is told `error`.
    pub(crate) fn finish(&self, error: &ClientError) {
        self.publisher.close(error.clone());
        self.registry.close(error);
        self.status.send_replace(Status::Closed(error.clone()));
    }

    pub(crate) fn stats(&self) -> Stats {
        let (summary, (subscriptions, queued)) = (self.publisher.summary(), self.registry.sizes());
        Stats {
            published: summary.published,
            acked: summary.acked,
            refused: summary.refused,
            unknown: summary.unknown,
            exceptions_dropped: summary.exceptions_dropped,
            subscriptions: subscriptions as u64,
            queued: queued as u64,
            ..self.counters.read()
        }
    }
}
