//! `myelin rollout start|status|pause|resume|promote|abort|history|rollback`

mod changes;
pub(super) mod plan;
mod proposals;
mod watch;

use super::admin::{Admin, Api};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::filter::bindings;
use super::http::Body;
use super::listing::{Shape, items, shown, table, text, time};
use super::resource::Show;
use changes::Changes;
use clap::{Args, Subcommand};
use hyper::Method;
use plan::Plan;
use proposals::{Approve, Withdraw, waiting};
use serde_json::{Value, json};
use std::time::Duration;

/// How long it may take until all routers run a set, or have given it up: the router waits two minutes for each of the steps.
const ACTIVATION_MAX: Duration = Duration::from_secs(5 * 60);

const START_HELP: &str = "\
Examples:
  myelin bind check --module schema@1.1.0 --pattern 'a/**' --no-rollout
  myelin rollout start --note 'stricter schema'
  myelin rollout start -o json | jq .generation
  myelin rollout start --canary eu1 --wave 10,50,100 --gate trap=0.1%,p99=5ms --observe 60s --watch
  myelin rollout start --shadow 60s --shadow-sample 10% --gate diff=1%
  myelin rollout start --only-changes --schema orders=2 --canary eu1 --gate reject=1% --watch
  myelin rollout start --only-changes --policies policies/ --canary eu1 --wave 50,100 --watch

Without flags about sites, all routers of all sites prepare the set and then swap together. With them, with rules or
policies (--schema, --topics, --policies, --remove-*), and with --watch, it goes over the sites: canaries have it first, then
waves of 10, 50 and 100 % of the sites unless --wave says otherwise, each observed for 60 s and until every router has had
1000 events, or --deadline is over. Each step is watched by its gates, and what fails takes every site back to the set
before. docs/ROLLOUTS.md tells more.";

/// Make staged bindings active, or go back
#[derive(Debug, Subcommand)]
pub(super) enum Rollout {
    /// Make everything that is staged active: at once, or over the sites step by step
    #[command(after_help = START_HELP)]
    Start(Box<Start>),
    /// Show the active generation and what a rollout would change
    #[command(after_help = "Examples:\n  \
        myelin rollout status\n  \
        myelin rollout status --watch\n  \
        myelin rollout status -o json | jq .active_generation")]
    Status(Show),
    /// Hold a rollout over the sites where it is; its gates are watched all the same
    #[command(after_help = "Examples:\n  \
        myelin rollout pause          the one that is under way\n  \
        myelin rollout pause 42")]
    Pause(Step),
    /// Let it go on
    #[command(after_help = "Examples:\n  \
        myelin rollout resume\n  \
        myelin rollout resume 42")]
    Resume(Step),
    /// Do not wait any longer for the time of observing of its present step
    #[command(after_help = "Examples:\n  \
        myelin rollout promote\n  \
        myelin rollout promote 42")]
    Promote(Step),
    /// End it: every site has its old set again
    #[command(after_help = "Examples:\n  \
        myelin rollout abort\n  \
        myelin rollout abort 42 --reason 'orders are refused'")]
    Abort(Step),
    /// Begin what somebody else has proposed, where the router wants two persons for it
    #[command(after_help = "Examples:\n  \
        myelin rollout history        shows what waits, and its number\n  \
        myelin rollout approve 17 --show   shows all that would change\n  \
        myelin rollout approve 17 --watch")]
    Approve(Approve),
    /// Let a proposal wait no longer, one's own or somebody else's
    #[command(after_help = "Example:\n  myelin rollout withdraw 17")]
    Withdraw(Withdraw),
    /// Show the rollouts since the router's start
    #[command(after_help = "Examples:\n  \
        myelin rollout history\n  \
        myelin rollout history -o json | jq '.generations[].generation'")]
    History(Show),
    /// Make the generation before active again, or the one that --to names
    #[command(after_help = "Examples:\n  \
        myelin rollout rollback\n  \
        myelin rollout rollback --to 17 --note 'back to what worked'")]
    Rollback(Rollback),
}

/// Make everything that is staged active
#[derive(Args, Debug)]
pub(super) struct Start {
    /// Why, for those who read the history
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    changes: Changes,
    /// Watch it until it is over; exit 7 when it is rolled back, or unbalanced
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// Take a step of a rollout over the sites by hand
#[derive(Args, Debug)]
pub(super) struct Step {
    /// The rollout's number; the one that is under way where none is given
    #[arg(value_name = "ROLLOUT")]
    id: Option<u64>,
    /// Why, for those who read the history: with `abort`
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// Make an earlier generation active again
#[derive(Args, Debug)]
pub(super) struct Rollback {
    /// The generation to return to; `myelin rollout history` shows them
    #[arg(long, value_name = "GENERATION")]
    to: Option<u64>,
    /// Why, for those who read the history
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

impl Rollout {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Start(start) => block_on(start.run()),
            Self::Pause(step) => block_on(step.take("pause")),
            Self::Resume(step) => block_on(step.take("resume")),
            Self::Promote(step) => block_on(step.take("promote")),
            Self::Abort(step) => block_on(step.take("abort")),
            Self::Approve(approve) => block_on(approve.run()),
            Self::Withdraw(withdraw) => block_on(withdraw.run()),
            Self::Status(show) => block_on(show_status(show)),
            Self::History(show) => block_on(show.run("/v1/rollouts", history)),
            Self::Rollback(rollback) => block_on(rollback.run()),
        }
    }
}

/// Makes what is staged active, waits until it is, and tells it.
pub(super) async fn start(api: &Api, note: Option<String>, shape: Shape) -> Result<()> {
    shape.tell(&activate(api, note).await?, begun);
    Ok(())
}

/// Whether all that is staged is active already, and so no rollout would do anything: then the generation that is active.
/// `None` also where that cannot be said, as who may begin a rollout need not be one who may look.
pub(super) async fn nothing_to_change(api: &Api) -> Option<Value> {
    let rollouts = api.get("/v1/rollouts").await.ok()?;
    let bindings = api.get("/v1/bindings").await.ok()?;
    same(&bindings, &rollouts)
}

/// The same, from what there is. While a rollout is under way, what is active depends on the site.
fn same(bindings: &Value, rollouts: &Value) -> Option<Value> {
    let generation = bindings["active_generation"].as_u64()?;
    let is_active = items(bindings, "bindings").iter().all(|binding| binding["state"] == "active");
    (is_active && running(rollouts).is_none())
        .then(|| json!({"generation": generation, "previous": generation, "changed": false}))
}

/// What came of it, for people.
pub(super) fn begun(answer: &Value) -> String {
    proposed(answer).or_else(|| watch::complete(answer)).unwrap_or_else(|| told(answer))
}

/// The same; tells only which routers it waits for, where that takes long.
pub(super) async fn activate(api: &Api, note: Option<String>) -> Result<Value> {
    let patient = api.patient(ACTIVATION_MAX);
    watch::telling(api, patient.ask(Method::POST, "/v1/rollouts", Body::Json(json!({ "note": note })))).await
}

/// Lets a rollout over all sites bring rules and policies - beside what is staged, or alone - and waits until it is over;
/// gives how it ended, or the proposal where somebody else has to approve it.
///
/// # Errors
/// Those of the request; exit 7 where it was rolled back, or the ledger of the mesh did not balance.
pub(super) async fn bring(
    api: &Api,
    changes: &Value,
    only_changes: bool,
    accept_failures: bool,
    note: Option<&str>,
) -> Result<Value> {
    let plan = json!({"waves": [100], "observe_s": 0, "events_min": 0, "accept_failures": accept_failures});
    let body = json!({"note": note, "changes": changes, "only_changes": only_changes, "plan": plan});
    let begun: Value = api.ask(Method::POST, "/v1/rollouts", Body::Json(body)).await?;
    match begun["id"].as_u64() {
        Some(id) if !is_proposal(&begun) => watch::telling(api, watch::over(api, id)).await,
        _ => Ok(begun),
    }
}

/// Whether a rollout waits for somebody else to approve it.
pub(super) fn is_proposal(answer: &Value) -> bool {
    answer["proposal"].is_u64()
}

/// That somebody else has to approve it, where that is so.
pub(super) fn proposed(answer: &Value) -> Option<String> {
    let id = answer["proposal"].as_u64()?;
    Some(format!(
        "proposal {id} waits for somebody else with the role releaser, for an hour: `myelin rollout approve {id}`\n  of {}\n",
        text(&answer["digest"])
    ))
}

impl Start {
    async fn run(self) -> Result<()> {
        let api = self.admin.api()?;
        let mut body = json!({ "note": self.note });
        let has_changes = self.changes.put(&api, &mut body).await?;
        body["plan"] = match self.plan.read() {
            // To be watched, and to bring more than filters, a rollout must be one over the sites.
            None if self.watch || has_changes => json!({}),
            None => return start(&api, self.note, self.shape).await,
            Some(plan) => plan,
        };
        if self.changes.accept_failures {
            body["plan"]["accept_failures"] = true.into();
        }
        let rollout: Value = api.ask(Method::POST, "/v1/rollouts", Body::Json(body)).await?;
        let id = rollout["id"].as_u64().unwrap_or_default();
        if self.watch && proposed(&rollout).is_none() {
            return watch::watch(&api, id, self.shape).await;
        }
        self.shape.tell(&rollout, |rollout| {
            proposed(rollout).unwrap_or_else(|| {
                format!(
                    "rollout {id} has begun; `myelin rollout status --watch` shows it, `myelin rollout abort {id}` ends it\n"
                )
            })
        });
        Ok(())
    }
}

impl Step {
    async fn take(self, step: &str) -> Result<()> {
        let api = self.admin.api()?;
        let id = match self.id {
            Some(id) => id,
            None => under_way(&api).await?,
        };
        self.post(&api, id, step).await
    }

    /// The same for a rollout that is in its shadow: one that is active at sites is not to be ended by mistake.
    pub(super) async fn take_shadow(self, step: &str) -> Result<()> {
        let api = self.admin.api()?;
        let id = match self.id {
            Some(id) => id,
            None => under_way(&api).await?,
        };
        let rollout = api.get(&format!("/v1/rollouts/{id}")).await?;
        let is_active =
            items(&rollout, "steps").iter().any(|it| it["state"] != "ahead" && !items(it, "sites").is_empty());
        if is_active {
            return Err(Failure::new(Exit::Conflict, format!("rollout {id} is past its shadow, and active at sites"))
                .next(format!("`myelin rollout {step} {id}` means that, too")));
        }
        self.post(&api, id, step).await
    }

    async fn post(self, api: &Api, id: u64, step: &str) -> Result<()> {
        let body = Body::Json(json!({ "reason": self.reason }));
        let rollout: Value = api.ask(Method::POST, &format!("/v1/rollouts/{id}/{step}"), body).await?;
        self.shape.tell(&rollout, |rollout| {
            proposed(rollout).unwrap_or_else(|| format!("rollout {id}: {}\n", text(&rollout["state"])))
        });
        Ok(())
    }
}

/// The number of the rollout that is under way.
async fn under_way(api: &Api) -> Result<u64> {
    let value = api.get("/v1/rollouts").await?;
    running(&value).and_then(|rollout| rollout["id"].as_u64()).ok_or_else(|| {
        Failure::new(Exit::NotFound, "no rollout is under way").next("`myelin rollout history` shows those that were")
    })
}

/// The rollout over the sites that is under way.
pub(super) fn running(value: &Value) -> Option<&Value> {
    items(value, "mesh").iter().find(|rollout| rollout["running"] == true)
}

impl Rollback {
    async fn run(self) -> Result<()> {
        let body = Body::Json(json!({ "to": self.to, "note": self.note }));
        let report: Value = self.admin.api()?.ask(Method::POST, "/v1/rollouts/rollback", body).await?;
        self.shape.tell(&report, told);
        Ok(())
    }
}

async fn show_status(Show { listing, admin }: Show) -> Result<()> {
    let api = admin.api()?;
    let fetch = async || {
        let mut value = api.get("/v1/bindings").await?;
        let rollouts = api.get("/v1/rollouts").await?;
        if let Some(id) = running(&rollouts).map(|rollout| text(&rollout["id"])) {
            value["rollout"] = api.get(&format!("/v1/rollouts/{id}")).await?;
        }
        Ok(value)
    };
    listing.show(fetch, status).await
}

/// What a rollout did.
fn told(report: &Value) -> String {
    let field = |name: &str| text(&report[name]);
    let mut told = format!(
        "generation {} is active on {} workers (was {}), after {} ms\n",
        field("generation"),
        field("workers"),
        field("previous"),
        field("took_ms")
    );
    for kind in ["added", "changed", "removed"] {
        let names: Vec<_> = items(&report["plan"], kind).iter().map(change).collect();
        if !names.is_empty() {
            told += &format!("  {kind}: {}\n", shown(&names.join(", ")));
        }
    }
    for why in items(report, "not_handed_over") {
        told += &format!("  began without the state of its previous version: {}\n", shown(&text(why)));
    }
    told
}

/// A binding of a plan: its name, or its name and what differs.
fn change(value: &Value) -> String {
    match value.get("name") {
        Some(name) => format!("{} ({})", text(name), text(&value["fields"])),
        None => text(value),
    }
}

fn status(value: &Value) -> String {
    let all = items(value, "bindings");
    let pending = all.iter().filter(|binding| binding["state"] != "active").count();
    let next = match pending {
        0 => "nothing is staged that is not active".to_owned(),
        _ => format!("staged and not active: {pending}; `myelin rollout start` makes that active"),
    };
    let rollout = match &value["rollout"] {
        Value::Null => String::new(),
        rollout => format!("{}\n", watch::view(rollout)),
    };
    format!(
        "{rollout}generation {} is active; the catalog's revision is {}\n{next}\n\n{}",
        text(&value["active_generation"]),
        text(&value["revision"]),
        bindings(all)
    )
}

fn history(value: &Value) -> String {
    let rollouts = items(value, "rollouts").iter().map(|rollout| {
        let plan = &rollout["plan"];
        let changes = [("+", "added"), ("~", "changed"), ("-", "removed")].into_iter().flat_map(|(sign, kind)| {
            items(plan, kind).iter().map(move |item| format!("{sign}{}", text(item.get("name").unwrap_or(item))))
        });
        vec![
            text(&rollout["generation"]),
            text(&rollout["kind"]),
            time(&rollout["at_unix_ms"]),
            format!("{} ms", text(&rollout["took_ms"])),
            format!("{} us, {} us CPU", text(&rollout["swap_us_max"]), text(&rollout["swap_cpu_us_max"])),
            changes.collect::<Vec<_>>().join(" "),
            text(&rollout["actor"]),
            text(&rollout["note"]),
        ]
    });
    let header = ["generation", "kind", "at", "took", "pause", "changes", "by", "note"];
    let rollouts = table(&header, &["generation", "took"], rollouts);
    let mesh = items(value, "mesh").iter().map(|rollout| {
        let why = rollout["reason"].as_str().map(shown).unwrap_or_default();
        let fields =
            [text(&rollout["id"]), text(&rollout["state"]), time(&rollout["at_unix_ms"]), text(&rollout["actor"])];
        fields.into_iter().chain([watch::changes(rollout).join(" "), why]).collect()
    });
    let mesh = match items(value, "mesh") {
        [] => String::new(),
        _ => format!(
            "\nover the sites:\n{}",
            table(&["rollout", "state", "at", "by", "rules and policies", "why"], &["rollout"], mesh)
        ),
    };
    let kept = items(value, "generations").iter().map(kept).collect::<Vec<_>>().join(", ");
    let kept = if kept.is_empty() { "none".to_owned() } else { kept };
    format!(
        "{rollouts}{mesh}{}\nactive: {}; a rollback can return to: {}\n",
        waiting(value),
        text(&value["active_generation"]),
        kept
    )
}

/// A generation that a rollback can return to, with the numbers that sites show for it.
fn kept(generation: &Value) -> String {
    let number = text(&generation["generation"]);
    let at_sites: Vec<_> = items(generation, "at_sites").iter().map(text).collect();
    if at_sites.is_empty() { number } else { format!("{number} (at sites {})", at_sites.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_what_changed() {
        let told = told(&json!({"generation": 5, "previous": 3, "workers": 2, "took_ms": 41,
            "plan": {"added": ["a"], "changed": [{"name": "b", "fields": ["module", "config"]}], "removed": []},
            "not_handed_over": ["b: it is another format"]}));
        assert_eq!(
            told,
            "generation 5 is active on 2 workers (was 3), after 41 ms\n  added: a\n  changed: b (module, config)\n  \
             began without the state of its previous version: b: it is another format\n"
        );
    }

    #[test]
    fn what_is_active_already_needs_no_rollout() {
        let bindings = |state: &str| json!({"active_generation": 38, "bindings": [{"name": "a", "state": "active"}, {"name": "b", "state": state}]});
        let none = json!({"mesh": [{"id": 3, "running": false}]});
        assert_eq!(same(&bindings("active"), &none).map(|same| same["generation"].clone()), Some(json!(38)));
        for other in ["staged", "changed", "leaving"] {
            assert_eq!(same(&bindings(other), &none), None, "{other}");
        }
        assert_eq!(same(&bindings("active"), &json!({"mesh": [{"id": 3, "running": true}]})), None);
        assert_eq!(same(&Value::Null, &none), None, "whoever may not look begins it");
    }

    #[test]
    fn status_says_what_a_rollout_would_do() {
        let value = |state: &str| json!({"active_generation": 1, "revision": 2, "bindings": [{"name": "a", "state": state, "order": 0}]});
        assert!(status(&value("active")).contains("nothing is staged"));
        assert!(status(&value("staged")).contains("staged and not active: 1;"));
    }

    #[test]
    fn history_shows_changes_and_where_a_rollback_can_go() {
        let shown = history(
            &json!({"active_generation": 5, "generations": [{"generation": 3, "at_sites": []}, {"generation": 6, "at_sites": [4, 5]}],
            "rollouts": [{"generation": 5, "kind": "activated", "at_unix_ms": 0, "took_ms": 7,
                "swap_us_max": 90, "swap_cpu_us_max": 40, "actor": "dev",
                "note": "why", "plan": {"added": ["a"], "changed": [{"name": "b", "fields": []}], "removed": ["c"]}}]}),
        );
        assert!(shown.contains("90 us, 40 us CPU"), "{shown}");
        assert!(shown.contains("+a ~b -c") && shown.contains("return to: 3, 6 (at sites 4, 5)"), "{shown}");
        assert!(!shown.contains("waiting"), "{shown}");
    }
}
