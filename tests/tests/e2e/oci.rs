//! Filters in a registry of artifacts: Debian's, over TLS, with a password.

use anyhow::{Context, Result, ensure};
use myelin_catalog::Digest;
use myelin_tests::artifacts::{ArtifactRegistry, PASSWORD, USERNAME};
use myelin_tests::guests::{Behaviour, component};
use myelin_tests::{Ran, Router, Setup, admin, program};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What the layout calls its parts.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const COMPONENT: &str = "application/wasm";

/// Somebody's files, and a registry.
struct World {
    files: tempfile::TempDir,
    registry: ArtifactRegistry,
}

impl World {
    fn start() -> Result<Self> {
        let files = tempfile::tempdir()?;
        let registry = ArtifactRegistry::start(&files.path().join("storage"))?;
        Ok(Self { files, registry })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, behaviour: Behaviour) -> Result<Vec<u8>> {
        let bytes = component(behaviour)?;
        std::fs::write(self.path(name), &bytes)?;
        Ok(bytes)
    }

    /// A command: in its words `@NAME` is a file of this world, `%NAME` an artifact of the registry.
    fn command(&self, line: &str) -> Command {
        let words = line.split_whitespace().map(|word| match (word.strip_prefix('@'), word.strip_prefix('%')) {
            (Some(name), _) => self.path(name).display().to_string(),
            (_, Some(name)) => format!("oci://{}/team/{name}", self.registry.addr()),
            _ => word.to_owned(),
        });
        let mut command = Command::new(program());
        command.args(words).env("MYELIN_REGISTRY_CA", self.registry.ca()).env("HOME", self.files.path());
        command.current_dir(self.files.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Result<Ran> {
        let mut command = self.command(line);
        command.env("MYELIN_REGISTRY_USERNAME", USERNAME).env("MYELIN_REGISTRY_PASSWORD", PASSWORD);
        ran(&mut command)
    }

    fn good(&self, line: &str) -> Result<String> {
        Ok(self.run(line)?.good().with_context(|| line.to_owned())?.out)
    }

    /// The artifact that a push names, by its digest.
    fn pushed(&self, line: &str) -> Result<String> {
        let out = self.good(line)?;
        let artifact = out.lines().map(str::trim).find(|line| line.starts_with("oci://") && line.contains("@sha256:"));
        artifact.map(str::to_owned).with_context(|| out.clone())
    }

    /// The same at a router.
    fn at(&self, router: &Router, line: &str) -> Result<Ran> {
        let mut command = self.command(line);
        command.env("MYELIN_REGISTRY_USERNAME", USERNAME).env("MYELIN_REGISTRY_PASSWORD", PASSWORD);
        command.env("MYELIN_ADMIN", format!("http://{}", router.admin_addr()));
        ran(command.env("MYELIN_NODE__DATA_DIR", router.data_dir()))
    }
}

fn ran(command: &mut Command) -> Result<Ran> {
    let output = command.output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

fn refused(ran: &Ran, code: &str, exit: i32) -> Result<()> {
    ensure!(ran.code == Some(exit) && ran.err.contains(&format!("({code})")), "not {code}: {ran:?}");
    ensure!(!ran.err.contains(PASSWORD), "a password is shown: {ran:?}");
    Ok(())
}

/// A router that demands signatures, as one does without `--dev`.
fn demanding() -> Result<Router> {
    let variables = vec![("MYELIN_MODULES__SIGNATURES".to_owned(), "required".to_owned())];
    Router::start_with(Setup { workers: 1, variables })
}

#[test]
fn a_filter_goes_through_a_registry_with_its_signature_and_a_tag_that_moves_changes_nothing() -> Result<()> {
    let (world, router) = (World::start()?, demanding()?);
    let (first, second) = (world.write("a.wasm", Behaviour::Allow)?, world.write("b.wasm", Behaviour::DropMarked)?);
    let at =
        |line: &str| -> Result<String> { Ok(world.at(&router, line)?.good().with_context(|| line.to_owned())?.out) };
    at("filter keygen @release --no-password")?;
    at("trust change --add-key @release.pub --modules orders* --apply")?;

    // What nobody has signed goes to a registry, and no further.
    let unsigned = world.pushed("filter push @a.wasm --as orders@1.0.0 --to %orders:unsigned")?;
    refused(&world.at(&router, &format!("filter push {unsigned} --as orders@1.0.0"))?, "signature-missing", 4)?;

    at("filter sign @a.wasm --as orders@1.0.0 --key @release.key")?;
    let wrong = world.run("filter push @a.wasm --as orders@9.0.0 --to %orders:1.0.0")?;
    ensure!(wrong.code == Some(2) && wrong.err.contains("it is for orders@1.0.0"), "{wrong:?}");
    let pinned = world.pushed("filter push @a.wasm --as orders@1.0.0 --to %orders:stable")?;
    ensure!(
        world.pushed("filter push @a.wasm --as orders@1.0.0 --to %orders:stable")? == pinned,
        "the same is the same"
    );
    let staged = at("filter push %orders:stable --as orders@1.0.0")?;
    ensure!(staged.contains(&pinned) && staged.contains("signed by "), "{staged}");
    at("bind check --module orders@1.0.0 --pattern orders/** --no-rollout")?;

    // The tag names something else between that and the rollout.
    at("filter sign @b.wasm --as orders@1.1.0 --key @release.key")?;
    let moved = world.pushed("filter push @b.wasm --as orders@1.1.0 --to %orders:stable")?;
    ensure!(moved != pinned, "{moved}");
    at("rollout start")?;
    let active: Value = serde_json::from_str(&at("filter describe orders@1.0.0 -o json")?)?;
    let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
    ensure!((&active["state"], &active["digest"]) == (&json!("active"), &json!(digest(&first))), "{active}");
    // Under the old name it is refused, and by its digest the first one is still what it was.
    refused(&world.at(&router, "filter push %orders:stable --as orders@1.0.0")?, "conflict", 5)?;
    at(&format!("filter push {pinned} --as orders@1.0.0"))?;
    at("filter push %orders:stable --as orders@1.1.0")?;
    let next: Value = serde_json::from_str(&at("filter describe orders@1.1.0 -o json")?)?;
    ensure!(next["digest"] == json!(digest(&second)), "{next}");

    // Who brought what from where.
    let told = at("audit ls -o json")?;
    let hex = pinned.rsplit(':').next().context("a digest")?;
    ensure!(told.contains(&format!("artifact sha256:{hex} of oci://")), "{told}");
    Ok(())
}

#[test]
fn whom_a_registry_does_not_know_gets_nothing_and_who_it_is_comes_from_where_it_is_kept() -> Result<()> {
    let world = World::start()?;
    let bytes = world.write("a.wasm", Behaviour::Allow)?;
    let line = "filter push @a.wasm --as orders@1.0.0 --to %orders:1";
    refused(&ran(&mut world.command(line))?, "oci-unauthorized", 4)?;
    let mut wrong = world.command(line);
    wrong.env("MYELIN_REGISTRY_USERNAME", USERNAME).env("MYELIN_REGISTRY_PASSWORD", "guess");
    refused(&ran(&mut wrong)?, "oci-unauthorized", 4)?;
    let mut none = world.command(line);
    let none = ran(none.args(["--username", USERNAME]))?;
    ensure!(none.code == Some(2) && none.err.contains("--password-stdin"), "{none:?}");
    // Whose certificate nobody trusts is not even asked.
    let mut stranger = world.command(line);
    refused(
        &ran(stranger.env("MYELIN_REGISTRY_CA", ArtifactRegistry::start(&world.path("other"))?.ca()))?,
        "oci-unreachable",
        1,
    )?;
    let elsewhere = world.run("filter pull oci://192.0.2.1/team/orders:1 --plain-http")?;
    ensure!(elsewhere.code == Some(2), "both an authority and no TLS: {elsewhere:?}");

    let mut piped = world.command(line);
    piped.args(["--username", USERNAME, "--password-stdin"]).stdin(Stdio::from(std::fs::File::open({
        std::fs::write(world.path("password"), format!("{PASSWORD}\n"))?;
        world.path("password")
    })?));
    ran(&mut piped)?.good()?;

    // As `docker login` keeps it.
    std::fs::create_dir(world.path(".docker"))?;
    let auths = json!({"auths": {world.registry.addr().to_string(): {"auth": "YWxpY2U6c2VzYW1l"}}});
    std::fs::write(world.path(".docker/config.json"), auths.to_string())?;
    let pull = |rest: &str| ran(&mut world.command(&format!("filter pull %orders:1 {rest}")));
    pull("-o @pulled.wasm")?.good()?;
    ensure!(std::fs::read(world.path("pulled.wasm"))? == bytes, "other bytes");
    ensure!(!world.path("pulled.wasm.minisig").exists(), "nobody has signed it");
    let again = pull("-o @pulled.wasm")?;
    ensure!(again.code == Some(5) && again.err.contains("--force"), "{again:?}");
    pull("-o @pulled.wasm --force")?.good()?;
    let unnamed = pull("")?;
    ensure!(unnamed.code == Some(2) && unnamed.err.contains("-o"), "it does not say its name: {unnamed:?}");
    refused(&world.run("filter pull %nothing:1 -o @x.wasm")?, "oci-not-found", 3)?;
    refused(&world.run("filter pull oci://nowhere -o @x.wasm")?, "oci-reference", 2)?;
    ensure!(!world.path("x.wasm").exists(), "a file of nothing");
    Ok(())
}

/// A registry on the same files that lets everybody write what they want.
struct Bent {
    world: World,
    open: ArtifactRegistry,
}

impl Bent {
    fn put(&self, tag: &str, manifest: &Value) -> Result<()> {
        let body = manifest.to_string();
        let path = format!("/v2/team/orders/manifests/{tag}");
        let answer = admin::ask(self.open.addr(), "PUT", &path, &[("Content-Type", MANIFEST)], body.as_bytes())?;
        ensure!(answer.status == 201, "{tag}: {answer:?}");
        Ok(())
    }

    fn manifest(&self, tag: &str) -> Result<Value> {
        let path = format!("/v2/team/orders/manifests/{tag}");
        Ok(admin::ask(self.open.addr(), "GET", &path, &[("Accept", MANIFEST)], b"")?.json())
    }

    fn refused(&self, tag: &str, code: &str, exit: i32) -> Result<()> {
        let ran = self.world.run(&format!("filter pull %orders:{tag} -o @x.wasm"))?;
        refused(&ran, code, exit).with_context(|| tag.to_owned())?;
        ensure!(!self.world.path("x.wasm").exists(), "{tag}: something was kept");
        Ok(())
    }
}

#[test]
fn what_a_registry_bends_is_refused_and_nothing_of_it_kept() -> Result<()> {
    let world = World::start()?;
    let bytes = world.write("a.wasm", Behaviour::Allow)?;
    let open = ArtifactRegistry::start_open(&world.path("storage"))?;
    world.good("filter push @a.wasm --as orders@1.0.0 --to %orders:1")?;
    let bent = Bent { world, open };
    let good = bent.manifest("1")?;
    ensure!(good["layers"][0]["mediaType"] == COMPONENT && good["config"]["mediaType"] == CONFIG, "{good}");

    let with = |pointer: &str, value: Value| -> Result<Value> {
        let mut manifest = good.clone();
        *manifest.pointer_mut(pointer).context(pointer.to_owned())? = value;
        Ok(manifest)
    };
    let layer = &good["layers"][0];
    let cases = [
        ("over-limit", with("/layers/0/size", json!(16 * 1024 * 1024 + 1))?, "oci-too-large", 1),
        ("shorter", with("/layers/0/size", json!(bytes.len() - 1))?, "oci-size-mismatch", 7),
        ("longer", with("/layers/0/size", json!(bytes.len() + 1))?, "oci-size-mismatch", 7),
        (
            "foreign",
            with("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip"))?,
            "oci-media-type",
            1,
        ),
        ("image", with("/config/mediaType", json!("application/vnd.oci.image.config.v1+json"))?, "oci-media-type", 1),
        ("twice", with("/layers", json!([layer, layer]))?, "oci-layers", 1),
        ("none", with("/layers", json!([]))?, "oci-layers", 1),
        // The component where its config should be.
        (
            "config",
            with("/config", json!({"mediaType": CONFIG, "digest": layer["digest"], "size": layer["size"]}))?,
            "oci-manifest",
            1,
        ),
    ];
    for (tag, manifest, code, exit) in &cases {
        bent.put(tag, manifest)?;
        bent.refused(tag, code, *exit)?;
    }
    // Without TLS it is spoken to on this machine, where that is asked for.
    let plain = format!("filter pull oci://{}/team/orders:1 --plain-http -o @plain.wasm", bent.open.addr());
    let mut command = bent.world.command(&plain);
    ran(command.env_remove("MYELIN_REGISTRY_CA"))?.good()?;
    ensure!(std::fs::read(bent.world.path("plain.wasm"))? == bytes, "other bytes");
    let mut far = bent.world.command("filter pull oci://192.0.2.1/team/orders:1 --plain-http -o @x.wasm");
    refused(&ran(far.env_remove("MYELIN_REGISTRY_CA"))?, "oci-plain-http", 2)?;

    // Its disk has other bytes than it says: of the component, then of the manifest.
    let blob = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        bent.world.path(&format!("storage/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    };
    let file = blob(layer["digest"].as_str().context("a digest")?);
    let mut other = bytes.clone();
    *other.last_mut().context("bytes")? ^= 1;
    std::fs::write(&file, other)?;
    bent.refused("1", "oci-digest-mismatch", 7)?;
    std::fs::write(&file, &bytes)?;
    bent.world.good("filter pull %orders:1 -o @good.wasm")?;
    let pinned = bent.world.pushed("filter push @a.wasm --as orders@1.0.0 --to %orders:1")?;
    let hex = pinned.rsplit("sha256:").next().context("a digest")?;
    let manifest = std::fs::read_to_string(blob(hex))?;
    std::fs::write(blob(hex), manifest.replace("1.0.0", "6.6.6"))?;
    bent.refused("1", "oci-digest-mismatch", 7)
}
