//! The macros that an author writes by hand, and the glue behind `#[filter]`.

/// Writes [`Needs`](crate::Needs) as a list of `headers["a", "b"]`, `attributes`, `identity`, `payload`,
/// `payload_prefix(BYTES)`, in any order.
///
/// ```
/// use myelin_filter::{Needs, PayloadNeed, needs};
/// const NEEDS: Needs = needs!(headers["x-tenant"], identity, payload_prefix(512));
/// assert_eq!(NEEDS.payload, PayloadNeed::Prefix(512));
/// assert_eq!(needs!(), Needs::NOTHING);
/// ```
#[macro_export]
macro_rules! needs {
    (@ $needs:expr,) => { $needs };
    (@ $needs:expr, headers[$($name:expr),* $(,)?] $(, $($rest:tt)*)?) => {
        $crate::needs!(@ $needs.headers(&[$($name),*]), $($($rest)*)?)
    };
    (@ $needs:expr, attributes $(, $($rest:tt)*)?) => { $crate::needs!(@ $needs.attributes(), $($($rest)*)?) };
    (@ $needs:expr, identity $(, $($rest:tt)*)?) => { $crate::needs!(@ $needs.identity(), $($($rest)*)?) };
    (@ $needs:expr, payload $(, $($rest:tt)*)?) => {
        $crate::needs!(@ $needs.payload($crate::PayloadNeed::Full), $($($rest)*)?)
    };
    (@ $needs:expr, payload_prefix($bytes:expr) $(, $($rest:tt)*)?) => {
        $crate::needs!(@ $needs.payload($crate::PayloadNeed::Prefix($bytes)), $($($rest)*)?)
    };
    (@ $needs:expr, $($unknown:tt)+) => {
        ::core::compile_error!("needs! takes headers[\"..\"], attributes, identity, payload or payload_prefix(BYTES)")
    };
    ($($list:tt)*) => { $crate::needs!(@ $crate::Needs::NOTHING, $($list)*) };
}

/// The [`Reason`](crate::Reason) with this text in the filter's `REASONS`, found at compile time.
///
/// Inside an `impl` of the filter one argument is enough; elsewhere the filter's type stands before it. A text that is
/// not declared does not compile:
///
/// ```compile_fail,E0080
/// # use myelin_filter::prelude::*;
/// #[filter]
/// struct Tenant;
/// impl Filter for Tenant {
///     const REASONS: &[&str] = &["no tenant"];
///     fn new(_: &[u8], _: Option<&[u8]>) -> Result<Self, String> { Ok(Tenant) }
///     fn on_event(&mut self, _: EventView<'_>) -> Verdict { Verdict::deny(reason!("no tenent")) }
/// }
/// # fn main() { myelin_filter::testing::Harness::<Tenant>::new("").unwrap().event("a").verdict(); }
/// ```
#[macro_export]
macro_rules! reason {
    ($text:literal) => {
        $crate::reason!(Self, $text)
    };
    ($filter:ty, $text:literal) => {
        const {
            $crate::Reason::nth($crate::__rt::index_of(
                <$filter as $crate::Filter>::REASONS,
                $text,
                concat!("reason!(\"", $text, "\") is not declared: add the text to `const REASONS` of the filter"),
            ))
        }
    };
}

/// The index of this entry in the filter's `ROUTES`, found at compile time; not declared = does not compile.
///
/// Inside an `impl` of the filter one argument is enough; elsewhere the filter's type stands before it.
#[macro_export]
macro_rules! route {
    ($name:literal) => {
        $crate::route!(Self, $name)
    };
    ($filter:ty, $name:literal) => {
        const {
            $crate::__rt::index_of(
                <$filter as $crate::Filter>::ROUTES,
                $name,
                concat!("route!(\"", $name, "\") is not declared: add it to `const ROUTES` of the filter"),
            )
        }
    };
}

/// The id of this name in the filter's `COUNTERS` for [`host::count`](crate::host::count), found at compile time; not
/// declared = does not compile.
///
/// Inside an `impl` of the filter one argument is enough; elsewhere the filter's type stands before it.
#[macro_export]
macro_rules! counter {
    ($name:literal) => {
        $crate::counter!(Self, $name)
    };
    ($filter:ty, $name:literal) => {
        const {
            $crate::__rt::index_of(
                <$filter as $crate::Filter>::COUNTERS,
                $name,
                concat!("counter!(\"", $name, "\") is not declared: add it to `const COUNTERS` of the filter"),
            ) as u32
        }
    };
}

/// What `#[filter]` adds to a type.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($filter:ident, $name:expr, $version:expr) => {
        impl $crate::Described for $filter {
            const NAME: &'static str = $name;
            const VERSION: &'static str = $version;
        }
        const _: () = $crate::__rt::check_declarations::<$filter>();
        $crate::__export_component!($filter);
    };
}

/// On the host a filter exports nothing.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_component {
    ($filter:ident) => {};
}

/// The component's exports, and the section by which `myelin filter build` names its file.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_component {
    ($filter:ident) => {
        const _: () = {
            use $crate::__rt::bindings::exports::myelin::filter::filter as contract;

            ::std::thread_local! {
                static SLOT: $crate::__rt::Slot<$filter> = const { $crate::__rt::Slot::empty() };
            }

            struct Exports;

            impl contract::Guest for Exports {
                fn init(setup: contract::Setup) -> Result<contract::Info, String> {
                    SLOT.with(|slot| $crate::__rt::init(slot, setup))
                }
                fn run(arena: Vec<u8>, count: u32, now: u64) -> contract::Outcome {
                    SLOT.with(|slot| $crate::__rt::run(slot, &arena, count, now))
                }
                fn save() -> Vec<u8> {
                    SLOT.with($crate::__rt::save)
                }
            }

    $crate::__rt::bindings::export_filter!(Exports with_types_in $crate::__rt::bindings);

            const LABEL_BYTES: usize =
                <$filter as $crate::Described>::NAME.len() + 1 + <$filter as $crate::Described>::VERSION.len();
            #[unsafe(link_section = "myelin:label")]
            static LABEL: [u8; LABEL_BYTES] = $crate::__rt::label::<LABEL_BYTES>(
                <$filter as $crate::Described>::NAME,
                <$filter as $crate::Described>::VERSION,
            );
        };
    };
}
