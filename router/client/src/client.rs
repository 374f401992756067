//! The handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use myelin_wire::{Code, Pattern, Refusal};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::config::ClientConfig;
use crate::connector::{Connector, QuicConnector};
use crate::delivered::Delivered;
use crate::driver::{LEAVE_TIMEOUT, drive, first_session};
use crate::error::{ClientError, RequestError};
use crate::event::Event;
use crate::publisher::{Blocked, PublishException, PublishTicket, Summary};
use crate::queue::Queue;
use crate::registry::Sink;
use crate::request;
use crate::shared::{Lifecycle, Loss, SessionInfo, Shared, Status};
use crate::stats::Stats;
use crate::subscription::{SubscribeOptions, Subscription};

/// At the end, the router has so long to learn that the connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client of a Myelin router. Cheap to clone; all clones and their subscriptions are one client with one connection.
///
/// When the last of them is dropped, the connection is closed as it is: [`close`](Self::close) finishes first.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    connector: Arc<dyn Connector>,
}

impl Client {
    /// Connects over QUIC: tries each address once. From then on a task in the background keeps the session.
    ///
    /// # Errors
    /// Whatever kept the last address from being reached: settings, certificates, network, or the router's word.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let connector = QuicConnector::new(&config)?;
        Self::connect_with(config, Arc::new(connector)).await
    }

    /// Connects by the caller's own connector; addresses and TLS of `config` are not used.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub async fn connect_with(config: ClientConfig, connector: Arc<dyn Connector>) -> Result<Self, ClientError> {
        config.validate()?;
        let shared = Arc::new(Shared::new(config));
        let (established, index) = first_session(&shared, &*connector).await?;
        let mut statuses = shared.status.subscribe();
        tokio::spawn(drive(shared.clone(), connector.clone(), established, index));
        let client = Self(Arc::new(Handle { shared, connector }));
        // So that the client is in a session when the caller has it, if only for a moment.
        let _ = statuses.wait_for(|status| *status != Status::Connecting).await;
        Ok(client)
    }

    /// Publishes `event`, waiting for room or for a session if need be. The ticket resolves to what the router decided.
    /// Cancel-safe: cancelled, the event was not published.
    ///
    /// # Errors
    /// When the event cannot be sent as it is, or the client is over.
    pub async fn publish(&self, event: Event<'_>) -> Result<PublishTicket, ClientError> {
        let (ticket, outcome) = oneshot::channel();
        let published = self.0.shared.publisher.enqueue(&event, None, &mut Some(ticket)).await;
        published.map(|number| PublishTicket::new(number, outcome)).map_err(from_blocked)
    }

    /// Like [`publish`](Self::publish), without a ticket: the fast way. Gives the event's number among all that this
    /// client published, from 1; a refusal of it is told by [`next_exception`](Self::next_exception).
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub async fn send(&self, event: Event<'_>) -> Result<u64, ClientError> {
        self.0.shared.publisher.enqueue(&event, None, &mut None).await.map_err(from_blocked)
    }

    /// Like [`send`](Self::send), but does not wait.
    ///
    /// # Errors
    /// [`ClientError::Full`] and [`ClientError::Disconnected`] where `send` would wait; otherwise as for `publish`.
    pub fn try_send(&self, event: &Event<'_>) -> Result<u64, ClientError> {
        self.0.shared.publisher.try_enqueue(event, None, &mut None).map_err(from_blocked)
    }

    /// Waits until everything that was published before is decided, and gives the totals of this client. A lost
    /// connection decides, too; a router that is there and silent does not: bound the waiting where it matters.
    pub async fn flush(&self) -> Summary {
        self.0.shared.publisher.flush().await
    }

    /// The next event sent without a ticket that was refused, in the order of publishing. At most 4,096 are kept.
    /// `None` when the client is closed and there is no more. Cancel-safe.
    pub async fn next_exception(&self) -> Option<PublishException> {
        self.0.shared.publisher.next_exception().await
    }

    /// Subscribes to `pattern` and waits until the subscription is live on every worker of the router: whatever is
    /// admitted from then on is matched with it. Without a session it waits for the next.
    ///
    /// # Errors
    /// When pattern or group are malformed, the router refuses, or the client is over.
    pub async fn subscribe(&self, pattern: &str, options: SubscribeOptions) -> Result<Subscription, ClientError> {
        let invalid = |error: myelin_wire::TopicError| {
            ClientError::Invalid(Refusal::new(Code::InvalidPattern, error.to_string()))
        };
        let pattern = Pattern::new(pattern).map_err(invalid)?;
        options.check()?;
        let shared = &self.0.shared;
        let queue = Arc::new(Queue::new(shared.config.queue_events_max, shared.config.queue_bytes_max));
        let sink = Sink::Queue(queue.clone());
        let (id, confirmation) = shared.registry.subscribe(pattern, options.group.map(Into::into), sink)?;
        // From here on it is ended when the caller stops waiting.
        let subscription = Subscription::new(self.clone(), id, queue);
        shared.control.notify_one();
        confirmation.await.unwrap_or(Err(ClientError::ClientClosed))?;
        Ok(subscription)
    }

    /// Publishes `payload` to `topic` and waits for the first answer. The event's time to live is `timeout`.
    ///
    /// # Errors
    /// [`RequestError`] says whether nobody is there, nobody answered in time, or the request was refused or lost.
    pub async fn request(
        &self,
        topic: &str,
        payload: &(impl AsRef<[u8]> + ?Sized),
        timeout: Duration,
    ) -> Result<Delivered, RequestError> {
        self.request_event(Event::new(topic, payload), timeout).await
    }

    /// Like [`request`](Self::request), with an event of the caller's making. Its reply-to and correlation are set here.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn request_event(&self, event: Event<'_>, timeout: Duration) -> Result<Delivered, RequestError> {
        request::request(&self.0.shared, event, timeout).await
    }

    /// Answers `request`. Like [`send`](Self::send) otherwise.
    ///
    /// # Errors
    /// [`ClientError::NoReplyTo`] when it wants no answer; otherwise as for [`send`](Self::send).
    pub async fn reply(&self, request: &Delivered, payload: &(impl AsRef<[u8]> + ?Sized)) -> Result<u64, ClientError> {
        self.send(Event::reply(request, payload).ok_or(ClientError::NoReplyTo)?).await
    }

    /// What the client is doing, and changes of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.shared.status.subscribe()
    }

    /// How the last session ended that this client did not end itself; `None` while none has. Known by the time that
    /// [`status`](Self::status) is no longer that session.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        self.0.shared.loss()
    }

    /// The numbers of the events whose fate lost connections left open, as first and last of each run, in order. After
    /// many losses the last run may span events between them that were decided.
    #[must_use]
    pub fn unknown(&self) -> Vec<(u64, u64)> {
        self.0.shared.publisher.unknown()
    }

    /// The session, waiting for one if need be.
    ///
    /// # Errors
    /// When the client is over.
    pub async fn session(&self) -> Result<Arc<SessionInfo>, ClientError> {
        self.0.shared.session().await
    }

    /// Figures of this client.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.shared.stats()
    }

    /// Ends the client: takes no more events, waits for the acks of those in flight, sends the last receipts and BYE,
    /// and waits for the router to close, for at most 5 s. What is left then is unknown. Gives the totals.
    ///
    /// Subscriptions end; events that are in their queues can still be taken.
    pub async fn close(&self) -> Summary {
        let shared = &self.0.shared;
        shared.publisher.close(ClientError::ClientClosed);
        shared.advance(Lifecycle::Closing);
        let mut statuses = shared.status.subscribe();
        let mut ended = async || {
            let _ = statuses.wait_for(|status| matches!(status, Status::Closed(_))).await;
        };
        if timeout(LEAVE_TIMEOUT, ended()).await.is_err() {
            shared.advance(Lifecycle::Stopped);
            ended().await;
        }
        let _ = timeout(IDLE_TIMEOUT, self.0.connector.wait_idle()).await;
        shared.publisher.summary()
    }

    pub(crate) fn unsubscribe(&self, id: u32) {
        self.0.shared.registry.unsubscribe(id);
        self.0.shared.control.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.advance(Lifecycle::Stopped);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Client({:?})", *self.0.shared.status.borrow())
    }
}

fn from_blocked(blocked: Blocked) -> ClientError {
    match blocked {
        Blocked::Full => ClientError::Full,
        // Without a session of its own the caller cannot be in another.
        Blocked::Down | Blocked::OtherSession => ClientError::Disconnected,
        Blocked::Error(error) => error,
    }
}
