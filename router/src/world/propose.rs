//! Asks the writer of the log, which may be another router, for changes and for the state of a rollout.

use super::shared::come_back;
use super::{Blame, RouterLedger, WorldError};
use crate::peering::{CallError, Caller};
use bytes::Bytes;
use myelin_catalog::exchange::{Answer, Ask, Heard};
use myelin_catalog::{Head, Nonce, Op, Proposal};
use std::time::Duration;
use tokio::sync::watch;

/// How often a change is asked for: its nonce lets the writer make it once.
const ATTEMPTS: u32 = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of an answer that holds no records: the reports of all routers that a mesh can have.
const ANSWER_BYTES: usize = 1024 * 1024;

/// The router that writes the log.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// Its number.
    pub(super) number: u32,
    /// As `SITE/ROUTER`.
    pub(super) title: String,
    /// Whether it is this one.
    pub(super) is_here: bool,
    /// Asks other routers.
    pub(super) caller: Caller,
}

impl Writer {
    /// Asks for a change of the log that ends with `at`, and waits until its record is here. Returns its revision.
    ///
    /// # Errors
    /// The writer's refusal; `writer-unreachable` when there is no answer.
    pub(super) async fn propose(
        &self,
        op: Op,
        actor: String,
        at: Head,
        revision: watch::Receiver<u64>,
    ) -> Result<u64, WorldError> {
        let nonce = Nonce::from_bytes(fastrand::u128(..).to_le_bytes());
        match self.ask_again(&Ask::Propose(Box::new(Proposal { nonce, at, actor, op }))).await? {
            Answer::Accepted { rev } => come_back(rev, revision, &format!("at {}", self.title)).await,
            answer => Err(unexpected(answer)),
        }
    }

    /// Waits until this router has all that the writer has now.
    ///
    /// # Errors
    /// `writer-unreachable`; `record-late`.
    pub(super) async fn catch_up(&self, revision: watch::Receiver<u64>) -> Result<(), WorldError> {
        match self.ask_again(&Ask::Records { after: u64::MAX }).await? {
            Answer::Records { head, .. } => {
                come_back(head.rev, revision, &format!("at {}", self.title)).await.map(drop)
            }
            answer => Err(unexpected(answer)),
        }
    }

    /// What the writer heard of all routers.
    ///
    /// # Errors
    /// `writer-unreachable`.
    pub(super) async fn progress(&self) -> Result<Vec<Heard>, WorldError> {
        match self.ask(&Ask::Progress).await.map_err(|error| self.unreachable(error))? {
            Answer::Progress(heard) => Ok(heard),
            answer => Err(unexpected(answer)),
        }
    }

    /// The ledger of that router.
    ///
    /// # Errors
    /// When it gives none.
    pub(super) async fn ledger(&self) -> Result<RouterLedger, WorldError> {
        let failed = |why: String| WorldError::new(Blame::Router, "no-answer", why);
        match self.ask(&Ask::Ledger).await.map_err(|error| failed(error.to_string()))? {
            Answer::Ledger(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string())),
            answer => Err(unexpected(answer)),
        }
    }

    /// Asks until there is an answer, some times.
    async fn ask_again(&self, ask: &Ask) -> Result<Answer, WorldError> {
        let mut attempt = 1;
        loop {
            match self.ask(ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) if attempt == ATTEMPTS => return Err(self.unreachable(error)),
                Err(_) => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Asks once.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, CallError> {
        let answer = self.caller.call(self.number, Bytes::from(ask.encode()), ANSWER_BYTES).await?;
        Answer::decode(&answer).map_err(|error| {
            tracing::warn!(%error, writer = self.title, "the writer's answer is none");
            CallError::BrokenOff
        })
    }

    fn unreachable(&self, error: CallError) -> WorldError {
        let message = format!(
            "{}, which writes the catalog, is not reached: {error}; what is active stays active, and changes wait until \
             it is back",
            self.title
        );
        WorldError::new(Blame::Router, "writer-unreachable", message)
    }
}

/// What an answer that is no answer to the question says.
pub(super) fn unexpected(answer: Answer) -> WorldError {
    match answer {
        Answer::Refused { blame, code, message } => WorldError::new(Blame::named(&blame), code, message),
        _ => WorldError::new(Blame::Router, "unexpected-answer", "the other router answers another question"),
    }
}
