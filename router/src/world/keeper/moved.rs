//! What follows from a log that has moved on: rules, policies and keys that hold, where events may be, who belongs to the mesh.

use super::Keeper;
use crate::peering::Tell;
use crate::residency::Residency;
use crate::world::view::active_at;
use crate::world::{members, unix_ms};
use myelin_catalog::{SignatureState, Site};
use myelin_mesh::Directory;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Keeper {
    /// Tells the mesh where the log ends now, and who belongs to it.
    pub(in crate::world) fn log_moved(&mut self) {
        self.mark_admission();
        self.follow_policies();
        self.follow_trust();
        self.renew_screens();
        let catalog = self.log.catalog();
        let governance = catalog.governance_at(self.site.as_ref());
        let is_placed = governance.topic_rules().eq(&self.placed);
        let residency = &self.account.shared.residency;
        let Some(mesh) = &mut self.mesh else {
            if !is_placed {
                self.placed = governance.topic_rules().cloned().collect();
                let alone = &self.account.shared.alone;
                residency.store(Arc::new(Residency::after(&residency.load(), self.placed.iter(), alone)));
            }
            return;
        };
        // The links' thread takes them at once, and ends before this one.
        let _ = mesh.tell.blocking_send(Tell::Head(catalog.head()));
        let (fleet, is_new) = (catalog.fleet(), *catalog.fleet() != mesh.fleet);
        if is_new && let Some(site) = self.site.as_ref().and_then(|site| fleet.site(site)) {
            warn_of_place(&self.account.shared.alone, site);
        }
        if !is_new && is_placed {
            return;
        }
        mesh.fleet = fleet.clone();
        match members::directory(fleet, &mesh.members, (self.site.as_ref(), &mesh.router), mesh.number) {
            Ok(directory) => {
                self.placed = governance.topic_rules().cloned().collect();
                residency.store(Arc::new(Residency::after(&residency.load(), self.placed.iter(), &directory)));
                if is_new {
                    let _ = mesh.tell.blocking_send(Tell::Directory(Arc::new(directory)));
                }
            }
            Err(why) => {
                tracing::warn!(why, "the links keep the sites and routers that they know");
                *self.alarms.entry("directory".to_owned()).or_default() += 1;
            }
        }
    }

    /// Says so where a key was removed whose modules judge events: they go on, and nothing new of theirs begins.
    fn follow_trust(&mut self) {
        let catalog = self.log.catalog();
        let rev = catalog.trust().head().rev;
        if rev == self.trust_rev {
            return;
        }
        self.trust_rev = rev;
        let running = active_at(catalog, self.site.as_ref()).bindings.iter();
        let running: BTreeSet<_> = running.map(|staged| &staged.binding.module).collect();
        for module in running.into_iter().filter_map(|module| catalog.module(module)) {
            if catalog.signature_state(module, unix_ms()) == SignatureState::KeyRemoved {
                let module = module.module_ref();
                tracing::warn!(%module, rev, "the key that signed a running module is removed: it runs on, and cannot be rolled out again");
                *self.alarms.entry("module-key-removed".to_owned()).or_default() += 1;
            }
        }
    }
}

/// Says that `[node] region` or `cloud` is another than the catalog's: rules of residency go by the catalog.
fn warn_of_place(configured: &Directory, site: &Site) {
    let Some(own) = configured.sites().next() else { return };
    let pairs =
        [("region", &*own.region, members::place(&site.region)), ("cloud", &*own.cloud, members::place(&site.cloud))];
    for (label, configured, said) in pairs {
        if !configured.is_empty() && configured != said {
            tracing::warn!(
                site = %site.name,
                configured,
                catalog = if said.is_empty() { "unset" } else { said },
                "[node] {label} is not what the catalog says of this site, which rules of residency go by; \
                 `myelin site set` changes it there"
            );
        }
    }
}
