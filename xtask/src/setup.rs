//! Installs what a fresh machine lacks. Each step looks first and does nothing when the thing is there.
//!
//! | what | why | how |
//! |---|---|---|
//! | C compiler | some crates build C code | the user's, we only look |
//! | rustfmt, clippy | `cargo xtask test` | `rustup component add` |
//! | a Wasm target | filters | `rustup target add`; where that fails Debian's rustc with its sources |
//! | Python packages | the independent client, and `nats-server` | a virtual environment below the target directory |
//! | Node and npm | filters in JavaScript | Debian's packages |
//! | `ip`, `unshare` | tests in network namespaces | Debian's packages |
//! | minisign | signatures of ours are checked by the tool, and its own by us | Debian's package |
//! | docker-registry | filters are pushed to it and pulled from it | Debian's package |
//! | valgrind | the guard of the hot path counts instructions | Debian's package |

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::repository::Repository;
use crate::shell;

/// The target filters are built for.
const WASM_TARGET: &str = "wasm32-unknown-unknown";
/// Name under which Debian's toolchain is linked into rustup; `myelin filter build` looks for it.
const DEBIAN_TOOLCHAIN: &str = "debian";
/// Debian's compiler for the web, the sources of std (built for Wasm on first use), and `wasm-ld`.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "cargo-web", "lld"];
/// rustup retries by itself; past this the network is taken for closed.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);
/// A machine that has just started installs its own updates first, and holds the lock meanwhile, in seconds.
const APT_LOCK_WAIT: &str = "DPkg::Lock::Timeout=300";
/// The oldest Node that builds filters; Debian has it since version 12.
const NODE_MIN: u32 = 18;
/// Pinned Python packages of the tests.
const PYTHON_REQUIREMENTS: &str = "tests/python/requirements.txt";

/// A program of Debian's that the tests run.
struct Program {
    name: &'static str,
    /// The argument that has it tell its version.
    version: &'static str,
    packages: &'static [&'static str],
    /// What it is needed for.
    why: &'static str,
}

const VALGRIND: Program = Program {
    name: "valgrind",
    version: "--version",
    packages: &["valgrind", "libc6-dbg"],
    why: "the guard of the hot path counts instructions",
};

const PROGRAMS: &[Program] = &[
    Program { name: "git", version: "--version", packages: &["git"], why: "what is checked is what is committed" },
    Program { name: "minisign", version: "-v", packages: &["minisign"], why: "signatures are compared with it" },
    Program {
        name: "docker-registry",
        version: "--version",
        packages: &["docker-registry"],
        why: "filters are pushed to it and pulled from it",
    },
    VALGRIND,
];

/// How filters can be built on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WasmToolchain {
    /// The default toolchain has the Wasm target.
    Rustup,
    /// Debian's toolchain is linked, with sources and linker: std is built from source.
    Debian,
    /// Neither is complete.
    Missing,
}

/// All of it, for `cargo xtask setup` and the first step of `test`.
pub(crate) fn everything(repository: &Repository) -> Result<()> {
    c_compiler(repository)?;
    rust_components(repository)?;
    wasm_toolchain(repository)?;
    python(repository)?;
    node(repository)?;
    network_tools(repository)?;
    PROGRAMS.iter().try_for_each(|wanted| program(repository, wanted))
}

/// Fails with the command to run when there is no C compiler.
pub(crate) fn c_compiler(repository: &Repository) -> Result<()> {
    if shell::succeeds(repository.command("cc").arg("--version")) {
        say("C compiler", "there");
        return Ok(());
    }
    say("C compiler", "missing: the TLS library compiles assembly and C");
    apt_install(repository, &["build-essential"])
}

fn rust_components(repository: &Repository) -> Result<()> {
    for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if shell::succeeds(repository.cargo().args([subcommand, "--version"])) {
            say(component, "there");
            continue;
        }
        say(component, "missing: `cargo xtask test` checks format and lints");
        shell::run_within(repository.command("rustup").args(["component", "add", component]), RUSTUP_LIMIT)?;
    }
    Ok(())
}

/// Makes sure that filters can be built for Wasm.
pub(crate) fn wasm_toolchain(repository: &Repository) -> Result<()> {
    match installed_wasm_toolchain(repository) {
        WasmToolchain::Rustup => say("Wasm target", "there (rustup)"),
        WasmToolchain::Debian => say("Wasm target", "there (Debian's toolchain, builds std from source)"),
        WasmToolchain::Missing => install_wasm_toolchain(repository)?,
    }
    Ok(())
}

fn install_wasm_toolchain(repository: &Repository) -> Result<()> {
    say("Wasm target", "missing: filters are WebAssembly; asking rustup for it");
    let rustup = shell::run_within(repository.command("rustup").args(["target", "add", WASM_TARGET]), RUSTUP_LIMIT);
    match rustup {
        Ok(()) => return confirm_wasm_toolchain(repository, "rustup added it"),
        Err(error) => say("Wasm target", &format!("{error:#}; taking Debian's toolchain instead")),
    }
    if !has_apt(repository) {
        bail!(
            "there is no Wasm target and no apt-get to fall back to; run `rustup target add {WASM_TARGET}` where rustup \
             can reach its server, or link any toolchain with the sources of std as '{DEBIAN_TOOLCHAIN}'"
        );
    }
    apt_install(repository, DEBIAN_PACKAGES)?;
    shell::run(repository.command("rustup").args(["toolchain", "link", DEBIAN_TOOLCHAIN, "/usr"]))?;
    confirm_wasm_toolchain(repository, "Debian's toolchain is linked")
}

fn confirm_wasm_toolchain(repository: &Repository, how: &str) -> Result<()> {
    if installed_wasm_toolchain(repository) == WasmToolchain::Missing {
        bail!(
            "{how}, and yet {WASM_TARGET} cannot be built; `rustup toolchain list -v` shows which toolchain is active"
        );
    }
    say("Wasm target", how);
    Ok(())
}

fn installed_wasm_toolchain(repository: &Repository) -> WasmToolchain {
    let libraries =
        shell::output(repository.command("rustc").args(["--print", "target-libdir", "--target", WASM_TARGET]));
    if libraries.is_ok_and(|folder| has_core(Path::new(&folder))) {
        return WasmToolchain::Rustup;
    }
    let tool = |name| shell::succeeds(repository.command("rustup").args(["run", DEBIAN_TOOLCHAIN, name, "--version"]));
    let sysroot =
        shell::output(repository.command("rustup").args(["run", DEBIAN_TOOLCHAIN, "rustc", "--print", "sysroot"]));
    let sources =
        sysroot.is_ok_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file());
    if sources && tool("cargo") && shell::succeeds(repository.command("wasm-ld").arg("--version")) {
        WasmToolchain::Debian
    } else {
        WasmToolchain::Missing
    }
}

/// Whether a target's library folder holds libcore: rustc names the folder even when the target is not installed.
fn has_core(libraries: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(libraries) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// Makes sure that filters in JavaScript can be built.
pub(crate) fn node(repository: &Repository) -> Result<()> {
    let there = |program: &str| shell::output(repository.command(program).arg("--version")).ok();
    match (there("node"), there("npm")) {
        (Some(version), Some(_)) if node_is_recent(&version) => say("Node", "there"),
        (Some(version), Some(_)) => {
            bail!("Node {version} is too old for filters in JavaScript: install {NODE_MIN} or later")
        }
        _ => {
            say("Node", "missing: filters in JavaScript are built with it");
            apt_install(repository, &["nodejs", "npm"])?;
        }
    }
    Ok(())
}

/// Whether `v18.20.4` or the like is recent enough.
fn node_is_recent(version: &str) -> bool {
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= NODE_MIN)
}

/// The interpreter of the tests' virtual environment.
pub(crate) fn python_interpreter(repository: &Repository) -> PathBuf {
    repository.target.join("python/bin/python")
}

/// The server of NATS in the tests' virtual environment.
pub(crate) fn nats_server(repository: &Repository) -> PathBuf {
    repository.target.join("python/bin/nats-server")
}

/// The tests' virtual environment.
pub(crate) fn python(repository: &Repository) -> Result<()> {
    let why = "missing or outdated: the tests have a client of their own in Python, and a NATS server";
    python_environment(repository, &repository.target.join("python"), PYTHON_REQUIREMENTS, why)
}

/// Makes a virtual environment in `folder` with the pinned packages of `requirements` (relative to the root); does
/// nothing when it was made from the same file.
pub(crate) fn python_environment(repository: &Repository, folder: &Path, requirements: &str, why: &str) -> Result<()> {
    let file = repository.root.join(requirements);
    let wanted = std::fs::read_to_string(&file).with_context(|| format!("cannot read {requirements}"))?;
    let (stamp, interpreter) = (folder.join("requirements.installed"), folder.join("bin/python"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted)
        && shell::succeeds(repository.command(&interpreter).arg("--version"))
    {
        say("Python packages", "there");
        return Ok(());
    }
    say("Python packages", why);
    if !shell::succeeds(repository.command("python3").args(["-c", "import venv, ensurepip"])) {
        apt_install(repository, &["python3", "python3-venv"])?;
    }
    // Cleared first: what an interrupted run left behind is not to be trusted.
    shell::run(repository.command("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    shell::run(
        repository
            .command(&interpreter)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&file),
    )?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    say("Python packages", "installed");
    Ok(())
}

/// Makes sure that network namespaces can be made, as far as that is a matter of programs.
pub(crate) fn network_tools(repository: &Repository) -> Result<()> {
    let programs = [("ip", "-V", "iproute2"), ("unshare", "--version", "util-linux")];
    let is_missing =
        |(program, version, _): &(&str, &str, &str)| !shell::succeeds(repository.command(program).arg(version));
    let missing: Vec<&str> = programs.iter().filter(|tool| is_missing(tool)).map(|(.., package)| *package).collect();
    if missing.is_empty() {
        say("network tools", "there");
        return Ok(());
    }
    say("network tools", "missing: some tests run in network namespaces");
    apt_install(repository, &missing)
}

/// Makes sure that valgrind is there: the instruction guard counts with it.
pub(crate) fn valgrind(repository: &Repository) -> Result<()> {
    program(repository, &VALGRIND)
}

/// Installs a program that is not there.
fn program(repository: &Repository, program: &Program) -> Result<()> {
    let Program { name, version, packages, why } = program;
    if shell::succeeds(repository.command(name).arg(version)) {
        say(name, "there");
        return Ok(());
    }
    say(name, &format!("missing: {why}"));
    apt_install(repository, packages)
}

/// Installs Debian packages as root; as anyone else, or on another system, fails with what to do.
fn apt_install(repository: &Repository, packages: &[&str]) -> Result<()> {
    if !has_apt(repository) {
        bail!(
            "there is no apt-get on this machine. Install what Debian calls {} with its own package manager, then run \
             the same command again",
            packages.join(", ")
        );
    }
    if shell::output(repository.command("id").arg("-u"))? != "0" {
        bail!(
            "this needs root. Run this once, then the same command again:\n\n    sudo apt-get update && {}\n",
            apt_line(packages)
        );
    }
    shell::run(repository.command("apt-get").args(["update", "-qq"]))?;
    shell::run(
        repository
            .command("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends", "-o", APT_LOCK_WAIT])
            .args(packages),
    )
}

fn has_apt(repository: &Repository) -> bool {
    shell::succeeds(repository.command("apt-get").arg("--version"))
}

fn apt_line(packages: &[&str]) -> String {
    format!("sudo apt-get install -y --no-install-recommends {}", packages.join(" "))
}

fn say(what: &str, state: &str) {
    eprintln!("    {what}: {state}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{DEBIAN_PACKAGES, apt_line, has_core, node_is_recent};

    #[test]
    fn the_line_for_the_user_is_complete() {
        let line = "sudo apt-get install -y --no-install-recommends rustc-web rust-web-src cargo-web lld";
        assert_eq!(apt_line(DEBIAN_PACKAGES), line);
    }

    #[test]
    fn an_old_node_is_told_from_a_recent_one() {
        assert!(node_is_recent("v18.0.0") && node_is_recent("v20.20.2"));
        assert!(!node_is_recent("v16.9.1") && !node_is_recent("") && !node_is_recent("nonsense"));
    }

    #[test]
    fn a_folder_without_libcore_is_no_target() {
        assert!(!has_core(Path::new("/nonexistent")));
        assert!(!has_core(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
