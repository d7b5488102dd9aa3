//! One fault of the daemon, of Postgres or of what is published at a time: nothing is lost, nothing stale stays.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod certificate;
mod clocks;
mod daemon;
mod failover;
mod memory;
mod postgres;
mod publication;
mod standby;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod two_servers;
