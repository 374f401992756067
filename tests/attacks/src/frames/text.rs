//! Bad texts: topics, patterns, bodies of the admin API, configuration files.

use crate::Dice;
use crate::mangle::{mangle, not_utf8};

/// A topic that most likely is none.
pub fn topic(dice: &mut Dice) -> Vec<u8> {
    let wild = *dice.pick(&["a/*", "**", "a/**/b", "a*", "*"]);
    match dice.below(4) {
        0 => wild.into(),
        1 => mangle(dice, b"orders/eu/42".to_vec()),
        _ => levels(dice),
    }
}

/// A pattern that most likely is none.
pub fn pattern(dice: &mut Dice) -> Vec<u8> {
    let wild = *dice.pick(&["**/a", "a/**/b", "a*", "a/*b/c", "***", "**/**", "a/b**", "*/**/*"]);
    match dice.below(4) {
        0 => wild.into(),
        1 => [wild.as_bytes(), &levels(dice)].concat(),
        2 => mangle(dice, b"orders/*/**".to_vec()),
        _ => levels(dice),
    }
}

fn levels(dice: &mut Dice) -> Vec<u8> {
    match dice.below(8) {
        0 => dice.pick(&["", "/", "//", "a/", "/a", "a//b", "a///", "//a"]).as_bytes().to_vec(),
        1 => "a/".repeat(32 + dice.below(4)).into_bytes(),
        2 => "x".repeat(251 + dice.below(5_000)).into_bytes(),
        3 => format!("a/{}/b", char::from(dice.byte() % 32)).into_bytes(),
        4 => format!("a/{}", *dice.pick(&['\u{7f}', '\u{85}', '\u{9f}', '\0'])).into_bytes(),
        5 => [b"a/", not_utf8(dice)].concat(),
        6 => "a/b/".repeat(70).into_bytes(),
        _ => dice.noise(60),
    }
}

/// Values that do not belong where they are put.
const ODD_JSON: [&str; 20] = [
    "null",
    "true",
    "-1",
    "1e999",
    "1.5",
    "18446744073709551616",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"../../etc\"",
    "\"a/**/b\"",
    "\"m@1\"",
    "\"M@1.0.0\"",
    "[]",
    "[[]]",
    "{}",
    "{\"topics\":[7]}",
    "{\"topics\":[\"a**\"]}",
    "NaN",
    "'x'",
];
/// Fields of a binding and of the requests about rollouts.
const JSON_KEYS: [&str; 16] = [
    "name",
    "module",
    "pattern",
    "stage",
    "order",
    "config",
    "limits",
    "on_fault",
    "grant",
    "policy",
    "per_subscriber",
    "note",
    "to",
    "memory_bytes",
    "deadline_us",
    "feilds",
];
const BINDING: &str = r#"{"module":"quiet@1.0.0","pattern":"a/**","stage":"ingress","order":3,"config":{"a":[1,2]},"limits":{"memory_bytes":65536,"deadline_us":1000},"on_fault":"reject","grant":{"topics":["x/**"],"sites":[]},"policy":true}"#;

/// A body for the admin API that most likely is refused.
pub fn body(dice: &mut Dice) -> Vec<u8> {
    let key = *dice.pick(&JSON_KEYS);
    let odd = *dice.pick(&ODD_JSON);
    match dice.below(8) {
        0 => mangle(dice, BINDING.into()),
        1 => format!("{{\"{key}\":{odd}}}").into_bytes(),
        2 => format!("{{\"module\":\"quiet@1.0.0\",\"pattern\":\"a/**\",\"{key}\":{odd}}}").into_bytes(),
        3 => {
            let depth = *dice.pick(&[50, 127, 128, 129, 3_000, 60_000]);
            let (open, close) = *dice.pick(&[("[", "]"), ("{\"a\":", "}")]);
            let closed = if dice.once_in(2) { format!("0{}", close.repeat(depth)) } else { String::new() };
            format!("{{\"config\":{}{closed}}}", open.repeat(depth)).into_bytes()
        }
        4 => [BINDING.as_bytes(), &dice.noise(5), b"}"].concat(),
        5 => format!("{{\"{}\":1}}", "k".repeat(dice.below(40_000))).into_bytes(),
        6 => {
            let text = not_utf8(dice);
            [b"{\"note\":\"", text, b"\"}"].concat()
        }
        _ => dice.noise(120),
    }
}

/// Values that do not belong where they are put.
const ODD_TOML: [&str; 18] = [
    "true",
    "-1",
    "1.5",
    "inf",
    "nan",
    "\"\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[[1]]]",
    "1979-05-27",
    "99999999999999999999",
    "0xffffffffffffffff",
    "\"256.0.0.1:70000\"",
    "'''",
    "\"unclosed",
    "{ a = { a = { a = 1 } } }",
    "-9223372036854775808",
];
const SECTIONS: [&str; 9] = ["node", "tls", "listen", "limits", "outbox", "wasm", "admin", "nodes", "wasm.more"];
const TOML_KEYS: [&str; 16] = [
    "site",
    "name",
    "data_dir",
    "workers",
    "sessions_per_worker",
    "drain_seconds",
    "cert",
    "client",
    "admin",
    "payload_bytes",
    "bytes",
    "events",
    "deadline_us",
    "instances",
    "token_file",
    "sitte",
];

/// A configuration file that most likely is refused.
pub fn config(dice: &mut Dice) -> String {
    let (section, key, odd) = (*dice.pick(&SECTIONS), *dice.pick(&TOML_KEYS), *dice.pick(&ODD_TOML));
    match dice.below(8) {
        0 => String::from_utf8_lossy(&mangle(dice, myelin_like().into())).into_owned(),
        1 => format!("[{section}]\n{key} = {odd}\n"),
        2 => format!("{key} = {odd}\n"),
        3 => format!("[{section}]\n{key} = 1\n{key} = 2\n[{section}]\n"),
        4 => format!("[{section}]\n{key} = {}1{}\n", "[".repeat(dice.below(300)), "]".repeat(dice.below(300))),
        5 => format!("[{}]\n{key} = 1\n", "x.".repeat(dice.below(400)) + "y"),
        6 => format!("[{section}]\n{key} = \"{}\"\n", "long ".repeat(dice.below(2_000))),
        _ => String::from_utf8_lossy(&dice.noise(200)).into_owned(),
    }
}

/// A valid file, for spoiling.
fn myelin_like() -> &'static str {
    "[node]\nsite = \"hamburg\"\nworkers = 2\n[listen]\nclient = \"127.0.0.1:7400\"\n[limits]\npayload_bytes = 1_048_576\n\
     [outbox]\nevents = 65536\n[wasm]\ndeadline_us = 2000\ninstances = 512\n"
}
