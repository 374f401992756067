//! Questions in another router's name, and steps that are nobody's to ask for.

use anyhow::{Context, Result, ensure};
use myelin_catalog::exchange::{Answer, Ask, RouterReport};
use myelin_catalog::{Head, Metrics, Nonce, Op, Outcome, Phase, Proposal, Record, Step};
use myelin_mesh::Control;
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::hostile::{HOPS_MAX, HostileRouter, RawLink};
use myelin_tests::relay::Path;
use myelin_tests::sites::{Sites, shapes};
use serde_json::{Value, json};
use std::time::Duration;

/// The router that writes the log and controls rollouts.
const WRITER: u32 = 1;
/// The one in whose name somebody speaks.
const VICTIM: u32 = 2;
/// Whoever does.
const EVIL: u32 = 3;

/// How often a step is asked for while the log moves.
const ATTEMPTS: u8 = 8;
/// How often it is looked whether a report is heard.
const LOOKS: usize = 400;

struct Attack {
    sites: Sites,
    /// The rollout that is under way, and waits at its canary for an hour.
    rollout: u64,
}

impl Attack {
    async fn start() -> Result<Self> {
        let sites = Sites::start_among(2, &shapes::line(2), 57, |_| Path::default(), &["evil/r1"], &[]).await?;
        let writer = &sites.routers[0];
        ensure!(writer.upload("gate", "1.0.0", &component(Behaviour::Allow)?)?.status == 201);
        let binding = json!({"module": "gate@1.0.0", "pattern": "orders/**"});
        ensure!(writer.send_json("PUT", "/v1/bindings/gate", &binding)?.status == 202);
        let plan = json!({"canary": ["s1"], "waves": [100], "observe_s": 3_600, "events_min": 0, "deadline_s": 3_600});
        let begun = writer.send_json("POST", "/v1/rollouts", &json!({"plan": plan}))?;
        let rollout = begun.json()["id"].as_u64().with_context(|| format!("{}: {}", begun.status, begun.json()))?;
        Ok(Self { sites, rollout })
    }

    fn shown(&self) -> Result<Value> {
        Ok(self.sites.routers[0].ask("GET", &format!("/v1/rollouts/{}", self.rollout), &[], b"")?.json())
    }

    fn alarms(&self, code: &str) -> Result<u64> {
        Ok(self.sites.mesh(0)?["alarms"][code].as_u64().unwrap_or_default())
    }

    /// What `router` would say to stop the rollout.
    fn report(&self, (site, router): (&str, &str)) -> Result<Ask> {
        let phase = Phase::Nack { code: "forged".to_owned(), reason: "forged".to_owned() };
        let (site, router) = (site.parse()?, router.parse()?);
        Ok(Ask::Report(RouterReport { site, router, rollout: self.rollout, phase, metrics: Metrics::default() }))
    }
}

/// The code by which a question is refused.
fn refused(answer: Option<Answer>) -> Result<String> {
    match answer {
        Some(Answer::Refused { code, .. }) => Ok(code),
        other => anyhow::bail!("not refused: {other:?}"),
    }
}

/// Whose reports the controller has, and in which of them somebody has lied.
async fn heard(link: &RawLink) -> Result<Vec<(String, bool)>> {
    match link.ask((HOPS_MAX, EVIL, WRITER), &Ask::Progress).await? {
        Some(Answer::Progress(heard)) => {
            let told = heard.into_iter().map(|heard| {
                let is_forged = matches!(heard.report.phase, Phase::Nack { .. });
                (heard.report.site.to_string(), is_forged)
            });
            Ok(told.collect())
        }
        other => anyhow::bail!("no progress: {other:?}"),
    }
}

/// The same, as soon as that is among it: it is heard before it is shown.
async fn heard_of(link: &RawLink, (site, is_forged): (&str, bool)) -> Result<Vec<(String, bool)>> {
    for _ in 0..LOOKS {
        let told = heard(link).await?;
        if told.contains(&(site.to_owned(), is_forged)) {
            return Ok(told);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("nothing is heard of {site}: {:?}", heard(link).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_reports_and_asks_for_itself_alone_and_takes_no_step_of_a_rollout() -> Result<()> {
    let attack = Attack::start().await?;
    let is_heard = || Ok(attack.shown()?["routers"].as_array().is_some_and(|routers| !routers.is_empty()));
    super::super::eventually("the rollout is controlled", is_heard).await?;
    let mut link = HostileRouter::new(&attack.sites, "evil", EVIL, 0)?.link().await?;
    link.say(&Control::LinkState(link.state(1, &[(WRITER, 10)]))).await?;
    link.is_answered().await?;
    let before = log_of(&link).await?.len();

    // In its own name, of another router, also of the controller itself and of one that is not live.
    for other in [("s1", "r1"), ("s0", "r1")] {
        let answer = link.ask((HOPS_MAX, EVIL, WRITER), &attack.report(other)?).await?;
        ensure!(refused(answer)? == "foreign-report", "{other:?}");
    }
    // In the other's name: as its own question, and as one that it only hands on, from a router that is not behind it.
    for hops_left in [HOPS_MAX, HOPS_MAX - 1] {
        let answer = link.ask((hops_left, VICTIM, WRITER), &attack.report(("s1", "r1"))?).await?;
        ensure!(answer.is_none(), "a question of a router that is elsewhere is answered: {answer:?}");
    }
    super::super::eventually("the alarm", || Ok(attack.alarms("foreign-question")? == 1)).await?;
    let told = heard(&link).await?;
    ensure!(told.iter().any(|(site, _)| site == "s1"), "the honest one is heard: {told:?}");
    ensure!(told.iter().all(|(_, is_forged)| !is_forged), "the controller has heard a lie: {told:?}");

    // Steps of the rollout.
    let id = attack.rollout;
    let wave = Op::RolloutAdvanced { id, to: Step::Wave { number: 1 }, sites: vec!["s0".parse()?] };
    let over = Op::RolloutFinished { id, outcome: Outcome::Complete, reason: String::new() };
    for (nonce, op) in (1..).zip([&wave, &over]) {
        let code = propose(&link, nonce, op).await?;
        ensure!(code == "controller-only", "{}: {code}", op.kind());
    }

    // Of itself it is heard: what was refused was refused for whose it was.
    let own = link.ask((HOPS_MAX, EVIL, WRITER), &attack.report(("evil", "r1"))?).await?;
    ensure!(own == Some(Answer::Noted), "{own:?}");
    let told = heard_of(&link, ("evil", true)).await?;
    ensure!(!told.contains(&("s1".to_owned(), true)) && !told.contains(&("s0".to_owned(), true)), "{told:?}");

    // Nothing of it is in the log, whatever the controller has written meanwhile.
    let written = log_of(&link).await?;
    ensure!(!written.iter().any(|record| record.op == wave || record.op == over), "{written:?}");
    ensure!(written.len() >= before, "{written:?}");
    let log = attack.sites.routers[0].log();
    ensure!(!log.contains("panicked"), "{log}");
    attack.sites.end()
}

async fn log_of(link: &RawLink) -> Result<Vec<Record>> {
    let log = link.records_of(WRITER).await?;
    Ok(log.iter().map(|bytes| Record::decode(bytes)).collect::<Result<_, _>>()?)
}

/// Asks for that record, for the end that the log has then; the code of the refusal.
async fn propose(link: &RawLink, nonce: u8, op: &Op) -> Result<String> {
    for attempt in 0..ATTEMPTS {
        let last = log_of(link).await?.pop().context("a record")?;
        let (at, nonce) =
            (Head { rev: last.rev, hash: last.hash() }, Nonce::from_bytes([nonce * ATTEMPTS + attempt; 16]));
        let proposal = Proposal { nonce, at, actor: "rollout".to_owned(), op: op.clone() };
        let answer = link.ask((HOPS_MAX, EVIL, WRITER), &Ask::Propose(Box::new(proposal))).await?;
        let code = refused(answer)?;
        // The controller writes meanwhile.
        if code != "conflict" {
            return Ok(code);
        }
    }
    anyhow::bail!("overtaken {ATTEMPTS} times")
}
