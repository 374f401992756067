//! What holds for the command line as a whole: which commands speak to programs, and how they are asked to.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::{Cli, listing};
use clap::{Arg, Command, CommandFactory};
use std::collections::BTreeMap;

/// The commands that are not asked for JSON, each with the reason. Whatever changes something at a router is not among them.
const WITHOUT: &[(&str, &str)] = &[
    ("asyncapi export", "what it prints is a JSON document"),
    ("asyncapi import", "makes files here"),
    ("audit export", "what it prints are lines of JSON, or --format csv"),
    ("capture fetch", "makes a file here, which holds lines of JSON"),
    ("cert ca", "makes files here"),
    ("cert issue router", "makes files here"),
    ("cert issue service", "makes files here"),
    ("config check", "the exit code says it, and the faults are for whoever wrote the file"),
    ("config default", "what it prints is a file in TOML"),
    ("demo", "is for people"),
    ("dev", "is for people"),
    ("export", "makes files here"),
    ("filter allow-downgrade", "makes a file here"),
    ("filter build", "makes a file here; --quiet prints its name alone"),
    ("filter keygen", "makes files here"),
    ("filter new", "makes files here"),
    ("filter pull", "makes files here"),
    ("filter sign", "makes a file here"),
    ("policy schema", "what it prints is a schema of Cedar"),
    ("reply", "answers until it is stopped, and tells nothing"),
    ("serve", "runs until it is stopped; [log] format is how it logs"),
    ("trust show", "the file that it shows is JSON"),
];

/// All commands that do something, by their words.
fn commands() -> BTreeMap<String, Command> {
    let mut found = BTreeMap::new();
    below(&Cli::command(), "", &mut found);
    found
}

fn below(command: &Command, words: &str, found: &mut BTreeMap<String, Command>) {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let words = format!("{words}{}", below.get_name());
        self::below(below, &format!("{words} "), found);
        // `mesh` does something by itself, too.
        if !below.has_subcommands() || below.is_args_conflicts_with_subcommands_set() {
            found.insert(words, below.clone());
        }
    }
}

/// Whether an argument is how a command is asked for JSON.
fn asks_for_json(arg: &Arg) -> bool {
    let takes_json = || arg.get_possible_values().iter().any(|value| value.matches("json", false));
    arg.get_long() == Some("json") || (arg.get_long() == Some("output") && arg.get_short() == Some('o') && takes_json())
}

#[test]
fn every_command_speaks_to_programs_or_says_here_why_not() {
    let without = commands().into_iter().filter(|(_, command)| !command.get_arguments().any(asks_for_json));
    let without: Vec<_> = without.map(|(words, _)| words).collect();
    let listed: Vec<_> = WITHOUT.iter().map(|(words, _)| *words).collect();
    assert_eq!(without, listed, "give it `-o json` (`Shape`), or a reason here");
}

#[test]
fn where_o_is_no_format_it_is_the_hidden_short_of_out() {
    for (words, command) in commands() {
        for arg in command.get_arguments().filter(|arg| !asks_for_json(arg)) {
            assert_ne!(arg.get_short(), Some('o'), "{words}: `-o` is a format; call a file --out");
            let is_file = arg.get_all_short_aliases().is_some_and(|shorts| shorts.contains(&'o'));
            assert!(!is_file || arg.get_long() == Some("out"), "{words}");
        }
    }
    // As they were written before.
    for line in [
        "myelin asyncapi export -o a.json",
        "myelin asyncapi export --output a.json",
        "myelin asyncapi export --out a.json",
        "myelin capture fetch 1 -o a.capture",
        "myelin capture fetch 1 --output a.capture",
        "myelin filter pull oci://r.example/a:1 -o a.wasm",
    ] {
        assert!(Cli::command().try_get_matches_from(line.split(' ')).is_ok(), "{line}");
    }
}

#[test]
fn a_program_is_whoever_asks_for_json_by_any_flag() {
    let asks = |line: &str| {
        let told = Cli::command().try_get_matches_from(line.split(' '));
        listing::is_for_programs(&told.unwrap_or_else(|error| panic!("{line}: {error}")))
    };
    for line in [
        "myelin policy ls -o json",
        "myelin policy ls --json",
        "myelin policy rm a --output=json",
        "myelin mesh -o json",
        "myelin mesh keys ls -o json",
        "myelin pub a -m b --json",
        "myelin sub a --json",
        "myelin filter test -o json",
        "myelin filter logs a@1.0.0 -o json",
    ] {
        assert!(asks(line), "{line}");
    }
    for line in ["myelin policy ls", "myelin policy ls -o table", "myelin capture fetch 1 -o json", "myelin whoami"] {
        assert!(!asks(line), "{line}");
    }
}
