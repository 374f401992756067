#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| myelin_attacks::targets::run("signature", data));
