//! From a row's change to the keys that depended on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod default;
mod live;
mod plan;
#[path = "../support/mod.rs"]
mod support;
