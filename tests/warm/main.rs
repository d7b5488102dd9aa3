//! What the daemon does by itself: warming, its schedule, maintenance.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod after_removal;
mod by_itself;
mod maintenance;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod turns;
