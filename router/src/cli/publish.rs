//! `myelin pub`

use super::connect::{self, Attributes, Connect, PAYLOAD_BYTES_MAX, block_on};
use super::failure::{Exit, Failure, Result, exit_for_refusal, step_for_refusal};
use super::lost::{self, LOOK_INTERVAL, attentive};
use super::trace;
use super::values::{duration, print};
use crate::trace::Sampled;
use anyhow::Context;
use clap::{ArgGroup, Args};
use hyper::Uri;
use myelin_client::{Client, ClientError, Code, Event, PublishException, Status, Summary};
use serde_json::{Value, json};
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A router that has events and decides about none for so long may be gone: no more are sent to it meanwhile.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// What a lost connection means for who publishes.
const GOES_ON: &str = "publishing goes on there; what was in flight is not sent again";
/// Refusals that are told one by one; further ones are counted.
const REFUSALS_TOLD_MAX: u64 = 10;

const AFTER_HELP: &str = "\
Examples:
  myelin pub orders/eu -m '{\"amount\": 12}' --content-type application/json
  myelin pub orders/eu -k customer-7 -H x-tenant=acme -f order.json
  myelin pub sensors/t1 -l < readings.txt                one event for each line
  myelin pub load/test -m x --count 100000 --rate 5000   5,000 events a second
  myelin pub orders/eu -m x --trace                      follows the event and prints each hop
  myelin pub orders/eu -m x --json | jq .acknowledged    what became of it, for programs

Waits until the router has decided about every event. Exit code 0 when it took all; 4 when a policy, a rule for topics,
a schema or a filter denied one. When the connection is lost or the router goes away, publishing goes on at the next
--addr; what was in flight is never sent twice: it is counted as unknown, with exit code 1. --json prints its object
whatever happens: `unknown_events` has first and last of each run of unknown ones, counted from 1, and `error` why the rest
was not published.";

/// Publish events
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP, group = ArgGroup::new("what").args(["message", "file", "lines"]))]
pub(super) struct Publish {
    /// Where to publish, such as orders/eu
    topic: String,
    /// The payload
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// Read the payload from a file; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Publish each line of stdin
    #[arg(short, long, conflicts_with = "count")]
    lines: bool,
    /// How often to publish it
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// Events a second, at most
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// How long to wait for the router's word after the last event, and for a router when the connection is lost
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    timeout: Duration,
    /// Say nothing when all went well
    #[arg(short, long)]
    quiet: bool,
    /// Follow the event through the mesh, and print each hop with verdicts and times
    #[arg(long, conflicts_with_all = ["lines", "quiet"])]
    trace: bool,
    /// Print what became of the events as JSON: the trace with --trace, else how many were acknowledged and refused
    #[arg(long)]
    json: bool,
    /// URL of the admin API that is asked for the trace [default: the --dev router here, else http://127.0.0.1:7480]
    #[arg(long, value_name = "URL", env = "MYELIN_ADMIN", help_heading = "Admin API")]
    admin: Option<Uri>,
    /// Bearer token for it; others on this machine see arguments: rather give it in the environment
    #[arg(long, env = "MYELIN_TOKEN", hide_env_values = true, help_heading = "Admin API")]
    token: Option<String>,
    #[command(flatten)]
    attributes: Attributes,
    #[command(flatten)]
    connect: Connect,
}

impl Publish {
    pub(super) fn run(self) -> Result<()> {
        block_on(self.publish())
    }

    async fn publish(self) -> Result<()> {
        if self.trace && self.count != 1 {
            return Err(trace::not_with("--count"));
        }
        let mut report = Report::default();
        let ended = self.publish_all(&mut report).await;
        if self.json && !report.is_traced {
            let error = ended.as_ref().err().map(|failure| failure.what.as_str());
            print(format!("{}\n", report.outcome(error)));
        }
        ended
    }

    async fn publish_all(&self, report: &mut Report) -> Result<()> {
        let traced = self.trace.then(trace::begin);
        let payload = match self.lines {
            true => None,
            false => Some(connect::payload(self.message.as_deref(), self.file.as_deref())?),
        };
        let client = self.connect.client(attentive).await?;
        tokio::spawn(lost::tell(client.clone(), self.connect.addrs(), GOES_ON));
        let refusals = tokio::spawn(tell_refusals(client.clone(), self.lines || self.count > 1));
        let started = Instant::now();
        let mut sender = Sender::new(&client, self.connect.addrs().len(), self.timeout);
        let sent = match &payload {
            Some(payload) => self.repeat(&mut sender, payload, (traced, started)).await,
            None => self.lines(&mut sender, started).await,
        };
        // Also of what broke off: what was sent before is decided.
        let is_in_time = tokio::time::timeout(self.timeout, client.flush()).await.is_ok();
        report.took = started.elapsed();
        let lost = match &*client.status().borrow() {
            Status::Closed(error) => Some(error.clone()),
            _ => client.loss().map(|loss| loss.error),
        };
        report.summary = client.close().await;
        report.unknown = client.unknown();
        report.refusals = refusals.await.context("the task that tells refusals")?;
        let summary = &report.summary;
        if (!self.json || self.trace)
            && !self.quiet
            && summary.published > 0
            && (summary.refused == 0 || summary.published > 1)
        {
            eprintln!("{}", told(summary, report.took));
        }
        sent.map_err(|failure| report.broken_off(failure))?;
        if let Some(Sampled { trace, .. }) = traced.filter(|_| summary.unknown == 0) {
            let admin = self.connect.admin(self.admin.clone(), self.token.clone(), self.timeout);
            let found = trace::follow(&admin.api()?, trace).await?;
            let shown = if self.json { format!("{found}\n") } else { trace::show(&found) };
            // Whoever reads may have gone.
            let _ = std::io::stdout().write_all(shown.as_bytes());
            report.is_traced = true;
        }
        let silent = (!is_in_time).then_some(self.timeout);
        verdict(&report.summary, &report.refusals, (lost, silent), &self.topic)
    }

    async fn repeat(
        &self,
        sender: &mut Sender<'_>,
        payload: &[u8],
        (traced, started): (Option<Sampled>, Instant),
    ) -> Result<()> {
        for number in 0..self.count {
            self.pace(number, started).await;
            let event = self.attributes.event(&self.topic, payload);
            let event = match traced {
                Some(sampled) => event.traceparent(&sampled.to_string()),
                None => event,
            };
            sender.send(event).await?;
        }
        Ok(())
    }

    async fn lines(&self, sender: &mut Sender<'_>, started: Instant) -> Result<()> {
        let mut stdin = std::io::stdin().lock();
        let mut line = Vec::new();
        for number in 0.. {
            line.clear();
            // Blocks this thread alone: the connection has one of its own.
            let read = stdin.by_ref().take(PAYLOAD_BYTES_MAX + 1).read_until(b'\n', &mut line).context("stdin")?;
            if read == 0 {
                break;
            }
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            if line.len() as u64 > PAYLOAD_BYTES_MAX {
                let what = format!("line {} has more than {PAYLOAD_BYTES_MAX} bytes", number + 1);
                return Err(Failure::new(Exit::Usage, what));
            }
            self.pace(number, started).await;
            let sent = sender.send(self.attributes.event(&self.topic, &line)).await;
            sent.map_err(|failure| failure.doing(format!("line {}", number + 1)))?;
        }
        Ok(())
    }

    /// Waits until event `number` is due.
    async fn pace(&self, number: u64, started: Instant) {
        let Some(rate) = self.rate else { return };
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 events nobody counts microseconds")]
        let due = started + Duration::from_secs_f64(number as f64 / rate);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    // The slowest is one event in about a day: a longer wait is a mistake in a unit.
    match text.parse::<f64>() {
        Ok(rate) if (1e-5..=1e9).contains(&rate) => Ok(rate),
        _ => Err(format!("`{text}` is no rate; give events a second, such as 500")),
    }
}

/// Publishes events one by one, and not into the void: while the router decides nothing, few more are put in doubt.
struct Sender<'a> {
    client: &'a Client,
    routers: usize,
    patience: Duration,
    /// When was looked last.
    looked: Instant,
    /// How many were decided then, and since when.
    decided: u64,
    progress: Instant,
}

impl<'a> Sender<'a> {
    fn new(client: &'a Client, routers: usize, patience: Duration) -> Self {
        let now = Instant::now();
        Self { client, routers, patience, looked: now, decided: 0, progress: now }
    }

    /// # Errors
    /// When the client is over, no router is there, or it decides nothing.
    async fn send(&mut self, event: Event<'_>) -> Result<()> {
        if self.looked.elapsed() >= LOOK_INTERVAL {
            self.wait_for_decisions().await?;
        }
        tokio::select! {
            biased;
            sent = self.client.send(event) => Ok(sent.map(drop)?),
            failure = lost::nobody_is_there(self.client, self.routers, self.patience) => Err(failure),
        }
    }

    /// Waits until the router has decided something of late, or there is nothing to be decided.
    async fn wait_for_decisions(&mut self) -> Result<()> {
        loop {
            let stats = self.client.stats();
            let decided = stats.acked + stats.refused + stats.unknown;
            self.looked = Instant::now();
            if decided != self.decided || decided == stats.published {
                (self.decided, self.progress) = (decided, self.looked);
            }
            let silent = self.looked - self.progress;
            if silent < SILENCE_MAX {
                return Ok(());
            }
            if silent >= self.patience {
                let what = format!("the router did not decide about any event within {:?}", self.patience);
                return Err(Failure::new(Exit::Timeout, what).next("it may be overloaded: wait longer with --timeout"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Refusals by code, with the first detail of each.
type Refusals = Vec<(Code, u64, String)>;

/// Tells refusals as they come in, until the client is closed.
async fn tell_refusals(client: Client, one_by_one: bool) -> Refusals {
    let mut refusals = Refusals::new();
    let mut told = 0;
    while let Some(PublishException { number, code, detail }) = client.next_exception().await {
        told += u64::from(one_by_one);
        if one_by_one && told <= REFUSALS_TOLD_MAX {
            eprintln!("event {number} was refused: {}", said(code, &detail));
        } else if told == REFUSALS_TOLD_MAX + 1 {
            eprintln!("further refusals are counted only");
        }
        match refusals.iter_mut().find(|(known, ..)| *known == code) {
            Some((_, count, _)) => *count += 1,
            None => refusals.push((code, 1, detail)),
        }
    }
    refusals
}

/// A refusal in words. The detail is a filter's: its control characters must not reach the terminal.
fn said(code: Code, detail: &str) -> String {
    let detail: String = detail.chars().filter(|character| !character.is_control()).collect();
    if detail.is_empty() { code.to_string() } else { format!("{code}: {detail}") }
}

fn told(summary: &Summary, took: Duration) -> String {
    let Summary { published, acked, refused, unknown, .. } = summary;
    if *published == 1 {
        return format!("{} in {took:.1?}", if *acked == 1 { "acknowledged" } else { "not acknowledged" });
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = *published as f64 / took.as_secs_f64().max(1e-9);
    format!(
        "{published} published, {acked} acknowledged, {refused} refused, {unknown} unknown, in {took:.1?} ({rate:.0}/s)"
    )
}

/// What became of the events.
#[derive(Default)]
struct Report {
    summary: Summary,
    /// First and last of each run of events that are unknown.
    unknown: Vec<(u64, u64)>,
    refusals: Refusals,
    took: Duration,
    /// The trace was printed in its place.
    is_traced: bool,
}

impl Report {
    /// For programs: also when it failed, and why.
    fn outcome(&self, error: Option<&str>) -> Value {
        let Summary { published, acked, refused, unknown, .. } = &self.summary;
        let reasons = self
            .refusals
            .iter()
            .map(|(code, count, detail)| json!({"code": code.name(), "count": count, "detail": detail}));
        let mut told = json!({"published": published, "acknowledged": acked, "refused": refused, "unknown": unknown,
            "unknown_events": self.unknown, "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "refusals": reasons.collect::<Vec<_>>()});
        if let Some(error) = error {
            told["error"] = error.into();
        }
        told
    }

    /// The failure that kept the rest from being published, with what became of the events before.
    fn broken_off(&self, mut failure: Failure) -> Failure {
        let Summary { published, refused, unknown, .. } = self.summary;
        failure.what += &format!(
            " ({published} events were published before, {refused} of them refused; what became of {unknown} is unknown)"
        );
        failure
    }
}

/// Whether all went well; else why the last lost connection ended, or for how long the router said nothing.
fn verdict(
    summary: &Summary,
    refusals: &Refusals,
    (lost, silent): (Option<ClientError>, Option<Duration>),
    topic: &str,
) -> Result<()> {
    let Summary { published, refused, unknown, .. } = *summary;
    if refused > 0 {
        let exits: Vec<_> = refusals.iter().map(|(code, ..)| exit_for_refusal(*code)).collect();
        let exit = match exits.contains(&Exit::Denied) {
            true => Exit::Denied,
            false => exits.first().copied().unwrap_or(Exit::Failed),
        };
        let codes: Vec<_> = refusals.iter().map(|(code, count, _)| format!("{code} {count}")).collect();
        let mut what = match &refusals[..] {
            [(code, 1, detail)] if published == 1 => format!("the event was refused: {}", said(*code, detail)),
            _ => format!("{refused} of {published} events were refused ({})", codes.join(", ")),
        };
        if unknown > 0 {
            what += &format!("; what became of {unknown} is unknown");
        }
        let failure = Failure::new(exit, what);
        // What refused most is looked at first.
        return Err(match refusals.iter().max_by_key(|(_, count, _)| *count) {
            Some((code, ..)) => failure.next(step_for_refusal(*code, &format!("publish {topic}"))).coded(code.name()),
            None => failure,
        });
    }
    if unknown == 0 {
        return Ok(());
    }
    let what = format!("what became of {unknown} of {published} events is unknown");
    let failure = match (lost, silent) {
        // The router has said why: what that stands for counts, such as a token that is over.
        (Some(error @ ClientError::Closed(_)), _) => return Err(Failure::from(error).doing(what)),
        (_, Some(waited)) => {
            let silent = format!("{what}: the router did not decide about them within {waited:?}");
            return Err(Failure::new(Exit::Timeout, silent).next("it may be overloaded: wait longer with --timeout"));
        }
        (Some(error), None) => Failure::new(Exit::Failed, format!("{what}: {error}")),
        (None, None) => Failure::new(Exit::Failed, what),
    };
    Err(failure.next("they may have been delivered; publish again only what may be there twice"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_client::Refusal;

    fn exit(refused: u64, unknown: u64, codes: &[Code]) -> Option<Exit> {
        let summary = Summary { published: 9, acked: 9 - refused - unknown, refused, unknown, ..Summary::default() };
        let refusals = codes.iter().map(|code| (*code, 1, String::new())).collect();
        verdict(&summary, &refusals, (None, None), "orders/eu").err().map(|failure| failure.exit)
    }

    #[test]
    fn the_exit_code_says_what_became_of_the_events() {
        assert_eq!(exit(0, 0, &[]), None);
        assert_eq!(exit(1, 0, &[Code::Denied]), Some(Exit::Denied));
        assert_eq!(exit(2, 0, &[Code::Expired, Code::FilterFault]), Some(Exit::Denied));
        assert_eq!(exit(1, 0, &[Code::SchemaViolation]), Some(Exit::Denied));
        assert_eq!(exit(1, 0, &[Code::Residency]), Some(Exit::Denied));
        assert_eq!(exit(1, 0, &[Code::PayloadTooLarge]), Some(Exit::Usage));
        assert_eq!(exit(0, 1, &[]), Some(Exit::Failed));
        let summary = Summary { published: 1, unknown: 1, ..Summary::default() };
        let over = ClientError::Closed(Refusal::new(Code::TokenExpired, "over"));
        let told = verdict(&summary, &Refusals::new(), (Some(over), None), "a").unwrap_err();
        assert_eq!((told.exit, told.next.is_some()), (Exit::Denied, true), "{told}");
        let silent = (None, Some(Duration::from_secs(10)));
        let told = verdict(&summary, &Refusals::new(), silent, "a").unwrap_err();
        assert!(told.exit == Exit::Timeout && told.what.contains("1 of 1 events"), "{told}");
    }

    #[test]
    fn programs_read_what_became_of_the_events() {
        let summary = Summary { published: 3, acked: 1, refused: 2, ..Summary::default() };
        let refusals = vec![(Code::Denied, 2, "no".to_owned())];
        let report = Report { summary, refusals, took: Duration::from_millis(5), ..Report::default() };
        let told = report.outcome(None);
        assert_eq!(told["refusals"], json!([{"code": "denied", "count": 2, "detail": "no"}]));
        assert_eq!((&told["published"], &told["acknowledged"], &told["took_ms"]), (&json!(3), &json!(1), &json!(5)));
        assert_eq!((&told["unknown_events"], told.get("error")), (&json!([]), None));
        let nothing = Report { unknown: vec![(4, 6)], ..Report::default() }.outcome(Some("nobody"));
        assert_eq!(
            (&nothing["published"], &nothing["unknown_events"], &nothing["error"]),
            (&json!(0), &json!([[4, 6]]), &json!("nobody"))
        );
    }

    #[test]
    fn rates_are_positive_numbers() {
        assert_eq!(rate("500"), Ok(500.0));
        for bad in ["0", "-1", "nan", "inf", "fast"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
