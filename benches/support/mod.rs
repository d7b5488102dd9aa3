//! What all benchmarks share: the ground they stand on, and how they report.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark fails by panicking and prints its result, and none uses all of this"
)]

pub mod collect;
pub mod daemon;
#[path = "../../tests/support/environment.rs"]
pub mod environment;
pub mod fixed;
pub mod goal;
pub mod ground;
pub mod http;
pub mod machine;
pub mod peer;
pub mod readers;
pub mod report;
pub mod traffic;
pub mod webdis;
pub mod wrk;

use std::path::Path;
use std::time::Duration;

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A size that the environment may lower for a quick run.
pub fn size(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")),
        Err(_) => default,
    }
}

/// Longer than anything takes that will end at all.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Says on standard error what is being done: standard output is for the report.
pub fn progress(text: &str) {
    eprintln!("  · {text}");
}
