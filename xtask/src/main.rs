//! `cargo xtask`: the commands of this repository. A fresh machine needs rustup's cargo and a C compiler only.
//!
//! Each command is a table of named steps ([`steps::Steps`]); the work itself is done by cargo, rustup, apt, Python and
//! the `myelin` binary, so what runs here can always be run by hand as well: every command line is printed first.

mod bench;
mod checks;
mod demo;
mod dist;
mod filters;
mod fuzz;
mod guard;
mod javascript;
mod namespaces;
mod peers;
mod readme;
mod repository;
mod setup;
mod shell;
mod steps;
mod supply;
mod tidy;

use anyhow::{Result, bail};

use crate::filters::Profile;
use crate::repository::Repository;

/// Every subcommand with its one-line help; the README check refuses commands that are not here.
pub(crate) const COMMANDS: &[(&str, &str)] = &[
    ("setup", "install what building filters and running the tests needs (idempotent)"),
    ("demo", "build everything, then watch filters being swapped under load"),
    ("test", "run every check; --quick (no installs, Wasm, Python), --keep-going, --only STEP"),
    ("filters", "build all filter components into target/filters; --release uses the release binary"),
    ("filters-js", "build the filters in JavaScript into target/filters; needs node and npm"),
    (
        "bench",
        "build and run the benches: [peers|hops|scenarios|governance|attacks|micro|memory]; arguments are passed on",
    ),
    ("guard", "count the hot path's instructions against benches/guard.toml; --update rewrites it"),
    ("fuzz", "run the fuzz targets on a nightly compiler: [TARGET] [--seconds N]"),
    ("tidy", "check layers, sizes, words and links of the repository"),
    ("dist", "release binary with its sha256 into target/dist"),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&arguments) {
        eprintln!("\nxtask: {error:#}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((command, rest)) = arguments.split_first() else {
        print_help();
        bail!("name a command");
    };
    let repository = Repository::find()?;
    match command.as_str() {
        "setup" => {
            refuse_arguments(command, rest, &[])?;
            setup::everything(&repository)
        }
        "demo" => demo::run(&repository, rest),
        "test" => checks::run(&repository, &checks::Options::parse(rest)?),
        "filters" => {
            refuse_arguments(command, rest, &["--release"])?;
            let profile = if rest.is_empty() { Profile::Dev } else { Profile::Release };
            setup::wasm_toolchain(&repository)?;
            filters::build_router(&repository, profile)?;
            filters::build_all(&repository, profile)
        }
        "filters-js" => {
            refuse_arguments(command, rest, &[])?;
            setup::node(&repository)?;
            javascript::build_all(&repository)
        }
        "bench" => bench::run(&repository, rest),
        "guard" => {
            refuse_arguments(command, rest, &["--update"])?;
            guard::run(&repository, if rest.is_empty() { guard::Mode::Check } else { guard::Mode::Update })
        }
        "fuzz" => fuzz::run(&repository, &fuzz::Options::parse(rest)?),
        "tidy" => {
            refuse_arguments(command, rest, &[])?;
            tidy::run(&repository)
        }
        "dist" => {
            refuse_arguments(command, rest, &[])?;
            dist::run(&repository)
        }
        "help" | "-h" | "--help" => {
            print_help();
            Ok(())
        }
        unknown => {
            print_help();
            bail!("there is no command '{unknown}'")
        }
    }
}

fn refuse_arguments(command: &str, given: &[String], known: &[&str]) -> Result<()> {
    match given.iter().find(|argument| !known.contains(&argument.as_str())) {
        None => Ok(()),
        Some(argument) if known.is_empty() => bail!("`cargo xtask {command}` takes no arguments, not '{argument}'"),
        Some(argument) => bail!("`cargo xtask {command}` knows {}, not '{argument}'", known.join(" and ")),
    }
}

fn print_help() {
    eprintln!("cargo xtask COMMAND\n");
    for (name, help) in COMMANDS {
        eprintln!("  {name:<12}{help}");
    }
}

#[cfg(test)]
mod tests {
    use super::{refuse_arguments, run};

    #[test]
    fn unknown_words_are_refused_with_the_known_ones() {
        let given = vec!["--fast".to_owned()];
        let error = refuse_arguments("filters", &given, &["--release"]).expect_err("--fast is not known");
        assert_eq!(error.to_string(), "`cargo xtask filters` knows --release, not '--fast'");
        let error = refuse_arguments("tidy", &given, &[]).expect_err("tidy takes none");
        assert_eq!(error.to_string(), "`cargo xtask tidy` takes no arguments, not '--fast'");
        let error = run(&["tset".to_owned()]).expect_err("tset is not a command");
        assert_eq!(error.to_string(), "there is no command 'tset'");
    }
}
