//! `myelin filter new|build|test|push|pull|ls|describe|logs|release|rm`

mod describe;
mod logs;
mod new;
mod pull;
mod push;
mod sign;
mod test;

use super::admin::{Admin, module_path};
use super::build::{self, BuildOptions, BuiltFilter, build_filter};
use super::connect::block_on;
use super::failure::{Exit, Failure, Result};
use super::http::Body;
use super::listing::{Listing, Shape, items, size, table, text, time};
use super::resource::{Show, change};
use super::values::say;
use clap::{Args, Subcommand};
use hyper::Method;
use myelin_engine::ModuleRefusal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Largest component that is read from a file, in bytes: more than any router takes.
const COMPONENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How all WebAssembly begins.
const WASM_BEGINS: &[u8] = b"\0asm";
/// Characters of a digest in a table.
const DIGEST_SHOWN: usize = 12;

const BUILD_HELP: &str = "\
Examples:
  myelin filter build                        the filter in this folder, to target/myelin/NAME-VERSION.wasm
  myelin filter build filters/redact --out redact.wasm

Needs cargo and a Wasm target; `myelin doctor` tells what is missing. Lines of fixtures/*.jsonl become the self-test
that every router runs before the filter is active.";

/// Make, test and build filters, and manage the modules of a router
#[derive(Debug, Subcommand)]
pub(super) enum Filter {
    /// Make a package with a small filter, ready to build, test and push
    New(new::New),
    /// Build a filter's package as a Wasm component
    #[command(after_help = BUILD_HELP)]
    Build(Build),
    /// Run fixtures and made-up events in the real engine, without a router
    Test(test::Test),
    /// Make a pair of keys that sign modules
    #[command(after_help = sign::KEYGEN_HELP)]
    Keygen(sign::Keygen),
    /// Sign a component, so that routers take it
    #[command(after_help = sign::SIGN_HELP)]
    Sign(sign::Sign),
    /// Sign that a lower version may follow a higher one, once
    #[command(after_help = sign::DOWNGRADE_HELP)]
    AllowDowngrade(sign::AllowDowngrade),
    /// Upload a component, or build and upload a package: to a router, or to an OCI registry
    #[command(after_help = push::PUSH_HELP)]
    Push(push::Push),
    /// Take a component out of an OCI registry
    #[command(after_help = pull::PULL_HELP)]
    Pull(pull::Pull),
    /// List modules and bindings
    #[command(after_help = "Examples:\n  \
        myelin filter ls\n  \
        myelin filter ls -o json | jq '.modules[].name'\n  \
        myelin filter ls --watch 2")]
    Ls(Show),
    /// Show everything about a module: bindings, verdicts, faults
    #[command(after_help = "Example:\n  myelin filter describe redact@0.1.0")]
    Describe(Describe),
    /// Show what filters logged; -f follows
    Logs(logs::Logs),
    /// Lift a quarantine: the module runs again from the next rollout on
    #[command(after_help = "Example:\n  \
        myelin filter release redact@0.1.0 && myelin rollout start --note 'redact is mended'")]
    Release(Named),
    /// Remove a module that no binding uses
    #[command(after_help = "Examples:\n  myelin filter rm redact@0.1.0\n  myelin filter rm redact@0.1.0 --force\n\n\
        A module of the generation that `myelin rollout rollback` returns to stays, unless --force is given.")]
    Rm(Remove),
}

/// Build a filter's package as a Wasm component
#[derive(Args, Debug)]
pub(super) struct Build {
    /// The package's folder
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where the component goes [default: DIR/target/myelin/NAME-VERSION.wasm]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Cargo features to turn on
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// Folder for cargo's own files; share one among several filters
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Only errors
    #[arg(short, long)]
    quiet: bool,
}

/// Show everything about a module
#[derive(Args, Debug)]
pub(super) struct Describe {
    /// The module as NAME@VERSION
    module: String,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    admin: Admin,
}

/// A module
#[derive(Args, Debug)]
pub(super) struct Named {
    /// The module as NAME@VERSION
    module: String,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// Remove a module
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// Also where the next rollback would need it: there is no way back to that generation then
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    named: Named,
}

impl Filter {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::New(new) => new.run(),
            Self::Build(build) => build.run(),
            Self::Test(test) => test.run(),
            Self::Keygen(keygen) => keygen.run(),
            Self::Sign(sign) => sign.run(),
            Self::AllowDowngrade(allow) => allow.run(),
            Self::Push(push) => block_on(push.run()),
            Self::Pull(pull) => block_on(pull.run()),
            Self::Ls(all) => block_on(list(all)),
            Self::Describe(describe) => block_on(describe.run()),
            Self::Logs(logs) => logs.run(),
            Self::Release(named) => block_on(named.release()),
            Self::Rm(Remove { named, force }) => block_on(named.remove(force)),
        }
    }
}

impl Build {
    fn run(self) -> Result<()> {
        let Self { dir, out, features, target_dir, quiet } = self;
        let built = build(&BuildOptions { dir, out, features, target_dir, quiet, ..BuildOptions::default() })?;
        let BuiltFilter { path, name, version, digest, size, vectors } = built;
        if quiet {
            say!("{}", path.display());
        } else {
            say!("{name}@{version}  {} KiB  sha256 {}", size.div_ceil(1024), cut(&digest));
            say!("  {}", path.display());
            say!("  self-test: {vectors} events");
            say!("  next: myelin filter push {}", path.display());
        }
        Ok(())
    }
}

fn build(options: &BuildOptions) -> Result<BuiltFilter> {
    build_filter(options).map_err(|error| match error.downcast_ref::<build::MissingStep>() {
        Some(step) => Failure::new(Exit::Failed, step.what).next(step.run),
        None => Failure::from(error),
    })
}

pub(super) fn component(file: &Path) -> Result<Vec<u8>> {
    let told = |error: std::io::Error| {
        Failure::new(Exit::Usage, format!("{}: {error}", file.display()))
            .next("`myelin filter build` makes a component of a package")
    };
    let bytes = std::fs::metadata(file).map_err(told)?.len();
    if bytes > COMPONENT_BYTES_MAX {
        return Err(Failure::new(Exit::Usage, format!("{} has {bytes} bytes; no router takes it", file.display())));
    }
    let bytes = std::fs::read(file).map_err(told)?;
    if !bytes.starts_with(WASM_BEGINS) {
        let refusal = ModuleRefusal::NotWasm;
        return Err(Failure::new(Exit::Usage, format!("{}: {refusal} ({})", file.display(), refusal.code()))
            .coded(refusal.code())
            .next("`myelin filter build` makes a component of a package; `myelin filter new` makes a package"));
    }
    Ok(bytes)
}

async fn list(Show { listing, admin }: Show) -> Result<()> {
    let api = admin.api()?;
    let fetch = || async {
        let (modules, bindings) = (api.get("/v1/modules").await?, api.get("/v1/bindings").await?);
        Ok(json!({
            "modules": modules["modules"],
            "bindings": bindings["bindings"],
            "revision": bindings["revision"],
            "active_generation": bindings["active_generation"],
        }))
    };
    listing.show(fetch, lists).await
}

fn lists(value: &Value) -> String {
    let modules = items(value, "modules").iter().map(|module| {
        vec![
            format!("{}@{}", text(&module["name"]), text(&module["version"])),
            text(&module["state"]),
            size(&module["size_bytes"]),
            cut(&text(&module["digest"])),
            time(&module["uploaded_unix_ms"]),
        ]
    });
    let modules = match modules.len() {
        0 => "no modules; `myelin filter push` uploads one\n".to_owned(),
        _ => table(&["module", "state", "size", "digest", "uploaded"], &["size"], modules),
    };
    format!(
        "{modules}\n{}\ngeneration {}, revision {}\n",
        bindings(items(value, "bindings")),
        text(&value["active_generation"]),
        text(&value["revision"])
    )
}

/// A table of bindings.
pub(super) fn bindings(bindings: &[Value]) -> String {
    if bindings.is_empty() {
        return "no bindings; `myelin bind` makes one\n".to_owned();
    }
    let rows = bindings.iter().map(|binding| {
        ["name", "state", "stage", "order", "pattern", "module", "on_fault"].map(|field| text(&binding[field])).into()
    });
    table(&["binding", "state", "stage", "order", "pattern", "module", "on fault"], &["order"], rows)
}

fn cut(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(DIGEST_SHOWN).collect()
}

impl Describe {
    async fn run(self) -> Result<()> {
        let (api, path) = (self.admin.api()?, module_path(&self.module)?);
        self.listing.show(|| api.get(&path), describe::describe).await
    }
}

impl Named {
    async fn release(self) -> Result<()> {
        let path = module_path(&self.module)?;
        let revision = self.admin.api()?.tell(Method::POST, &format!("{path}/release"), Body::None).await?;
        self.shape.tell(&change("module", &self.module, "released", revision), |_| {
            format!("{} is released; it runs again after `myelin rollout start`\n", self.module)
        });
        Ok(())
    }

    async fn remove(self, force: bool) -> Result<()> {
        let path = module_path(&self.module)? + if force { "?force=true" } else { "" };
        let revision = self.admin.api()?.tell(Method::DELETE, &path, Body::None).await?;
        let done = change("module", &self.module, "removed", revision);
        self.shape.tell(&done, |_| format!("{} is removed\n", self.module));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_wasm_is_told_before_anything_reads_it() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "hi\n").expect("it is written");
        let failure = component(file.path()).expect_err("that is no filter");
        assert!(failure.exit == Exit::Usage && failure.what.contains("no WebAssembly"), "{failure}");
        assert!(failure.next.is_some_and(|next| next.contains("myelin filter build")));
    }

    #[test]
    fn lists_show_modules_and_bindings() {
        let shown = lists(&json!({
            "modules": [{"name": "redact", "version": "1.0.0", "digest": "sha256:0123456789abcdef", "size_bytes": 2048,
                "uploaded_unix_ms": 0, "state": "active"}],
            "bindings": [{"name": "hide", "module": "redact@1.0.0", "pattern": "a/**", "stage": "ingress", "order": 10,
                "state": "active", "on_fault": "reject"}],
            "revision": 7,
            "active_generation": 6,
        }));
        for part in ["redact@1.0.0  active", "0123456789ab ", "hide", "a/**", "generation 6, revision 7"] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
    }
}
