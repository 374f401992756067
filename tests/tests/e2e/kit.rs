//! The filter author's kit, as an author uses it: from an empty folder to an own filter live.

use anyhow::{Context, Result, ensure};
use myelin_client::{Event, Outcome};
use myelin_tests::{Ran, Router, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::filters::bind;
use crate::routing::decided;

/// How long a build, or a step of `myelin dev`, may take.
const PATIENCE: Duration = Duration::from_secs(240);
/// Lines of `myelin dev` that may wait to be read.
const LINES_MAX: usize = 1_024;

/// Where guests are built, shared with `cargo xtask filters`: the standard library is compiled once.
fn guest_target() -> PathBuf {
    let target = match std::env::var_os("MYELIN_FILTERS_DIR") {
        Some(folder) => PathBuf::from(folder).parent().map(Path::to_owned).unwrap_or_default(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    target.join("guests")
}

/// The clone, for `--sdk`.
fn clone() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/..")
}

fn run(folder: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Result<Ran> {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", guest_target())
        .stdin(Stdio::null())
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

fn myelin(folder: &Path, args: &[&str]) -> Result<Ran> {
    run(folder, program(), args)
}

/// Replaces a text in a file, which must hold it.
fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    ensure!(text.contains(from), "{} does not hold `{from}`", file.display());
    Ok(std::fs::write(file, text.replace(from, to))?)
}

#[test]
fn every_kind_of_new_filter_passes_its_tests_on_the_host_and_in_the_engine() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for kind in ["route", "validate", "policy", "transform"] {
        let name = format!("my-{kind}");
        // One with the SDK that travels in the program, the others with that of this clone: they share its build.
        let sdk: &[&str] = if kind == "transform" { &[] } else { &["--sdk", clone()] };
        myelin(folder.path(), &[&["filter", "new", &name, "--kind", kind], sdk].concat())?.good()?;
        let package = folder.path().join(&name);
        run(&package, "cargo", &["fmt", "--check"])?.good().with_context(|| kind.to_owned())?;
        run(&package, "cargo", &["test", "--quiet"])?.good().with_context(|| kind.to_owned())?;
        let junit = folder.path().join("junit.xml");
        let args = ["filter", "test", "--random", "4000", "--junit", &junit.to_string_lossy(), "-o", "json"];
        let tested = myelin(&package, &args)?.json().with_context(|| kind.to_owned())?;
        assert_eq!((&tested["good"], &tested["bad"]), (&Value::Bool(true), &Value::from(0)), "{tested}");
        assert_eq!(tested["module"], format!("{name}@0.1.0"));
        assert_eq!((&tested["random"]["events"], &tested["random"]["failure"]), (&Value::from(4_000), &Value::Null));
        assert!(tested["events"].as_u64() >= Some(5) && tested["memory_bytes"].as_u64() > Some(65_536), "{tested}");
        assert!(tested["time"]["single"]["calls"].as_u64() > Some(0) && tested["self_test"]["passes"] == true);
        assert!(std::fs::read_to_string(&junit)?.contains("failures=\"0\""));
    }
    let again = myelin(folder.path(), &["filter", "new", "my-route"])?;
    assert_eq!(again.code, Some(5), "{}", again.err);
    Ok(())
}

#[test]
fn packages_of_one_name_that_share_a_target_folder_keep_their_modules() -> Result<()> {
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let build = |place: usize| -> Result<Vec<u8>> {
        let package = folders[place].path().join("twin");
        myelin(&package, &["filter", "build", "--out", "twin.wasm"])?.good()?;
        Ok(std::fs::read(package.join("twin.wasm"))?)
    };
    for (folder, kind) in folders.iter().zip(["route", "validate"]) {
        myelin(folder.path(), &["filter", "new", "twin", "--kind", kind, "--sdk", clone()])?.good()?;
    }
    let (first, other) = (build(0)?, build(1)?);
    ensure!(first != other, "two different filters are one module");
    ensure!(build(0)? == first, "the module of the other package passes for this one's");
    Ok(())
}

#[test]
fn a_fixture_that_is_not_met_is_told_and_can_be_updated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    myelin(folder.path(), &["filter", "new", "shape", "--sdk", clone()])?.good()?;
    let package = folder.path().join("shape");
    let fixtures = package.join("fixtures/events.jsonl");
    let as_made = std::fs::read_to_string(&fixtures)?;
    edit(&fixtures, "\"reason\":\"not JSON\"", "\"reason\":\"no total\"")?;
    let ran = myelin(&package, &["filter", "test"])?;
    assert_eq!(ran.code, Some(7), "{}\n{}", ran.out, ran.err);
    for part in ["events.jsonl:7", "- expected the reason `no total`", "+ got      `not JSON`", "6 of 8 events"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    myelin(&package, &["filter", "test", "--update"])?.good()?;
    assert_eq!(std::fs::read_to_string(&fixtures)?, as_made, "what was expected before is expected again");
    let ran = myelin(&package, &["filter", "test"])?.good()?;
    assert!(ran.out.contains("8 of 8 events as expected") && ran.out.contains("self-test passes"), "{}", ran.out);

    // A filter that fails on some event, which no fixture has, is found by made-up ones.
    let source = package.join("src/lib.rs");
    edit(
        &source,
        "let payload = event.payload();",
        "let payload = event.payload(); assert!(!payload.starts_with(b\"[[[\"));",
    )?;
    let ran = myelin(&package, &["filter", "test", "--random", "4000", "--seed", "5", "-o", "json"])?;
    assert_eq!(ran.code, Some(7), "{}", ran.err);
    let tested: Value = serde_json::from_str(&ran.out)?;
    assert_eq!(tested["bad"], 0);
    let failure = &tested["random"]["failure"];
    assert!(failure["what"].as_str().is_some_and(|what| what.contains("trap")), "{failure}");
    // The event is a fixture: put beside the others it fails there, too.
    std::fs::write(
        package.join("fixtures/found.jsonl"),
        format!("{}\n", failure["event"].as_str().unwrap_or_default()),
    )?;
    let ran = myelin(&package, &["filter", "test"])?;
    assert!(ran.code == Some(7) && ran.out.contains("no verdict: trap"), "{}\n{}", ran.out, ran.err);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_filter_is_live_in_a_few_commands_and_its_log_can_be_followed() -> Result<()> {
    let router = Router::start()?;
    myelin(router.folder(), &["filter", "new", "tenants", "--kind", "policy", "--sdk", clone()])?.good()?;
    let package = router.folder().join("tenants");
    let built = myelin(&package, &["filter", "build", "--quiet"])?.good()?;
    router.myelin(&["filter", "push", &package.join(built.out.trim()).to_string_lossy()])?.good()?;
    bind(&router, "rule", "tenants@0.1.0", "tenants/**", &["--policy", "--config", "{\"admins\":[\"ops\"]}"])?;
    let client = router.client().await?;
    let mut allowed = 0;
    for topic in ["tenants/acme/orders", "tenants/globex/orders"] {
        allowed += usize::from(matches!(decided(&client, Event::new(topic, "{}")).await?, Outcome::Acked));
    }
    assert_eq!(allowed, 0, "neither is the test client's own");
    for of in ["rule", "tenants", "tenants@0.1.0"] {
        let logs = router.myelin(&["filter", "logs", of])?.good()?;
        assert_eq!(logs.out.matches("tried tenants/").count(), 2, "{of}: {}", logs.out);
    }
    assert_eq!(router.myelin(&["filter", "logs", "nobody"])?.code, Some(3));

    // Two readings of the router, half a second apart.
    let top = router.myelin(&["top", "--once", "-o", "json", "--interval", "0.5"])?.json()?;
    assert_eq!((&top["router"]["ready"], &top["bindings"][0]["binding"]), (&Value::Bool(true), &Value::from("rule")));
    assert!(top["sessions"].as_f64() >= Some(1.0), "{top}");
    assert!(router.myelin(&["top", "--once", "--interval", "0.2"])?.good()?.out.contains("tenants@0.1.0"));
    Ok(())
}

/// A running `myelin dev`, and what it says.
struct Dev {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Dev {
    fn start(package: &Path, more: &[&str]) -> Result<Self> {
        let mut child = Command::new(program())
            .args(["dev", "--rate", "500", "--sample", "400", "--data-dir", ".myelin"])
            .args(more)
            .current_dir(package)
            .env("CARGO_TARGET_DIR", guest_target())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // The errors of a slip made on purpose look like a failure of this test.
            .stderr(Stdio::null())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("its output")?);
        let (send, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Ok(Self { child, lines, said: Vec::new() })
    }

    /// Waits for a line with this beginning.
    fn wait_for(&mut self, beginning: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = line.with_context(|| format!("no `{beginning}` after {:#?}", self.said))?;
            self.said.push(line.clone());
            if line.starts_with(beginning) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn dev_swaps_every_save_in_and_says_what_it_changed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    myelin(folder.path(), &["filter", "new", "shape", "--sdk", clone()])?.good()?;
    let package = folder.path().join("shape");
    let mut dev = Dev::start(&package, &[])?;
    dev.wait_for("live     shape@0.1.0-dev.")?;
    assert_eq!(dev.wait_for("fixtures")?, "fixtures 8 of 8 as expected");
    dev.wait_for("watching")?;
    // Another router does not take the folder away.
    assert_eq!(myelin(&package, &["dev"])?.code, Some(5));

    let source = package.join("src/lib.rs");
    edit(&source, "Some(1..) => Verdict::allow()", "Some(1..) => Verdict::drop()")?;
    let live = dev.wait_for("live")?;
    assert!(live.contains("s after the save: build "), "{live}");
    // The fixture that expects the old decision is told, and does not keep the author from trying the new one.
    assert_eq!(dev.wait_for("fixtures")?, "fixtures 7 of 8 as expected");
    let changes = dev.wait_for("changes")?;
    let (different, of) = changes.trim_start_matches("changes").trim().split_once(" of 408 ").context("the sample")?;
    assert!(of == "events are decided otherwise" && different.parse::<usize>()? > 0, "{changes}");
    dev.wait_for("watching")?;
    assert!(dev.said.iter().any(|line| line.contains(" x  allow  ->  drop")), "{:#?}", dev.said);

    // A slip leaves the version before in place; only fixtures changed: nothing to swap.
    edit(&source, "Verdict::drop()", "Verdict::dropp()")?;
    assert!(dev.wait_for("not live")?.contains("the version before goes on"));
    dev.wait_for("watching")?;
    edit(&source, "Verdict::dropp()", "Verdict::drop()")?;
    dev.wait_for("the same component")?;
    dev.wait_for("watching")?;

    // The other commands find the router without being told where it is.
    let top = myelin(&package, &["top", "--once", "-o", "json"])?.json()?;
    assert_eq!(top["bindings"][0]["binding"], "shape");
    assert!(top["bindings"][0]["module"].as_str().is_some_and(|module| module.contains("-dev.")), "{top}");
    let ledger = myelin(&package, &["ledger", "-o", "json"])?.json()?;
    assert!(ledger["balances"] == true && ledger["total"]["dropped"].as_u64() > Some(0), "{ledger}");

    kill_process(Pid::from_raw(i32::try_from(dev.child.id())?).context("its process")?, Signal::INT)?;
    dev.wait_for("drained")?;
    assert!(dev.child.wait()?.success());
    assert!(!package.join(".myelin/dev/ready.json").exists(), "its router is gone");
    Ok(())
}

#[test]
fn dev_with_three_sites_swaps_every_save_in_at_all_of_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    myelin(folder.path(), &["filter", "new", "shape", "--sdk", clone()])?.good()?;
    let package = folder.path().join("shape");
    let mut dev = Dev::start(&package, &["--sites", "3"])?;
    for site in ["eu1", "us1", "ap1"] {
        let told = dev.wait_for(site)?;
        assert!(told.ends_with(&format!("--data-dir .myelin/sites-3/{site}")), "{told}");
    }
    dev.wait_for("live     shape@0.1.0-dev.")?;
    dev.wait_for("watching")?;
    edit(&package.join("src/lib.rs"), "Some(1..) => Verdict::allow()", "Some(1..) => Verdict::drop()")?;
    let live = dev.wait_for("live")?;
    let module = live.split_whitespace().nth(1).context("the version that is live")?.to_owned();
    dev.wait_for("watching")?;
    // Each site has traffic of its own, which the new version judges there.
    for site in ["eu1", "us1", "ap1"] {
        let data_dir = format!(".myelin/sites-3/{site}");
        let begin = Instant::now();
        loop {
            let ask =
                |command: &[&str]| myelin(&package, &[command, &["-o", "json", "--data-dir", &data_dir]].concat());
            let mesh = ask(&["mesh"])?.json()?;
            assert_eq!(mesh["links"].as_array().map(Vec::len), Some(2), "{mesh}");
            let top = ask(&["top", "--once", "--interval", "0.2"])?.json()?;
            let dropped = ask(&["ledger"])?.json()?["total"]["dropped"].as_u64();
            if top["bindings"][0]["module"] == module.as_str() && dropped > Some(0) {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{site} does not drop with {module}: {top}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    kill_process(Pid::from_raw(i32::try_from(dev.child.id())?).context("its process")?, Signal::INT)?;
    dev.wait_for("drained")?;
    assert!(dev.child.wait()?.success());
    Ok(())
}
