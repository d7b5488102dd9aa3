//! Unstale keeps Redis as fresh as Postgres.
//!
//! It reads Postgres logical replication, maps every row change to the cache
//! keys that depended on the row, and removes exactly those. `ARCHITECTURE.md`
//! tells the guarantee, the protocol and how the rooms below fit together;
//! each room's own documentation carries the argument for what it does.

pub mod admin;
pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod explain;
pub mod fill;
mod impatient;
pub mod loader;
pub mod lsn;
pub mod manage;
pub mod mapping;
pub mod metrics;
pub mod moment;
pub mod observed;
pub mod pgoutput;
pub mod pipeline;
pub mod postgres;
pub mod preflight;
pub mod report;
pub mod rules;
pub mod sandbox;
pub mod schedule;
pub mod series;
pub mod servers;
pub mod shadow;
pub mod snapshot;
pub mod status;
pub mod store;
pub mod systemd;
pub mod tail;
pub mod times;
mod told;
pub mod warm;
pub mod why;
