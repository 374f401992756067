//! The order of the modules inside `router/src`, where cargo draws no line.

use super::{Findings, Source};

/// Where the ordered modules live.
const FOLDER: &str = "router/src/";

/// Every top-level module of the router, lowest first: a module may use those before it. A new module needs a place
/// here; `lib.rs` declares them and stands outside the order.
const ORDER: &[&str] = &[
    "config",
    "files",
    "tokens",
    "audit",
    "telemetry",
    "ledger",
    "names",
    "trace",
    "outbox",
    "generation",
    "registry",
    "residency",
    "tenants",
    "policy",
    "screen",
    "capture",
    "compare",
    "shadow",
    "shared",
    "local",
    "hops",
    "subscriptions",
    "fanout",
    "derived",
    "pipeline",
    "delivery",
    "sessions",
    "worker",
    "otlp",
    "peering",
    "links",
    "world",
    "admin",
    "node",
    "cli",
    "main",
];

/// Checks every file below [`FOLDER`].
pub(super) fn check(sources: &[Source], findings: &mut Findings) {
    let mut undeclared = Vec::new();
    for source in sources {
        let (Some(code), Some(module)) = (&source.code, Module::of(&source.path)) else { continue };
        let Some(place) = position(module.name) else {
            if !undeclared.contains(&module.name) {
                undeclared.push(module.name);
            }
            continue;
        };
        for (number, used_module) in uses(code, module.depth) {
            if position(&used_module).is_some_and(|used| used > place) {
                findings.fail(format!(
                    "{}:{number}: module {} uses {used_module}, which stands above it in xtask/src/tidy/modules.rs",
                    source.path, module.name
                ));
            }
        }
    }
    for name in undeclared {
        findings.fail(format!("{FOLDER}{name}: no place in ORDER of xtask/src/tidy/modules.rs; add it"));
    }
}

fn position(name: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == name)
}

/// The top-level module a file belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Module<'a> {
    name: &'a str,
    /// 1 for the module itself, 2 for its children, and so on: so many `super` lead to the crate's root.
    depth: usize,
}

impl<'a> Module<'a> {
    /// `None` for files that are not in the order: other folders, and `lib.rs`.
    fn of(path: &'a str) -> Option<Self> {
        let inside = path.strip_prefix(FOLDER)?.strip_suffix(".rs")?;
        let inside = inside.strip_suffix("/mod").unwrap_or(inside);
        let name = inside.split('/').next().filter(|&name| name != "lib")?;
        Some(Self { name, depth: inside.split('/').count() })
    }
}

/// The modules named right after the crate's root, each with its 1-based line: `crate::a`, `crate::{a, b::c}`, and as
/// many `super::` as lead there.
fn uses(code: &str, depth: usize) -> Vec<(usize, String)> {
    let supers = "super::".repeat(depth);
    let mut found = Vec::new();
    for root in ["crate::", supers.as_str()] {
        for (start, _) in code.match_indices(root) {
            let before = &code[..start];
            let joined = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let rest = &code[start + root.len()..];
            // A name that only ends in "crate", or a longer chain of `super`, is not the root.
            if joined || rest.starts_with("super::") {
                continue;
            }
            let number = before.matches('\n').count() + 1;
            found.extend(heads(rest).into_iter().map(|name| (number, name)));
        }
    }
    found.sort();
    found
}

/// The first names of a use tree: `a::b` is `a`; `{a, b::{c, d}}` is `a` and `b`.
fn heads(tree: &str) -> Vec<String> {
    let Some(inside) = tree.trim_start().strip_prefix('{') else {
        return first_word(tree).into_iter().collect();
    };
    let mut names = Vec::new();
    let mut depth = 1_usize;
    let mut item_start = 0;
    for (at, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                names.extend(first_word(&inside[item_start..]));
                item_start = at + 1;
            }
            _ => {}
        }
        if depth == 0 {
            names.extend(first_word(&inside[item_start..at]));
            break;
        }
    }
    names
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::{Module, check, uses};
    use crate::tidy::{Findings, Source};

    fn failures(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(&[Source::new(path, text.to_owned())], &mut findings);
        findings.failures
    }

    #[test]
    fn a_file_knows_its_module() {
        assert_eq!(Module::of("router/src/admin.rs"), Some(Module { name: "admin", depth: 1 }));
        assert_eq!(Module::of("router/src/admin/mod.rs"), Some(Module { name: "admin", depth: 1 }));
        assert_eq!(Module::of("router/src/admin/routes.rs"), Some(Module { name: "admin", depth: 2 }));
        assert_eq!(Module::of("router/src/lib.rs"), None);
        assert_eq!(Module::of("router/core/src/table.rs"), None);
    }

    #[test]
    fn every_form_of_use_is_read() {
        let code = "use crate::admin;\nuse crate::{config, node::{Node, admin}, cli};\nfn f() { crate::demo::x() }";
        let expected = [(1, "admin"), (2, "cli"), (2, "config"), (2, "node"), (3, "demo")];
        assert_eq!(uses(code, 1), expected.map(|(line, name)| (line, name.to_owned())));
        assert_eq!(uses("use super::node;", 1), [(1, "node".to_owned())]);
        assert_eq!(uses("use super::super::node;", 2), [(1, "node".to_owned())]);
        assert_eq!(uses("use super::node; use my_crate::node; use a::crate::node;", 2), []);
    }

    #[test]
    fn using_what_stands_above_is_found() {
        assert!(failures("router/src/admin.rs", "use crate::config::Config; use crate::admin::x;").is_empty());
        let found = failures("router/src/outbox/ring.rs", "\nuse crate::{ledger, sessions::Session};");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("router/src/outbox/ring.rs:2: module outbox uses sessions"), "{found:?}");
        assert!(failures("router/src/main.rs", "use crate::cli;").is_empty());
        assert!(failures("router/src/config.rs", "// crate::cli\nconst A: &str = \"crate::cli\";").is_empty());
    }

    #[test]
    fn a_module_without_a_place_is_found_once() {
        let mut findings = Findings::default();
        let source = |path| Source::new(path, String::new());
        check(&[source("router/src/novel/a.rs"), source("router/src/novel/mod.rs")], &mut findings);
        assert_eq!(findings.failures, ["router/src/novel: no place in ORDER of xtask/src/tidy/modules.rs; add it"]);
    }
}
