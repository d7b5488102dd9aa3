//! `unstale check` and `unstale setup`: what is missing is found, said, and done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod dependencies;
mod permissions;
mod preflight;
mod replica;
mod servers;
mod setup;
