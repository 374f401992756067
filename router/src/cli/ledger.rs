//! `myelin ledger`

use super::admin::Admin;
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::listing::{Listing, items, shown, table, text};
use clap::Args;
use serde_json::Value;
use std::cell::RefCell;

const AFTER_HELP: &str = "\
Examples:
  myelin ledger
  myelin ledger --watch 2
  myelin ledger -o json | jq .total
  myelin ledger --mesh

For each generation, two balances hold:
  accepted + emitted + received = rejected + dropped + dead-lettered + expired + unmatched + matched + judging
  copies             = delivered + forwarded + rejected at egress + expired + shed + lost + queued
Exit code 7 when one does not; 6 when with --mesh a router did not answer, and the others balance.";

/// The terms of the first balance: what the API calls them, and the table.
const EVENTS: &[(&str, &str)] = &[
    ("accepted", "accepted"),
    ("emitted", "emitted"),
    ("received", "received"),
    ("rejected", "rejected"),
    ("dropped", "dropped"),
    ("dead_lettered", "dead-lettered"),
    ("expired", "expired"),
    ("unmatched", "unmatched"),
    ("matched", "matched"),
    ("in_pipeline", "judging"),
];
/// The terms of the second balance.
const COPIES: &[(&str, &str)] = &[
    ("targets", "copies"),
    ("delivered", "delivered"),
    ("forwarded", "forwarded"),
    ("egress_rejected", "rejected"),
    ("copies_expired", "expired"),
    ("shed", "shed"),
    ("lost", "lost"),
    ("in_queue", "queued"),
];

/// Show what became of every event
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Ledger {
    /// Of all routers of the mesh, and of the links between them
    #[arg(long)]
    mesh: bool,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

impl Ledger {
    pub(super) fn run(self) -> Result<()> {
        block_on(async {
            let api = self.admin.api()?;
            let last = RefCell::new(Value::Null);
            let fetch = || async {
                let ledger = api.get(if self.mesh { "/v1/mesh/ledger" } else { "/v1/ledger" }).await?;
                last.replace(ledger.clone());
                Ok(ledger)
            };
            self.listing.show(fetch, if self.mesh { show_mesh } else { show }).await?;
            judged(&last.borrow())
        })
    }
}

/// Whether it balances, as far as can be said.
///
/// # Errors
/// Exit 6 where a router did not answer and the others balance, 7 where they do not.
fn judged(ledger: &Value) -> Result<()> {
    if ledger["balances"] == true || ledger.is_null() {
        return Ok(());
    }
    if is_incomplete(ledger) {
        let what = format!("incomplete: {} does not answer; the others balance", missing(ledger));
        return Err(Failure::new(Exit::Timeout, what).next("ask again when it runs; `myelin mesh` shows its links"));
    }
    Err(Failure::new(Exit::GateFailed, "the ledger does not balance: events are lost, doubled or not counted")
        .next("this is a fault of the router; keep its log and the output of `myelin ledger -o json`"))
}

/// Whether nothing is off but that routers did not answer.
fn is_incomplete(ledger: &Value) -> bool {
    ledger["answered_balance"] == true && !missing(ledger).is_empty()
}

/// The routers that did not answer.
fn missing(ledger: &Value) -> String {
    let missing = ledger["missing"].as_object().into_iter().flatten();
    missing.map(|(router, _)| shown(router)).collect::<Vec<_>>().join(", ")
}

fn show(ledger: &Value) -> String {
    let lines: Vec<&Value> = items(ledger, "generations").iter().chain(std::iter::once(&ledger["total"])).collect();
    let part = |terms: &[(&str, &str)], off_by: &str| {
        let mut header = vec!["generation"];
        header.extend(terms.iter().map(|(_, name)| name));
        header.push("off by");
        let rows = lines.iter().map(|line| {
            let generation = line.get("generation").map_or_else(|| "all".to_owned(), text);
            let counts = terms.iter().map(|(term, _)| text(&line[*term]));
            std::iter::once(generation).chain(counts).chain(std::iter::once(text(&line[off_by]))).collect()
        });
        table(&header, &header, rows)
    };
    let balances = if ledger["balances"] == true { "the ledger balances" } else { "THE LEDGER DOES NOT BALANCE" };
    let settled = if ledger["total"]["settled"] == true { "nothing is under way" } else { "some is under way" };
    format!(
        "events\n{}\ncopies\n{}\n{balances}; {settled}\n",
        part(EVENTS, "events_off_by"),
        part(COPIES, "copies_off_by")
    )
}

/// The same of every router, and what the links' two ends say.
fn show_mesh(ledger: &Value) -> String {
    let title = |router: &Value| format!("{}/{}", text(&router["site"]), text(&router["router"]));
    let lines = items(ledger, "routers").iter().map(|router| (title(router), &router["total"]));
    let lines: Vec<_> = lines.chain(std::iter::once(("all".to_owned(), &ledger["total"]))).collect();
    let part = |terms: &[(&str, &str)]| {
        let mut header = vec!["router"];
        header.extend(terms.iter().map(|(_, name)| name));
        let rows = lines.iter().map(|(title, counts)| {
            std::iter::once(title.clone()).chain(terms.iter().map(|(term, _)| text(&counts[*term]))).collect()
        });
        table(&header, &header[1..], rows)
    };
    let fields = ["from", "to", "sent", "acknowledged", "received", "in_flight", "lost"];
    let links = items(ledger, "links").iter().map(|link| {
        let agrees = if link["agrees"] == true { "" } else { "THE ENDS DO NOT AGREE" };
        fields.iter().map(|field| text(&link[*field])).chain([agrees.to_owned()]).collect()
    });
    let header = ["from", "to", "sent", "acknowledged", "received", "in flight", "lost", ""];
    let mut told = format!(
        "events\n{}\ncopies\n{}\nlinks\n{}\n",
        part(EVENTS),
        part(COPIES),
        table(&header, &header[2..7], links)
    );
    for (router, why) in ledger["missing"].as_object().into_iter().flatten() {
        told += &format!("{} does not answer: {}\n", shown(router), shown(&text(why)));
    }
    let balances = match ledger["balances"] == true {
        true => "the ledger balances",
        false if is_incomplete(ledger) => "incomplete: those that answer balance",
        false => "THE LEDGER DOES NOT BALANCE",
    };
    let settled = if ledger["settled"] == true { "nothing is under way" } else { "some is under way" };
    told + &format!("{balances}; {settled}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Counts, Term};
    use serde_json::json;

    #[test]
    fn every_term_is_shown_under_the_name_that_the_api_has() {
        let shown: Vec<_> = EVENTS.iter().chain(COPIES).map(|(term, _)| *term).collect();
        let terms: Vec<_> = Term::ALL.iter().map(|term| term.name()).collect();
        assert_eq!(shown, terms);
        let counts = json!(Counts::default());
        assert!(terms.iter().all(|term| counts.get(term).is_some()), "{counts}");
    }

    #[test]
    fn a_router_that_is_away_is_no_fault_of_the_others() {
        let mut ledger = json!({"routers": [], "links": [], "total": {}, "balances": false, "answered_balance": true,
            "settled": true, "missing": {"hamburg/r1": "no path"}});
        let failure = judged(&ledger).expect_err("nobody knows whether it balances");
        assert_eq!(failure.exit, Exit::Timeout);
        assert!(failure.what.contains("incomplete: hamburg/r1 does not answer"), "{failure}");
        let told = show_mesh(&ledger);
        assert!(told.contains("incomplete: ") && !told.contains("DOES NOT BALANCE"), "{told}");
        ledger["answered_balance"] = false.into();
        assert_eq!(judged(&ledger).expect_err("it does not balance").exit, Exit::GateFailed);
        assert!(show_mesh(&ledger).contains("DOES NOT BALANCE"));
        ledger["balances"] = true.into();
        assert!(judged(&ledger).is_ok());
    }

    #[test]
    fn it_says_whether_it_balances() {
        let mut line = json!(Counts { accepted: 5, matched: 5, ..Counts::default() });
        line["events_off_by"] = json!(0);
        let total = line.clone();
        line["generation"] = json!(3);
        let shown = show(&json!({"generations": [line], "total": total, "balances": true}));
        assert!(shown.contains("the ledger balances") && shown.contains("all"), "{shown}");
        assert!(show(&json!({"generations": [], "total": {}, "balances": false})).contains("DOES NOT BALANCE"));
    }
}
