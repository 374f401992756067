//! The rule of two: with `[admin] two_person` a rollout is proposed by one and begun by another.
//!
//! A proposal waits in the memory of the router that took it, an hour at most. It names what is to become active by a
//! digest; whoever stages something else meanwhile makes it void. Going back needs nobody's leave: `abort`, `pause` and
//! `rollback` stay with one.

use super::Context;
use super::problem::Problem;
use super::rollouts::begin;
use crate::world::Actor;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use myelin_catalog::limits::ACTOR_LEN_MAX_BYTES;
use myelin_catalog::{Catalog, Digest, RolloutPlan};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// How long a proposal waits for somebody.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);
/// Proposals that wait at a time: each is a person who waits for another.
const WAITING_MAX: usize = 16;

/// What shall be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// Make the staged set active, everywhere at once or by a plan.
    Rollout(Option<Box<RolloutPlan>>),
    /// Let rules and policies hold by a plan, and leave filters as they are.
    Govern(Box<RolloutPlan>),
    /// Take the next step of a rollout ahead of time.
    Promote(u64),
}

/// What somebody wants to make active, and somebody else has to approve.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Proposal {
    /// Its number at this router: `POST /v1/rollouts/{id}/approve`.
    pub(super) proposal: u64,
    /// Who wants it.
    by: String,
    /// What: `rollout`, or `promote` of the rollout `rollout`.
    wants: &'static str,
    /// The rollout whose next step is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<u64>,
    /// The digest of the staged set and of the plan. With another set there is nothing to approve any more.
    #[schema(value_type = String)]
    digest: Digest,
    /// Why it is wanted.
    note: Option<String>,
    /// How long it waits still, in seconds.
    expires_in_s: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    id: u64,
    by: Actor,
    wanted: Wanted,
    digest: Digest,
    note: Option<String>,
    since: Instant,
}

/// The proposals that wait at this router.
#[derive(Debug, Default)]
pub(super) struct Proposals(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    last: u64,
    waiting: Vec<Waiting>,
}

/// The digest of what `wanted` would make active now.
fn digest(catalog: &Catalog, wanted: &Wanted) -> Digest {
    let mut hasher = Sha256::new();
    for staged in catalog.staged().iter() {
        // A revision is one staging of one binding, and never another.
        hasher.update(format!("{}@{} {}\n", staged.binding.name, staged.rev, staged.digest));
    }
    hasher.update(format!("{wanted:?}"));
    Digest::from_bytes(hasher.finalize().into())
}

impl Proposals {
    fn book(&self, now: Instant) -> MutexGuard<'_, Book> {
        // A poisoned lock still guards whole values.
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.waiting.retain(|waiting| now.duration_since(waiting.since) < WAIT_MAX);
        book
    }

    /// Lets `wanted` wait for somebody other than `by`.
    ///
    /// # Errors
    /// When too many wait already.
    pub(super) fn add(
        &self,
        catalog: &Catalog,
        wanted: Wanted,
        by: &Actor,
        note: Option<String>,
        now: Instant,
    ) -> Result<Proposal, Problem> {
        let digest = digest(catalog, &wanted);
        let mut book = self.book(now);
        if book.waiting.len() >= WAITING_MAX {
            let detail = format!("{WAITING_MAX} proposals wait already; have one approved, or wait until one is over");
            return Err(Problem::new(StatusCode::CONFLICT, "too-many-proposals", detail));
        }
        book.last += 1;
        let waiting = Waiting { id: book.last, by: by.clone(), wanted, digest, note, since: now };
        let proposal = waiting.shown(now);
        book.waiting.push(waiting);
        Ok(proposal)
    }

    /// Those that wait, oldest first.
    pub(super) fn list(&self, now: Instant) -> Vec<Proposal> {
        self.book(now).waiting.iter().map(|waiting| waiting.shown(now)).collect()
    }

    /// Takes proposal `id` out for `actor` to carry out, once.
    fn take(&self, catalog: &Catalog, id: u64, actor: &Actor, now: Instant) -> Result<Waiting, Problem> {
        let mut book = self.book(now);
        let Some(at) = book.waiting.iter().position(|waiting| waiting.id == id) else {
            let detail = format!(
                "no proposal {id} waits at this router; `myelin rollout history` shows those that do, for an hour each"
            );
            return Err(Problem::not_found(detail));
        };
        let by = &book.waiting[at].by;
        if by == actor {
            let detail = format!("{actor} has proposed {id}; somebody else with the role releaser has to approve it");
            return Err(Problem::new(StatusCode::FORBIDDEN, "two-person", detail));
        }
        let taken = book.waiting.remove(at);
        if digest(catalog, &taken.wanted) != taken.digest {
            let detail = format!("what is staged is not what proposal {id} was about; propose it again");
            return Err(Problem::new(StatusCode::CONFLICT, "proposal-stale", detail));
        }
        Ok(taken)
    }

    /// Puts a proposal back that could not be carried out.
    fn put_back(&self, waiting: Waiting, now: Instant) {
        let mut book = self.book(now);
        if book.waiting.len() < WAITING_MAX {
            book.waiting.push(waiting);
            book.waiting.sort_by_key(|waiting| waiting.id);
        }
    }
}

impl Waiting {
    fn shown(&self, now: Instant) -> Proposal {
        let (wants, rollout) = match self.wanted {
            Wanted::Rollout(_) | Wanted::Govern(_) => ("rollout", None),
            Wanted::Promote(id) => ("promote", Some(id)),
        };
        Proposal {
            proposal: self.id,
            by: self.by.to_string(),
            wants,
            rollout,
            digest: self.digest,
            note: self.note.clone(),
            expires_in_s: WAIT_MAX.saturating_sub(now.duration_since(self.since)).as_secs(),
        }
    }
}

/// Both names, for the catalog's history; cut where a record would not take them.
fn both(by: &str, approved_by: &str) -> Actor {
    const BETWEEN: &str = ", approved by ";
    let each = (ACTOR_LEN_MAX_BYTES - BETWEEN.len()) / 2;
    let cut = |name: &str| name[..name.floor_char_boundary(each)].to_owned();
    format!("{}{BETWEEN}{}", cut(by), cut(approved_by)).into()
}

/// Approve what somebody else has proposed (`[admin] two_person`): it begins at once. Only with what was staged then, and
/// at the router that took the proposal.
#[utoipa::path(post, path = "/v1/rollouts/{id}/approve", tag = "rollouts",
    params(("id" = u64, Path, description = "The proposal's number")),
    responses(
        (status = 200, body = super::types::Rollout),
        (status = 202, body = super::fleet::MeshRollout, description = "A rollout over the sites has begun"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "It is one's own"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Something else is staged now"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A filter cannot be prepared; nothing has changed"),
    ))]
pub(super) async fn approve(
    State(context): State<Arc<Context>>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<u64>,
) -> Result<Response, Problem> {
    let view = context.state.world.view();
    let taken = context.proposals.take(&view.catalog, id, &actor, Instant::now())?;
    // What was compared just now is what is made active, or nothing is.
    let revision = view.catalog.head().rev;
    let actors = both(&taken.by, &actor);
    let begun = begin(&context, taken.wanted.clone(), taken.note.clone(), Some(revision), actors).await;
    if begun.is_err() {
        context.proposals.put_back(taken, Instant::now());
    }
    begun
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn code<T: std::fmt::Debug>(done: Result<T, Problem>) -> &'static str {
        done.unwrap_err().code()
    }

    #[test]
    fn another_one_approves_once_and_within_an_hour() {
        let (proposals, catalog, start) = (Proposals::default(), Catalog::new(), Instant::now());
        let (ann, bob): (Actor, Actor) = ("ann".into(), "bob".into());
        let add =
            |now| proposals.add(&catalog, Wanted::Rollout(None), &ann, None, now).map(|proposal| proposal.proposal);
        assert_eq!(add(start).unwrap(), 1);
        assert_eq!(code(proposals.take(&catalog, 1, &ann, start)), "two-person");
        assert_eq!(code(proposals.take(&catalog, 2, &bob, start)), "not-found");
        let taken = proposals.take(&catalog, 1, &bob, start).unwrap();
        assert_eq!(code(proposals.take(&catalog, 1, &bob, start)), "not-found", "it is carried out once");
        proposals.put_back(taken, start);
        assert_eq!(proposals.list(start).len(), 1, "what could not be carried out waits on");
        assert_eq!(code(proposals.take(&catalog, 1, &bob, start + WAIT_MAX)), "not-found");

        assert!((0..WAITING_MAX).all(|_| add(start).is_ok()));
        assert_eq!(code(add(start)), "too-many-proposals");
        assert!(add(start + WAIT_MAX).is_ok(), "those that are over make room");
    }

    #[test]
    fn a_plan_is_part_of_what_is_approved() {
        let catalog = Catalog::new();
        let plan = |observe_s| Wanted::Rollout(Some(Box::new(RolloutPlan { observe_s, ..RolloutPlan::default() })));
        let digests =
            [plan(1), plan(2), Wanted::Rollout(None), Wanted::Promote(1)].map(|wanted| digest(&catalog, &wanted));
        let different = |(at, digest): (usize, &Digest)| digests.iter().skip(at + 1).all(|other| other != digest);
        assert!(digests.iter().enumerate().all(different));
        assert_eq!(digest(&catalog, &plan(1)), digests[0]);
    }

    #[test]
    fn a_record_takes_both_names() {
        assert_eq!(&*both("ann", "bob"), "ann, approved by bob");
        let long = format!("spiffe://example.org/jwt/corp/{}", "ü".repeat(200));
        assert!(both(&long, &long).len() <= ACTOR_LEN_MAX_BYTES);
    }
}
