//! The caches' queries, from what their author writes to what Postgres takes.

pub mod parameters;
