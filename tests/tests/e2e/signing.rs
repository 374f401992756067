//! Which modules run: what keys have signed that the mesh trusts, and who decides about those keys.

use anyhow::{Context, Result, ensure};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::{Ran, Router, Setup};
use std::path::Path;
use std::process::Command;

/// A router that demands signatures and approvals, as one does without `--dev`, and the files of whoever uses it.
struct World {
    router: Router,
    files: tempfile::TempDir,
}

impl World {
    fn start() -> Result<Self> {
        let demanded = |key: &str| (format!("MYELIN_MODULES__{key}"), "required".to_owned());
        let variables = vec![demanded("SIGNATURES"), demanded("APPROVALS")];
        let router = Router::start_with(Setup { workers: 1, variables })?;
        Ok(Self { router, files: tempfile::tempdir()? })
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// Runs `myelin`; words that begin with `@` are files of this world.
    fn run(&self, line: &str) -> Result<Ran> {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| word.strip_prefix('@').map_or_else(|| word.to_owned(), |name| self.path(name)))
            .collect();
        self.router.myelin(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Takes out of the file of a change who has to sign it.
    fn forget_roots(&self, name: &str) -> Result<()> {
        let mut change: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(self.path(name))?)?;
        change.as_object_mut().and_then(|fields| fields.remove("roots")).context("the roots")?;
        Ok(std::fs::write(self.path(name), change.to_string())?)
    }

    fn good(&self, line: &str) -> Result<String> {
        Ok(self.run(line)?.good().with_context(|| line.to_owned())?.out)
    }

    /// What is said when it is refused with this code.
    fn refused(&self, code: &str, line: &str) -> Result<String> {
        let ran = self.run(line)?;
        ensure!(ran.code != Some(0) && ran.err.contains(&format!("({code})")), "{line}: {ran:?}");
        Ok(ran.err)
    }

    /// Writes a filter that behaves so.
    fn write(&self, name: &str, behaviour: Behaviour) -> Result<()> {
        Ok(std::fs::write(self.path(name), component(behaviour)?)?)
    }

    /// Makes a key, and returns its id.
    fn keygen(&self, name: &str) -> Result<String> {
        let made = self.good(&format!("filter keygen @{name} --no-password"))?;
        made.split_whitespace().nth(1).map(str::to_owned).context(made)
    }

    /// A key that the mesh trusts for these modules.
    fn trusted(&self, name: &str, modules: &str) -> Result<String> {
        let id = self.keygen(name)?;
        self.good(&format!("trust change --add-key @{name}.pub --modules {modules} --apply"))?;
        Ok(id)
    }

    /// Signs and pushes a filter.
    fn push(&self, file: &str, module: &str, key: &str) -> Result<String> {
        self.good(&format!("filter sign @{file} --as {module} --key @{key}.key"))?;
        self.good(&format!("filter push @{file} --as {module}"))
    }

    fn generation(&self) -> Result<u64> {
        let status = self.run("rollout history -o json")?.json()?;
        status["active_generation"].as_u64().context("an active generation")
    }

    fn active(&self) -> Result<Vec<String>> {
        let list = self.run("filter ls -o json")?.json()?;
        let bindings = list["bindings"].as_array().context("bindings")?;
        let active = bindings.iter().filter(|binding| binding["state"] == "active");
        Ok(active.map(|binding| format!("{}={}", binding["name"], binding["module"]).replace('"', "")).collect())
    }
}

#[test]
fn what_no_trusted_key_has_signed_for_just_that_is_refused() -> Result<()> {
    let world = World::start()?;
    world.write("a.wasm", Behaviour::Allow)?;
    world.write("b.wasm", Behaviour::DropMarked)?;
    let unsigned = world.refused("signature-missing", "filter push @a.wasm --as orders@1.0.0")?;
    ensure!(unsigned.contains("myelin filter sign"), "{unsigned}");
    world.keygen("stranger")?;
    world.good("filter sign @a.wasm --as orders@1.0.0 --key @stranger.key")?;
    world.refused("signature-untrusted", "filter push @a.wasm --as orders@1.0.0")?;

    let id = world.trusted("release", "orders*")?;
    let pushed = world.push("a.wasm", "orders@1.0.0", "release")?;
    ensure!(pushed.contains(&format!("signed by {id}")), "{pushed}");
    // The same again is nothing new; the same signature for anything else is refused.
    world.good("filter push @a.wasm --as orders@1.0.0")?;
    world.refused("signature-mismatch", "filter push @a.wasm --as orders@1.1.0")?;
    world.refused("signature-mismatch", "filter push @a.wasm --as orders-other@1.0.0")?;
    world.refused("signature-invalid", "filter push @b.wasm --as orders@1.2.0 --signature @a.wasm.minisig")?;
    world.good("filter sign @b.wasm --as billing@1.0.0 --key @release.key")?;
    let beyond = world.refused("signature-untrusted", "filter push @b.wasm --as billing@1.0.0")?;
    ensure!(beyond.contains("may sign orders* only"), "{beyond}");
    world.good("filter sign @b.wasm --as orders@2.0.0 --key @release.key --expires 0s")?;
    world.refused("signature-expired", "filter push @b.wasm --as orders@2.0.0")?;
    std::fs::write(world.path("b.wasm.minisig"), "no signature")?;
    world.refused("signature-invalid", "filter push @b.wasm --as orders@2.0.0")?;
    ensure!(world.good("filter ls")?.matches("orders@").count() == 1, "nothing of that is kept");
    Ok(())
}

#[test]
fn a_removed_key_stops_new_rollouts_and_what_runs_goes_on() -> Result<()> {
    let mut world = World::start()?;
    world.write("a.wasm", Behaviour::Allow)?;
    let id = world.trusted("release", "*")?;
    world.push("a.wasm", "orders@1.0.0", "release")?;
    world.good("bind check --module orders@1.0.0 --pattern orders/**")?;
    world.good(&format!("trust change --remove-key {id} --apply"))?;
    ensure!(world.active()? == ["check=orders@1.0.0"]);
    let described = world.good("filter describe orders@1.0.0")?;
    ensure!(described.contains(&format!("by {id}, which was removed since")), "{described}");
    let refused = world.refused("signature-untrusted", "bind more --module orders@1.0.0 --pattern other/**")?;
    ensure!(refused.contains("removed by the newer trust record"), "{refused}");
    ensure!(world.router.log().contains("the key that signed a running module is removed"), "{}", world.router.log());
    world.router.kill()?;
    world.router.restart()?;
    ensure!(world.active()? == ["check=orders@1.0.0"], "a restart runs what ran");
    // The same version under a key of today.
    world.trusted("next", "*")?;
    world.push("a.wasm", "orders@1.0.0", "next")?;
    world.good("bind more --module orders@1.0.0 --pattern other/**")?;
    ensure!(world.active()? == ["check=orders@1.0.0", "more=orders@1.0.0"]);
    Ok(())
}

fn minisign(arguments: &[&str]) -> Result<()> {
    let made = Command::new("minisign").args(arguments).output();
    let made = made.context("`cargo xtask setup` installs minisign")?;
    ensure!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

#[test]
fn signatures_are_those_of_the_tool_minisign_both_ways() -> Result<()> {
    let world = World::start()?;
    let [module, ours, theirs] = ["a.wasm", "ours.pub", "theirs.pub"].map(|name| world.path(name));
    world.write("a.wasm", Behaviour::Allow)?;
    world.trusted("ours", "*")?;
    world.push("a.wasm", "orders@1.0.0", "ours")?;
    minisign(&["-V", "-p", &ours, "-m", &module])?;
    ensure!(minisign(&["-V", "-p", &ours, "-x", &format!("{module}.minisig"), "-m", &ours]).is_err());
    // A key with a password, made by us and read by us; the tool asks for it on a terminal only.
    std::fs::write(world.path("pw"), "correct horse\n")?;
    world.good("filter keygen @locked --password-file @pw")?;
    world.good("filter sign @a.wasm --as orders@1.0.0 --key @locked.key --password-file @pw")?;
    std::fs::write(world.path("wrong"), "battery\n")?;
    let wrong = world.run("filter sign @a.wasm --as orders@1.0.0 --key @locked.key --password-file @wrong")?;
    ensure!(wrong.code == Some(2) && wrong.err.contains("Wrong password"), "{wrong:?}");

    let key = world.path("theirs.key");
    minisign(&["-G", "-W", "-p", &theirs, "-s", &key])?;
    world.good("filter sign @a.wasm --as orders@9.0.0 --key @theirs.key")?;
    minisign(&["-V", "-p", &theirs, "-m", &module])?;
    world.good("trust change --add-key @theirs.pub --modules * --apply")?;
    let listed = world.run("filter ls -o json")?.json()?;
    let digest = listed["modules"][0]["digest"].as_str().context("a digest")?.to_owned();
    let statement = format!("myelin name=orders version=2.0.0 sha256={digest}");
    minisign(&["-S", "-s", &key, "-m", &module, "-t", &statement])?;
    world.good("filter push @a.wasm --as orders@2.0.0")?;
    minisign(&["-S", "-l", "-s", &key, "-m", &module, "-t", &statement.replace("2.0.0", "3.0.0")])?;
    let legacy = world.refused("signature-invalid", "filter push @a.wasm --as orders@3.0.0")?;
    ensure!(legacy.contains("not prehashed"), "{legacy}");
    minisign(&["-S", "-s", &key, "-m", &module])?;
    world.refused("signature-mismatch", "filter push @a.wasm --as orders@4.0.0")?;
    Ok(())
}

#[test]
fn k_of_n_root_keys_decide_whom_the_mesh_trusts() -> Result<()> {
    let world = World::start()?;
    for name in ["ann", "bob", "eve", "release"] {
        world.keygen(name)?;
    }
    world.good("trust change --root-key @ann.pub --root-key @bob.pub --root-key @eve.pub --threshold 2 --apply")?;
    world.refused("trust-signatures", "trust change --add-key @release.pub --modules * --apply")?;
    world.good("trust change --add-key @release.pub --modules * --out @change.json")?;
    let first = std::fs::read_to_string(world.path("change.json"))?;
    world.refused("trust-signatures", "trust apply @change.json")?;
    world.good("trust sign @change.json --key @ann.key")?;
    // The same signer twice is one.
    world.good("trust sign @change.json --key @ann.key")?;
    let one = world.refused("trust-signatures", "trust apply @change.json")?;
    ensure!(one.contains("needs 2 signatures by different root keys and has 1"), "{one}");
    let no_root = world.run("trust sign @change.json --key @release.key")?;
    ensure!(no_root.code == Some(2) && no_root.err.contains("is no root key"), "{no_root:?}");
    let over = world.run("trust change --add-key @release.pub --modules * --out @change.json")?;
    ensure!(over.code == Some(5) && over.err.contains("--force"), "{over:?}");
    // The router does not rely on that.
    world.forget_roots("change.json")?;
    world.good("trust sign @change.json --key @release.key")?;
    ensure!(world.refused("trust-signatures", "trust apply @change.json")?.contains("is no root key"));
    // By minisign, where there is no Myelin.
    std::fs::write(world.path("change.json"), first)?;
    world.good("trust sign @change.json --key @ann.key")?;
    std::fs::write(world.path("statement"), world.good("trust show @change.json --statement")?)?;
    minisign(&["-S", "-s", &world.path("bob.key"), "-m", &world.path("statement")])?;
    world.good("trust sign @change.json --signature @statement.minisig")?;
    world.good("trust apply @change.json")?;
    world.refused("trust-stale", "trust apply @change.json")?;
    ensure!(world.good("trust ls")?.contains("changes need 2 of the root keys"));
    world.write("a.wasm", Behaviour::Allow)?;
    world.push("a.wasm", "orders@1.0.0", "release")?;
    // A root key that was set aside counts no longer.
    world.good("trust change --root-key @bob.pub --root-key @eve.pub --threshold 2 --out @roots.json")?;
    ["ann", "bob"]
        .iter()
        .try_for_each(|name| world.good(&format!("trust sign @roots.json --key @{name}.key")).map(drop))?;
    world.good("trust apply @roots.json")?;
    world.good("trust change --add-key @ann.pub --modules * --out @late.json")?;
    world.forget_roots("late.json")?;
    ["ann", "bob"]
        .iter()
        .try_for_each(|name| world.good(&format!("trust sign @late.json --key @{name}.key")).map(drop))?;
    world.refused("trust-signatures", "trust apply @late.json")?;
    Ok(())
}

#[test]
fn a_new_capability_is_approved_and_a_downgrade_is_signed_for() -> Result<()> {
    let mut world = World::start()?;
    world.trusted("release", "*")?;
    world.write("plain.wasm", Behaviour::Allow)?;
    world.write("seeing.wasm", Behaviour::DropSeen)?;
    world.push("plain.wasm", "orders@1.0.0", "release")?;
    world.push("seeing.wasm", "orders@2.0.0", "release")?;
    let can = |module: &str| -> Result<String> {
        Ok(world.run(&format!("filter describe {module} -o json"))?.json()?["capabilities"].to_string())
    };
    ensure!(
        !can("orders@1.0.0")?.contains("seen") && can("orders@2.0.0")?.contains("seen"),
        "{}",
        can("orders@1.0.0")?
    );
    world.good("bind check --module orders@1.0.0 --pattern orders/**")?;
    let upgrade = "bind check --module orders@2.0.0 --pattern orders/**";
    let refused = world.refused("capability-approval", upgrade)?;
    ensure!(refused.contains("--approve-capabilities seen"), "{refused}");
    // Under another name it is the same module.
    world.refused("capability-approval", "bind other --module orders@2.0.0 --pattern orders/**")?;
    ensure!(world.active()? == ["check=orders@1.0.0"]);
    world.good(&format!("{upgrade} --approve-capabilities seen"))?;

    let downgrade = "bind check --module orders@1.0.0 --pattern orders/**";
    world.refused("downgrade", downgrade)?;
    let generation = world.generation()?;
    let sign = |generation: u64, key: &str| {
        let what = "filter allow-downgrade orders@1.0.0 --binding check";
        world.good(&format!("{what} --generation {generation} --key @{key}.key --out @down.minisig"))
    };
    world.keygen("stranger")?;
    sign(generation, "stranger")?;
    let allowed = format!("{downgrade} --allow-downgrade @down.minisig");
    world.refused("signature-untrusted", &allowed)?;
    sign(generation - 1, "release")?;
    world.refused("downgrade", &allowed)?;
    sign(generation, "release")?;
    world.good(&allowed)?;
    ensure!(world.active()? == ["check=orders@1.0.0"]);
    // Up again, and the statement of then is worth nothing; an explicit rollback needs none.
    world.good(&format!("{upgrade} --approve-capabilities seen"))?;
    world.refused("downgrade", &allowed)?;
    world.good("rollout rollback")?;
    ensure!(world.active()? == ["check=orders@1.0.0"]);
    ensure!(Path::new(&world.path("down.minisig")).exists());
    let renamed = "bind other --module orders@1.0.0 --pattern orders/**";
    world.refused("downgrade", renamed)?;
    world.good("unbind check")?;
    world.refused("downgrade", renamed)?;
    // After that, too, a rollback asks nobody, and a start does not.
    world.good("rollout rollback")?;
    world.router.kill()?;
    world.router.restart()?;
    ensure!(world.active()? == ["check=orders@1.0.0"]);
    Ok(())
}
