//! One fault of Redis at a time: nothing is acknowledged that was not applied, nothing stale is back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod clients;
mod history;
mod memory;
mod purge;
mod refuses;
#[path = "../support/mod.rs"]
mod support;
mod valkey;
