//! What the commands about one kind of thing share: `ls`, `describe` and `rm` of what the admin API keeps under a name.

use super::admin::Admin;
use super::failure::Result;
use super::http::Body;
use super::listing::Listing;
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

    /// Shows all that is known of it.
    pub(super) async fn describe(self, kind: &Kind) -> Result<()> {
        let thing = self.fetch(kind).await?;
        say!("{}", serde_json::to_string_pretty(&thing).unwrap_or_default());
        Ok(())
    }

    /// Removes it.
    pub(super) async fn remove(self, kind: &Kind) -> Result<()> {
        self.admin.api()?.tell(Method::DELETE, &kind.at(&self.name), Body::None).await?;
        say!("{} {} is gone", kind.word, self.name);
        Ok(())
    }
}
