//! Redis as the daemon uses it: scripts, steps, leases, and every way in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod acl;
#[path = "../certificates/mod.rs"]
mod certificates;
mod fills;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod ways_in;
