//! `myelin filter new`: a package with a small useful filter, its fixtures and tests, and the SDK, from an empty folder.

mod sdk;

use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::values::say;
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
Examples:
  myelin filter new mask-mail --kind transform
  myelin filter new filters/by-region --kind route
  myelin filter new by-region --sdk ~/myelin              with the SDK of a clone, in place of a copy

Kinds: route sends events elsewhere, validate refuses malformed ones, policy says who may publish what, transform
changes events. Works without a network; the package's first build fetches two libraries.";

/// What the folder of the SDK's copy is called.
const VENDOR: &str = "vendor/myelin-filter";
/// Longest name of a package, in bytes: it is a module's name, too.
const NAME_BYTES_MAX: usize = 63;
/// Names that cargo refuses for a library, or that would hide something every crate uses.
const TAKEN: &[&str] = &[
    "alloc",
    "build",
    "core",
    "crate",
    "deps",
    "examples",
    "incremental",
    "myelin-filter",
    "proc-macro",
    "self",
    "std",
    "test",
];
/// Rust's words: a library of this name could not be named in code.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else", "enum",
    "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move",
    "mut", "override", "priv", "pub", "ref", "return", "static", "struct", "super", "trait", "true", "try", "type",
    "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Make a package with a small filter, ready to build, test and push
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct New {
    /// The folder to make; its last part is the filter's name: a-z, 0-9 and -
    name: PathBuf,
    /// What the filter does to begin with
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// Use the SDK in this clone of Myelin; without it, the package gets a copy of its own
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// What a new filter does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Sends events to other topics
    Route,
    /// Refuses events that are not as they should be
    #[default]
    Validate,
    /// Says who may publish what
    Policy,
    /// Changes events on their way
    Transform,
}

/// What differs between the kinds.
struct Template {
    source: &'static str,
    fixtures: &'static str,
    summary: &'static str,
    pattern: &'static str,
    grants: &'static [&'static str],
    /// What `myelin bind` needs besides.
    bind_more: &'static str,
}

impl Kind {
    fn template(self) -> Template {
        match self {
            Self::Route => Template {
                source: include_str!("new/templates/route.rs"),
                fixtures: include_str!("new/templates/route.jsonl"),
                summary: "Sends orders to the topic of their region, and copies large ones to the reviewers",
                pattern: "orders/**",
                grants: &["regions/**", "review/**"],
                bind_more: " --grant-topic 'regions/**' --grant-topic 'review/**'",
            },
            Self::Validate => Template {
                source: include_str!("new/templates/validate.rs"),
                fixtures: include_str!("new/templates/validate.jsonl"),
                summary: "Refuses orders that are not as they should be",
                pattern: "orders/**",
                grants: &[],
                bind_more: "",
            },
            Self::Policy => Template {
                source: include_str!("new/templates/policy.rs"),
                fixtures: include_str!("new/templates/policy.jsonl"),
                summary: "Lets services publish below their own topic only",
                pattern: "tenants/**",
                grants: &[],
                bind_more: " --policy --config '{\"admins\":[\"ops\"]}'",
            },
            Self::Transform => Template {
                source: include_str!("new/templates/transform.rs"),
                fixtures: include_str!("new/templates/transform.jsonl"),
                summary: "Masks e-mail addresses of customers",
                pattern: "customers/**",
                grants: &[],
                bind_more: "",
            },
        }
    }
}

impl New {
    pub(super) fn run(self) -> Result<()> {
        let name = name(&self.name)?;
        let folder = &self.name;
        if folder.symlink_metadata().is_ok() {
            let what = format!("{} is there already, and nothing of it is touched", folder.display());
            return Err(Failure::new(Exit::Conflict, what).next("choose another name, or move it away"));
        }
        let sdk = self.sdk.as_deref().map(checkout).transpose()?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        // Made aside, then moved: a full disk or Ctrl-C leaves no half of a package behind under its name.
        let aside = parent.join(format!(".{name}.{}", std::process::id()));
        let made = write(&aside, &name, self.kind, sdk.as_deref());
        let made = made.and_then(|()| {
            std::fs::rename(&aside, folder).with_context(|| format!("moving the package to {}", folder.display()))
        });
        if made.is_err() {
            let _ = std::fs::remove_dir_all(&aside);
        }
        made?;
        say!("{} is a filter now: {}", folder.display(), self.kind.template().summary.to_lowercase());
        say!("  src/lib.rs, fixtures/*.jsonl   what it does, and what it ought to say");
        say!("  next: cd {}", folder.display());
        say!("        myelin filter test       builds it, runs it in the real engine");
        say!("        myelin dev               a router with traffic; every save goes live");
        Ok(())
    }
}

/// The package's name: the last part of its folder.
fn name(folder: &Path) -> Result<String> {
    let refused = |why: String| {
        Failure::new(Exit::Usage, why)
            .next("a name such as `mask-mail`: it begins with a-z, then come a-z, 0-9 and single `-`")
    };
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| refused(format!("`{}` ends in no name", folder.display())))?;
    let is_plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !is_plain || !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.ends_with('-') {
        return Err(refused(format!("`{name}` is no name for a filter")));
    }
    if name.contains("--") || name.len() > NAME_BYTES_MAX {
        return Err(refused(format!("`{name}` is no name for a filter: at most {NAME_BYTES_MAX} bytes, no `--`")));
    }
    if TAKEN.contains(&name) || KEYWORDS.contains(&name) {
        return Err(refused(format!("`{name}` is a word of Rust or cargo's and cannot be a package's name")));
    }
    Ok(name.to_owned())
}

/// The SDK's package in a clone.
fn checkout(given: &Path) -> Result<PathBuf> {
    let told = |why: &str| {
        Failure::new(Exit::Usage, format!("--sdk {}: {why}", given.display()))
            .next("name the folder of a clone of Myelin, or its folder sdk-guest")
    };
    let is_sdk = |folder: &Path| {
        std::fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("name = \"myelin-filter\""))
    };
    let candidates = [given.join(sdk::SDK), given.to_owned()];
    let found = candidates.iter().find(|folder| is_sdk(folder)).ok_or_else(|| told("there is no SDK in it"))?;
    let found = found.canonicalize().map_err(|error| told(&error.to_string()))?;
    // It goes into Cargo.toml.
    let is_plain = found.to_str().is_some_and(|path| !path.contains(['"', '\\', '\n']));
    if is_plain { Ok(found) } else { Err(told("a path with quotes, backslashes or odd bytes does not fit Cargo.toml")) }
}

/// Writes the package to `folder`.
fn write(folder: &Path, name: &str, kind: Kind, sdk: Option<&Path>) -> anyhow::Result<()> {
    let template = kind.template();
    let copy = Path::new(VENDOR).join(sdk::SDK);
    let path = sdk.unwrap_or(&copy).display().to_string();
    let (sdk_folder, note) = match sdk {
        Some(_) => (path.clone(), "the SDK: in a clone of Myelin on this machine; CI needs it at a path of its own"),
        None => (VENDOR.to_owned(), "the SDK, a copy of that of the `myelin` that made this package"),
    };
    let grants: Vec<_> = template.grants.iter().map(|grant| format!("\"{grant}\"")).collect();
    let fill = |text: &str| {
        let values = [
            // Before @SDK@, which begins alike.
            ("@SDK_FOLDER@", sdk_folder.as_str()),
            ("@SDK_NOTE@", note),
            ("@SDK@", &path),
            ("@SUMMARY@", template.summary),
            ("@RUST@", env!("CARGO_PKG_RUST_VERSION")),
            ("@PATTERN@", template.pattern),
            ("@GRANTS@", &grants.join(", ")),
            ("@BIND_MORE@", template.bind_more),
            ("@NAME@", name),
        ];
        values.iter().fold(text.to_owned(), |text, (key, value)| text.replace(key, value))
    };
    let files = [
        ("Cargo.toml", fill(include_str!("new/templates/manifest.toml"))),
        ("README.md", fill(include_str!("new/templates/readme.md"))),
        (".gitignore", include_str!("new/templates/gitignore").to_owned()),
        (".github/workflows/filter.yml", include_str!("new/templates/filter.yml").to_owned()),
        ("src/lib.rs", template.source.to_owned()),
        ("fixtures/events.jsonl", template.fixtures.to_owned()),
    ];
    for (file, text) in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().context("every file lies in a folder")?)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    match sdk {
        Some(_) => Ok(()),
        None => sdk::write(&folder.join(VENDOR)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_engine::{ModuleLimits, parse_vectors};

    fn new(folder: &Path, kind: Kind, sdk: Option<PathBuf>) -> Result<()> {
        New { name: folder.to_owned(), kind, sdk }.run()
    }

    fn text(folder: &Path, file: &str) -> String {
        std::fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn names_are_those_of_packages_and_modules() {
        for good in ["a", "mask-mail", "x/y/by-region2"] {
            assert!(name(Path::new(good)).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "..", "/", "A", "a_b", "2fast", "-a", "a-", "a--b", "a b", "é", "fn", "test", "std", &long] {
            let failure = name(Path::new(bad)).unwrap_err();
            assert!(failure.exit == Exit::Usage && failure.next.is_some(), "{bad}: {failure}");
        }
    }

    #[test]
    fn every_kind_is_a_whole_package_whose_fixtures_a_router_takes() {
        let folder = tempfile::tempdir().unwrap();
        for kind in Kind::value_variants() {
            let package = folder.path().join(kind.to_possible_value().unwrap().get_name());
            new(&package, *kind, None).unwrap();
            let manifest: toml::Table = text(&package, "Cargo.toml").parse().unwrap();
            let sdk = manifest["dependencies"]["myelin-filter"]["path"].as_str().unwrap();
            assert!(package.join(sdk).join("Cargo.toml").is_file(), "{sdk}");
            assert!(package.join(sdk).join("../wit/0.1.0/filter.wit").is_file());
            let vectors = parse_vectors(text(&package, "fixtures/events.jsonl").as_bytes(), &ModuleLimits::default());
            let vectors = vectors.unwrap();
            assert!(vectors.len() >= 5 && vectors.iter().all(|vector| vector.expect.is_some()), "{kind:?}");
            for file in ["Cargo.toml", "README.md", ".gitignore", ".github/workflows/filter.yml"] {
                let written = text(&package, file);
                assert!(!written.contains('@') || file.ends_with(".yml") || file == "README.md", "{kind:?} {file}");
                assert!(!written.contains("@NAME@") && !written.contains("@PATTERN@"), "{kind:?} {file}");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "nothing is left beside the packages");
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::create_dir(&there).unwrap();
        assert_eq!(new(&there, Kind::Route, None).unwrap_err().exit, Exit::Conflict);
        assert_eq!(std::fs::read_dir(&there).unwrap().count(), 0);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(new(&link, Kind::Route, None).unwrap_err().exit, Exit::Conflict);
    }

    #[test]
    fn the_sdk_of_a_clone_is_named_and_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (name, sdk) in [("a", clone.clone()), ("b", clone.join("sdk-guest"))] {
            let package = folder.path().join(name);
            new(&package, Kind::Policy, Some(sdk)).unwrap();
            assert!(text(&package, "Cargo.toml").contains("/sdk-guest\"") && !package.join("vendor").exists());
        }
        let none = new(&folder.path().join("c"), Kind::Policy, Some(folder.path().to_owned())).unwrap_err();
        assert!(none.exit == Exit::Usage && none.to_string().contains("there is no SDK in it"), "{none}");
        assert!(!folder.path().join("c").exists());
    }
}
