//! The read API.
pub mod access;
pub mod conditional;
pub mod encoding;
pub mod endpoints;
mod handle;
pub mod identity;
pub mod parameters;
pub mod problem;
mod reading;
mod respond;
mod seen;
pub mod server;
pub mod service;
pub mod token;
mod trace;
