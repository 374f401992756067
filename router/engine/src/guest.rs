//! A live filter behind its exports: a component of the world `fast` or `easy`, or the core module of a fast one.

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::batch::FilterBatch;
use crate::bindings::easy::{Easy, EasyPre};
use crate::bindings::exports::myelin::filter::filter::{Info, Setup};
use crate::bindings::{Fast, FastPre};
use crate::easy;
use crate::filter::Outcome;
use crate::flat::Flat;
use crate::host::HostState;
use crate::info::FilterInfo;
use crate::inspect::World;

/// Linked code, ready to be instantiated.
pub(crate) enum Pre {
    /// The core module of a fast filter.
    Flat(wasmtime::InstancePre<HostState>),
    Fast(FastPre<HostState>),
    Easy(EasyPre<HostState>),
}

impl Pre {
    /// Finds the exports of `world`, and checks their types.
    pub(crate) fn new(world: World, linked: InstancePre<HostState>) -> wasmtime::Result<Self> {
        match world {
            World::Fast => FastPre::new(linked).map(Self::Fast),
            World::Easy => EasyPre::new(linked).map(Self::Easy),
        }
    }

    pub(crate) fn world(&self) -> World {
        match self {
            Self::Flat(_) | Self::Fast(_) => World::Fast,
            Self::Easy(_) => World::Easy,
        }
    }
}

/// An instance.
pub(crate) enum Guest {
    Flat(Box<Flat>),
    Fast(Fast),
    Easy(Easy),
}

impl Guest {
    pub(crate) fn instantiate(pre: &Pre, store: &mut Store<HostState>) -> wasmtime::Result<Self> {
        match pre {
            Pre::Flat(pre) => Flat::instantiate(pre, store).map(|flat| Self::Flat(Box::new(flat))),
            Pre::Fast(pre) => pre.instantiate(store).map(Self::Fast),
            Pre::Easy(pre) => pre.instantiate(store).map(Self::Easy),
        }
    }

    /// What it says about itself, or against its configuration.
    pub(crate) fn init(
        &self,
        store: &mut Store<HostState>,
        config: &[u8],
        previous: Option<&[u8]>,
    ) -> wasmtime::Result<Result<Info, String>> {
        let setup = || Setup { config: config.to_vec(), previous_state: previous.map(<[u8]>::to_vec) };
        match self {
            Self::Flat(guest) => guest.init(store, config, previous),
            Self::Fast(guest) => guest.myelin_filter_filter().call_init(store, &setup()),
            Self::Easy(guest) => guest.myelin_filter_easy_filter().call_init(store, &setup()),
        }
    }

    /// Judges a batch into `outcome`, which is empty: verdicts and output, not checked yet. What breaks the contract in the world `easy` is a fault like any other.
    pub(crate) fn run(
        &self,
        store: &mut Store<HostState>,
        batch: &FilterBatch<'_>,
        info: &FilterInfo,
        outcome: &mut Outcome,
    ) -> wasmtime::Result<()> {
        match self {
            Self::Flat(guest) => guest.run(store, batch, outcome)?,
            Self::Fast(guest) => {
                let guest = guest.myelin_filter_filter();
                let answer = guest.call_run(store, batch.arena, batch.count, batch.now_unix_ns)?;
                (outcome.verdicts, outcome.output) = (answer.verdicts, answer.output);
            }
            Self::Easy(guest) => {
                let events = easy::events(batch.arena).map_err(wasmtime::Error::new)?;
                let now = easy::timestamp(batch.now_unix_ns);
                let verdicts = guest.myelin_filter_easy_filter().call_on_batch(store, &events, now)?;
                (outcome.verdicts, outcome.output) = easy::answer(&verdicts, info).map_err(wasmtime::Error::new)?;
            }
        }
        Ok(())
    }

    /// Its state, of at most `bytes_max` bytes where that can be seen before it is copied.
    pub(crate) fn save(&self, store: &mut Store<HostState>, bytes_max: usize) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Flat(guest) => guest.save(store, bytes_max),
            Self::Fast(guest) => guest.myelin_filter_filter().call_save(store),
            Self::Easy(guest) => guest.myelin_filter_easy_filter().call_save(store),
        }
    }
}
