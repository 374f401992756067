//! `myelin topic ls|describe|apply|rm`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::Result;
use super::http::Body;
use super::listing::{Listing, items, table, text};
use super::values::say;
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;
use myelin_catalog::{Name, Selector};
use myelin_wire::Pattern;
use serde_json::{Value, json};

/// Where events of which topics may be
#[derive(Debug, Subcommand)]
pub(super) enum Topic {
    /// Show the rules for topics, and what they have held back
    Ls(Show),
    /// Show one rule, and the sites that it means
    Describe(Describe),
    /// Let a rule hold, in place of the one of the same name
    #[command(after_help = "Examples:\n  myelin topic apply eu-orders 'orders/eu/**' --region 'eu-*'\n  \
        myelin topic apply secrets 'secrets/**' --cloud own --site hamburg --site madrid\n\n\
        A site must fit every kind that is given: a region, a cloud, and a site. Where several rules match a topic, all \
        of them hold.\nEvents go over allowed sites only, and are refused (code `residency`) where they may not be at \
        all. The rule holds at once, without a rollout.")]
    Apply(Apply),
    /// Remove a rule
    Rm(Describe),
}

/// Show the rules
#[derive(Args, Debug)]
pub(super) struct Show {
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

/// One rule
#[derive(Args, Debug)]
pub(super) struct Describe {
    /// Name of the rule
    name: Name,
    #[command(flatten)]
    admin: Admin,
}

/// Set a rule
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["region", "cloud", "site"]))]
pub(super) struct Apply {
    /// Name of the rule
    name: Name,
    /// The topics
    pattern: Pattern,
    /// A region where their events may be, or the beginning of some: `eu-*`; may be repeated
    #[arg(long, value_name = "REGION")]
    region: Vec<Selector>,
    /// A cloud where they may be; may be repeated
    #[arg(long, value_name = "CLOUD")]
    cloud: Vec<Selector>,
    /// A site where they may be; may be repeated
    #[arg(long, value_name = "SITE")]
    site: Vec<Selector>,
    #[command(flatten)]
    admin: Admin,
}

impl Topic {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            match self {
                Self::Ls(Show { listing, admin }) => {
                    let api = admin.api()?;
                    listing.show(|| api.get("/v1/topics"), show).await
                }
                Self::Describe(Describe { name, admin }) => {
                    let rule = admin.api()?.get(&path(&name)).await?;
                    say!("{}", serde_json::to_string_pretty(&rule).unwrap_or_default());
                    Ok(())
                }
                Self::Apply(apply) => apply.run().await,
                Self::Rm(Describe { name, admin }) => {
                    admin.api()?.tell(Method::DELETE, &path(&name), Body::None).await?;
                    say!("rule {name} is gone");
                    Ok(())
                }
            }
        })
    }
}

fn path(name: &Name) -> String {
    format!("/v1/topics/{name}")
}

impl Apply {
    async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let body = json!({
            "pattern": self.pattern.as_str(),
            "residency": {"regions": self.region, "clouds": self.cloud, "sites": self.site},
        });
        api.tell(Method::PUT, &path(&self.name), Body::Json(body)).await?;
        let rule = api.get(&path(&self.name)).await?;
        match &*sites(&rule) {
            "" => {
                say!("rule {} holds, and no site fits it yet: events of its topics are refused everywhere", self.name)
            }
            sites => say!("rule {} holds: events of {} may be at {sites}", self.name, self.pattern.as_str()),
        }
        Ok(())
    }
}

fn sites(rule: &Value) -> String {
    items(rule, "allowed").iter().map(text).collect::<Vec<_>>().join(", ")
}

fn show(value: &Value) -> String {
    let rows = items(value, "rules").iter().map(|rule| {
        let list = |kind: &str| items(&rule["residency"], kind).iter().map(text).collect::<Vec<_>>().join(", ");
        let mut row = vec![text(&rule["name"]), text(&rule["pattern"])];
        row.extend(["regions", "clouds", "sites"].map(list));
        row.push(sites(rule));
        row
    });
    let mut shown = table(&["rule", "pattern", "regions", "clouds", "sites", "may be at"], &[], rows);
    let (refused, held_back) = (text(&value["refused"]), text(&value["held_back"]));
    shown += &format!("\nsince this router's start: {refused} events refused, {held_back} copies held back\n");
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shown_with_the_sites_that_they_mean() {
        let shown = show(&json!({"rules": [{"name": "eu", "pattern": "orders/**",
            "residency": {"regions": ["eu-*"]}, "allowed": ["hamburg", "madrid"]}], "refused": 3, "held_back": 12}));
        for part in ["orders/**", "eu-*", "hamburg, madrid", "3 events refused, 12 copies held back"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
    }
}
