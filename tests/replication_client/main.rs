//! The Postgres client room against a real server.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests fail by panicking, and document themselves by their names"
)]

mod certificates;
mod cluster;
mod facts;
mod login;
mod slots;
mod stream;
mod tls;
