//! What the control plane and the links say to each other: questions to other routers, and how far their catalogs are.
//!
//! A question goes hop by hop over the links, each on a stream of its own, and its answer comes back on the same
//! streams. The two sides run on different threads; between them are bounded queues.

use bytes::Bytes;
use myelin_catalog::Head;
use myelin_mesh::Directory;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Questions that may wait for the links' thread, and questions of others that may wait for the control plane: a
/// router asks one thing at a time, so that this is one of each of 128 sites. Of a larger mesh the others wait at their neighbours.
pub const QUESTIONS_WAITING_MAX: usize = 128;

/// A question to another router.
#[derive(Debug)]
pub struct Call {
    /// Number of the router.
    pub to: u32,
    /// The question.
    pub request: Bytes,
    /// Bytes of the longest answer that is read.
    pub answer_bytes_max: usize,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Bytes, CallError>>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No path leads there.
    #[error("no path leads to the router; see `myelin mesh`")]
    NoRoute,
    /// The connection was lost, or the other side gave no answer.
    #[error("the router gave no answer, or the connection was lost on the way")]
    BrokenOff,
    /// It took too long.
    #[error("the router did not answer in time")]
    Late,
    /// The answer is longer than it may be.
    #[error("the answer is longer than it may be")]
    TooLong,
    /// This router is shutting down, or has no links.
    #[error("this router has no links, or is shutting down")]
    Stopped,
}

/// A question that another router asks.
#[derive(Debug)]
pub struct Asked {
    /// Number of the router that asks: as its own link shows, or as `by` says.
    pub from: u32,
    /// Number of the neighbour that has handed it on, where that is another router.
    pub by: Option<u32>,
    /// Whether the router that asks has a link of its own to this one.
    pub is_linked: bool,
    /// The question.
    pub request: Bytes,
    /// Where the answer goes; dropped = no answer.
    pub answer: oneshot::Sender<Bytes>,
}

/// What the links are told.
#[derive(Clone, Debug)]
pub enum Tell {
    /// The copy of the catalog ends here now.
    Head(Head),
    /// The mesh has these sites and routers now.
    Directory(Arc<Directory>),
}

/// How far the catalog of another router is, as that router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHead {
    /// Its number.
    pub router: u32,
    /// Where its catalog ends.
    pub head: Head,
    /// Whether there is a link to it.
    pub is_neighbour: bool,
    /// What the way to it costs.
    pub cost: u32,
}

/// The control plane's end.
#[derive(Debug)]
pub struct Peering {
    /// This router's number.
    pub number: u32,
    /// Where questions go.
    pub caller: Caller,
    /// Where news go.
    pub tell: mpsc::Sender<Tell>,
    /// The routers that can be reached, the nearest first.
    pub peers: watch::Receiver<Arc<[PeerHead]>>,
    /// What others ask.
    pub asked: mpsc::Receiver<Asked>,
}

/// The links' end.
#[derive(Debug)]
pub struct LinksEnd {
    /// Questions to others.
    pub calls: mpsc::Receiver<Call>,
    /// News.
    pub told: mpsc::Receiver<Tell>,
    /// Where the routers that can be reached are published.
    pub peers: watch::Sender<Arc<[PeerHead]>>,
    /// Where the questions of others go.
    pub asked: mpsc::Sender<Asked>,
}

/// Asks other routers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller(mpsc::Sender<Call>);

/// Both ends, for the router of that number.
pub fn pair(number: u32) -> (Peering, LinksEnd) {
    let (calls, calls_in) = mpsc::channel(QUESTIONS_WAITING_MAX);
    let (tell, told) = mpsc::channel(QUESTIONS_WAITING_MAX);
    let (asked, asked_in) = mpsc::channel(QUESTIONS_WAITING_MAX);
    let (peers, peers_in) = watch::channel(Arc::from([]));
    let links = LinksEnd { calls: calls_in, told, peers, asked };
    (Peering { number, caller: Caller(calls), tell, peers: peers_in, asked: asked_in }, links)
}

impl Caller {
    /// Asks router `to`, and waits for the answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn call(&self, to: u32, request: Bytes, answer_bytes_max: usize) -> Result<Bytes, CallError> {
        let (answer, answered) = oneshot::channel();
        let call = Call { to, request, answer_bytes_max, answer };
        self.0.send(call).await.map_err(|_| CallError::Stopped)?;
        answered.await.map_err(|_| CallError::Stopped)?
    }
}
