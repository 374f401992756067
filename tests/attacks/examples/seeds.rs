//! Writes the first files of the fuzz corpora: `cargo run -p myelin-attacks --example seeds -- tests/fuzz/corpus`.
//!
//! One well-formed input of each kind, and a few generated bad ones of each surface; what fuzzing finds comes beside
//! them under names of its own.
#![allow(clippy::unwrap_used, reason = "a program for developers says what failed by panicking")]

use myelin_attacks::{Dice, frames};
use std::path::{Path, PathBuf};

/// Generated bad inputs for each target.
const GENERATED: u64 = 12;
/// Longer ones are not worth their place in the repository.
const GENERATED_BYTES_MAX: usize = 1_024;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("name the folder of the corpora"));
    let write = |target: &str, name: &str, bytes: &[u8]| write(&folder, target, name, bytes);
    for message in frames::valid_messages() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        write("control", &format!("{:?}", message.frame_type()).to_lowercase(), &bytes);
    }
    write("publish", "valid", &frames::valid_publish());
    write("event", "valid", &frames::valid_publish()[50..]);
    for (number, text) in ["a/b\na/b", "a/*\na/b", "a/**\na", "**\n$x/y", "*/**\n**", "$x/*\n$x/y"].iter().enumerate() {
        write("topics", &format!("pair-{number}"), text.as_bytes());
    }
    write("config", "default", myelin::config::DEFAULT_TOML.as_bytes());
    write("bodies", "binding", br#"{"module":"a@1.0.0","pattern":"a/**","config":{"k":[1]},"grant":{"topics":["x"]}}"#);
    write("bodies", "rollback", br#"{"to":3,"note":"why"}"#);
    for (name, bytes) in modules() {
        write("module", &name, &bytes);
    }
    let generated: [(&str, Make); 7] = [
        ("control", frames::control),
        ("publish", frames::publish),
        ("deliver", frames::deliver),
        ("event", frames::event),
        ("topics", frames::topic),
        ("bodies", frames::body),
        ("config", |dice| frames::config(dice).into_bytes()),
    ];
    for (target, make) in generated {
        for seed in 0..GENERATED {
            let bytes = make(&mut Dice::new(seed));
            write(target, &format!("bad-{seed}"), &bytes[..bytes.len().min(GENERATED_BYTES_MAX)]);
        }
    }
    for (name, bytes) in arenas() {
        write("arena", &name, &bytes);
    }
}

/// Makes an input.
type Make = fn(&mut Dice) -> Vec<u8>;

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) {
    let folder = folder.join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

/// Small hostile modules, and texts that are none.
fn modules() -> Vec<(String, Vec<u8>)> {
    let small = myelin_attacks::modules::all().into_iter().map(|module| (module.name.to_owned(), module.wasm()));
    let mut found: Vec<_> = small.filter(|(_, bytes)| bytes.len() < 6 * 1_024).take(10).collect();
    found.push(("vectors".into(), br#"{"topic":"a","payload":"D","expect":{"verdict":"deny"}}"#.to_vec()));
    found
}

/// A good arena and what becomes of it when it is spoilt.
fn arenas() -> Vec<(String, Vec<u8>)> {
    let mut builder = myelin_arena::ArenaBuilder::new(2);
    for topic in ["audit/log", ""] {
        let entry =
            myelin_arena::Entry { topic, attrs: b"\x05\x01\0k", payload: b"p", payload_total: 1, identity: Some("me") };
        builder.push(&entry);
    }
    let good = builder.into_bytes();
    let spoilt = (0..GENERATED)
        .map(|seed| (format!("bad-{seed}"), myelin_attacks::mangle::mangle(&mut Dice::new(seed), good.clone())));
    [("valid".to_owned(), good.clone())].into_iter().chain(spoilt).collect()
}
