//! `myelin filter pull`: out of a registry of artifacts, into a file.

use super::super::failure::{Exit, Failure, Result};
use super::super::oci::{self, Registries};
use super::super::signing::with_ending;
use super::super::values::{say, write_atomically};
use super::sign;
use crate::files::write_bytes_atomically;
use anyhow::Context;
use clap::Args;
use myelin_catalog::ModuleRef;
use myelin_oci::Pulled;
use std::path::{Path, PathBuf};

pub(super) const PULL_HELP: &str = "\
Examples:
  myelin filter pull oci://registry.example/team/redact:1.2          redact-1.2.0.wasm, and its signature beside it
  myelin filter pull oci://registry.example/team/redact@sha256:.. --out redact.wasm

A tag is resolved to the digest that is shown. `myelin filter push oci://..` brings an artifact to a router without a file.";

/// Take a component out of an OCI registry
#[derive(Args, Debug)]
pub(in super::super) struct Pull {
    /// The artifact: oci://REGISTRY/REPOSITORY:TAG, or ..@sha256:DIGEST
    reference: String,
    /// Where the component goes; its signature goes to FILE.minisig [default: NAME-VERSION.wasm, as the component says]
    #[arg(long, short_alias = 'o', value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    registries: Registries,
}

impl Pull {
    pub(super) async fn run(self) -> Result<()> {
        let reference = oci::reference(&self.reference)?;
        let Pulled { reference, component, signature } = self.registries.pull(&reference).await?;
        let file = match self.out {
            Some(file) => file,
            None => default_file(&component)?,
        };
        let beside = with_ending(&file, "minisig");
        let there = [&file, &beside].into_iter().find(|file| file.exists());
        if let Some(there) = there.filter(|_| !self.force) {
            let what = format!("{} exists", there.display());
            return Err(
                Failure::new(Exit::Conflict, what).next("name another file with --out, or overwrite with --force")
            );
        }
        write_bytes_atomically(&file, &component).with_context(|| format!("{}", file.display()))?;
        match &signature {
            Some(signature) => write_atomically(&beside, signature).with_context(|| format!("{}", beside.display()))?,
            // Else an older one would stand beside bytes that it is not for.
            None if beside.exists() => {
                std::fs::remove_file(&beside).with_context(|| format!("{}", beside.display()))?
            }
            None => {}
        }
        let signed = if signature.is_some() { "signed" } else { "not signed" };
        say!("{reference}");
        say!("  {} ({} bytes, {signed})", file.display(), component.len());
        say!("  next: myelin filter push {}", file.display());
        Ok(())
    }
}

/// A file in this folder. What a component says of itself is a stranger's text: only a module's name becomes a file's.
fn default_file(component: &[u8]) -> Result<PathBuf> {
    let called = sign::called(None, component, Path::new("the component")).map_err(name_it)?;
    let ModuleRef { name, version } =
        called.parse().map_err(|error| name_it(Failure::new(Exit::Usage, format!("{error}"))))?;
    Ok(PathBuf::from(format!("{name}-{version}.wasm")))
}

fn name_it(failure: Failure) -> Failure {
    Failure::new(failure.exit, failure.what).next("name a file with --out")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    /// A component with such a label; `|` stands between name and version.
    fn labelled(label: &str) -> Vec<u8> {
        let text = label.replace('|', "\\00").replace('\n', "\\0a");
        wat::parse_str(format!("(component (@custom \"myelin:label\" \"{text}\"))")).unwrap()
    }

    #[test]
    fn a_file_is_called_like_a_module_or_not_at_all() {
        assert_eq!(default_file(&labelled("redact|1.2.0")).unwrap(), Path::new("redact-1.2.0.wasm"));
        let hostile = ["../x|1.0.0", "/etc/x|1.0.0", "x|../1.0.0", "x|1.0.0/../..", "", "x", "..|1.0.0", "x\n|1.0.0"];
        for label in hostile {
            let refused = default_file(&labelled(label)).unwrap_err();
            assert!(refused.next.is_some_and(|next| next.contains("--out")), "{label:?}");
        }
        assert!(default_file(&wat::parse_str("(component)").unwrap()).is_err());
    }
}
