//! How it is run: under systemd, as the demo, and on servers that the sandbox starts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../certificates/mod.rs"]
mod certificates;
mod demo;
mod sandbox;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
