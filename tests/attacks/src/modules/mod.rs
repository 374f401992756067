//! Hostile modules: each with the place where it must be stopped, and the stable code that its author is told.
//!
//! Those that are stopped in a call bide their time: they pass the self-test at upload and act when an event's payload
//! begins with `P`. They may reach `audit/**` and nothing else.

mod calls;
mod files;
mod guest;
mod setup;

/// The payload that wakes a module.
pub const POISON: &str = "Poison";
/// What a module's binding grants it.
pub const GRANTED: &str = "audit/**";
/// The compiler's CPU limit under which [`Stop::Compile`] holds, in seconds.
pub const COMPILE_CPU_SECONDS: u64 = 3;

/// Where a module must be stopped; the text is the stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Before anything is compiled.
    Inspect(&'static str),
    /// By the compiler, in its own process.
    Compile(&'static str),
    /// When the compiled code is linked with the host.
    Load(&'static str),
    /// When it is set up or judges made-up events.
    SelfTest(&'static str),
    /// When a binding is to grant less than it wants.
    Bind(&'static str),
    /// When it is woken: its binding's declared verdict stands for it.
    Call(&'static str),
    /// When it is asked for its state before a swap.
    Save(&'static str),
    /// Nowhere: what it does is allowed, and bounded.
    Borne,
}

/// A hostile module.
#[derive(Clone, Copy, Debug)]
pub struct Hostile {
    /// Its name: letters and dashes.
    pub name: &'static str,
    /// Where it must be stopped.
    pub stop: Stop,
    make: fn() -> Vec<u8>,
}

impl Hostile {
    /// Its bytes.
    pub fn wasm(&self) -> Vec<u8> {
        (self.make)()
    }
}

/// All of them, in the order in which they are stopped.
pub fn all() -> Vec<Hostile> {
    [files::MODULES, setup::MODULES, calls::MODULES].concat()
}

/// A filter that allows everything and does no harm.
pub fn quiet() -> Vec<u8> {
    let info = guest::Info { routes: Vec::new(), ..guest::Info::default() };
    guest::Guest { info, ..guest::Guest::default() }.wasm()
}

/// A filter that describes itself otherwise when it is given a state: after a fault, which loses the state, it is not
/// the filter any more that was bound.
pub fn two_faced() -> Vec<u8> {
    guest::Guest {
        // The first letter of its name.
        init: "(if (local.get $some) (then (i32.store8 (i32.const 2048) (i32.const 90))))".into(),
        act: "unreachable".into(),
        ..guest::Guest::default()
    }
    .wasm()
}

/// A case of the tables below.
const fn hostile(name: &'static str, stop: Stop, make: fn() -> Vec<u8>) -> Hostile {
    Hostile { name, stop, make }
}

#[cfg(test)]
mod tests {
    use super::all;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_more_than_forty_and_each_has_a_name_of_its_own() {
        let modules = all();
        let names: BTreeSet<_> = modules.iter().map(|module| module.name).collect();
        assert_eq!(names.len(), modules.len());
        assert!(modules.len() >= 40, "{}", modules.len());
        // They become names of modules and bindings.
        let fits = |name: &&&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && name.len() < 60;
        assert!(names.iter().all(|name| fits(&name)), "{names:?}");
    }
}
