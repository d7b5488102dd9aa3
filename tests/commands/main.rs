//! The command line, as its users drive it: the real binary beside a real daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod explain;
mod removal;
mod report;
mod rows;
mod shell;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod tail;
mod tail_wal2json;
mod told;
mod usage;
mod verify;
mod warm;
mod why;
