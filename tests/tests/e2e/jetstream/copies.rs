//! What a catalog on NATS JetStream is made good from when disks are lost: the log from a router's copy, modules from the
//! object store alone. And its keys: each router has one, and one that is revoked signs nothing more.

use super::{Mesh, SITES, good};
use anyhow::{Context, Result, ensure};
use myelin_tests::guests::Behaviour;
use serde_json::{Value, json};

/// What a router remembers of its starts: without it, it would be taken for a copy of itself from before.
const EPOCH_FILE: &str = "epoch";

impl Mesh {
    fn kill_router(&mut self, site: usize) -> Result<()> {
        self.sites.routers[site].kill().map(drop)
    }

    fn restart_router(&mut self, site: usize) -> Result<()> {
        tokio::task::block_in_place(|| self.sites.routers[site].restart())
    }

    /// A router that is killed has lost its copy of the catalog, its modules and its key.
    fn lose_disk(&self, site: usize) -> Result<()> {
        for entry in std::fs::read_dir(self.at(site).data_dir())? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path())?,
                false if entry.file_name() == EPOCH_FILE => {}
                false => std::fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }

    /// The keys that may sign, by name, as a site's copy has them.
    fn trusted(&self, site: usize) -> Result<Vec<String>> {
        let keys = self.get(site, "/v1/mesh/keys")?;
        let keys = keys["keys"].as_array().context("keys")?.iter();
        let trusted = keys.filter(|key| key["revoked_revision"].is_null());
        Ok(trusted.filter_map(|key| key["name"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until so many keys may sign at all sites.
    async fn trusts(&self, count: usize) -> Result<()> {
        let look = |mesh: &Self, site: usize| Ok(json!(mesh.trusted(site)?.len()));
        self.everywhere("trusted keys", look, |found| *found == json!(count)).await
    }

    /// The name of the key of `sN/r1`.
    fn key_of(&self, site: usize) -> Result<String> {
        let start = format!("s{site}-r1-");
        self.trusted(0)?.into_iter().find(|name| name.starts_with(&start)).context("the router's key")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_lost_with_all_servers_is_filled_up_from_a_routers_copy() -> Result<()> {
    let mut mesh = Mesh::start().await?;
    good(mesh.push(0, "1.0.0", Behaviour::TrapOnPoison)?)?;
    good(mesh.bind(0, "1.0.0")?)?;
    mesh.activate(0)?;
    mesh.trusts(SITES).await?;
    mesh.agree().await?;
    let before = mesh.get(0, "/v1/status")?["revision"].as_u64().context("a revision")?;
    (0..SITES).for_each(|server| mesh.kill(server));
    (0..SITES).for_each(|server| mesh.cluster.lose_disk(server));
    (0..SITES).for_each(|server| mesh.revive(server));

    // The next change follows the records from before, which the new stream has from a copy.
    let again = |mesh: &Mesh| Ok(json!(mesh.push(1, "2.0.0", Behaviour::Allow)?.status));
    mesh.wait("the change", again, |status| status.as_u64().is_some_and(|status| status < 300)).await?;
    mesh.agree().await?;
    let after = mesh.get(0, "/v1/status")?["revision"].as_u64().context("a revision")?;
    ensure!(after > before, "revision {after} after {before}");
    // A router that has nothing any more gets all of it: the records from the new stream, or from neighbours.
    mesh.kill_router(2)?;
    mesh.lose_disk(2)?;
    mesh.restart_router(2)?;
    mesh.agree().await?;
    for site in 0..SITES {
        ensure!(mesh.judges(site, &format!("asker-{site}")).await?, "site {site} lets the poison pass");
        let modules = mesh.get(site, "/v1/modules")?;
        ensure!(modules["modules"].as_array().map(Vec::len) == Some(2), "site {site}: {modules:#}");
    }
    // Whoever looks at the new stream with the old one in mind says that it has lost its end: which is so.
    mesh.no_alarm_but(&["store-unavailable", "store-damaged"])?;
    mesh.sites.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_no_router_has_any_more_comes_from_the_object_store() -> Result<()> {
    let mut mesh = Mesh::start().await?;
    mesh.trusts(SITES).await?;
    mesh.kill_router(1)?;
    mesh.kill_router(2)?;
    // One router has the bytes, and it loses them: the others were away all the time.
    good(mesh.push(0, "1.0.0", Behaviour::TrapOnPoison)?)?;
    good(mesh.bind(0, "1.0.0")?)?;
    mesh.kill_router(0)?;
    mesh.lose_disk(0)?;
    for site in [1, 2, 0] {
        mesh.restart_router(site)?;
    }
    let look = |mesh: &Mesh, site: usize| mesh.get(site, "/v1/modules");
    let has_one = |modules: &Value| modules["modules"].as_array().is_some_and(|modules| modules.len() == 1);
    mesh.everywhere("the module's record", look, has_one).await?;
    let activated = |mesh: &Mesh| Ok(json!(mesh.activate(1)?["generation"]));
    mesh.wait("a rollout at once", activated, |generation| generation.is_u64()).await?;
    mesh.agree().await?;
    for site in 0..SITES {
        ensure!(mesh.judges(site, &format!("asker-{site}")).await?, "site {site} lets the poison pass");
    }
    mesh.no_fork()?;
    mesh.sites.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_signs_nothing_more_and_its_router_gets_another() -> Result<()> {
    let mut mesh = Mesh::start().await?;
    mesh.trusts(SITES).await?;
    let (own, other) = (mesh.key_of(1)?, mesh.key_of(2)?);
    let revoke = |mesh: &Mesh, key: &str| mesh.at(1).ask("DELETE", &format!("/v1/mesh/keys/{key}"), &[], b"");
    let refused = revoke(&mesh, &own)?;
    ensure!(refused.problem() == (409, "conflict".into()), "the key it signs with: {:#}", refused.json());
    ensure!(revoke(&mesh, "nobody")?.status == 404);
    let done = tokio::task::block_in_place(|| mesh.at(1).myelin(&["mesh", "keys", "revoke", &other]))?.good()?;
    ensure!(done.out.contains("is revoked"), "{}", done.out);
    mesh.trusts(SITES - 1).await?;
    let listed = tokio::task::block_in_place(|| mesh.at(0).myelin(&["mesh", "keys", "ls"]))?.good()?.out;
    ensure!(listed.contains("root") && listed.contains("revoked at"), "{listed}");
    ensure!(revoke(&mesh, &other)?.status == 404, "once is enough");

    // Without its key file the router draws another, which the others vouch for; then it changes the catalog as before.
    mesh.kill_router(2)?;
    std::fs::remove_file(mesh.at(2).data_dir().join("catalog.key"))?;
    mesh.restart_router(2)?;
    mesh.trusts(SITES).await?;
    ensure!(mesh.key_of(2)? != other, "the name of a key is used once");
    good(mesh.push(2, "1.0.0", Behaviour::Allow)?)?;
    mesh.agree().await?;
    mesh.no_fork()?;
    mesh.sites.end()
}
