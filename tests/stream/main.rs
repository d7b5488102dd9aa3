//! What comes through the stream: large, in progress, prepared, rewritten, or not at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod assembled;
#[path = "../golden/mod.rs"]
mod golden;
mod large;
mod long_life;
mod protocol;
mod random;
mod rewrites;
mod spine;
mod stalled;
#[path = "../support/mod.rs"]
mod support;
mod two_phase;
