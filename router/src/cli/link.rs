//! `myelin link ls|describe`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::listing::{Shape, items, text};
use super::mesh;
use super::resource::{Show, whole};
use clap::{Args, Subcommand};
use serde_json::Value;

/// The links of a router to those of other sites
#[derive(Debug, Subcommand)]
pub(super) enum Link {
    /// Show them, with what waits, went and was shed
    #[command(after_help = "Examples:\n  \
        myelin link ls\n  \
        myelin link ls --watch 1")]
    Ls(Show),
    /// Show one
    #[command(after_help = "Example:\n  myelin link describe ohio/r1\n\n\
        Links come and go with the members of the mesh: `myelin site` adds and removes those.")]
    Describe(Describe),
}

/// One link
#[derive(Args, Debug)]
pub(super) struct Describe {
    /// The router at its other end, as SITE/ROUTER; SITE alone where that has one router here
    peer: String,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Link {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            match self {
                Self::Ls(all) => all.run("/v1/mesh", mesh::links).await,
                Self::Describe(Describe { peer, shape, admin }) => {
                    let mesh = admin.api()?.get("/v1/mesh").await?;
                    shape.tell(find(&mesh, &peer)?, whole);
                    Ok(())
                }
            }
        })
    }
}

/// The link to `peer`.
fn find<'a>(mesh: &'a Value, peer: &str) -> Result<&'a Value> {
    let names = |link: &Value| (text(&link["site"]), format!("{}/{}", text(&link["site"]), text(&link["router"])));
    let links = items(mesh, "links").iter();
    let mut found = links.filter(|link| {
        let (site, title) = names(link);
        peer == title || peer == site
    });
    match (found.next(), found.next()) {
        (Some(link), None) => Ok(link),
        (Some(_), Some(_)) => Err(Failure::new(Exit::Usage, format!("there are several links to site {peer}"))
            .next("name the router, too, as SITE/ROUTER: `myelin link ls` shows them")),
        (None, _) => Err(Failure::new(Exit::NotFound, format!("there is no link to {peer}"))
            .next("`myelin link ls` shows those that there are, `myelin site ls` who belongs to the mesh")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_link_is_named_by_its_other_end() {
        let link = |site: &str, router: &str| json!({"site": site, "router": router});
        let mesh = json!({"links": [link("ohio", "r1"), link("oslo", "r1"), link("oslo", "r2")]});
        let found = |peer: &str| find(&mesh, peer).map(|link| text(&link["router"])).map_err(|failure| failure.exit);
        assert_eq!((found("ohio"), found("oslo/r2")), (Ok("r1".into()), Ok("r2".into())));
        assert_eq!((found("oslo"), found("rome")), (Err(Exit::Usage), Err(Exit::NotFound)));
    }
}
