//! `myelin site ls|add|set|rm`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{Shape, items, shown, table, text};
use super::resource::{Show, change};
use clap::{Args, Subcommand};
use hyper::Method;
use myelin_catalog::Name;
use serde_json::{Value, json};

/// Who belongs to the mesh
#[derive(Debug, Subcommand)]
pub(super) enum Site {
    /// Show the sites of the mesh and their routers
    #[command(after_help = "Examples:\n  \
        myelin site ls\n  \
        myelin site ls -o json | jq '.sites[].name'")]
    Ls(Show),
    /// Add a site, or a router to a site
    #[command(
        after_help = "Examples:\n  myelin site add ohio --region us-east --cloud aws\n  myelin site add ohio/r1\n\n\
        The new router's certificate must carry the same names, and its configuration the `[mesh] members` that this\n\
        prints. docs/OPERATIONS.md tells all steps."
    )]
    Add(Add),
    /// Say where a site is, for rules of residency; it keeps its number and its routers
    #[command(after_help = "Examples:\n  \
        myelin site set hamburg --region eu-central --cloud own\n  \
        myelin site set ohio --region us-east\n\n\
        What is left out stays as it is. Rules of residency go by it at once, at every router: no restart.")]
    Set(Set),
    /// Remove a router that is gone for good, or a site without routers
    #[command(after_help = "Examples:\n  \
        myelin site rm ohio/r1        the router first\n  \
        myelin site rm ohio")]
    Rm(Remove),
}

/// Add a site or a router
#[derive(Args, Debug)]
pub(super) struct Add {
    /// The site, or SITE/ROUTER
    #[arg(value_name = "SITE[/ROUTER]", value_parser = place)]
    place: Place,
    /// Region of the site, for rules of residency
    #[arg(long, value_name = "REGION")]
    region: Option<Name>,
    /// Whose machines the site runs on, for rules of residency
    #[arg(long, value_name = "CLOUD")]
    cloud: Option<Name>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// Say where a site is
#[derive(Args, Debug)]
pub(super) struct Set {
    /// The site
    #[arg(value_name = "SITE")]
    site: Name,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Labels {
    /// Region of the site, for rules of residency
    #[arg(long, value_name = "REGION")]
    region: Option<Name>,
    /// Whose machines the site runs on, for rules of residency
    #[arg(long, value_name = "CLOUD")]
    cloud: Option<Name>,
}

/// Remove a site or a router
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// The site, or SITE/ROUTER
    #[arg(value_name = "SITE[/ROUTER]", value_parser = place)]
    place: Place,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// A site, or a router of it.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    site: Name,
    router: Option<Name>,
}

fn place(text: &str) -> Result<Place, String> {
    let read = |name: &str| name.parse::<Name>().map_err(|error| error.to_string());
    match text.split_once('/') {
        Some((site, router)) => Ok(Place { site: read(site)?, router: Some(read(router)?) }),
        None => Ok(Place { site: read(text)?, router: None }),
    }
}

impl Place {
    fn path(&self) -> String {
        match &self.router {
            Some(router) => format!("/v1/mesh/sites/{}/routers/{router}", self.site),
            None => format!("/v1/mesh/sites/{}", self.site),
        }
    }
}

impl Place {
    /// What has become of it, for programs.
    fn change(&self, action: &str, revision: Option<u64>) -> Value {
        match &self.router {
            Some(router) => change("router", &format!("{}/{router}", self.site), action, revision),
            None => change("site", self.site.as_str(), action, revision),
        }
    }
}

impl Site {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            match self {
                Self::Ls(all) => all.run("/v1/mesh/sites", show).await,
                Self::Add(add) => add.run().await,
                Self::Set(Set { site, labels: Labels { region, cloud }, shape, admin }) => {
                    let place = Place { site, router: None };
                    let revision =
                        admin.api()?.tell(Method::PATCH, &place.path(), Body::Json(labels(region, cloud))).await?;
                    let told =
                        format!("site {} is there now; rules of residency go by it at every router\n", place.site);
                    shape.tell(&place.change("set", revision), |_| told.clone());
                    Ok(())
                }
                Self::Rm(Remove { place, shape, admin }) => {
                    let revision = admin.api()?.tell(Method::DELETE, &place.path(), Body::None).await?;
                    let told = "removed; its number is never used again\n";
                    shape.tell(&place.change("removed", revision), |_| told.to_owned());
                    Ok(())
                }
            }
        })
    }
}

/// Those labels of a site that are given.
fn labels(region: Option<Name>, cloud: Option<Name>) -> Value {
    let mut body = json!({});
    for (key, value) in [("region", region), ("cloud", cloud)] {
        if let Some(value) = value {
            body[key] = value.to_string().into();
        }
    }
    body
}

impl Add {
    async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        if self.place.router.is_none() {
            let revision =
                api.tell(Method::PUT, &self.place.path(), Body::Json(labels(self.region, self.cloud))).await?;
            let site = &self.place.site;
            self.shape.tell(&self.place.change("added", revision), |_| {
                format!("site {site} belongs to the mesh; add its routers with `myelin site add {site}/ROUTER`\n")
            });
            return Ok(());
        }
        if self.region.is_some() || self.cloud.is_some() {
            let what = "--region and --cloud say where a site is, not a router";
            return Err(Failure::new(Exit::Usage, what).next("give them with `myelin site add SITE`"));
        }
        let revision = api.tell(Method::PUT, &self.place.path(), Body::None).await?;
        // Who may add it may not look, perhaps; it is added all the same.
        let sites = api.get("/v1/mesh/sites").await.unwrap_or_default();
        let mut done = self.place.change("added", revision);
        done["members"] = sites["members"].clone();
        self.shape.tell(&done, |_| {
            let members = members(&sites).unwrap_or_else(|| "members: as `myelin site ls` shows them".to_owned());
            format!("every router of the mesh takes links from it now\nits [mesh] {members}\n")
        });
        Ok(())
    }
}

/// The line of a configuration that gives every router the number that it has.
fn members(sites: &Value) -> Option<String> {
    let members: Vec<_> =
        items(sites, "members").iter().map(|member| format!("\"{}\"", shown(&text(member)))).collect();
    (!members.is_empty()).then(|| format!("members = [{}]", members.join(", ")))
}

fn show(value: &Value) -> String {
    let rows = items(value, "sites").iter().map(|site| {
        let routers: Vec<_> = items(site, "routers")
            .iter()
            .map(|router| format!("{} ({})", text(&router["name"]), text(&router["number"])))
            .collect();
        let mut row = ["name", "number", "region", "cloud", "generation"].map(|field| text(&site[field])).to_vec();
        row.push(routers.join(", "));
        row
    });
    let header = ["site", "number", "region", "cloud", "generation", "routers"];
    let mut told = table(&header, &["number", "generation"], rows);
    if let Some(members) = members(value) {
        told += &format!("\n[mesh] {members}\n");
    }
    if let Some(key) = value["root_key"].as_str() {
        told += &format!("\nthe catalog begins with root key {key}\n");
    }
    if let Some(controller) = value["shared_log"]["controller"].as_str() {
        told += &format!("\n{controller} controls rollouts\n");
    }
    if let Some(problem) = value["shared_log"]["problem"].as_str() {
        told += &format!("\nthe shared log is away: {problem}\n");
    }
    for (code, count) in value["alarms"].as_object().into_iter().flatten() {
        told += &format!("alarm {code}: {count} since the start\n");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_sites_or_routers_of_them() {
        assert_eq!(place("eu1").map(|place| place.path()), Ok("/v1/mesh/sites/eu1".into()));
        assert_eq!(place("eu1/r1").map(|place| place.path()), Ok("/v1/mesh/sites/eu1/routers/r1".into()));
        assert!(place("../x").is_err() && place("eu1/r1/x").is_err() && place("").is_err());
    }

    #[test]
    fn sites_are_shown_with_their_routers() {
        let shown = show(
            &json!({"sites": [{"name": "eu1", "number": 0, "region": "eu", "cloud": "own", "generation": 4,
            "routers": [{"name": "r1", "number": 1}]}], "members": ["eu1/r1", "removed-1", "us1/r1"], "root_key": "ab12", "alarms": {"catalog-fork": 2},
            "shared_log": {"controller": "eu1/r1", "problem": "store-unavailable: cannot open it"}}),
        );
        let log = ["eu1/r1 controls rollouts", "the shared log is away: store-unavailable"];
        let members = r#"[mesh] members = ["eu1/r1", "removed-1", "us1/r1"]"#;
        for part in [members, "eu1", "r1 (1)", "root key ab12", "catalog-fork: 2"].into_iter().chain(log) {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }
}
