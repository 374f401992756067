//! `myelin filter keygen|sign|allow-downgrade`

use super::super::build;
use super::super::failure::{Exit, Failure, Result};
use super::super::signing::{Signer, make_keys, with_ending};
use super::super::values::{duration, say};
use super::component;
use crate::files::write_atomically;
use anyhow::Context;
use clap::Args;
use myelin_catalog::{Digest, ModuleRef, ModuleStatement, Name, RollbackStatement};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const KEYGEN_HELP: &str = "\
Examples:
  myelin filter keygen release                        release.key and release.pub; asks for a password
  myelin filter keygen ci --password-file pw

The keys are minisign's: `minisign -G` makes them as well, and `minisign -G -W` those without a password. `myelin trust change --add-key release.pub` lets the mesh
trust one.";

pub(super) const SIGN_HELP: &str = "\
Examples:
  myelin filter sign orders.wasm --key release.key             orders.wasm.minisig
  myelin filter sign orders.wasm --key release.key --expires 90d

The signature is minisign's, prehashed, with the module's name, version and digest in its trusted comment. With the tool:
  minisign -S -s release.key -m orders.wasm \\
    -t \"myelin name=orders version=1.2.0 sha256=$(sha256sum orders.wasm | cut -c-64)\"
`myelin filter push orders.wasm` sends what stands beside the module.";

pub(super) const DOWNGRADE_HELP: &str = "\
Example:
  myelin filter allow-downgrade orders@1.1.0 --binding check --generation 17 --key release.key --out down.minisig
  myelin bind check --module orders@1.1.0 --pattern 'orders/**' --allow-downgrade down.minisig

Once: the statement holds while generation 17 is active, and no longer. `myelin rollout rollback` needs none.";

/// Make a pair of keys that sign modules
#[derive(Args, Debug)]
pub(in super::super) struct Keygen {
    /// What the files are called, without `.key` and `.pub`
    name: PathBuf,
    /// Without a password: whoever reads the file can sign
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
    /// A file whose first line is the password; else it is asked for
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Sign a component
#[derive(Args, Debug)]
pub(in super::super) struct Sign {
    /// The component's file
    file: PathBuf,
    #[command(flatten)]
    signer: Signer,
    /// Another name and version than the component says
    #[arg(long = "as", value_name = "NAME@VERSION")]
    called: Option<String>,
    /// How long it may be taken and rolled out, such as 90d [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// Where the signature goes [default: FILE.minisig]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Sign that a lower version may follow a higher one, once
#[derive(Args, Debug)]
pub(in super::super) struct AllowDowngrade {
    /// The lower version as NAME@VERSION
    module: ModuleRef,
    /// The binding that gets it
    #[arg(long)]
    binding: Name,
    /// The generation that is active now, as `myelin rollout status` shows it; in a mesh any site's number will do
    #[arg(long, value_name = "N")]
    generation: u64,
    #[command(flatten)]
    signer: Signer,
    /// Where the signed statement goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Keygen {
    pub(super) fn run(self) -> Result<()> {
        let key = make_keys(&self.name, self.no_password, self.password_file.as_deref())?;
        let public_file = with_ending(&self.name, "pub");
        say!("key {}  {key}", key.id());
        say!("  {}  keep it secret", with_ending(&self.name, "key").display());
        say!("  {}", public_file.display());
        say!("  next: myelin trust change --add-key {} --modules 'NAME-*' --apply", public_file.display());
        Ok(())
    }
}

impl Sign {
    pub(super) fn run(self) -> Result<()> {
        let bytes = component(&self.file)?;
        let module: ModuleRef = called(self.called.as_deref(), &bytes, &self.file)?
            .parse()
            .map_err(|error| Failure::new(Exit::Usage, format!("{error}")))?;
        let expires_unix_s = self.expires.map(|after| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_add(after).as_secs()
        });
        let statement = ModuleStatement { module, digest: Digest::of(&bytes), expires_unix_s };
        let signature = self.signer.sign(&bytes, &statement.to_string())?;
        let out = self.out.unwrap_or_else(|| with_ending(&self.file, "minisig"));
        write_atomically(&out, &signature).map_err(|error| Failure::of_file(&out, error))?;
        say!("{} is signed: {}", statement.module, out.display());
        say!("  next: myelin filter push {}", self.file.display());
        Ok(())
    }
}

impl AllowDowngrade {
    pub(super) fn run(self) -> Result<()> {
        let Self { module, binding, generation, signer, out } = self;
        let statement = RollbackStatement { module, binding, generation }.to_string();
        let signature = signer.sign(statement.as_bytes(), &statement)?;
        write_atomically(&out, &signature).map_err(|error| Failure::of_file(&out, error))?;
        say!("{statement}");
        say!("  next: myelin bind .. --allow-downgrade {}", out.display());
        Ok(())
    }
}

/// Which module a component is: as it is given, or as it says.
pub(super) fn called(given: Option<&str>, component: &[u8], file: &Path) -> Result<String> {
    if let Some(called) = given {
        return Ok(called.to_owned());
    }
    let label = build::label(component).with_context(|| format!("{}", file.display()))?;
    let (name, version) = label.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{} does not say what it is called", file.display()))
            .next("give --as NAME@VERSION")
    })?;
    Ok(format!("{name}@{version}"))
}
