//! The rules of `deny.toml` that need no network: banned crates, licences, sources. Where cargo-deny is installed it
//! runs as well; a fresh machine does not have it, and a check that is skipped there is none.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::fuzz;
use crate::peers;
use crate::repository::Repository;
use crate::shell;

/// The only registry a crate may come from, as `cargo metadata` writes it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// The platform whose dependencies are looked at.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Crates whose older versions have holes that reach a router, with the least version and what it mended. `deny.toml`
/// cannot say so without the network; raise them with the advisories.
const LEAST_VERSIONS: &[(&str, [u64; 3], &str)] = &[
    ("quinn-proto", [0, 11, 19], "memory by gapped stream data, a panic on transport parameters"),
    ("rustls", [0, 23, 46], "its handshake's advisories of 2026"),
    ("rustls-webpki", [0, 103, 17], "its certificate checks' advisories of 2026"),
];

/// What `deny.toml` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    banned: Vec<String>,
    licences: Vec<String>,
}

/// Checks every crate in the dependency graph of each workspace.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let text = std::fs::read_to_string(repository.root.join("deny.toml")).context("cannot read deny.toml")?;
    let rules = parse_rules(&text)?;
    let mut findings = Vec::new();
    // The crates of peers and fuzz targets reach no router and are not judged below; what is built is locked all the same.
    let others = [peers::MANIFEST, fuzz::MANIFEST].map(str::to_owned);
    for manifest in repository.workspaces()?.into_iter().chain(others) {
        locked(repository, &manifest)?;
    }
    for manifest in repository.workspaces()? {
        let metadata = shell::output(
            repository
                .cargo()
                .args(["metadata", "--format-version", "1", "--filter-platform", PLATFORM, "--manifest-path"])
                .arg(&manifest),
        )?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata printed invalid JSON")?;
        let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
        eprintln!("    {manifest}: {} crates", packages.len());
        findings.extend(packages.iter().flat_map(|package| judge(package, &rules)));
    }
    findings.sort();
    findings.dedup();
    if !findings.is_empty() {
        bail!("deny.toml is broken by:\n    {}", findings.join("\n    "));
    }
    if shell::succeeds(repository.cargo().args(["deny", "--version"])) {
        return shell::run(repository.cargo().args(["deny", "check", "bans", "licenses", "sources"]));
    }
    eprintln!("    cargo-deny is not installed; its bans, licences and sources were checked here");
    Ok(())
}

/// Fails where a lock file does not say what its manifests want: a build of it would fail, or lock something else than
/// what was tested. By the registry's index alone, without fetching a crate.
fn locked(repository: &Repository, manifest: &str) -> Result<()> {
    let mut cargo = repository.cargo();
    cargo.args(["update", "--quiet", "--workspace", "--locked", "--manifest-path", manifest]);
    shell::run(&mut cargo).with_context(|| {
        format!("the lock file beside {manifest} is out of date; `cargo update --workspace --manifest-path {manifest}`")
    })
}

/// What is wrong with one package of `cargo metadata`.
fn judge(package: &Value, rules: &Rules) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let mut findings = Vec::new();
    if rules.banned.iter().any(|banned| banned == name) {
        findings.push(format!("{name}: banned; `cargo tree -i {name}` says who wants it"));
    }
    findings.extend(below_floor(name, package["version"].as_str().unwrap_or_default()));
    // Packages of this repository have no source.
    match package["source"].as_str() {
        None | Some(CRATES_IO) => {}
        Some(source) => findings.push(format!("{name}: comes from {source}, only crates.io is allowed")),
    }
    match package["license"].as_str() {
        None => findings.push(format!("{name}: declares no licence")),
        Some(expression) => match licence_allowed(expression, &rules.licences) {
            Ok(true) => {}
            Ok(false) => findings.push(format!("{name}: licence '{expression}' is not in the allow-list")),
            Err(error) => findings.push(format!("{name}: licence '{expression}' cannot be read: {error}")),
        },
    }
    findings
}

/// What is wrong with this version of a crate, where it is too old.
fn below_floor(name: &str, version: &str) -> Option<String> {
    let (_, least, mended) = LEAST_VERSIONS.iter().find(|(known, ..)| *known == name)?;
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    let found = [(); 3].map(|()| numbers.next().unwrap_or(0));
    let [major, minor, patch] = least;
    (found < *least)
        .then(|| format!("{name}: {version} lacks {major}.{minor}.{patch}: {mended}; `cargo update -p {name}`"))
}

/// Reads the two lists out of our own `deny.toml`. Not a TOML parser: it knows the form of that one file, and an empty
/// list is an error, so a change of form does not pass unnoticed.
fn parse_rules(text: &str) -> Result<Rules> {
    let mut rules = Rules::default();
    let mut place = ("", "");
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            place = (line, "");
        } else if let Some((key, _)) = line.split_once(" = [") {
            place.1 = key;
        }
        match place {
            ("[bans]", "deny") => {
                if let Some((_, rest)) = line.split_once("crate = \"") {
                    rules.banned.extend(rest.split('"').next().map(str::to_owned));
                }
            }
            ("[licenses]", "allow") => {
                if let Some(rest) = line.strip_prefix('"') {
                    rules.licences.extend(rest.split('"').next().map(str::to_owned));
                }
            }
            _ => {}
        }
        if line.ends_with(']') && !line.starts_with('[') {
            place.1 = "";
        }
    }
    if rules.banned.is_empty() || rules.licences.is_empty() {
        bail!("deny.toml has no list of banned crates or of allowed licences in the form that supply.rs reads");
    }
    Ok(rules)
}

/// Whether an SPDX expression can be met by the allowed licences: one of an OR, all of an AND.
fn licence_allowed(expression: &str, allowed: &[String]) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = any_of(&mut words, allowed)?;
    match words.next() {
        None => Ok(verdict),
        Some(word) => bail!("unexpected '{word}'"),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut verdict = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        verdict |= all_of(words, allowed)?;
    }
    Ok(verdict)
}

fn all_of(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut verdict = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        verdict &= one(words, allowed)?;
    }
    Ok(verdict)
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let verdict = any_of(words, allowed)?;
            if words.next() != Some(")") {
                bail!("a bracket is not closed");
            }
            Ok(verdict)
        }
        None | Some(")" | "OR" | "AND" | "WITH") => bail!("a licence is missing"),
        Some(name) => {
            // `+` means this version or a later one: this one serves.
            let mut name = name.trim_end_matches('+').to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                name = format!("{name} WITH {}", words.next().context("WITH names no exception")?);
            }
            Ok(allowed.contains(&name))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{CRATES_IO, Rules, below_floor, judge, licence_allowed, parse_rules};

    fn rules() -> Rules {
        Rules { banned: vec!["openssl".into()], licences: vec!["MIT".into(), "Apache-2.0".into(), "MPL-2.0".into()] }
    }

    #[test]
    fn licence_expressions_are_evaluated() {
        let allowed =
            ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception", "MPL-2.0"].map(String::from);
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "Apache-2.0 / MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "MPL-2.0+",
        ] {
            assert!(licence_allowed(good, &allowed).expect("well-formed"), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND GPL-2.0", "MIT WITH strange-exception"] {
            assert!(!licence_allowed(bad, &allowed).expect("well-formed"), "{bad}");
        }
        for broken in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "AND MIT"] {
            assert!(licence_allowed(broken, &allowed).is_err(), "{broken}");
        }
    }

    #[test]
    fn each_rule_has_its_finding() {
        let good = json!({"name": "a", "source": CRATES_IO, "license": "MIT"});
        assert_eq!(judge(&good, &rules()), Vec::<String>::new());
        let bad = json!({"name": "openssl", "source": "git+https://example.com/a", "license": null});
        let findings = judge(&bad, &rules());
        assert_eq!(findings.len(), 3, "{findings:?}");
        let bad = json!({"name": "b", "source": null, "license": "GPL-3.0-only"});
        assert_eq!(judge(&bad, &rules()), ["b: licence 'GPL-3.0-only' is not in the allow-list"]);
    }

    #[test]
    fn versions_with_known_holes_are_found() {
        assert_eq!(below_floor("quinn-proto", "0.11.19"), None);
        assert_eq!(below_floor("quinn-proto", "0.12.0-rc.1"), None);
        assert_eq!(below_floor("another", "0.0.1"), None);
        let old = below_floor("quinn-proto", "0.11.9").expect("9 is less than 19");
        assert!(old.contains("0.11.19") && old.contains("cargo update -p quinn-proto"), "{old}");
        assert!(below_floor("rustls", "garbage").is_some(), "what cannot be read is not new enough");
    }

    #[test]
    fn the_committed_file_is_read() {
        let rules = parse_rules(include_str!("../../deny.toml")).expect("deny.toml has both lists");
        assert!(rules.banned.iter().any(|name| name == "native-tls"), "{rules:?}");
        assert!(rules.licences.iter().any(|name| name == "Apache-2.0 WITH LLVM-exception"), "{rules:?}");
        assert!(!rules.licences.iter().any(|name| name.contains("github.com")), "{rules:?}");
        assert!(parse_rules("[bans]\n[licenses]\n").is_err());
    }
}
