//! The floors between packages. Cargo keeps cycles out; this keeps the direction.

use crate::repository::{EXAMPLE_FILTERS, FILTERS, Package};

use super::{Findings, Source, lexer};

/// Each package and which of ours it may see, lowest floor first. A new package needs a line here.
const FLOORS: &[(&str, &[&str])] = &[
    ("myelin-arena", &[]),
    // The guest side: never a router package.
    ("myelin-filter-macros", &[]),
    ("myelin-filter", &["myelin-arena", "myelin-filter-macros"]),
    // The router side. The first is nothing in a release.
    ("myelin-failpoint", &[]),
    ("myelin-wire", &["myelin-arena"]),
    ("myelin-core", &["myelin-arena", "myelin-wire"]),
    ("myelin-catalog", &["myelin-arena", "myelin-wire"]),
    ("myelin-mesh", &["myelin-arena", "myelin-wire"]),
    ("myelin-schema", &["myelin-arena", "myelin-wire"]),
    ("myelin-policy", &[]),
    ("myelin-token", &[]),
    ("myelin-oci", &["myelin-arena", "myelin-wire", "myelin-catalog"]),
    ("myelin-store", &["myelin-failpoint", "myelin-arena", "myelin-wire", "myelin-catalog"]),
    ("myelin-engine", &["myelin-failpoint", "myelin-arena", "myelin-wire"]),
    ("myelin-transport", &["myelin-failpoint", "myelin-arena", "myelin-wire"]),
    ("myelin-client", &["myelin-arena", "myelin-wire", "myelin-core", "myelin-catalog", "myelin-transport"]),
    ("myelin-load", &["myelin-arena", "myelin-wire", "myelin-transport"]),
    (
        "myelin",
        &[
            "myelin-failpoint",
            "myelin-arena",
            "myelin-wire",
            "myelin-core",
            "myelin-catalog",
            "myelin-mesh",
            "myelin-schema",
            "myelin-policy",
            "myelin-token",
            "myelin-oci",
            "myelin-store",
            "myelin-engine",
            "myelin-transport",
            "myelin-client",
            "myelin-load",
        ],
    ),
    // Users of the whole.
    ("myelin-examples", EVERYTHING_BELOW),
    ("myelin-attacks", EVERYTHING_BELOW),
    ("myelin-tests", EVERYTHING_BELOW),
    ("myelin-benches", EVERYTHING_BELOW),
    // Compiled before anything else.
    ("xtask", &[]),
];

/// Stands for every package above the line in [`FLOORS`], itself excepted.
const EVERYTHING_BELOW: &[&str] = &["*"];

/// What a filter may see.
const FILTER_MAY_SEE: &[&str] = &["myelin-filter", "myelin-arena"];

/// Crates that one package alone may name (also with a `-suffix`), and that package.
const RESERVED: &[(&str, &str)] = &[
    ("wasmtime", "myelin-engine"),
    ("cranelift", "myelin-engine"),
    ("async-nats", "myelin-store"),
    ("cedar-policy", "myelin-policy"),
    ("jsonwebtoken", "myelin-token"),
];

/// Packages that decide and never act, and what they must not depend on.
const PURE: &[(&str, &str)] = &[
    ("myelin-arena", "arena/src/"),
    ("myelin-wire", "router/wire/src/"),
    ("myelin-core", "router/core/src/"),
    ("myelin-catalog", "router/catalog/src/"),
    ("myelin-mesh", "router/mesh/src/"),
    ("myelin-schema", "router/schema/src/"),
    ("myelin-policy", "router/policy/src/"),
    ("myelin-token", "router/token/src/"),
];
const FORBIDDEN_IN_PURE: &[&str] = &["tokio", "quinn", "rustls", "reqwest", "hyper", "axum"];
/// And what their code must not say outside tests: no waiting, no clock, no I/O, no thread.
const WORDS_FORBIDDEN_IN_PURE: &[&str] =
    &[".await", "Instant::now", "SystemTime::now", "std::fs", "std::net", "std::thread", "std::process"];

/// What only one reviewed place may say, and where that is: compiled code that is run as it comes, certificates that are
/// checked by our own rules, a compiler without the optimising one's review.
const REVIEWED: &[(&str, &str)] = &[
    ("Component::deserialize", "router/engine/src/program.rs"),
    ("Module::deserialize", "nowhere"),
    (".dangerous()", "router/transport/src/tls/"),
    // Its tests play untrusting servers.
    ("client::danger", "router/transport/"),
    ("danger_accept_invalid", "nowhere"),
    ("Strategy::Winch", "nowhere"),
];

/// Checks that what is dangerous stays where it was reviewed.
pub(super) fn check_reviewed(source: &Source, findings: &mut Findings) {
    let Some(code) = &source.code else { return };
    for (number, line) in (1..).zip(code.lines()) {
        for (word, place) in REVIEWED.iter().filter(|(word, _)| line.contains(word)) {
            if !source.path.starts_with(place) {
                findings.fail(format!("{}:{number}: `{word}` was reviewed in {place} only", source.path));
            }
        }
    }
}

/// Checks the dependencies of one workspace's packages.
pub(super) fn check_packages(packages: &[Package], findings: &mut Findings) {
    for package in packages {
        check_floor(package, findings);
        for (reserved, owner) in RESERVED {
            let family = format!("{reserved}-");
            let named = package.dependencies.iter().find(|name| *name == reserved || name.starts_with(&family));
            if let Some(dependency) = named.filter(|_| package.name != *owner) {
                findings.fail(format!("{}: depends on {dependency}; only {owner} may", package.name));
            }
        }
        if PURE.iter().any(|(name, _)| *name == package.name) {
            for dependency in package.dependencies.iter().filter(|name| FORBIDDEN_IN_PURE.contains(&name.as_str())) {
                findings
                    .fail(format!("{}: depends on {dependency}; it decides, and others wait and act", package.name));
            }
        }
    }
}

/// Checks that a pure package's code neither waits nor reads a clock nor does I/O.
pub(super) fn check_pure(source: &Source, findings: &mut Findings) {
    let Some(code) = &source.code else { return };
    let Some((package, _)) = PURE.iter().find(|(_, folder)| source.path.starts_with(folder)) else { return };
    if source.path.ends_with("/tests.rs") || source.path.contains("/tests/") {
        return;
    }
    let end = lexer::first_test_line(code).unwrap_or(usize::MAX);
    for (number, line) in (1..end).zip(code.lines()) {
        for word in WORDS_FORBIDDEN_IN_PURE.iter().filter(|word| line.contains(**word)) {
            findings.fail(format!("{}:{number}: `{word}` in {package}, which decides only", source.path));
        }
    }
}

fn check_floor(package: &Package, findings: &mut Findings) {
    let name = &package.name;
    let is_filter = [FILTERS, EXAMPLE_FILTERS].iter().any(|parent| package.folder.starts_with(&format!("{parent}/")));
    let may_see = match may_see(name) {
        _ if is_filter => FILTER_MAY_SEE.to_vec(),
        Some(may_see) => may_see,
        None => {
            findings.fail(format!("{name}: no floor; add a line to FLOORS in xtask/src/tidy/layers.rs"));
            return;
        }
    };
    let ours = package.dependencies.iter().filter(|dependency| FLOORS.iter().any(|(known, _)| known == dependency));
    // A package may name itself as a dev-dependency, to switch on features for its tests.
    for dependency in ours.filter(|dependency| *dependency != name && !may_see.contains(&dependency.as_str())) {
        findings.fail(format!("{name}: depends on {dependency}; from its floor it may see {}", list(&may_see)));
    }
}

/// What the package may see; `None` where it has no floor.
fn may_see(name: &str) -> Option<Vec<&'static str>> {
    let place = FLOORS.iter().position(|(known, _)| *known == name)?;
    let (_, may_see) = FLOORS[place];
    let below = || FLOORS[..place].iter().map(|(known, _)| *known).collect();
    Some(if may_see == EVERYTHING_BELOW { below() } else { may_see.to_vec() })
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none of ours".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{FLOORS, check_packages, check_pure, check_reviewed};
    use crate::repository::Package;
    use crate::tidy::{Findings, Source};

    fn package(name: &str, folder: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|&name| name.to_owned()).collect();
        Package { name: name.to_owned(), folder: folder.to_owned(), dependencies, binaries: Vec::new() }
    }

    fn failures(package: Package) -> Vec<String> {
        let mut findings = Findings::default();
        check_packages(&[package], &mut findings);
        findings.failures
    }

    #[test]
    fn floors_point_downward_only() {
        for (place, (name, may_see)) in FLOORS.iter().enumerate() {
            for below in may_see.iter().filter(|below| **below != "*") {
                let position = FLOORS.iter().position(|(known, _)| known == below);
                assert!(
                    position.is_some_and(|position| position < place),
                    "{name} sees {below}, which is not below it"
                );
            }
        }
    }

    #[test]
    fn looking_up_or_sideways_is_found() {
        assert!(failures(package("myelin-wire", "router/wire", &["myelin-arena", "bytes"])).is_empty());
        let up = failures(package("myelin-wire", "router/wire", &["myelin-core"]));
        assert_eq!(up, ["myelin-wire: depends on myelin-core; from its floor it may see myelin-arena"]);
        assert_eq!(failures(package("myelin-engine", "router/engine", &["myelin-transport"])).len(), 1);
        assert_eq!(failures(package("myelin-filter", "sdk-guest", &["myelin-wire"])).len(), 1);
        assert_eq!(failures(package("xtask", "xtask", &["myelin"])).len(), 1);
        assert!(failures(package("myelin-core", "router/core", &["myelin-core"])).is_empty());
        assert!(failures(package("myelin-benches", "benches", &["myelin-tests", "myelin-load"])).is_empty());
        assert_eq!(failures(package("myelin-attacks", "tests/attacks", &["myelin-tests"])).len(), 1);
        assert_eq!(failures(package("myelin-examples", "examples", &["myelin-attacks"])).len(), 1);
        assert_eq!(failures(package("myelin-tests", "tests", &["myelin-benches"])).len(), 1);
        assert_eq!(failures(package("myelin-new", "new", &[])).len(), 1);
    }

    #[test]
    fn filters_see_the_guest_side_only() {
        assert!(failures(package("redact", "filters/redact", &["myelin-filter", "serde_json"])).is_empty());
        assert_eq!(failures(package("redact", "filters/redact", &["myelin-wire"])).len(), 1);
        assert_eq!(failures(package("tenant", "examples/filters/tenant", &["myelin"])).len(), 1);
    }

    #[test]
    fn reserved_and_impure_crates_are_found() {
        assert!(failures(package("myelin-engine", "router/engine", &["wasmtime"])).is_empty());
        let named = failures(package("myelin", "router", &["wasmtime-environ"]));
        assert_eq!(named, ["myelin: depends on wasmtime-environ; only myelin-engine may"]);
        assert_eq!(failures(package("myelin-core", "router/core", &["tokio"])).len(), 1);
    }

    #[test]
    fn what_is_dangerous_stays_where_it_was_reviewed() {
        let source = |path: &str| Source::new(path, "fn a() { config.dangerous() } // Module::deserialize".into());
        let mut findings = Findings::default();
        check_reviewed(&source("router/transport/src/tls/identity.rs"), &mut findings);
        assert!(findings.failures.is_empty(), "{findings:?}");
        check_reviewed(&source("router/client/src/client.rs"), &mut findings);
        assert_eq!(findings.failures.len(), 1, "{findings:?}");
    }

    #[test]
    fn a_pure_package_may_say_await_in_its_tests_only() {
        let source =
            |path: &str| Source::new(path, "fn a() { b.await }\n#[cfg(test)]\nmod t { fn c() { d.await } }".into());
        let mut findings = Findings::default();
        check_pure(&source("router/core/src/table.rs"), &mut findings);
        assert_eq!(findings.failures.len(), 1, "{findings:?}");
        assert!(findings.failures[0].starts_with("router/core/src/table.rs:1:"), "{findings:?}");
        let mut findings = Findings::default();
        check_pure(&source("router/engine/src/chain.rs"), &mut findings);
        check_pure(&source("router/core/src/tests.rs"), &mut findings);
        assert!(findings.failures.is_empty(), "{findings:?}");
    }
}
