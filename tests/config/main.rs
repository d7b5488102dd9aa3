//! The configuration as a product: layers, places, remedies, and no secret shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod composed;
mod diagnostics;
mod layers;
mod mapping;
mod nesting;
mod never_panics;
mod queries;
mod schema;
mod secrets;
