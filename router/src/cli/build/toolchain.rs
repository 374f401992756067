//! Finds a Rust toolchain that builds for Wasm, or says which step is missing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What filters are compiled for: no system below them.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Name under which Debian's own toolchain is linked where rustup cannot download a target.
const FALLBACK: &str = "debian";
/// The linker of the fallback.
const LINKER: &str = "wasm-ld";

/// A toolchain that builds for Wasm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The default toolchain has the target.
    Rustup,
    /// The linked fallback compiles the standard library along with the filter.
    BuildStd,
}

impl Toolchain {
    /// Begins a command of this toolchain's cargo.
    pub(super) fn cargo(self) -> Command {
        let mut command = Command::new("cargo");
        if self == Self::BuildStd {
            command.arg(format!("+{FALLBACK}")).env("RUSTC_BOOTSTRAP", "1");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER);
        }
        command
    }

    /// What `cargo build` needs besides.
    pub(super) fn build_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Rustup => &[],
            Self::BuildStd => &["-Zbuild-std=std,panic_abort"],
        }
    }
}

/// What has to be done before a filter can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingStep {
    /// What is not there.
    pub what: &'static str,
    /// The command that mends it.
    pub run: &'static str,
}

impl fmt::Display for MissingStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; run: {}", self.what, self.run)
    }
}

impl std::error::Error for MissingStep {}

/// What was found on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    cargo: bool,
    /// The default toolchain has the target.
    target: bool,
    /// The fallback is linked, and is a toolchain.
    fallback: bool,
    /// The fallback has the sources of the standard library.
    fallback_sources: bool,
    linker: bool,
}

/// The toolchain for filters: the default one where it has the target, else the fallback.
///
/// # Errors
/// The first step that is missing, with its command.
pub fn wasm_toolchain() -> Result<Toolchain, MissingStep> {
    choose(facts())
}

fn choose(facts: Facts) -> Result<Toolchain, MissingStep> {
    if !facts.cargo {
        return Err(MissingStep { what: "cargo is not installed", run: "curl https://sh.rustup.rs -sSf | sh" });
    }
    if facts.target {
        return Ok(Toolchain::Rustup);
    }
    if !facts.fallback {
        return Err(MissingStep {
            what: "the toolchain has no target wasm32-unknown-unknown",
            run: "rustup target add wasm32-unknown-unknown (or, where rustup cannot download it, on Debian: \
                  apt-get install rustc-web rust-web-src cargo-web lld && rustup toolchain link debian /usr)",
        });
    }
    if !facts.fallback_sources {
        return Err(MissingStep {
            what: "the toolchain `debian` has no sources of the standard library",
            run: "apt-get install rust-web-src",
        });
    }
    if !facts.linker {
        return Err(MissingStep { what: "the linker wasm-ld is not installed", run: "apt-get install lld" });
    }
    Ok(Toolchain::BuildStd)
}

fn facts() -> Facts {
    let sysroot = |rustc: &mut Command| output(rustc.args(["--print", "sysroot"])).map(PathBuf::from);
    let rustlib = |sysroot: &Path| sysroot.join("lib/rustlib");
    let cargo = output(Command::new("cargo").arg("--version")).is_some();
    let own = sysroot(&mut Command::new("rustc"));
    let target = own.is_some_and(|own| rustlib(&own).join(TARGET).join("lib").is_dir());
    if target {
        return Facts { cargo, target, ..Facts::default() };
    }
    let fallback = sysroot(Command::new("rustup").args(["run", FALLBACK, "rustc"]));
    let sources = |fallback: &PathBuf| rustlib(fallback).join("src/rust/library/std/Cargo.toml").is_file();
    Facts {
        cargo,
        target,
        fallback: fallback.is_some(),
        fallback_sources: fallback.as_ref().is_some_and(sources),
        linker: output(Command::new(LINKER).arg("--version")).is_some(),
    }
}

/// What the command prints; `None` where it is not there or fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_missing_step_is_named() {
        let mut facts = Facts::default();
        let step = |facts| choose(facts).expect_err("a step is missing").to_string();
        assert!(step(facts).contains("cargo is not installed; run: curl"));
        facts.cargo = true;
        assert!(step(facts).contains("run: rustup target add wasm32-unknown-unknown"));
        facts.fallback = true;
        assert!(step(facts).contains("run: apt-get install rust-web-src"));
        facts.fallback_sources = true;
        assert!(step(facts).contains("run: apt-get install lld"));
        facts.linker = true;
        assert_eq!(choose(facts), Ok(Toolchain::BuildStd));
        facts.target = true;
        assert_eq!(choose(facts), Ok(Toolchain::Rustup), "the plain way is preferred");
    }
}
