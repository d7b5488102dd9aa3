//! The read API.
pub mod access;
pub mod conditional;
pub mod encoding;
pub mod endpoints;
pub mod identity;
pub mod parameters;
pub mod problem;
pub mod token;
