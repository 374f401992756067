//! What the commands about one kind of thing share: `ls`, `describe` and `rm` of what the admin API keeps under a name.

use super::admin::Admin;
use super::failure::Result;
use super::http::Body;
use super::listing::{Listing, Shape};
use super::values::say;
use clap::Args;
use hyper::Method;
use myelin_catalog::Name;
use serde_json::Value;

/// A kind of thing.
pub(super) struct Kind {
    /// What one is called.
    pub(super) word: &'static str,
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

impl Kind {
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

    /// Removes it.
    pub(super) async fn remove(self, kind: &Kind) -> Result<()> {
        self.admin.api()?.tell(Method::DELETE, &kind.at(&self.name), Body::None).await?;
        say!("{} {} is gone", kind.word, self.name);
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
