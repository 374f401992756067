//! Reads the ledger of the whole mesh, for whoever asks and for the end of a rollout.

use super::propose::Writer;
use super::{Account, Command, MeshLedger, RouterLedger, View};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two readings at the end of a rollout: each asks every router twice.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks every router of the mesh for its ledger.
#[derive(Clone, Debug)]
pub(super) struct LedgerReader {
    pub(super) account: Account,
    pub(super) view: Arc<ArcSwap<View>>,
    /// How other routers are asked; none outside a mesh.
    pub(super) writer: Option<Writer>,
}

/// The readings of a controller: one at a time.
pub(super) struct Readings {
    reader: LedgerReader,
    commands: mpsc::WeakSender<Command>,
    is_under_way: bool,
    last: Option<Instant>,
}

impl LedgerReader {
    /// The ledger of the mesh, as far as its routers answer.
    pub(super) async fn read(&self) -> MeshLedger {
        let (before, _) = self.parts().await;
        let (routers, missing) = self.parts().await;
        MeshLedger::new(&before, routers, missing)
    }

    /// What is off in it; none where it balances, and no router judges by a set that is not active at its site any more.
    pub(super) async fn off(&self) -> Option<String> {
        let (ledger, view) = (self.read().await, self.view.load_full());
        ledger.off(|site| site.parse().ok().map(|site| view.catalog.active_for(&site).number))
    }

    /// The ledgers of all routers, and which do not answer.
    async fn parts(&self) -> (Vec<RouterLedger>, BTreeMap<String, String>) {
        let view = self.view.load_full();
        let mut parts = vec![self.account.read().await];
        let mut missing = BTreeMap::new();
        let own = |router: &myelin_catalog::Router| {
            *router.site.as_str() == *self.account.site && *router.name.as_str() == *self.account.router
        };
        let mut asking = tokio::task::JoinSet::new();
        for router in view.catalog.fleet().routers().filter(|router| !own(router)) {
            let title = format!("{}/{}", router.site, router.name);
            match self.writer.clone() {
                Some(writer) => {
                    let to = Writer { number: router.number, title, ..writer };
                    asking.spawn(async move { (to.title.clone(), to.ledger().await) });
                }
                None => drop(missing.insert(title, "this router has no links".to_owned())),
            }
        }
        while let Some(answered) = asking.join_next().await {
            match answered {
                Ok((_, Ok(part))) => parts.push(part),
                Ok((title, Err(error))) => drop(missing.insert(title, error.message)),
                // A task that broke off has told so.
                Err(_) => {}
            }
        }
        (parts, missing)
    }
}

impl Readings {
    pub(super) fn new(reader: LedgerReader, commands: mpsc::WeakSender<Command>) -> Self {
        Self { reader, commands, is_under_way: false, last: None }
    }

    /// Reads the ledger aside, for the step that the record `step_rev` began; what is off comes as a command.
    pub(super) fn begin(&mut self, step_rev: u64, runtime: &tokio::runtime::Handle) {
        if self.is_under_way || self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        self.is_under_way = true;
        let (reader, commands) = (self.reader.clone(), self.commands.clone());
        runtime.spawn(async move {
            let off = reader.off().await;
            if let Some(commands) = commands.upgrade() {
                // The keeper may have ended.
                let _ = commands.send(Command::LedgerRead { step_rev, off }).await;
            }
        });
    }

    /// One has come.
    pub(super) fn done(&mut self) {
        (self.is_under_way, self.last) = (false, Some(Instant::now()));
    }
}
