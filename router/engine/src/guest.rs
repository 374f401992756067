//! A live component behind its exports: of the world `fast` or of the world `easy`.

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::batch::FilterBatch;
use crate::bindings::easy::{Easy, EasyPre};
use crate::bindings::exports::myelin::filter::filter::{Info, Setup};
use crate::bindings::{Fast, FastPre};
use crate::easy;
use crate::host::HostState;
use crate::info::FilterInfo;
use crate::inspect::World;

/// Verdicts and output, as the world `fast` gives them; not checked yet.
pub(crate) type Answer = (Vec<u64>, Vec<u8>);

/// A linked component, ready to be instantiated.
pub(crate) enum Pre {
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
            Self::Fast(_) => World::Fast,
            Self::Easy(_) => World::Easy,
        }
    }
}

/// An instance.
pub(crate) enum Guest {
    Fast(Fast),
    Easy(Easy),
}

impl Guest {
    pub(crate) fn instantiate(pre: &Pre, store: &mut Store<HostState>) -> wasmtime::Result<Self> {
        match pre {
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
        let setup = Setup { config: config.to_vec(), previous_state: previous.map(<[u8]>::to_vec) };
        match self {
            Self::Fast(guest) => guest.myelin_filter_filter().call_init(store, &setup),
            Self::Easy(guest) => guest.myelin_filter_easy_filter().call_init(store, &setup),
        }
    }

    /// Judges a batch. What breaks the contract in the world `easy` is a fault like any other.
    pub(crate) fn run(
        &self,
        store: &mut Store<HostState>,
        batch: &FilterBatch<'_>,
        info: &FilterInfo,
    ) -> wasmtime::Result<Answer> {
        match self {
            Self::Fast(guest) => {
                let guest = guest.myelin_filter_filter();
                let answer = guest.call_run(store, batch.arena, batch.count, batch.now_unix_ns)?;
                Ok((answer.verdicts, answer.output))
            }
            Self::Easy(guest) => {
                let events = easy::events(batch.arena).map_err(wasmtime::Error::new)?;
                let now = easy::timestamp(batch.now_unix_ns);
                let verdicts = guest.myelin_filter_easy_filter().call_on_batch(store, &events, now)?;
                easy::answer(&verdicts, info).map_err(wasmtime::Error::new)
            }
        }
    }

    pub(crate) fn save(&self, store: &mut Store<HostState>) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Fast(guest) => guest.myelin_filter_filter().call_save(store),
            Self::Easy(guest) => guest.myelin_filter_easy_filter().call_save(store),
        }
    }
}
