//! `myelin whoami`: as whom the admin API knows this command.

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::listing::Shape;
use super::values::say;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

const AFTER_HELP: &str = "\
Examples:
  myelin whoami                                      identity, how it was shown, roles
  myelin whoami --may                                and the routes that these open
  myelin whoami -o json | jq -r .identity
  myelin whoami --admin https://r1:7480 --ca ca.pem --token-file token.jwt";

/// Show as whom the admin API knows this command, and what that may
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Whoami {
    /// List the routes that the roles open
    #[arg(long)]
    may: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Deserialize)]
struct Answer {
    identity: String,
    by: String,
    roles: Vec<String>,
    may: Vec<String>,
    tenant: Option<String>,
    expires_unix_s: Option<u64>,
}

impl Whoami {
    pub(super) fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let answer: Value = block_on(api.get("/v1/whoami"))?;
        if self.shape.is_json() {
            say!("{answer:#}");
            return Ok(());
        }
        let answer: Answer = serde_json::from_value(answer).map_err(anyhow::Error::from)?;
        say!("{} (by {})", answer.identity, answer.by);
        say!("  roles    {}", answer.roles.join(", "));
        if let Some(tenant) = &answer.tenant {
            say!("  tenant   {tenant}");
        }
        say!("  may use  {} routes{}", answer.may.len(), if self.may { "" } else { "; --may lists them" });
        let expires = answer.expires_unix_s.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)));
        if let Some(expires) = expires {
            say!("  until    {}", humantime::format_rfc3339_seconds(expires));
        }
        if self.may {
            answer.may.iter().for_each(|route| say!("  {route}"));
        }
        Ok(())
    }
}
