//! `myelin filter push`: a component from a file, a package or a registry, to a router or to a registry.

use super::super::admin::{Admin, module_path};
use super::super::build::BuildOptions;
use super::super::failure::{Exit, Failure, Result};
use super::super::http::{Body, Upload};
use super::super::listing::{Shape, size, text};
use super::super::oci::{self, Registries};
use super::super::signing;
use super::super::values::say;
use super::{build, component, cut, sign};
use clap::Args;
use hyper::Method;
use myelin_catalog::{Digest, ModuleRef};
use myelin_oci::{Pulled, Reference};
use serde_json::{Value, json};
use std::path::PathBuf;

pub(super) const PUSH_HELP: &str = "\
Examples:
  myelin filter push redact.wasm             name and version as the filter's package says
  myelin filter push filters/redact          builds first
  myelin filter push other.wasm --as redact@0.2.0
  myelin filter push redact.wasm -o json | jq -r .digest

  myelin filter push redact.wasm --to oci://registry.example/team/redact:1.2      to an OCI registry, signature included
  myelin filter push oci://registry.example/team/redact:1.2                       from there to a router
  myelin filter push oci://registry.example/team/redact@sha256:..                 exactly that

A tag is resolved to a digest once, here; what it names later makes no difference. The router is given the bytes and asks no
registry. Pushing makes nothing active: `myelin bind` does.";

/// Upload a component, or build and upload a package: to a router, or to an OCI registry
#[derive(Args, Debug)]
pub(in super::super) struct Push {
    /// A component's file, a package's folder, or an artifact as oci://REGISTRY/REPOSITORY:TAG
    what: PathBuf,
    /// Another name and version than the package's
    #[arg(long = "as", value_name = "NAME@VERSION")]
    called: Option<String>,
    /// Its signature [default: the file's name with .minisig behind it, where there is one; the artifact's own]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// An OCI registry instead of a router
    #[arg(long, value_name = "oci://REGISTRY/REPOSITORY:TAG")]
    to: Option<String>,
    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    admin: Admin,
}

/// A component, and what came with it.
struct Found {
    component: Vec<u8>,
    signature: Option<String>,
    /// Its file; of an artifact, its reference.
    place: PathBuf,
    artifact: Option<Reference>,
}

impl Push {
    pub(super) async fn run(self) -> Result<()> {
        let is_artifact = oci::is_reference(&self.what);
        let to = self.to.as_deref().map(oci::reference).transpose()?;
        if let (true, Some(to)) = (is_artifact, &to) {
            // One name and password would be for two registries.
            let what = format!("{} is in a registry, and so is {to}", self.what.display());
            return Err(Failure::new(Exit::Usage, what).next("take it with `myelin filter pull`, then push the file"));
        }
        let mut found = if is_artifact { self.fetched().await? } else { self.read()? };
        if let Some(signature) = &self.signature {
            found.signature = Some(signing::read_text(signature)?);
        }
        let module = sign::called(self.called.as_deref(), &found.component, &found.place)?;
        match to {
            Some(to) => self.to_registry(&to, &module, found).await,
            None => self.to_router(&module, found).await,
        }
    }

    fn read(&self) -> Result<Found> {
        let place = match self.what.is_dir() {
            true => build(&BuildOptions { dir: self.what.clone(), ..BuildOptions::default() })?.path,
            false => self.what.clone(),
        };
        let component = component(&place)?;
        let beside = signing::with_ending(&place, "minisig");
        let is_wanted = self.signature.is_none() && beside.exists();
        let signature = is_wanted.then(|| signing::read_text(&beside)).transpose()?;
        Ok(Found { component, signature, place, artifact: None })
    }

    async fn fetched(&self) -> Result<Found> {
        let reference = oci::reference(&self.what.to_string_lossy())?;
        let Pulled { reference, component, signature } = self.registries.pull(&reference).await?;
        if !self.shape.is_json() {
            say!("{reference}");
        }
        Ok(Found { component, signature, place: reference.to_string().into(), artifact: Some(reference) })
    }

    async fn to_registry(&self, to: &Reference, module: &str, found: Found) -> Result<()> {
        let module: ModuleRef =
            module.parse().map_err(|error| Failure::new(Exit::Usage, format!("{module}: {error}")))?;
        let Found { component, signature, .. } = found;
        let pushed = self.registries.push(to, &module, &component, signature.as_deref()).await?;
        if self.shape.is_json() {
            let digest = Digest::of(&component).to_string();
            say!(
                "{}",
                json!({"module": module.to_string(), "digest": digest, "artifact": pushed.to_string(),
                "signed": signature.is_some()})
            );
            return Ok(());
        }
        let signed = if signature.is_some() { "signed" } else { "not signed" };
        say!("{module} is there (sha256 {}, {signed})", Digest::of(&component).short());
        say!("  {pushed}");
        if signature.is_none() {
            say!("  routers outside --dev refuse what nobody has signed: `myelin filter sign`, then push again");
        }
        say!("  next: myelin filter push {pushed}");
        Ok(())
    }

    async fn to_router(&self, module: &str, found: Found) -> Result<()> {
        let (api, path) = (self.admin.api()?, module_path(module)?);
        let Found { component, signature, artifact, .. } = found;
        let origin = artifact.map(|artifact| artifact.to_string());
        let body = Body::Wasm(Upload { component: component.into(), signature, origin });
        let pushed: Value = api.ask(Method::PUT, &path, body).await?;
        if self.shape.is_json() {
            say!("{pushed}");
            return Ok(());
        }
        let signed = match text(&pushed["signature"]["key_id"]) {
            key_id if key_id.is_empty() => "not signed".to_owned(),
            key_id => format!("signed by {key_id}"),
        };
        say!("{module} is there ({}, sha256 {}, {signed})", size(&pushed["size_bytes"]), cut(&text(&pushed["digest"])));
        say!("  next: myelin bind NAME --module {module} --pattern 'TOPICS/**'");
        Ok(())
    }
}
