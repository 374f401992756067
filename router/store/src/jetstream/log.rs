//! The stream of records and grants: read from its leader, appended to by compare-and-set.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use myelin_catalog::{CatalogError, ChainFault, Digest, Head};

use super::fit;
use super::tail::{Kind, Misfit, Tail};
use crate::control::Announcer;
use crate::error::StoreError;

/// Messages that are asked for at once: what hides the round trip, and bounds the memory with the size of a record.
const READS_IN_FLIGHT: usize = 16;
/// Messages that are taken at once while the log is followed.
const PAGE_MESSAGES: u64 = 32;
/// Between two tries: a leader is chosen in seconds.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a log may seem to have lost its end.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may go by itself; the error is for when it does not.
    Passing(StoreError),
    /// Trying again changes nothing.
    Lasting(StoreError),
}

/// Why nothing was appended.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is certain that nothing was.
    Refused(StoreError),
    /// Nobody knows.
    Unclear(StoreError),
}

/// Where a message landed.
enum Landing {
    At(u64),
    /// Something else did first.
    Moved,
}

/// The stream as one open log knows it.
pub(super) struct Log {
    pub(super) context: Context,
    pub(super) stream: Stream,
    pub(super) name: String,
    pub(super) place: String,
    pub(super) record_subject: String,
    pub(super) lease_subject: String,
    pub(super) patience: Duration,
    pub(super) announcer: Announcer,
    pub(super) tail: Mutex<Tail>,
}

impl Log {
    /// The newest record that is known.
    pub(super) fn head(&self) -> Head {
        self.tail().head()
    }

    /// Never held over an await.
    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        // A panic elsewhere leaves whole values: `take` changes the tail only in its last steps.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a failed call comes to.
    pub(super) fn unavailable(&self, action: &'static str, why: impl ToString) -> StoreError {
        StoreError::Unavailable { action, place: self.place.clone(), why: why.to_string() }
    }

    /// Tries again what may go by itself, until there is no more patience.
    pub(super) async fn persist<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        self.persist_since(Instant::now(), attempt).await
    }

    /// The same for one step of an operation that began then.
    pub(super) async fn persist_since<T, F>(
        &self,
        began: Instant,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(Trouble::Passing(_)) if began.elapsed() < self.patience => tokio::time::sleep(RETRY_PAUSE).await,
                Err(Trouble::Passing(error) | Trouble::Lasting(error)) => return Err(error),
            }
        }
    }

    /// Reads what was appended since, up to what the stream's leader has now.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        self.persist(|| self.try_catch_up()).await
    }

    pub(super) async fn try_catch_up(&self) -> Result<(), Trouble> {
        let asked = self.stream.get_info().await;
        let state = asked.map_err(|e| Trouble::Passing(self.unavailable("look at", e)))?.state;
        let damaged = |why| StoreError::Damaged { place: self.place.clone(), why };
        if let Some(problem) = fit::sequence_problem(&state) {
            return Err(Trouble::Lasting(damaged(problem)));
        }
        let (last, known) = (state.last_sequence, self.tail().sequence());
        if last < known {
            // One that was leader until just now, or a stream that lost its end.
            let why = format!("it ends with message {last} and {known} was read before");
            return Err(Trouble::Passing(damaged(why)));
        }
        let mut from = known + 1;
        while from <= last {
            let until = last.min(from + PAGE_MESSAGES - 1);
            for message in self.messages((from..=until).collect()).await? {
                self.take(&message)?;
            }
            from = until + 1;
        }
        self.announcer.announce(self.head().rev);
        Ok(())
    }

    /// The records after `rev`, as they are kept, no further than the head that is known.
    pub(super) async fn read_after(&self, rev: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let places = {
            let tail = self.tail();
            let revs = (rev.saturating_add(1)..=tail.head().rev).take(limit);
            revs.filter_map(|rev| tail.sequence_of(rev)).collect::<Vec<u64>>()
        };
        let messages = self.persist(|| self.messages(places.clone())).await?;
        Ok(messages.into_iter().map(|message| message.payload.to_vec()).collect())
    }

    /// Appends a message while `permit` says so of what the stream has, and says its sequence.
    pub(super) async fn commit(
        &self,
        kind: Kind,
        payload: Bytes,
        permit: impl Fn(&Tail) -> Result<(), StoreError>,
    ) -> Result<u64, Failure> {
        let began = Instant::now();
        loop {
            let last = {
                let tail = self.tail();
                permit(&tail).map(|()| tail.sequence())
            };
            let last = last.map_err(Failure::Refused)?;
            if let Landing::At(sequence) = self.publish(kind, &payload, last).await? {
                let mut tail = self.tail();
                tail.take(sequence, kind, &payload).map_err(|misfit| Failure::Unclear(self.misfit(misfit)))?;
                self.announcer.announce(tail.head().rev);
                return Ok(sequence);
            }
            self.catch_up().await.map_err(Failure::Refused)?;
            if began.elapsed() >= self.patience {
                return Err(Failure::Refused(self.unavailable("append to", "its end moves or cannot be found")));
            }
            if self.tail().sequence() == last {
                // The leader has something on the way that may still come to nothing.
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Publishes a message that follows `last`, until it is clear what became of it. Trying again does no harm: one of
    /// the tries at most can follow `last`.
    async fn publish(&self, kind: Kind, payload: &Bytes, last: u64) -> Result<Landing, Failure> {
        let (began, mut is_unclear) = (Instant::now(), false);
        loop {
            let why = match self.try_publish(kind, payload.clone(), last).await {
                Ok(ack) if ack.sequence == last + 1 && ack.stream == self.name => return Ok(Landing::At(ack.sequence)),
                Ok(ack) => {
                    let why = format!("message {} of {} is where {} was expected", ack.sequence, ack.stream, last + 1);
                    return Err(Failure::Unclear(StoreError::Damaged { place: self.place.clone(), why }));
                }
                Err(e) if e.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    let max_bytes = self.context.client().max_payload();
                    let (place, size_bytes) = (self.place.clone(), payload.len());
                    let refused = StoreError::RecordTooLarge { place, size_bytes, max_bytes };
                    // Known before anything is sent; but an earlier try may have been, to a server that takes more.
                    return Err(if is_unclear { Failure::Unclear(refused) } else { Failure::Refused(refused) });
                }
                Err(e) if is_moved(&e) && !is_unclear => return Ok(Landing::Moved),
                Err(e) if is_moved(&e) => match self.messages(vec![last + 1]).await {
                    // What moved the end may be an earlier try of ours.
                    Ok(found) if found.iter().all(|found| self.is_same(found, kind, payload)) => {
                        return Ok(Landing::At(last + 1));
                    }
                    Ok(_) => return Ok(Landing::Moved),
                    Err(Trouble::Passing(error) | Trouble::Lasting(error)) => error.to_string(),
                },
                Err(e) => {
                    is_unclear = true;
                    e.to_string()
                }
            };
            if began.elapsed() >= self.patience {
                return Err(Failure::Unclear(self.unavailable("append to", why)));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_publish(&self, kind: Kind, payload: Bytes, last: u64) -> Result<PublishAck, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, self.name.as_str());
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last.to_string());
        let subject = self.subject(kind).to_owned();
        self.context.publish_with_headers(subject, headers, payload).await?.await
    }

    /// The messages of these sequences, from the stream's leader.
    async fn messages(&self, sequences: Vec<u64>) -> Result<Vec<StreamMessage>, Trouble> {
        let read = |sequence| async move {
            self.stream.get_raw_message(sequence).await.map_err(|e| match e.kind() {
                RawMessageErrorKind::NoMessageFound => {
                    // A new leader may still be about to read its own log; if not, the message is gone.
                    let why = format!("message {sequence} is not there");
                    Trouble::Passing(StoreError::Damaged { place: self.place.clone(), why })
                }
                _ => Trouble::Passing(self.unavailable("read", e)),
            })
        };
        futures_util::stream::iter(sequences).map(read).buffered(READS_IN_FLIGHT).try_collect().await
    }

    fn take(&self, message: &StreamMessage) -> Result<(), Trouble> {
        let kind = match message.subject.as_str() {
            subject if subject == self.record_subject => Kind::Record,
            subject if subject == self.lease_subject => Kind::Grant,
            subject => {
                let why =
                    format!("message {} is of subject {subject}, which is none of the catalog's", message.sequence);
                return Err(Trouble::Lasting(StoreError::Damaged { place: self.place.clone(), why }));
            }
        };
        let taken = self.tail().take(message.sequence, kind, &message.payload);
        taken.map_err(|misfit| Trouble::Lasting(self.misfit(misfit)))
    }

    fn misfit(&self, misfit: Misfit) -> StoreError {
        let place = self.place.clone();
        match misfit {
            Misfit::Chain(source) => StoreError::Catalog { place, source },
            Misfit::Stream(why) => StoreError::Damaged { place, why },
        }
    }

    fn subject(&self, kind: Kind) -> &str {
        match kind {
            Kind::Record => &self.record_subject,
            Kind::Grant => &self.lease_subject,
        }
    }

    fn is_same(&self, found: &StreamMessage, kind: Kind, payload: &Bytes) -> bool {
        found.subject.as_str() == self.subject(kind) && found.payload == *payload
    }

    /// Reads the log to its end, which must not be before a record that was seen acknowledged earlier: one that was lost
    /// behind the head is nothing that the chain could show.
    pub(super) async fn catch_up_to(&self, noted: &Head) -> Result<(), StoreError> {
        let broken = |rev, fault| StoreError::Catalog {
            place: self.place.clone(),
            source: CatalogError::ChainBroken { rev, fault },
        };
        let began = Instant::now();
        self.catch_up().await?;
        // A leader that is none any more may be behind for a moment.
        while self.head().rev < noted.rev {
            if began.elapsed() >= END_PATIENCE {
                return Err(broken(self.head().rev + 1, ChainFault::Missing));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            self.catch_up().await?;
        }
        let page = self.read_after(noted.rev.saturating_sub(1), 1).await?;
        match page.first() {
            Some(bytes) if *noted != Head::EMPTY && Digest::of(bytes) != noted.hash => {
                Err(broken(noted.rev, ChainFault::Hash))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the server refused because the stream's end is another. With something on the way it says so by another
/// number.
fn is_moved(error: &PublishError) -> bool {
    let constant = || {
        let source = std::error::Error::source(error)?.downcast_ref::<async_nats::jetstream::Error>()?;
        (source.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT).then_some(())
    };
    error.kind() == PublishErrorKind::WrongLastSequence || constant().is_some()
}
