//! In the place of a Django cache layer, and beside one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod from_django;
mod python;
mod shadow;
mod shadow_django;
#[path = "../support/mod.rs"]
mod support;
mod writes;
