//! What the tests of several modules need.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use myelin_wire::topic::Pattern;

use crate::binding::Binding;
use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::CatalogError;
use crate::keys::SigningKey;
use crate::minisign::{KeyId, MinisignKey, MinisignSignature};
use crate::module::{Module, World};
use crate::names::{ModuleRef, Name};
use crate::op::Op;
use crate::record::Record;
use crate::statement::ModuleStatement;
use crate::trust::{TrustAction, TrustChange};

pub(crate) fn module(reference: &str, bytes: &[u8]) -> Module {
    let ModuleRef { name, version } = reference.parse().unwrap();
    let imports = vec!["myelin:filter/host@0.1.0".to_owned()];
    let (digest, world) = (Digest::of(bytes), World::Fast);
    let (capabilities, signature) = (None, None);
    Module { name, version, digest, size_bytes: 7, uploaded_unix_ms: 1, imports, world, capabilities, signature }
}

pub(crate) fn binding(name: &str, module: &str, pattern: &str) -> Binding {
    Binding::new(name.parse().unwrap(), module.parse().unwrap(), Pattern::new(pattern).unwrap())
}

pub(crate) fn stage(binding: Binding) -> Op {
    Op::BindingStaged { binding: Box::new(binding) }
}

pub(crate) fn add(reference: &str) -> Op {
    Op::ModuleAdded { module: module(reference, reference.as_bytes()) }
}

pub(crate) fn quarantine(module: &str, binding: &str) -> Op {
    Op::Quarantined { module: module.parse().unwrap(), binding: binding.parse().unwrap(), reason: "trap".into() }
}

/// A catalog together with its log.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) catalog: Catalog,
    pub(crate) log: Vec<Record>,
    /// Who signs, where anybody does.
    pub(crate) signer: Option<SigningKey>,
}

impl Story {
    pub(crate) fn try_add(&mut self, op: Op) -> Result<u64, CatalogError> {
        let at = 1_000 + self.catalog.head().rev;
        let record = match &self.signer {
            Some(key) => self.catalog.draft_signed(op, "ada", at, key),
            None => self.catalog.draft(op, "ada", at),
        }?;
        self.catalog.apply(&record)?;
        self.log.push(record);
        Ok(self.catalog.head().rev)
    }

    pub(crate) fn add(&mut self, op: Op) -> u64 {
        self.try_add(op).unwrap()
    }

    pub(crate) fn refusal(&mut self, op: Op) -> CatalogError {
        let before = self.catalog.clone();
        let refused = self.try_add(op.clone()).unwrap_err();
        // Not by the draft alone: a log with such a record is refused too.
        let forged = Record::after(&self.catalog.head(), op, "eve", 0);
        let forged = if let Some(key) = &self.signer { forged.sign(key) } else { forged };
        assert_eq!(self.catalog.apply(&forged).unwrap_err(), refused);
        assert_eq!(self.catalog, before, "a refusal changes nothing");
        refused
    }

    pub(crate) fn activate(&mut self) -> u64 {
        self.add(self.catalog.activation())
    }

    pub(crate) fn active_modules(&self) -> Vec<String> {
        self.catalog.active().bindings.iter().map(|staged| staged.binding.module.to_string()).collect()
    }

    pub(crate) fn staged_names(&self) -> Vec<String> {
        self.catalog.staged().iter().map(|staged| staged.binding.name.to_string()).collect()
    }

    /// Two versions of one filter, the first active.
    pub(crate) fn with_two_versions() -> Self {
        let mut story = Self::default();
        story.add(add("redact@1.0.0"));
        story.add(add("redact@2.0.0"));
        story.add(stage(binding("redact", "redact@1.0.0", "orders/**")));
        story.activate();
        story
    }

    /// The log as it is kept and as it travels.
    pub(crate) fn encoded(&self) -> Vec<Vec<u8>> {
        self.log.iter().map(Record::encode).collect()
    }

    /// Begins the signed part of the log with the key of that name.
    pub(crate) fn sign_with(&mut self, name: &str) -> u64 {
        self.signer = Some(key(name));
        self.add(trust(name))
    }
}

/// The key of that name; its seed is made of it.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_seed(name.parse().unwrap(), Digest::of(name.as_bytes()).as_bytes()).unwrap()
}

pub(crate) fn trust(name: &str) -> Op {
    Op::KeyTrusted { key_id: name.parse().unwrap(), public_key: key(name).public_key(), note: "of a test".into() }
}

pub(crate) fn revoke(name: &str) -> Op {
    Op::KeyRevoked { key_id: name.parse().unwrap() }
}

pub(crate) fn add_site(name: &str) -> Op {
    let (region, cloud) = ("eu-west".parse().unwrap(), "own".parse().unwrap());
    Op::SiteAdded { name: name.parse().unwrap(), region, cloud }
}

pub(crate) fn add_router(site: &str, name: &str) -> Op {
    Op::RouterAdded { site: site.parse().unwrap(), name: name.parse().unwrap() }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Story {
    /// Two versions of one filter, the first active, the second staged, and sites `a`, `b`, ... with a router each.
    pub(crate) fn with_sites(sites: usize) -> Self {
        let mut story = Self::with_two_versions();
        for site in ('a'..='z').take(sites) {
            story.add(add_site(&site.to_string()));
            story.add(add_router(&site.to_string(), "r1"));
        }
        story.add(stage(binding("redact", "redact@2.0.0", "orders/**")));
        story
    }

    /// The version of the filter that is active at a site.
    pub(crate) fn version_at(&self, site: &str) -> String {
        let active = self.catalog.active_for(&name(site));
        active.bindings.iter().map(|staged| staged.binding.module.version.to_string()).collect()
    }

    pub(crate) fn generation_at(&self, site: &str) -> u64 {
        self.catalog.active_for(&name(site)).number
    }

    /// Lets the rollout take its next step.
    pub(crate) fn advance(&mut self) -> u64 {
        let rollout = self.catalog.rollout().unwrap();
        let next = rollout.next().unwrap().clone();
        let advanced = Op::RolloutAdvanced { id: rollout.id, to: next.step, sites: next.sites };
        self.add(advanced)
    }
}

/// A new key of minisign's, which is drawn.
pub(crate) struct Holder(minisign::KeyPair);

impl Holder {
    pub(crate) fn new() -> Self {
        Self(minisign::KeyPair::generate_unencrypted_keypair().unwrap())
    }

    pub(crate) fn public(&self) -> MinisignKey {
        self.0.pk.to_base64().parse().unwrap()
    }

    /// The same key under another id, as whoever has the file may write it.
    pub(crate) fn renamed(&self) -> MinisignKey {
        use base64::Engine as _;
        let codec = base64::engine::general_purpose::STANDARD;
        let mut bytes = codec.decode(self.public().to_string()).unwrap();
        bytes[2] ^= 1;
        codec.encode(bytes).parse().unwrap()
    }

    pub(crate) fn id(&self) -> KeyId {
        self.public().id()
    }

    /// What the holder signs with this trusted comment.
    pub(crate) fn sign(&self, bytes: &[u8], comment: &str) -> MinisignSignature {
        let signed = minisign::sign(None, &self.0.sk, bytes, Some(comment), None).unwrap();
        signed.to_string().parse().unwrap()
    }

    /// A module whose bytes are its reference, signed.
    pub(crate) fn module(&self, reference: &str) -> Module {
        let module = module(reference, reference.as_bytes());
        let statement = ModuleStatement { module: module.module_ref(), digest: module.digest, expires_unix_s: None };
        let signature = Some(self.sign(reference.as_bytes(), &statement.to_string()));
        Module { signature, ..module }
    }

    pub(crate) fn add_key(&self, modules: &str) -> TrustAction {
        let modules = vec![modules.parse().unwrap()];
        TrustAction::AddKey { public_key: self.public(), modules, note: "of a test".into() }
    }

    pub(crate) fn remove_key(&self) -> TrustAction {
        TrustAction::RemoveKey { key_id: self.id() }
    }
}

pub(crate) fn set_roots(holders: &[&Holder], threshold: u8) -> TrustAction {
    TrustAction::SetRoots { keys: holders.iter().map(|holder| holder.public()).collect(), threshold }
}

impl Story {
    /// A change of trust that could be the next one, signed by these.
    pub(crate) fn trust(&self, actions: Vec<TrustAction>, signers: &[&Holder]) -> TrustChange {
        let mut change = TrustChange { after: self.catalog.trust().head(), actions, signatures: Vec::new() };
        let statement = change.statement();
        change.signatures = signers.iter().map(|signer| signer.sign(statement.as_bytes(), "agreed")).collect();
        change
    }

    /// Applies such a change.
    pub(crate) fn add_trust(&mut self, actions: Vec<TrustAction>, signers: &[&Holder]) -> u64 {
        let change = Box::new(self.trust(actions, signers));
        self.add(Op::TrustChanged { change })
    }
}
