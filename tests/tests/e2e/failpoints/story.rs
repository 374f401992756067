//! What an operator does to a router that may die of it, and what the catalog adds up to before and after.

use crate::jetstream::good;
use crate::routing::{PATIENCE, decided, payloads};
use anyhow::{Context, Result, bail, ensure};
use myelin_client::{Event, Outcome, SubscribeOptions};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::{Router, Setup};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// What ends a router at a point of its code.
const VARIABLE: &str = "MYELIN_FAILPOINT";
/// Counts how often a router has read its certificates again.
const RELOADS: &str = "myelin_certificate_reloads_total{outcome=\"reloaded\"}";
/// How long a router that has failed an operator may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Events that have to flow through a router that has come back.
const EVENTS: usize = 20;

/// One thing that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Reload,
    Upload { dropping: bool },
    Stage { dropping: bool },
    RollOut,
    RollBack,
    UploadSpare,
    RemoveSpare,
}

/// All of it, in order. Each makes one change or none.
pub(super) const STEPS: [Step; 10] = [
    Step::Reload,
    Step::Upload { dropping: false },
    Step::Stage { dropping: false },
    Step::RollOut,
    Step::Upload { dropping: true },
    Step::Stage { dropping: true },
    Step::RollOut,
    Step::RollBack,
    Step::UploadSpare,
    Step::RemoveSpare,
];

/// Where the story begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With nothing.
    Empty,
    /// With what the story has left when it was told once.
    Again,
    /// With nothing, as the only router of a mesh: rollouts go on by steps that a controller writes down.
    Mesh,
}

/// A router and what is done to it.
pub(super) struct Story {
    pub(super) router: Router,
    begin: Begin,
}

impl Story {
    /// Makes a router, with the data of an earlier one where there is some, that dies at `failpoint`. It is not started.
    pub(super) fn prepare(begin: Begin, data: Option<&Path>, failpoint: Option<String>) -> Result<Self> {
        let mut variables: Vec<(String, String)> =
            failpoint.into_iter().map(|point| (VARIABLE.to_owned(), point)).collect();
        if begin == Begin::Mesh {
            let mesh = [
                ("NODE__SITE", "s0"),
                ("NODE__NAME", "r1"),
                ("MESH__LISTEN", "127.0.0.1:0"),
                ("MESH__MEMBERS", "s0/r1"),
            ];
            variables.extend(mesh.map(|(key, value)| (format!("MYELIN_{key}"), value.to_owned())));
        }
        Ok(Self { router: Router::prepare(Setup { workers: 2, variables }, data)?, begin })
    }

    /// The next start dies nowhere.
    pub(super) fn disarm(&mut self) {
        self.router.setup_mut().variables.retain(|(name, _)| name != VARIABLE);
        self.router.move_port();
    }

    /// The number of a version: each telling of the story has its own.
    fn version(&self, dropping: bool) -> String {
        let told_before = u32::from(self.begin == Begin::Again);
        format!("{}.0.0", 2 * told_before + 1 + u32::from(dropping))
    }

    pub(super) fn perform(&self, step: Step) -> Result<()> {
        let router = &self.router;
        match step {
            Step::Reload => {
                let (before, begin) = (router.metric(RELOADS)?, Instant::now());
                router.hang_up()?;
                while router.metric(RELOADS)? == before {
                    ensure!(begin.elapsed() < PATIENCE, "the certificates are not read");
                    std::thread::sleep(PAUSE);
                }
            }
            Step::Upload { dropping } => {
                let behaviour = if dropping { Behaviour::DropMarked } else { Behaviour::Allow };
                good(router.upload("gate", &self.version(dropping), &component(behaviour)?)?)?;
            }
            Step::Stage { dropping } => {
                let module = format!("gate@{}", self.version(dropping));
                let binding = json!({"module": module, "pattern": "orders/**"});
                good(router.send_json("PUT", "/v1/bindings/gate", &binding)?)?;
            }
            Step::RollOut => drop(good(router.send_json("POST", "/v1/rollouts", &json!({}))?)?),
            Step::RollBack => drop(good(router.send_json("POST", "/v1/rollouts/rollback", &json!({}))?)?),
            Step::UploadSpare => {
                good(router.upload("spare", &self.version(false), &component(Behaviour::DropAfterTen)?)?)?;
            }
            Step::RemoveSpare => {
                let path = format!("/v1/modules/spare/versions/{}", self.version(false));
                good(router.ask("DELETE", &path, &[], b"")?)?;
            }
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        good(self.router.ask("GET", path, &[], b"")?)
    }

    /// What the catalog adds up to, and which filter really judges.
    pub(super) async fn state(&self) -> Result<Value> {
        let rollouts = self.settled_rollouts()?;
        let (modules, bindings) = (self.get("/v1/modules")?, self.get("/v1/bindings")?);
        let modules = modules["modules"].as_array().context("modules")?.iter();
        let modules: Vec<_> = modules
            .map(|module| json!([module["name"], module["version"], module["digest"], module["state"]]))
            .collect();
        let gates = bindings["bindings"].as_array().context("bindings")?.iter();
        let gates: Vec<_> = gates.map(|gate| json!([gate["name"], gate["module"], gate["state"]])).collect();
        let mut state = json!({"modules": modules, "bindings": gates, "drops": self.drops_marked().await?});
        // How many steps a controller writes down depends on when it looks.
        if self.begin != Begin::Mesh {
            state["revision"] = bindings["revision"].clone();
            state["generation"] = rollouts["active_generation"].clone();
        }
        Ok(state)
    }

    /// The rollouts, once none is under way.
    fn settled_rollouts(&self) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let rollouts = self.get("/v1/rollouts")?;
            let mut of_mesh = rollouts["mesh"].as_array().into_iter().flatten();
            if of_mesh.all(|rollout| rollout["running"] == false) {
                return Ok(rollouts);
            }
            ensure!(begin.elapsed() < PATIENCE, "a rollout goes on and on: {rollouts:#}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the filter that judges is the one that drops what is marked.
    async fn drops_marked(&self) -> Result<bool> {
        let dropped =
            || -> Result<u64> { self.get("/v1/ledger")?["total"]["dropped"].as_u64().context("what was dropped") };
        let (client, before) = (self.router.client().await?, dropped()?);
        let outcome = decided(&client, Event::new("orders/probe", "Dropped or not")).await?;
        ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
        client.close().await;
        Ok(dropped()? > before)
    }

    /// Whether the process has died of its point by now; a moment is given to one that `has_failed` an operator.
    pub(super) fn has_died(&mut self, point: &str, has_failed: bool) -> Result<bool> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.router.ended()? {
                let (log, told) = (self.router.log(), format!("failpoint {point}\n"));
                ensure!(!status.success() && log.contains(&told), "it ended by itself with {status}: {log}");
                return Ok(true);
            }
            if !has_failed || begin.elapsed() > GONE_WITHIN {
                return Ok(false);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A router that has come back serves, and all that was written down verifies.
    pub(super) fn is_sound(&self) -> Result<()> {
        let ready = self.router.ask("GET", "/readyz", &[], b"")?;
        ensure!(ready.status == 200, "{ready:?}");
        self.router.myelin(&["audit", "verify"])?.good()?;
        Ok(())
    }

    /// Events flow and are accounted for, up to the end, which is a good one.
    pub(super) async fn ends_well(&mut self) -> Result<()> {
        let client = self.router.client().await?;
        let mut events = client.subscribe("orders/flow", SubscribeOptions::default()).await?;
        for number in 0..EVENTS {
            client.send(Event::new("orders/flow", &number.to_string())).await?;
        }
        let expected: Vec<String> = (0..EVENTS).map(|number| number.to_string()).collect();
        ensure!(payloads(&mut events, EVENTS).await? == expected, "in order, each of them once");
        client.close().await;
        let ledger = self.router.settled_ledger()?;
        ensure!(ledger["balances"] == true, "{ledger}");
        let status = self.router.terminate()?;
        ensure!(status.success(), "{status}: {}", self.router.log());
        Ok(())
    }

    /// Tells the story to its end, and gives the states before, between and after its steps.
    pub(super) async fn tell(&mut self) -> Result<Vec<Value>> {
        self.router.restart()?;
        let mut states = vec![self.state().await?];
        for step in STEPS {
            self.perform(step).with_context(|| format!("{step:?}"))?;
            states.push(self.state().await?);
        }
        self.ends_well().await?;
        if states.windows(2).zip(STEPS).any(|(pair, step)| step != Step::Reload && pair[0] == pair[1]) {
            bail!("a step that changes nothing proves nothing: {states:#?}");
        }
        Ok(states)
    }
}
