//! Routers watch each other's audit logs: each asks all others, again and again, what they have where their logs ended
//! the last time.

use super::others::ask_routers;
use super::propose::Writer;
use super::{Account, Blame, Command, View, World, WorldError, unix_ms};
use crate::audit::{FORK, Figures, Head, Seen, Testimony, Verified, Witness, lines, verify};
use arc_swap::ArcSwap;
use myelin_catalog::exchange::{Answer, Ask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use utoipa::ToSchema;

/// How often the others are asked: what somebody does to a log between two questions is noticed at the second.
const ASKED_EVERY: Duration = Duration::from_secs(60);

/// What is known of the audit logs of the mesh.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct MeshAudit {
    /// This router's own log, verified from the first entry that is kept to its end.
    pub own: Verified,
    /// How it does.
    pub figures: Figures,
    /// The logs of the others, held against what this router has seen of them.
    pub others: Vec<Seen>,
    /// The routers that did not answer now, as `SITE/ROUTER`, and why.
    pub missing: BTreeMap<String, String>,
}

/// Asks all others.
struct Round {
    writer: Writer,
    account: Account,
    witness: Arc<Mutex<Witness>>,
    commands: mpsc::WeakSender<Command>,
}

impl Round {
    /// Asks once; who did not answer, and why.
    async fn go(&self, view: &View) -> BTreeMap<String, String> {
        let own = format!("{}/{}", self.account.site, self.account.router);
        let title = |router: &myelin_catalog::fleet::Router| format!("{}/{}", router.site, router.name);
        let routers = view.catalog.fleet().routers().map(title).filter(|title| *title != own);
        let seen = routers.map(|title| (title.clone(), self.lock().last_seq(&title))).collect();
        let read = |answer| match answer {
            Answer::Audit(json) => Ok(json),
            other => Err(other),
        };
        let is_meant = |router: &myelin_catalog::fleet::Router| title(router) != own;
        let answers = ask_routers::<Testimony>(&self.writer, view, &Ask::Audit { seen }, is_meant, read).await;
        let mut missing = BTreeMap::new();
        for (router, answered) in answers {
            let note = match &answered {
                Ok(testimony) => self.lock().hear(&router, testimony, unix_ms()),
                Err(why) => {
                    missing.insert(router, why.clone());
                    continue;
                }
            };
            let Some(note) = note else { continue };
            if note.action == FORK {
                tracing::error!(%router, what = note.detail, "the audit log of a router is not what it was");
                self.alarm();
            }
            self.account.audit.write(note).await;
        }
        missing
    }

    fn alarm(&self) {
        if let Some(commands) = self.commands.upgrade() {
            // The keeper may have much to do; the log has it in any case.
            let _ = commands.try_send(Command::Alarm(FORK.to_owned()));
        }
    }

    /// Raises again what was an alarm before this router was stopped: a restart mends no log.
    fn remind(&self) {
        let forked: Vec<_> = self.lock().seen().filter(|seen| seen.fault.is_some()).cloned().collect();
        for Seen { router, fault, .. } in forked {
            let what = fault.unwrap_or_default();
            tracing::error!(%router, what, "the audit log of a router was not what it had been, before the start");
            self.alarm();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a router that asks.
pub(super) async fn here(account: &Account, seen: BTreeMap<String, u64>) -> Result<Vec<u8>, WorldError> {
    let own = seen.get(&format!("{}/{}", account.site, account.router)).copied().unwrap_or(0);
    let audit = account.audit.clone();
    super::answer::aside(move || super::explain::encode(&audit.testify(own))).await
}

impl World {
    fn round(&self) -> Option<Round> {
        let (account, witness) = (self.account.clone(), self.witness.clone());
        let writer = self.progress.clone()?;
        Some(Round { writer, account, witness, commands: self.commands.downgrade() })
    }

    /// Begins to ask the others.
    pub(super) fn watch_audits(&self) {
        let Some(round) = self.round() else { return };
        round.remind();
        let view = Arc::downgrade(&self.view);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(ASKED_EVERY).await;
                let Some(view) = view.upgrade().map(|view| ArcSwap::load_full(&view)) else { return };
                round.go(&view).await;
            }
        });
    }

    /// Where this router's audit log ends.
    pub fn audit_head(&self) -> Head {
        self.account.audit.head()
    }

    /// Verifies this router's audit log, and asks all others about theirs.
    ///
    /// # Errors
    /// `audit-unreadable` where this router's log cannot be read.
    pub async fn verify_audit(&self) -> Result<MeshAudit, WorldError> {
        let folder = self.account.audit.folder().to_owned();
        let own = super::answer::aside(move || lines(&folder, 0).and_then(verify).map_err(|error| unreadable(&error)));
        let own = own.await?;
        let (mut others, mut missing) = (Vec::new(), BTreeMap::new());
        if let Some(round) = self.round() {
            missing = round.go(&self.view()).await;
            others = round.lock().seen().cloned().collect();
        }
        Ok(MeshAudit { own, figures: self.account.audit.figures(), others, missing })
    }
}

/// The log cannot be read.
pub(crate) fn unreadable(error: &std::io::Error) -> WorldError {
    WorldError::new(Blame::Router, "audit-unreadable", format!("the audit log cannot be read: {error}"))
}
