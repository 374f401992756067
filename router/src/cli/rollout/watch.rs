//! A rollout over the sites, as people watch it.

use crate::cli::admin::Api;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::listing::{Shape, items, shown, table, text};
use crate::cli::signals::Signals;
use crate::cli::values::{print, say};
use myelin_catalog::SILENT_MS;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// How long an answer may take before somebody is told what it waits for, and how often then.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the progress is asked for.
const INTERVAL: Duration = Duration::from_millis(250);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows rollout `id` until it is over; a signal ends the watching, not the rollout.
///
/// # Errors
/// Exit 7 when it was rolled back, or the ledger of the mesh did not balance.
pub(super) async fn watch(api: &Api, id: u64, shape: Shape) -> Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut signals = Signals::catch()?;
    let mut last = String::new();
    loop {
        let rollout = api.get(&format!("/v1/rollouts/{id}")).await?;
        if shape.is_json() {
            // A program is told once, how it ended.
            if rollout["running"] == false {
                say!("{rollout}");
            }
        } else if is_terminal {
            print(format!("{CLEAR}{}", view(&rollout)));
        } else {
            // For a log: a line for every change.
            let line = line(&rollout);
            if line != last {
                say!("{line}");
                last = line;
            }
        }
        if rollout["running"] == false {
            return end(&rollout, shape);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = signals.next() => {
                eprintln!("the rollout goes on; `myelin rollout status` shows it, `myelin rollout abort {id}` ends it");
                return Ok(());
            }
        }
    }
}

/// Waits for the answer to a request that makes a set active, and tells meanwhile which routers it waits for: on the standard
/// error, as the answer is what the command prints.
///
/// # Errors
/// Those of the request.
pub(super) async fn telling<T>(api: &Api, asked: impl Future<Output = Result<T>>) -> Result<T> {
    let mut asked = std::pin::pin!(asked);
    let (mut last, mut has_failed) = (String::new(), false);
    loop {
        tokio::select! {
            answer = &mut asked => return answer,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        let told = tokio::select! {
            answer = &mut asked => return answer,
            told = waited_for(api) => told,
        };
        match told {
            // Said anew when it is for other routers, not when a silent one is silent for longer.
            Ok((key, told)) if key != last => {
                tell(&told);
                last = key;
            }
            Ok(_) => {}
            Err(_) if has_failed => {}
            // Who may begin a rollout need not be one who may look.
            Err(failure) => {
                has_failed = true;
                tell(&format!("the router does not say which routers it waits for: {}", shown(&failure.what)));
            }
        }
    }
}

/// Tells it on the standard error. Whether somebody still reads makes no difference.
fn tell(told: &str) {
    if !told.is_empty() {
        let _ = writeln!(io::stderr(), "{told}");
    }
}

/// What the rollout that is under way waits for: without how long, and with that.
async fn waited_for(api: &Api) -> Result<(String, String)> {
    let rollouts = api.get("/v1/rollouts").await?;
    let Some(rollout) = super::running(&rollouts) else { return Ok(Default::default()) };
    let rollout = api.get(&format!("/v1/rollouts/{}", text(&rollout["id"]))).await?;
    Ok((waiting(&rollout, false), waiting(&rollout, true)))
}

/// The routers that are not where the step wants them, on one line; empty where all are.
fn waiting(rollout: &Value, has_ages: bool) -> String {
    let behind = items(rollout, "routers").iter().filter_map(|router| {
        let name = format!("{}/{}", text(&router["site"]), text(&router["router"]));
        match (router["phase"].as_str(), router["age_ms"].as_u64()) {
            (None, _) => Some(format!("{name} (not heard of)")),
            (_, Some(age)) if age > SILENT_MS && has_ages => Some(format!("{name} (silent for {} s)", age / 1_000)),
            (_, Some(age)) if age > SILENT_MS => Some(format!("{name} (silent)")),
            // Prepared is where it is to be until its site is to have the new set.
            (Some("PREPARED"), _) if router["has_new_set"] != true => None,
            (Some("ACTIVE"), _) => None,
            (Some(phase), _) => Some(format!("{name} ({phase})")),
        }
    });
    let behind = behind.collect::<Vec<_>>();
    match &*behind {
        [] => String::new(),
        _ => {
            format!("rollout {}, {}: waiting for {}", text(&rollout["id"]), text(&rollout["state"]), behind.join(", "))
        }
    }
}

/// Waits until rollout `id` is over; gives how it ended.
///
/// # Errors
/// Exit 7 when it was rolled back, or the ledger of the mesh did not balance.
pub(super) async fn over(api: &Api, id: u64) -> Result<Value> {
    loop {
        let rollout = api.get(&format!("/v1/rollouts/{id}")).await?;
        if rollout["running"] == false {
            return judged(&rollout).map(|()| rollout);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// That a rollout over the sites is complete, for people, where it is.
pub(super) fn complete(rollout: &Value) -> Option<String> {
    let is_complete = rollout["state"] == "complete";
    is_complete.then(|| {
        let id = text(&rollout["id"]);
        format!("rollout {id} is complete: every site has the new set, and the ledger of the mesh balances\n")
    })
}

fn end(rollout: &Value, shape: Shape) -> Result<()> {
    if let Some(told) = complete(rollout).filter(|_| !shape.is_json()) {
        print(told);
    }
    judged(rollout)
}

/// Whether it ended as it was meant to.
fn judged(rollout: &Value) -> Result<()> {
    let id = text(&rollout["id"]);
    if rollout["state"] == "complete" {
        return Ok(());
    }
    if rollout["state"] == "unbalanced" {
        let why = shown(&text(&rollout["reason"]));
        return Err(Failure::new(Exit::GateFailed, format!("rollout {id} is not complete: {why}")).next(
            "`myelin ledger --mesh` shows every router and link; `myelin rollout rollback` makes the old set active",
        ));
    }
    let why = format!("{}: {}", text(&rollout["cause"]), shown(&text(&rollout["reason"])));
    Err(Failure::new(Exit::GateFailed, format!("rollout {id} was rolled back ({why}); every site has the old set")))
}

/// A rollout with its steps and its routers.
pub(super) fn view(rollout: &Value) -> String {
    let mut told = format!(
        "rollout {} by {}: {}\n",
        text(&rollout["id"]),
        shown(&text(&rollout["actor"])),
        text(&rollout["state"])
    );
    if let Some(reason) = rollout["reason"].as_str() {
        match rollout["cause"].as_str() {
            Some(cause) => told += &format!("  {cause}: {}\n", shown(reason)),
            None => told += &format!("  {}\n", shown(reason)),
        }
    }
    for change in items(rollout, "changes") {
        let field = |name: &str| shown(&text(&change[name]));
        let detail = match &*field("detail") {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        told += &format!("  {} {} {}{detail}\n", field("kind"), field("name"), field("action"));
    }
    if let Some(off) = rollout["ledger_off"].as_str() {
        told += &format!("  waits for the ledger of the mesh: {}\n", shown(off));
    }
    let steps = items(rollout, "steps").iter().map(|step| {
        let sites: Vec<_> = items(step, "sites").iter().map(text).collect();
        let mark = match step["state"].as_str() {
            Some("done") => "x",
            Some("now") => ">",
            _ => " ",
        };
        vec![format!("[{mark}]"), text(&step["step"]), sites.join(", ")]
    });
    told += &format!("\n{}", table(&["", "step", "sites"], &[], steps));
    let routers = items(rollout, "routers");
    if rollout["running"] == true && !routers.is_empty() {
        told += &format!("\n{}", table(&HEADER, &HEADER[4..10], routers.iter().map(router)));
    }
    told
}

/// The rules and policies that it brings, each in a word: `+` for one that is set, `-` for one that goes.
pub(super) fn changes(rollout: &Value) -> Vec<String> {
    let sign = |change: &Value| if change["action"] == "set" { "+" } else { "-" };
    items(rollout, "changes").iter().map(|change| format!("{}{}", sign(change), text(&change["name"]))).collect()
}

const HEADER: [&str; 11] =
    ["site", "router", "phase", "set", "events", "faults", "rejects", "differ", "p99 us", "heard ms", "detail"];

/// What a router said last; that it is silent where that is long ago: what it does now nobody knows.
fn phase(router: &Value, unheard: &str) -> String {
    match (router["phase"].as_str(), router["age_ms"].as_u64()) {
        (None, _) => unheard.to_owned(),
        (Some(_), Some(age)) if age > SILENT_MS => "silent".to_owned(),
        (Some(phase), _) => phase.to_owned(),
    }
}

fn router(router: &Value) -> Vec<String> {
    let phase = match (phase(router, "not heard of"), router["age_ms"].as_u64()) {
        (silent, Some(age)) if silent == "silent" => format!("{silent} {} s", age / 1_000),
        (phase, _) => phase,
    };
    let set = if router["has_new_set"] == true { "new" } else { "old" };
    let mut row = vec![text(&router["site"]), text(&router["router"]), phase, set.to_owned()];
    row.extend(
        ["events", "traps", "rejects", "differences", "module_p99_us", "age_ms"].map(|field| text(&router[field])),
    );
    row.push(shown(&text(&router["detail"])));
    row
}

/// The same on one line.
fn line(rollout: &Value) -> String {
    let routers = items(rollout, "routers")
        .iter()
        .map(|router| format!("{}/{} {}", text(&router["site"]), text(&router["router"]), phase(router, "-")));
    format!("rollout {}: {}  {}", text(&rollout["id"]), text(&rollout["state"]), routers.collect::<Vec<_>>().join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rollout() -> Value {
        json!({"id": 9, "actor": "ann", "state": "canary", "running": true,
            "steps": [{"step": "prepared", "sites": [], "state": "done"}, {"step": "canary", "sites": ["us1"], "state": "now"}],
            "routers": [{"site": "us1", "router": "r1", "phase": "ACTIVE", "has_new_set": true, "events": 12, "traps": 0,
                "rejects": 1, "module_p99_us": 40, "age_ms": 80, "detail": "generation 9"},
                {"site": "eu1", "router": "r1", "phase": null, "has_new_set": false, "detail": ""}]})
    }

    #[test]
    fn a_rollout_is_shown_with_steps_and_routers() {
        let shown = view(&rollout());
        for part in ["rollout 9 by ann: canary", "[x]", "[>]", "us1", "ACTIVE", "not heard of", "generation 9"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        assert_eq!(line(&rollout()), "rollout 9: canary  us1/r1 ACTIVE  eu1/r1 -");
        let mut waiting = rollout();
        waiting["ledger_off"] = "router eu1/r1 did not give its ledger: no path".into();
        assert!(view(&waiting).contains("waits for the ledger of the mesh: router eu1/r1"), "{}", view(&waiting));
        let mut governing = rollout();
        governing["changes"] = json!([{"kind": "topic rule", "name": "orders", "action": "set", "detail": "orders/** judged by o:2"},
            {"kind": "policy", "name": "old", "action": "removed", "detail": ""}]);
        assert!(
            view(&governing).contains("\n  topic rule orders set: orders/** judged by o:2\n  policy old removed\n")
        );
        assert_eq!(changes(&governing), ["+orders", "-old"]);
        let over = json!({"id": 9, "state": "complete", "reason": "the ledger of the mesh balances"});
        assert!(view(&over).contains("\n  the ledger of the mesh balances\n"), "{}", view(&over));
    }

    #[test]
    fn a_router_that_is_dead_is_not_shown_as_active() {
        let mut rollout = rollout();
        rollout["routers"][0]["age_ms"] = (SILENT_MS + 1).into();
        assert_eq!(line(&rollout), "rollout 9: canary  us1/r1 silent  eu1/r1 -");
        let shown = view(&rollout);
        let silent = format!("silent {} s", (SILENT_MS + 1) / 1_000);
        assert!(shown.contains(&silent) && !shown.contains("ACTIVE"), "{shown}");
    }

    #[test]
    fn whoever_waits_is_told_for_which_routers() {
        let mut held_up = rollout();
        assert_eq!(waiting(&held_up, true), "rollout 9, canary: waiting for eu1/r1 (not heard of)");
        held_up["routers"][1] = json!({"site": "eu1", "router": "r1", "phase": "COMPILED", "age_ms": 40});
        held_up["routers"][0]["age_ms"] = 9_500.into();
        let told = "rollout 9, canary: waiting for us1/r1 (silent for 9 s), eu1/r1 (COMPILED)";
        assert_eq!(waiting(&held_up, true), told);
        let before = waiting(&held_up, false);
        held_up["routers"][0]["age_ms"] = 11_500.into();
        assert_ne!(waiting(&held_up, true), told);
        assert_eq!(waiting(&held_up, false), before, "that a router is silent is told once");
        held_up["routers"] = json!([{"site": "us1", "router": "r1", "phase": "PREPARED", "age_ms": 1}]);
        assert_eq!(waiting(&held_up, true), "");
        held_up["routers"][0]["has_new_set"] = true.into();
        assert_eq!(waiting(&held_up, true), "rollout 9, canary: waiting for us1/r1 (PREPARED)", "it does not swap");
    }

    #[test]
    fn a_rollout_that_was_rolled_back_fails_the_command() {
        let over = json!({"id": 9, "state": "rolled-back", "cause": "gate-traps", "reason": "router us1/r1: 5 faults"});
        let failure = end(&over, Shape::default()).expect_err("it failed");
        assert_eq!(failure.exit, Exit::GateFailed);
        assert!(failure.what.contains("gate-traps: router us1/r1: 5 faults"), "{failure}");
        assert!(end(&json!({"id": 9, "state": "complete"}), Shape::default()).is_ok());
        let unbalanced = json!({"id": 9, "state": "unbalanced", "reason": "link a/r1 to b/r1: 7 sent"});
        let failure = end(&unbalanced, Shape::default()).expect_err("it is not complete");
        assert!(failure.exit == Exit::GateFailed && failure.what.contains("7 sent"), "{failure}");
    }
}
