//! The router with a counting allocator: says how many allocations it has made, for each line on its standard input.
//!
//! `myelin-bench micro` runs it in place of `myelin`.
#![forbid(unsafe_code)]

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::io::BufRead;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        std::thread::spawn(|| {
            for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
                let stats = ALLOCATOR.stats();
                eprintln!("{}", stats.allocations + stats.reallocations);
            }
        });
    }
    myelin::cli::main()
}
