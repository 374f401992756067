//! `myelin schema check`

use super::super::admin::{Admin, Api};
use super::super::failure::Result;
use super::super::http::Body;
use super::super::listing::{Shape, items};
use super::super::values::say;
use super::candidate::Candidate;
use super::{encoded, incompatible, path};
use clap::Args;
use hyper::Method;
use myelin_catalog::SubjectName;
use serde_json::Value;
use std::path::PathBuf;

/// Say what a schema would break
#[derive(Args, Debug)]
pub(in super::super) struct Check {
    #[command(flatten)]
    candidate: Candidate,
    /// Compare with this version only [default: those that the subject's level of compatibility names]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Judge the events of this capture by it, in place of comparing texts; `myelin capture fetch` writes one
    #[arg(long, value_name = "CAPTURE", conflicts_with = "version")]
    against: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Check {
    pub(super) async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        if let Some(capture) = &self.against {
            return super::against::judge(&api, &self.candidate, capture, self.shape).await;
        }
        judge(&api, &self.candidate.subject, self.version.as_deref(), self.candidate.body()?, self.shape).await
    }
}

/// Has the router compare a schema with versions of a subject.
///
/// # Errors
/// When it is not compatible, with exit code 7.
pub(super) async fn judge(
    api: &Api,
    subject: &SubjectName,
    version: Option<&str>,
    body: Value,
    shape: Shape,
) -> Result<()> {
    let version = version.map(|version| format!("/{}", encoded(version))).unwrap_or_default();
    let path = path("compatibility/subjects", subject, &format!("/versions{version}?verbose=true"));
    let answer: Value = api.ask(Method::POST, &path, Body::Json(body)).await?;
    if shape.is_json() {
        say!("{answer}");
    }
    if answer["is_compatible"] != true {
        return Err(incompatible(subject, items(&answer, "messages")));
    }
    if shape.is_json() {
        return Ok(());
    }
    say!("the schema is compatible with subject {subject}; nothing is registered");
    Ok(())
}
