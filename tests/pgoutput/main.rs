//! Bytes of the stream to messages: exactly, without a panic, without an allocation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod allocation;
#[path = "../../benches/counts/allocations.rs"]
mod allocations;
#[path = "../golden/mod.rs"]
mod golden;
mod properties;
#[path = "../../fuzz/properties/pgoutput.rs"]
mod property;
mod recorded;
