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
#[path = "../../benches/counts/baseline.rs"]
mod baseline;
mod change;
#[path = "../golden/mod.rs"]
mod golden;
mod properties;
#[path = "../../fuzz/properties/pgoutput.rs"]
mod property;
mod recorded;
#[path = "../../benches/counts/stream.rs"]
mod stream;
#[path = "../../benches/counts/work.rs"]
mod work;
