//! Reports: how the cache did since the last one, what has become worse, what to change.
//!
//! ```text
//! metrics ─── standing ──┐                        ┌── regressions
//! observed ── patterns ──┤                        ├── bottlenecks
//! Redis ───── survey ────┼── assemble ── Report ──┼── recommend
//! Postgres ── coverage ──┤                        └── html, text, JSON
//! kept ────── history ───┘                                 │
//!   ▲                                                      │
//!   └──────────────────────────────────────────────────────┘
//! ```
//!
//! [`reporter`] asks, and is the only one that does; [`assemble`], [`regressions`], [`bottlenecks`] and
//! [`recommend`] decide, and are pure.
//!
//! # Where the figures come from, and what they cannot say
//!
//! * *Reads.* The daemon sees those that go through the read API, and counts them. A client that
//!   reads Redis itself is seen by nobody: Redis counts look-ups of all keys and of all clients
//!   together (`keyspace_hits`; the daemon's own are among them). So hit rates, latencies and the gain by a
//!   hit are the read API's, and a report without one says `null` and why.
//! * *Whether an entry was read before it died.* Of a sample, and for reads past the API as far as
//!   Redis' clock of idleness tells ([`crate::observed::lives`]). While Redis forks (a dump, a rewrite
//!   of its log) that clock stands still for reads: entries that are read only then count as unread.
//! * *What changes did.* All of it: each removal goes through the daemon. Of the hottest keys the
//!   counts are bounds ([`crate::observed::frequent`]).
//! * *Memory and keys.* Counted when the report is made, in Redis: memory on samples of 64 a cache.
//! * *For how long entries were inconsistent.* An upper bound, as `unstale_inconsistent_seconds`.

mod assemble;
mod bottlenecks;
pub mod html;
pub mod keep;
pub mod model;
pub mod names;
mod recommend;
mod regressions;
pub mod reporter;
mod standing;
pub(crate) mod words;
