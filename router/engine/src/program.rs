//! A program: compiled and linked code of one module, shared by all its slots.

use std::sync::Arc;

use wasmtime::Module;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use crate::compile::Artefact;
use crate::flat::{self, FLAT_EXPORT};
use crate::guest::Pre;
use crate::host::{HostState, LogGate};
use crate::inspect::World;
use crate::limits::SlotLimits;
use crate::runtime::Runtime;
use crate::slot::{InstantiateError, Slot, SlotSetup, Spare, new_store};

/// Compiled and linked code; cheap to clone.
#[derive(Clone)]
pub struct Program(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    pre: Pre,
    reads_payloads: bool,
}

/// Why compiled code could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was compiled by another build of the engine.
    #[error("the code was compiled by another build of the engine: compile the module again")]
    Incompatible,
    /// wasmtime refuses it.
    #[error("the compiled code does not load: {0}")]
    Refused(String),
    /// It is no filter: an import or export has the wrong type.
    #[error(
        "the component does not fit the world `myelin:filter/{world}@0.1.0`: {what}; build it with the files of this \
         router's release"
    )]
    WrongWorld {
        /// The world that its exports speak of.
        world: &'static str,
        /// What does not fit.
        what: String,
    },
}

impl LoadError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Incompatible => "code-incompatible",
            Self::Refused(_) => "code-refused",
            Self::WrongWorld { .. } => "wrong-world",
        }
    }
}

impl Runtime {
    /// Loads compiled code and links it with the host.
    ///
    /// # Errors
    /// [`LoadError`] when the code belongs to another build of the engine, or the component is no filter.
    pub fn load(&self, artefact: &Artefact) -> Result<Program, LoadError> {
        if artefact.compatibility() != self.compatibility() {
            return Err(LoadError::Incompatible);
        }
        let component = deserialize(self, artefact).map_err(|e| LoadError::Refused(format!("{e:#}")))?;
        let world = World::of(component.component_type().exports(self.engine()).map(|(name, _)| name));
        let world = world.unwrap_or(World::Fast);
        let wrong_world = |e| LoadError::WrongWorld { world: world.as_str(), what: format!("{e:#}") };
        let linked = self.linker().instantiate_pre(&component).map_err(wrong_world)?;
        let pre = match flat_module(self, &component, &linked)? {
            Some(module) if world == World::Fast => {
                let checked = flat::check(&module).and_then(|()| self.flat_linker().instantiate_pre(&module));
                Pre::Flat(checked.map_err(wrong_world)?)
            }
            _ => Pre::new(world, linked).map_err(wrong_world)?,
        };
        let reads_payloads = imports_payload(self, &component);
        Ok(Program(Arc::new(Inner { runtime: self.clone(), pre, reads_payloads })))
    }
}

/// One of the crate's two reviewed unsafes; the other is in `footprint`.
#[allow(unsafe_code, reason = "reviewed: see the comment within")]
fn deserialize(runtime: &Runtime, artefact: &Artefact) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` runs the bytes as machine code, so they must come from wasmtime's own
    // compiler, unchanged. An `Artefact` is made in two places only: from the output of the compiler child that this
    // process has just started, and from a cache file whose keyed MAC holds. There is no constructor from bytes.
    unsafe { Component::deserialize(runtime.engine(), artefact.code()) }
}

/// The core module that the component offers to be called directly, where it does. wasmtime hands it out of an instance
/// only, so one is made and dropped. Where it faults the component is left to fault where that is reported.
fn flat_module(
    runtime: &Runtime,
    component: &Component,
    linked: &InstancePre<HostState>,
) -> Result<Option<Module>, LoadError> {
    let exports = component.component_type();
    let mut offered = exports.exports(runtime.engine());
    if !offered.any(|(name, export)| name == FLAT_EXPORT && matches!(export.ty, ComponentItem::Module(_))) {
        return Ok(None);
    }
    let no_slot = |what: String| LoadError::Refused(format!("no slot is free: {what}; raise `wasm.slots`"));
    let _ticking = runtime.ticking().ok_or_else(|| no_slot(format!("{} are in use", runtime.config().slots)))?;
    let mut store = new_store(runtime, &SlotLimits::default(), LogGate::new(0), Arc::default());
    match linked.instantiate(&mut store) {
        Ok(instance) => Ok(instance.get_module(&mut store, FLAT_EXPORT)),
        Err(error) if error.is::<wasmtime::PoolConcurrencyLimitError>() => Err(no_slot(format!("{error:#}"))),
        Err(_) => Ok(None),
    }
}

/// Whether the component can fetch payloads, so that the host has to keep them at hand.
fn imports_payload(runtime: &Runtime, component: &Component) -> bool {
    component.component_type().imports(runtime.engine()).any(|(name, item)| match item.ty {
        ComponentItem::ComponentInstance(instance) => {
            name.starts_with("myelin:filter/host") && instance.get_export(runtime.engine(), "payload").is_some()
        }
        _ => false,
    })
}

impl Program {
    /// Makes an instance and sets it up. Takes some 30 us, and up to the CPU limit of `init`: not for a worker that
    /// serves.
    ///
    /// # Errors
    /// [`InstantiateError`] says whether the configuration, the filter or the runtime's room was at fault.
    pub fn instantiate(&self, setup: &SlotSetup<'_>) -> Result<Slot, InstantiateError> {
        self.spare(setup)?.set_up(setup.config, setup.previous)
    }

    /// Makes an instance and does not set it up yet: for a state that is not there yet. Configuration and state of
    /// `setup` are not looked at.
    ///
    /// # Errors
    /// Where the filter faults before its set-up, or no slot is free.
    pub fn spare(&self, setup: &SlotSetup<'_>) -> Result<Spare, InstantiateError> {
        Spare::new(self.clone(), setup)
    }

    /// The runtime that it was loaded into.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// Whether its code can fetch payloads through the host.
    pub fn reads_payloads(&self) -> bool {
        self.0.reads_payloads
    }

    /// The world that it is built for.
    pub fn world(&self) -> World {
        self.0.pre.world()
    }

    /// Whether its core module is called directly, not through the component.
    pub fn is_flat(&self) -> bool {
        matches!(self.0.pre, Pre::Flat(_))
    }

    pub(crate) fn pre(&self) -> &Pre {
        &self.0.pre
    }
}
