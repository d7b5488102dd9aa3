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
//! [`start`] brings a run to the point where the stream is ours and what is cached is known
//! to stand (or was dropped), [`run`] wires the four tasks and ends them. What decides is
//! apart and pure: [`waiting`] (order and watermark), [`gap`] (does the state stand),
//! [`suspects`], [`assemble`] (messages to transactions), [`batch`].

pub mod apply;
pub mod assemble;
pub mod batch;
pub mod chain;
pub mod drops;
pub mod end;
pub mod feedback;
pub mod gap;
pub mod gate;
pub mod lookups;
pub mod receive;
pub mod run;
pub mod start;
pub mod status;
pub mod suspects;
pub mod transaction;
pub mod waiting;
pub mod without;
