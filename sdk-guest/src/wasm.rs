//! The component's side: bindings made from the WIT files, and the glue that `#[filter]` exports.

use crate::filter::COUNTERS_MAX;
use crate::instance::Instance;
use crate::{Filter, PayloadNeed};
use bindings::exports::myelin::filter::filter as contract;
use bindings::myelin::filter::{host, types};
use std::cell::{Cell, RefCell};

/// What the generated code calls.
pub use wit_bindgen::rt as runtime;

/// What wit-bindgen makes of the contract.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/0.1.0",
        world: "fast",
        pub_export_macro: true,
        export_macro_name: "export_filter",
        runtime_path: "::myelin_filter::__rt::runtime",
    });
}

/// The component's one instance.
pub struct Slot<F>(RefCell<Option<Instance<F>>>);

impl<F> Slot<F> {
    /// Nothing yet: the host calls `init` first.
    pub const fn empty() -> Self {
        Self(RefCell::new(None))
    }
}

/// Makes the instance.
///
/// # Errors
/// The filter's own words on its configuration.
pub fn init<F: Filter>(slot: &Slot<F>, setup: contract::Setup) -> Result<contract::Info, String> {
    let (instance, info) = Instance::<F>::new(&setup.config, setup.previous_state.as_deref())?;
    *slot.0.borrow_mut() = Some(instance);
    flush_counters();
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Ok(contract::Info {
        name: F::NAME.to_owned(),
        version: F::VERSION.to_owned(),
        needs: types::Needs {
            headers: owned(info.needs.headers),
            all_headers: info.needs.attributes,
            identity: info.needs.identity,
            payload: match info.needs.payload {
                PayloadNeed::None => types::PayloadNeed::None,
                PayloadNeed::Prefix(bytes) => types::PayloadNeed::Prefix(bytes),
                PayloadNeed::Full => types::PayloadNeed::Full,
            },
        },
        routes: info.routes,
        reasons: info.reasons,
        counters: owned(F::COUNTERS),
        max_output: info.max_output,
    })
}

/// Judges a batch.
///
/// # Panics
/// Before `init`: a fault of the host.
pub fn run<F: Filter>(slot: &Slot<F>, arena: &[u8], count: u32, now_unix_ns: u64) -> contract::Outcome {
    let mut slot = slot.0.borrow_mut();
    let instance = slot.as_mut().expect("the host calls init first");
    let outcome = instance.run(arena, count, now_unix_ns);
    flush_counters();
    contract::Outcome { verdicts: outcome.verdicts, output: outcome.output }
}

/// The state for the next version; empty before `init`.
pub fn save<F: Filter>(slot: &Slot<F>) -> Vec<u8> {
    let state = slot.0.borrow_mut().as_mut().map(|instance| instance.filter.save());
    flush_counters();
    state.unwrap_or_default()
}

thread_local! {
    /// What was counted since the last flush, for each counter.
    static COUNTED: [Cell<u64>; COUNTERS_MAX] = const { [const { Cell::new(0) }; COUNTERS_MAX] };
}

/// Tells the host what was counted: once for each counter and batch, where a call for each event costs more than most
/// verdicts.
fn flush_counters() {
    COUNTED.with(|counted| {
        for (counter, by) in (0..).zip(counted).filter(|(_, by)| by.get() > 0) {
            host::count(counter, by.take());
        }
    });
}

/// Host calls.
pub(crate) mod imports {
    use super::COUNTED;
    use super::bindings::myelin::filter::host;
    use crate::host::{Level, Rate};

    pub(crate) fn log(level: Level, text: &str) {
        let level = match level {
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warn => host::Level::Warn,
            Level::Error => host::Level::Error,
        };
        host::log(level, text);
    }

    pub(crate) fn count(counter: u32, by: u64) {
        COUNTED.with(|counted| match counted.get(counter as usize) {
            Some(sum) => sum.set(sum.get().saturating_add(by)),
            // No filter declares so many: the host says so.
            None => host::count(counter, by),
        });
    }

    pub(crate) fn payload(event: u32, offset: u32, len_bytes: u32) -> Vec<u8> {
        host::payload(event, offset, len_bytes)
    }

    pub(crate) fn schema(subject: &str) -> Option<Vec<u8>> {
        host::schema(subject)
    }

    pub(crate) fn take(bucket: &str, n: u32, rate: Rate) -> bool {
        let Rate { amount, period_ms, burst } = rate;
        host::take(bucket, n, host::Rate { amount, period_ms, burst })
    }

    pub(crate) fn seen(key: &str, ttl_ms: u64) -> bool {
        host::seen(key, ttl_ms)
    }
}
