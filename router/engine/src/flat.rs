//! The short way into a filter of the world `fast`: its core module, called without the component around it.
//!
//! A call through a component costs some 210 ns of look-ups in the host before the guest runs, and each list that goes
//! in 85 ns more; a core function is called in 30. So a component may export the core module that it wraps, as
//! [`FLAT_EXPORT`], which `myelin filter build` does: whoever knows that export may run the module itself, by the
//! canonical ABI of the component model (Canonical ABI, "lift" and "lower"), which is what `wit-component` wires up
//! too. Components without it are called as components, and behave the same.
//!
//! Nothing that the guest says is trusted: every pointer, length, text and discriminant is checked as the component's
//! own lifting would, and what breaks the rules is a fault.

mod imports;
mod memory;

pub(crate) use imports::linker;

use wasmtime::{InstancePre, Memory, Module, Store, TypedFunc, ValType};

use crate::batch::FilterBatch;
use crate::bindings::exports::myelin::filter::filter::Info;
use crate::bindings::myelin::filter::types::{Needs, PayloadNeed};
use crate::fault::FilterFault;
use crate::filter::Outcome;
use crate::host::HostState;
use crate::limits::BATCH_EVENTS_MAX;

use memory::Lift;

/// The export by which a component offers the core module that it wraps.
pub(crate) const FLAT_EXPORT: &str = "flat-module";
/// The guest's allocator.
const REALLOC: &str = "cabi_realloc";
/// Its only memory.
const MEMORY: &str = "memory";
/// The functions of the contract, and what is called once their result was read.
const INIT: &str = "myelin:filter/filter@0.1.0#init";
const RUN: &str = "myelin:filter/filter@0.1.0#run";
const SAVE: &str = "myelin:filter/filter@0.1.0#save";
const POST_INIT: &str = "cabi_post_myelin:filter/filter@0.1.0#init";
const POST_RUN: &str = "cabi_post_myelin:filter/filter@0.1.0#run";
const POST_SAVE: &str = "cabi_post_myelin:filter/filter@0.1.0#save";

/// Old address, old length, alignment, new length: the new address.
type Realloc = TypedFunc<(u32, u32, u32, u32), u32>;
/// Configuration, whether there is a previous state, and that state: where the result stands.
type Init = TypedFunc<(u32, u32, u32, u32, u32), u32>;
/// Arena, number of events, time: where the outcome stands.
type Run = TypedFunc<(u32, u32, u32, u64), u32>;
type Save = TypedFunc<(), u32>;
type Post = TypedFunc<u32, ()>;

/// What the host's functions need of the instance that calls them.
#[derive(Clone)]
pub(crate) struct Callee {
    memory: Memory,
    realloc: Realloc,
}

/// An instance of the core module.
pub(crate) struct Flat {
    callee: Callee,
    init: Init,
    run: Run,
    save: Save,
    post_init: Option<Post>,
    post_run: Option<Post>,
    post_save: Option<Post>,
}

/// Checks that `module` has what the contract asks for, before an instance is made.
///
/// # Errors
/// What is missing, or has another type.
pub(crate) fn check(module: &Module) -> wasmtime::Result<()> {
    use ValType::{I32, I64};
    let wanted: [(&str, &[ValType], &[ValType]); 4] = [
        (REALLOC, &[I32, I32, I32, I32], &[I32]),
        (INIT, &[I32, I32, I32, I32, I32], &[I32]),
        (RUN, &[I32, I32, I32, I64], &[I32]),
        (SAVE, &[], &[I32]),
    ];
    let same = |a: &mut dyn Iterator<Item = ValType>, b: &[ValType]| {
        let a: Vec<ValType> = a.collect();
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| ValType::eq(a, b))
    };
    for (name, params, results) in wanted {
        let function = module.get_export(name).and_then(|export| export.func().cloned());
        let fits = function.is_some_and(|it| same(&mut it.params(), params) && same(&mut it.results(), results));
        wasmtime::ensure!(fits, "its export `{FLAT_EXPORT}` has no function `{name}` of the canonical ABI's type");
    }
    let memory = module.get_export(MEMORY).is_some_and(|export| export.memory().is_some());
    wasmtime::ensure!(memory, "its export `{FLAT_EXPORT}` exports no memory");
    // Some languages' start-up code; `wit-component` calls it, and nothing that the SDK makes has it.
    wasmtime::ensure!(module.get_export("_initialize").is_none(), "its export `{FLAT_EXPORT}` wants to be initialized");
    Ok(())
}

impl Flat {
    pub(crate) fn instantiate(pre: &InstancePre<HostState>, store: &mut Store<HostState>) -> wasmtime::Result<Self> {
        let instance = pre.instantiate(&mut *store)?;
        let memory = instance.get_memory(&mut *store, MEMORY);
        let memory = memory.ok_or_else(|| wasmtime::format_err!("the module exports no memory"))?;
        let realloc = instance.get_typed_func(&mut *store, REALLOC)?;
        let post = |store: &mut Store<HostState>, name| instance.get_typed_func(store, name).ok();
        let flat = Self {
            callee: Callee { memory, realloc },
            init: instance.get_typed_func(&mut *store, INIT)?,
            run: instance.get_typed_func(&mut *store, RUN)?,
            save: instance.get_typed_func(&mut *store, SAVE)?,
            post_init: post(store, POST_INIT),
            post_run: post(store, POST_RUN),
            post_save: post(store, POST_SAVE),
        };
        store.data_mut().callee = Some(flat.callee.clone());
        Ok(flat)
    }

    pub(crate) fn init(
        &self,
        store: &mut Store<HostState>,
        config: &[u8],
        previous: Option<&[u8]>,
    ) -> wasmtime::Result<Result<Info, String>> {
        let config = self.lend(store, config)?;
        let has_previous = u32::from(previous.is_some());
        let previous = previous.map_or(Ok((0, 0)), |bytes| self.lend(store, bytes))?;
        let at = self.init.call(&mut *store, (config.0, config.1, has_previous, previous.0, previous.1))?;
        let mut lift = self.lift(store);
        let answer = match lift.discriminant(at, 2)? {
            0 => Ok(info(&mut lift, at + 4)?),
            _ => Err(lift.text(at + 4)?),
        };
        self.give_back(store, self.post_init.as_ref(), at)?;
        Ok(answer)
    }

    /// Judges a batch; verdicts and output go into `outcome`, whose memory is used again.
    pub(crate) fn run(
        &self,
        store: &mut Store<HostState>,
        batch: &FilterBatch<'_>,
        outcome: &mut Outcome,
    ) -> wasmtime::Result<()> {
        let (arena, len) = self.lend(store, batch.arena)?;
        let at = self.run.call(&mut *store, (arena, len, batch.count, batch.now_unix_ns))?;
        let lift = self.lift(store);
        let verdicts = lift.list(at, 8, 8)?;
        if verdicts.len() / 8 > BATCH_EVENTS_MAX {
            return Err(malformed(format!("{} verdicts for {} events", verdicts.len() / 8, batch.count)));
        }
        let (words, _) = verdicts.as_chunks();
        outcome.verdicts.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        let output = lift.list(at + 8, 1, 1)?;
        let bytes_max = store.data().output_bytes_max();
        if output.len() > bytes_max {
            return Err(malformed(format!("{} bytes of output, {bytes_max} are allowed", output.len())));
        }
        outcome.output.extend_from_slice(output);
        self.give_back(store, self.post_run.as_ref(), at)
    }

    pub(crate) fn save(&self, store: &mut Store<HostState>, bytes_max: usize) -> wasmtime::Result<Vec<u8>> {
        let at = self.save.call(&mut *store, ())?;
        let saved = self.lift(store).list(at, 1, 1)?;
        if saved.len() > bytes_max {
            return Err(malformed(format!("{} bytes of state, {bytes_max} are allowed", saved.len())));
        }
        let saved = saved.to_vec();
        self.give_back(store, self.post_save.as_ref(), at)?;
        Ok(saved)
    }

    /// Copies `bytes` into memory that the guest allocates and owns from then on.
    fn lend(&self, store: &mut Store<HostState>, bytes: &[u8]) -> wasmtime::Result<(u32, u32)> {
        self.callee.lend(store, bytes)
    }

    fn lift<'a>(&self, store: &'a Store<HostState>) -> Lift<'a> {
        let texts_bytes_max = store.data().output_bytes_max();
        Lift::new(self.callee.memory.data(store), texts_bytes_max)
    }

    /// Lets the guest free its result.
    fn give_back(&self, store: &mut Store<HostState>, post: Option<&Post>, at: u32) -> wasmtime::Result<()> {
        let Some(post) = post else { return Ok(()) };
        store.data_mut().may_leave = false;
        post.call(&mut *store, at)?;
        store.data_mut().may_leave = true;
        Ok(())
    }
}

/// `info` at `at`, laid out as the canonical ABI lays out records: fields in order, each aligned.
fn info(lift: &mut Lift<'_>, at: u32) -> wasmtime::Result<Info> {
    let payload = match lift.discriminant(at + 28, 3)? {
        0 => PayloadNeed::None,
        1 => PayloadNeed::Prefix(lift.word(at + 32)?),
        _ => PayloadNeed::Full,
    };
    let needs = Needs {
        headers: lift.texts(at + 16)?,
        all_headers: lift.flag(at + 24)?,
        identity: lift.flag(at + 25)?,
        payload,
    };
    Ok(Info {
        name: lift.text(at)?,
        version: lift.text(at + 8)?,
        needs,
        routes: lift.texts(at + 36)?,
        reasons: lift.texts(at + 44)?,
        counters: lift.texts(at + 52)?,
        max_output: lift.word(at + 60)?,
    })
}

fn malformed(detail: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(FilterFault::malformed(detail))
}
