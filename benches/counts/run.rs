//! `make counts`: what a change costs in an optimized build, beside the baseline. `UPDATE_COUNTS=1
//! make counts` writes the baseline anew.
//!
//! It has a profile of its own: a release build takes minutes more, and its counts differ little.

#![allow(clippy::print_stderr, reason = "a benchmark prints its result")]

#[path = "mod.rs"]
mod counts;

use std::process::{Command, ExitCode};

use counts::judge::{self, Build};

fn main() -> ExitCode {
    if counts::callgrind::is_counted() {
        return ExitCode::SUCCESS;
    }
    let complaints = judge::judge(Build::Optimized, |_: &mut Command| {});
    for complaint in &complaints {
        eprintln!("counts: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
