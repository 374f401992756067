//! The course of changes: which were made, and whether nobody else has come between.

use super::current;
use super::plan::Call;
use super::state::Kind;
use crate::cli::admin::Api;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::http::Body;
use std::collections::BTreeSet;

/// What was done of a plan.
#[derive(Debug)]
pub(super) struct Course {
    /// The catalog's revision with the last change.
    pub(super) revision: u64,
    /// Whether each change is made only where nobody else has made one since the one before it.
    pub(super) is_alone: bool,
    /// What took effect.
    pub(super) done: BTreeSet<(Kind, String)>,
}

impl Course {
    pub(super) fn new(revision: u64, is_alone: bool) -> Self {
        Self { revision, is_alone, done: BTreeSet::new() }
    }

    /// Makes one change.
    ///
    /// # Errors
    /// Why it was refused; that somebody else has come between, where that matters.
    pub(super) async fn send(&mut self, api: &Api, calls: &[Call]) -> Result<()> {
        for call in calls {
            let body = call.body.clone().map_or(Body::None, Body::Json);
            let if_match = self.is_alone.then_some(self.revision);
            let now = match api.tell_if(call.method.clone(), &call.path, if_match, body).await? {
                // A router of before does not say it.
                None if self.is_alone => current::revision(api).await?,
                now => now.unwrap_or(self.revision),
            };
            self.follow(now)?;
        }
        Ok(())
    }

    /// A call is one record, or none where nothing was to be changed: more are somebody else's.
    fn follow(&mut self, now: u64) -> Result<()> {
        if self.is_alone && now > self.revision + 1 {
            unchanged_since(self.revision, now - 1)?;
        }
        self.revision = self.revision.max(now);
        Ok(())
    }
}

/// Whether the catalog is the one for which a plan was made.
///
/// # Errors
/// That it is not.
pub(super) fn unchanged_since(planned: u64, now: u64) -> Result<()> {
    if planned == now {
        return Ok(());
    }
    let what = format!("the catalog has revision {now}, and not {planned}, for which the plan was made");
    Err(Failure::new(Exit::Conflict, what).next("look at the plan anew with --dry-run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_between_is_noticed_where_it_matters() {
        let mut course = Course::new(7, true);
        assert!(course.follow(7).is_ok() && course.follow(8).is_ok() && course.revision == 8);
        assert!(course.follow(10).is_err_and(|failure| failure.exit == Exit::Conflict));
        assert_eq!(course.revision, 8);
        let mut course = Course::new(7, false);
        assert!(course.follow(10).is_ok() && course.revision == 10);
    }
}
