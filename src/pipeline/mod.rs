//! From the replication stream to Redis and back: the one place that owns positions.
//!
//! ```text
//!            bytes                 arrivals              batches
//!  Postgres ───────▶ receive ─────────────▶ gate ─────────────▶ apply ───▶ Redis
//!     ▲              decode, map            visible?            one step
//!     │              (ahead)                look up             of the chain
//!     │                                       │ ▲                  │
//!     │                                       ▼ │ snapshots        │ watermark,
//!     │                                    Postgres                ▼ acknowledged
//!     └──────────────────────────────────────────────────────── feedback
//! ```
//!
//! [`stream`] makes the stream ours, [`settle`] decides whether what is cached still stands or
//! is dropped, [`run`] wires the four tasks and ends them. What decides is
//! apart and pure: [`waiting`] (order and watermark), [`gap`] (does the state stand),
//! [`suspects`], [`rewrites`], [`assemble`] (messages to transactions, [`streams`] for those
//! that come while in progress), [`batch`], [`watchdog`] (does the stream still bring anything).

pub mod account;
pub mod apply;
pub mod assemble;
pub mod batch;
pub(crate) mod by_hand;
pub mod carried;
pub mod chain;
pub mod context;
pub mod end;
pub mod feedback;
pub mod gap;
pub mod gate;
mod hand;
pub mod heartbeat;
mod invalidate;
pub mod lookups;
pub mod points;
pub mod receive;
mod relations;
pub mod rewrites;
pub mod run;
pub mod settle;
pub mod stream;
mod streams;
pub mod suspects;
pub mod touched;
pub mod transaction;
pub mod untold;
pub mod waiting;
pub mod watchdog;
pub mod without;
