//! The read API over real sockets: who may ask for what, what is answered, and what is when something is away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod access;
mod attacks;
mod failure;
mod management;
mod openapi;
mod other_schema;
mod own_writes;
mod read;
mod schemathesis;
mod stale;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
