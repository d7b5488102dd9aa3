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

mod chain;
mod check;
mod daemon;
#[cfg(feature = "long-tests")]
mod deep;
mod fan_out;
mod filler;
mod gaps;
mod gate;
mod invariants;
mod own_writes;
mod postgres;
mod publication;
mod purge;
mod redis;
mod refresh;
mod replica;
mod rules;
mod scenario;
mod set;
mod two_daemons;
mod world;
