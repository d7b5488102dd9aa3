//! `cargo +nightly fuzz run pgoutput`: see `fuzz/README.md`.
#![no_main]

#[path = "../property.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    property::check(input);
});
