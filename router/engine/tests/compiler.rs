//! The compiler child and the code cache. This test binary is its own child: started with `compile-module` it
//! compiles what stands on its standard input, as the router does for its hidden subcommand. Hence its own `main`.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, unreachable_pub, reason = "a test may panic")]

#[path = "../src/tests/guests.rs"]
mod guests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use guests::Guest;
use myelin_engine::{
    CacheStats, CodeCache, CompilerConfig, CompilerLimits, Runtime, RuntimeConfig, SlotSetup, compile_in_child,
    compiler_child_main, self_test,
};
use sha2::{Digest, Sha256};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("compile-module") => return compiler_child_main(&limits_from(&arguments[2..])),
        Some("hang") => std::thread::sleep(Duration::from_secs(60)),
        _ => {}
    }
    let tests: [(&str, fn()); 6] = [
        ("a_module_is_compiled_and_runs_in_the_pool", a_module_is_compiled_and_runs_in_the_pool),
        ("what_does_not_compile_is_refused", what_does_not_compile_is_refused),
        ("a_child_that_hangs_is_killed", a_child_that_hangs_is_killed),
        ("a_child_that_needs_too_much_ends", a_child_that_needs_too_much_ends),
        ("a_child_that_is_no_compiler_is_refused", a_child_that_is_no_compiler_is_refused),
        ("only_untouched_code_is_loaded", only_untouched_code_is_loaded),
    ];
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    println!("\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n", tests.len());
    ExitCode::SUCCESS
}

/// The limits as the parent wrote them: address space and CPU time.
fn limits_from(arguments: &[String]) -> CompilerLimits {
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse().ok());
    let default = CompilerLimits::default();
    CompilerLimits {
        address_space_bytes: number(0).unwrap_or(default.address_space_bytes),
        cpu_seconds: number(1).unwrap_or(default.cpu_seconds),
        ..default
    }
}

fn compiler(limits: CompilerLimits) -> CompilerConfig {
    let args = ["compile-module".into(), limits.address_space_bytes.to_string(), limits.cpu_seconds.to_string()];
    CompilerConfig { program: this_program(), args: args.into(), limits, wall: Duration::from_secs(60) }
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

fn runtime() -> Runtime {
    Runtime::new(&RuntimeConfig { slots: 4, ..RuntimeConfig::default() }).expect("an engine")
}

fn a_module_is_compiled_and_runs_in_the_pool() {
    let runtime = runtime();
    let artefact = compile_in_child(&compiler(CompilerLimits::default()), &Guest::default().component()).expect("code");
    assert_eq!(artefact.compatibility(), runtime.compatibility(), "the child's engine fits the pool");
    let program = runtime.load(&artefact).expect("loaded");
    self_test(&program, &SlotSetup::default(), None).expect("it works");
}

fn what_does_not_compile_is_refused() {
    let error = compile_in_child(&compiler(CompilerLimits::default()), b"\0asm nonsense").expect_err("refused");
    assert_eq!(error.code(), "module-does-not-compile", "{error}");
}

fn a_child_that_hangs_is_killed() {
    let config = CompilerConfig {
        args: vec!["hang".into()],
        wall: Duration::from_millis(300),
        ..compiler(CompilerLimits::default())
    };
    let begin = Instant::now();
    // Larger than a pipe's buffer: the writer must not hang either.
    let error = compile_in_child(&config, &vec![0; 1 << 20]).expect_err("killed");
    assert_eq!(error.code(), "compile-time", "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
}

fn a_child_that_needs_too_much_ends() {
    let limits = CompilerLimits { address_space_bytes: 8 << 20, ..CompilerLimits::default() };
    let error = compile_in_child(&compiler(limits), &Guest::default().component()).expect_err("too little memory");
    assert!(matches!(error.code(), "compile-memory" | "compiler-ended" | "compiler-limits"), "{error}");
    let limits = CompilerLimits { cpu_seconds: 1, ..CompilerLimits::default() };
    let begin = Instant::now();
    let error = compile_in_child(&compiler(limits), &bomb()).expect_err("too slow");
    assert_eq!(error.code(), "compile-time", "{error}");
    assert!(begin.elapsed() < Duration::from_secs(30), "after {:?}", begin.elapsed());
}

/// A component with functions that keep the optimiser busy for many seconds.
fn bomb() -> Vec<u8> {
    let line = "(local.set 0 (i64.add (i64.mul (local.get 0) (local.get 1)) (i64.rotl (local.get 1) (local.get 0))))\
                (if (i64.lt_u (local.get 0) (local.get 1)) (then (local.set 1 (i64.xor (local.get 0) (local.get 1)))))";
    let body = line.repeat(4_000);
    let functions: String =
        (0..24).map(|_| format!("(func (param i64 i64) (result i64) {body} (local.get 0))")).collect();
    wat::parse_str(format!("(component (core module {functions}))")).expect("well-formed")
}

fn a_child_that_is_no_compiler_is_refused() {
    let run = |program: &str, args: &[&str]| {
        let args = args.iter().map(ToString::to_string).collect();
        let config = CompilerConfig { program: program.into(), args, ..compiler(CompilerLimits::default()) };
        compile_in_child(&config, b"x").expect_err("refused").code()
    };
    assert_eq!(run("/bin/cat", &[]), "compiler-answer");
    assert_eq!(run("/bin/false", &[]), "compiler-ended");
    assert_eq!(run("/nonexistent/compiler", &[]), "compiler-start");
}

fn only_untouched_code_is_loaded() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let (wasm, config) = (Guest::default().component(), compiler(CompilerLimits::default()));
    let digest: [u8; 32] = Sha256::digest(&wasm).into();
    let cache = CodeCache::open(folder.path()).expect("cache");
    let stats = |hits, misses, refused| CacheStats { hits, misses, refused, write_failures: 0 };
    cache.program(&runtime, &config, &wasm).expect("compiled");
    assert_eq!(cache.stats(), stats(0, 1, 0));
    let again = CodeCache::open(folder.path()).expect("the same key");
    again.program(&runtime, &config, &wasm).expect("found");
    assert_eq!(again.stats(), stats(1, 0, 0));

    let file = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|e| e == "cwasm")).expect("a file");
    let good = std::fs::read(&file).unwrap();
    for at in [0, 20, 100, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        assert!(again.get(&digest, &runtime.compatibility()).is_none(), "byte {at} was changed");
        assert!(!file.exists(), "what is not ours is removed");
    }
    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    again.program(&runtime, &config, &wasm).expect("compiled again");
    assert_eq!(again.stats().refused, 5);
    assert_eq!(std::fs::read(&file).unwrap().len(), good.len(), "and written again");

    let other = [7; 32];
    let renamed = file.with_file_name(file.file_name().unwrap().to_str().unwrap().replace(&hex(&digest), &hex(&other)));
    std::fs::rename(&file, &renamed).unwrap();
    assert!(again.get(&other, &runtime.compatibility()).is_none(), "code of another module");

    again.program(&runtime, &config, &wasm).expect("compiled again");
    std::fs::write(folder.path().join("mac.key"), [1; 32]).unwrap();
    let stranger = CodeCache::open(folder.path()).expect("another key");
    assert!(stranger.get(&digest, &runtime.compatibility()).is_none(), "authenticated by another key");
    assert_eq!(stranger.stats().refused, 1);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
