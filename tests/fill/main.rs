//! Values on their way into Redis: by lease, bounded, from the primary or a replica.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bounds;
mod composed;
mod negative;
mod one_load;
mod refresh;
mod replica;
mod single_flight;
#[path = "../support/mod.rs"]
mod support;
mod through;
