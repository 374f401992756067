//! What a keeper writes down for others: what its router found out by itself, what a new mesh begins with, and what other
//! routers ask the writer for.

use super::handed_in::told;
use super::keeper::{Keeper, Membership, refused};
use super::schemas::confirm;
use super::{Blame, WorldError, members};
use myelin_catalog::exchange::Answer as Told;
use myelin_catalog::{Admission, Op, Proposal};

impl Keeper {
    /// Writes down what a router found out by itself; where it follows, it asks the writer, and does not wait.
    pub(super) fn record_aside(&mut self, op: Op) {
        let actor = "router";
        if self.shared.is_some() {
            let (answer, done) = tokio::sync::oneshot::channel();
            self.share(op, actor, answer);
            self.runtime().spawn(async move {
                if let Ok(Err(error)) = done.await {
                    tracing::warn!(code = &*error.code, %error, "what this router found out is not written down yet");
                }
            });
        } else if let Some(mesh) = self.mesh.as_ref().filter(|mesh| !mesh.writer.is_here) {
            let (writer, at, revision) = (mesh.writer.clone(), self.catalog().head(), self.revision());
            self.runtime().spawn(async move {
                if let Err(error) = writer.propose(op, actor.to_owned(), at, revision).await {
                    tracing::warn!(%error, "the writer was not told");
                }
            });
        } else if let Err(error) = self.record(op, actor) {
            // Retreat never needs the log: the workers have given the filter up already.
            tracing::warn!(%error, "what this router found out is not written down");
        }
        self.settle();
    }

    /// Writes down what a new mesh begins with: the key that signs, and the routers that the configuration names.
    pub(super) fn enroll(&mut self) -> Result<(), WorldError> {
        // Into a log that all share it is written by and by, and before this router starts.
        let writes = |mesh: &&Membership| mesh.writer.is_here && self.shared.is_none();
        let Some(mesh) = self.mesh.as_ref().filter(writes) else { return Ok(()) };
        for op in members::enrolment(self.catalog(), &mesh.members, self.log.key()) {
            self.record(op, "router")?;
        }
        Ok(())
    }

    /// Accepts a change that another router asks for, or says why not.
    pub(super) fn accept(&mut self, proposal: &Proposal, via: &str) -> Told {
        if !self.is_writer() {
            let message =
                "this router does not write the catalog; correct `[catalog] writer`, the same at every router";
            return refused(&WorldError::new(Blame::Router, "not-the-writer", message));
        }
        let accepted = match self.inbox.admit(proposal, &self.catalog().head()) {
            Ok(Admission::Settled { rev }) => Ok(rev),
            Ok(Admission::Fresh) => self.make(proposal, via),
            Err(conflict) => Err(conflict.into()),
        };
        match accepted {
            Ok(rev) => Told::Accepted { rev },
            Err(error) => refused(&error),
        }
    }

    fn make(&mut self, proposal: &Proposal, via: &str) -> Result<u64, WorldError> {
        self.check_handed_in(proposal, via)?;
        self.vet(&proposal.op, &proposal.actor)?;
        if let Op::SchemaRegistered { registration } = &proposal.op {
            confirm(self.catalog().schemas(), registration)?;
        }
        let rev = self.record_of(proposal.op.clone(), &proposal.actor, Some(told(via)))?.rev;
        self.inbox.settle(proposal, rev);
        Ok(rev)
    }
}
