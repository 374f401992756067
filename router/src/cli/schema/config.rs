//! `myelin schema config`

use super::super::admin::{Admin, Api};
use super::super::failure::{Exit, Failure, Result};
use super::super::http::Body;
use super::super::listing::{Shape, text};
use super::encoded;
use clap::Args;
use hyper::Method;
use myelin_catalog::{CompatibilityLevel, RegistryMode, SubjectName};
use serde_json::{Value, json};

/// Show or set what holds for a subject, or for the registry
#[derive(Args, Debug)]
pub(in super::super) struct Config {
    /// Name of the subject [default: what holds where a subject says nothing of its own]
    subject: Option<SubjectName>,
    /// What new versions must be compatible with: none, backward, forward, full, or the last three with _transitive
    #[arg(long, value_name = "LEVEL")]
    compatibility: Option<CompatibilityLevel>,
    /// What may be changed: readwrite, readonly, readonly_override, import
    #[arg(long, value_name = "MODE")]
    mode: Option<RegistryMode>,
    /// Set a mode even where schemas stand against it
    #[arg(long, requires = "mode")]
    force: bool,
    /// Take back what was set
    #[arg(long, conflicts_with_all = ["compatibility", "mode"])]
    reset: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Config {
    pub(super) async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let path = |what: &str| match &self.subject {
            Some(subject) => format!("/registry/{what}/{}", encoded(subject.as_str())),
            None => format!("/registry/{what}"),
        };
        let (config, mode) = (path("config"), path("mode"));
        // What opens a subject goes before all else, what closes it after.
        let opens = matches!(self.mode, Some(RegistryMode::ReadWrite | RegistryMode::Import));
        if opens {
            self.set_mode(&api, &mode).await?;
        }
        if let Some(level) = self.compatibility {
            api.tell(Method::PUT, &config, Body::Json(json!({"compatibility": level}))).await?;
        }
        if !opens {
            self.set_mode(&api, &mode).await?;
        }
        if self.reset {
            let reset = [unset(&api, &mode).await?, unset(&api, &config).await?];
            if reset == [false, false] {
                return Err(Failure::new(Exit::NotFound, "nothing is set there that could be taken back"));
            }
        }
        let level = api.get(&format!("{config}?defaultToGlobal=true")).await?;
        let mode = api.get(&format!("{mode}?defaultToGlobal=true")).await?;
        let holds =
            json!({"subject": self.subject, "compatibility": level["compatibilityLevel"], "mode": mode["mode"]});
        self.shape.tell(&holds, shown);
        Ok(())
    }

    async fn set_mode(&self, api: &Api, path: &str) -> Result<()> {
        let Some(mode) = self.mode else { return Ok(()) };
        let path = format!("{path}{}", if self.force { "?force=true" } else { "" });
        api.tell(Method::PUT, &path, Body::Json(json!({"mode": mode}))).await.map(drop)
    }
}

fn shown(holds: &Value) -> String {
    let whose = holds["subject"].as_str().map_or("by default".to_owned(), |subject| format!("subject {subject}"));
    format!("{whose}: {}, {}\n", text(&holds["compatibility"]), text(&holds["mode"]))
}

/// Takes back what is said at `path`; says whether there was anything.
async fn unset(api: &Api, path: &str) -> Result<bool> {
    match api.ask::<Value>(Method::DELETE, path, Body::None).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_absence() => Ok(false),
        Err(failure) => Err(failure),
    }
}
