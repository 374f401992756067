//! `cargo xtask fuzz`: libFuzzer over the targets of `tests/fuzz`. Needs a nightly compiler and cargo-fuzz; nothing else
//! does: what was found is replayed by the plain tests of `myelin-attacks`.

use anyhow::{Context as _, Result, bail};

use crate::repository::Repository;
use crate::shell;

/// Where the fuzz workspace is.
const FOLDER: &str = "tests/fuzz";
/// Its manifest.
pub(crate) const MANIFEST: &str = "tests/fuzz/Cargo.toml";
/// Targets that need the whole router, Wasm engine included: minutes of building instead of seconds.
const WITH_ROUTER: &[&str] = &["bodies", "config", "module"];
/// The target that needs Cedar.
const WITH_POLICY: &[&str] = &["policy"];
/// Targets that need the libraries of schemas.
const WITH_SCHEMAS: &[&str] = &["payload", "schema"];
/// The features of the fuzz workspace, and the targets that need them.
const FEATURES: [(&str, &[&str]); 3] = [("router", WITH_ROUTER), ("policy", WITH_POLICY), ("schema", WITH_SCHEMAS)];
/// How long each target runs where nothing else is said.
const SECONDS_DEFAULT: u64 = 30;
/// Longest input: what a control frame may have.
const INPUT_BYTES_MAX: u64 = 64 * 1024;
/// Memory of a target; beyond, the input is a finding.
const MEMORY_MIB_MAX: u64 = 512;
/// An input that takes longer is a finding.
const INPUT_SECONDS_MAX: u64 = 10;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// One target; all of them where it is left out.
    pub(crate) target: Option<String>,
    /// Seconds for each.
    pub(crate) seconds: u64,
}

impl Options {
    /// From the command line.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { target: None, seconds: SECONDS_DEFAULT };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--seconds" => {
                    let number = rest.next().context("--seconds needs a number")?;
                    options.seconds = number.parse().with_context(|| format!("'{number}' is no number of seconds"))?;
                }
                flag if flag.starts_with('-') => bail!("`cargo xtask fuzz` knows TARGET and --seconds N, not '{flag}'"),
                target if options.target.is_none() => options.target = Some(target.to_owned()),
                second => bail!("`cargo xtask fuzz` takes one target, '{second}' is a second one"),
            }
        }
        Ok(options)
    }
}

/// Runs the targets one after the other; a finding ends it, and its input stays in `tests/fuzz/artifacts`.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<()> {
    check_tools(repository)?;
    let known = targets(repository)?;
    let chosen = match &options.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no target '{target}'; there are {}", known.join(", ")),
    };
    for target in &chosen {
        eprintln!("\n==> {target}: {} s", options.seconds);
        // New inputs go to a folder of their own: those worth keeping are committed by hand.
        let found = repository.target.join("fuzz-corpus").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut command = repository.command("rustup");
        command.env("CARGO_TARGET_DIR", repository.target.join("fuzz"));
        command.args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", FOLDER]);
        // There is no unsafe code in the targets for a sanitizer to look at; without one they are three times as fast.
        command.args(["--sanitizer", "none"]);
        for (feature, those) in FEATURES {
            if those.contains(&target.as_str()) {
                command.args(["--features", feature]);
            }
        }
        command.arg(target).arg(&found).arg(format!("{FOLDER}/corpus/{target}"));
        command.arg("--").args(limits(options.seconds));
        shell::run(&mut command).with_context(|| {
            format!("{target}: fix it, then keep the input from {FOLDER}/artifacts in {FOLDER}/corpus/{target}")
        })?;
    }
    Ok(())
}

fn limits(seconds: u64) -> [String; 5] {
    [
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        "-print_final_stats=1".to_owned(),
    ]
}

/// The names of the targets: one program each.
fn targets(repository: &Repository) -> Result<Vec<String>> {
    let folder = repository.root.join(FOLDER).join("fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn check_tools(repository: &Repository) -> Result<()> {
    if !shell::succeeds(repository.command("rustup").args(["run", "nightly", "rustc", "--version"])) {
        bail!("fuzzing needs a nightly compiler: `rustup toolchain install nightly --profile minimal`");
    }
    if !shell::succeeds(repository.cargo().args(["fuzz", "--version"])) {
        bail!("fuzzing needs cargo-fuzz: `cargo install --locked cargo-fuzz`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FEATURES, FOLDER, Options, SECONDS_DEFAULT, targets};
    use crate::repository::Repository;

    fn parse(words: &[&str]) -> Result<Options, String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Options::parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_and_a_time_are_read_and_nothing_else() {
        let all = Options { target: None, seconds: SECONDS_DEFAULT };
        assert_eq!(parse(&[]), Ok(all));
        let one = Options { target: Some("control".into()), seconds: 600 };
        assert_eq!(parse(&["--seconds", "600", "control"]), Ok(one));
        for wrong in [&["--seconds"][..], &["--seconds", "x"], &["a", "b"], &["--jobs"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_table_of_targets_is_what_the_manifest_says() {
        let repository = Repository::find().expect("inside the repository");
        let manifest = std::fs::read_to_string(repository.root.join(FOLDER).join("Cargo.toml")).expect("it is there");
        let targets = targets(&repository).expect("a folder");
        for target in &targets {
            let block = manifest.split("[[bin]]").find(|block| block.contains(&format!("name = \"{target}\"")));
            let block = block.unwrap_or_else(|| panic!("{target} has no program in the manifest"));
            for (feature, those) in FEATURES {
                let needs = block.contains(&format!("required-features = [\"{feature}\"]"));
                assert_eq!(needs, those.contains(&target.as_str()), "{target} and {feature}");
            }
        }
        assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
    }
}
