//! What the commands about one kind of thing share: `ls`, `describe` and `rm` of what the admin API keeps under a name, and
//! what those that change something say to programs.

use super::admin::Admin;
use super::failure::Result;
use super::http::Body;
use super::listing::{Listing, Shape};
use clap::Args;
use hyper::Method;
use myelin_catalog::Name;
use serde_json::{Value, json};

/// A kind of thing.
pub(super) struct Kind {
    /// What one is called.
    pub(super) word: &'static str,
    /// What programs are told that it is, as `myelin apply` tells them.
    pub(super) noun: &'static str,
    /// Where the admin API has them.
    pub(super) path: &'static str,
}

/// Show them all
#[derive(Args, Debug)]
pub(super) struct Show {
    #[command(flatten)]
    pub(super) listing: Listing,
    #[command(flatten)]
    pub(super) admin: Admin,
}

/// One of them
#[derive(Args, Debug)]
pub(super) struct One {
    /// Its name
    name: Name,
    #[command(flatten)]
    admin: Admin,
}

/// All that is known of one of them
#[derive(Args, Debug)]
pub(super) struct Described {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    shape: Shape,
}

/// One of them, to be removed
#[derive(Args, Debug)]
pub(super) struct Removed {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    shape: Shape,
}

/// What has become of a thing, for programs: the same fields whatever it is. The revision is the catalog's after that, where
/// the thing is in the catalog.
pub(super) fn change(kind: &str, name: &str, action: &str, revision: Option<u64>) -> Value {
    json!({"kind": kind, "name": name, "action": action, "revision": revision})
}

impl Kind {
    /// The same about the one of that name.
    pub(super) fn change(&self, name: &Name, action: &str, revision: Option<u64>) -> Value {
        change(self.noun, name.as_str(), action, revision)
    }

    /// Where the admin API has the one of that name.
    pub(super) fn at(&self, name: &Name) -> String {
        format!("{}/{name}", self.path)
    }
}

impl Show {
    /// Shows what is at `path`, as `show` makes a table of it.
    pub(super) async fn run(self, path: &str, show: impl Fn(&Value) -> String) -> Result<()> {
        let api = self.admin.api()?;
        self.listing.show(|| api.get(path), show).await
    }
}

impl One {
    /// What the admin API says of it.
    pub(super) async fn fetch(self, kind: &Kind) -> Result<Value> {
        self.admin.api()?.get(&kind.at(&self.name)).await
    }
}

impl Removed {
    /// Removes it.
    pub(super) async fn run(self, kind: &Kind) -> Result<()> {
        let One { name, admin } = self.one;
        let revision = admin.api()?.tell(Method::DELETE, &kind.at(&name), Body::None).await?;
        self.shape.tell(&kind.change(&name, "removed", revision), |_| format!("{} {name} is gone\n", kind.word));
        Ok(())
    }
}

impl Described {
    /// Shows it, as `show` makes text of it.
    pub(super) async fn run(self, kind: &Kind, show: impl FnOnce(&Value) -> String) -> Result<()> {
        let thing = self.one.fetch(kind).await?;
        self.shape.tell(&thing, show);
        Ok(())
    }
}

/// All that is known of a thing, for people.
pub(super) fn whole(thing: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(thing).unwrap_or_default())
}
