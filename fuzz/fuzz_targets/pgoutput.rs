//! `make fuzz`: see `fuzz/README.md`.
#![no_main]

#[path = "../properties/pgoutput.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    property::check(input);
});
