//! The protocol, checked exhaustively.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and a model's numbers are small"
)]

mod check;
mod daemon;
mod filler;
mod gate;
mod invariants;
mod postgres;
mod redis;
mod rules;
mod scenario;
mod set;
mod world;
