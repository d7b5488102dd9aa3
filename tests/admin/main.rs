//! The admin listener: who may read it, and that what it shows (metrics, alerts, the console) is what is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod console;
mod door;
mod inconsistent;
mod metrics_page;
mod prometheus;
#[path = "../support/mod.rs"]
mod support;
