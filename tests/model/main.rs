//! The freshness protocol, checked exhaustively: every order in which writers, the daemon,
//! Redis and fillers can do what they do, with every fault that a scenario allows.
//!
//! A *scenario* names a few transactions, fillers and faults; stateright explores every
//! [`world`] that can come of it, breadth first, and the [`invariants`] must hold in each:
//!
//! 1. No fill is accepted that misses a transaction whose removal of that key had been applied
//!    (in Redis's surviving history; by the literal reading, in any).
//! 2. When all that committed is applied and nothing is under way, what is cached under a
//!    valid state is current, and stays so whatever a filler that is still out stores.
//! 3. Postgres is told nothing that has not been applied.
//! 4. Who waits until the watermark has passed his commit reads it from the cache.
//!
//! And some world must come to rest with a value in the cache, or nothing would be proved.
//!
//! Every rule has a switch ([`rules`]); beside the tests that all of them together hold, one
//! test for each takes it out and asserts that the checker finds how it breaks. Only the
//! filler's session may be missing without a counterexample (but for the literal reading),
//! and acknowledging early alone costs gaps, not freshness: both are tests, too.
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | the world | [`postgres`], [`redis`], [`daemon`], [`filler`], put together in [`world`] |
//! | what can happen | [`action`], [`may`] (when), [`does`] (what follows) |
//! | what must hold | [`invariants`], run by [`check`] |
//! | the promises, and each rule's worth | [`gate`], [`chain`], [`purge`], [`gaps`], [`publication`], [`replica`], [`fan_out`], [`two_daemons`], [`own_writes`], [`refresh`] |
//! | more of all at once | `deep`, with the feature `long-tests` |
//!
//! The order of transactions and the watermark come from the pipeline's own
//! `pipeline::waiting`, the verdict at a start from its `pipeline::gap`, whether a standby has
//! replayed enough from `loader::standby` (see [`pipeline`]); the rest is told again here, after
//! `pipeline::{stream, settle, gate, apply, chain, suspects}` and the scripts of `store`. Fills
//! are as rules 4 and 5 have them (the script looks at the state's validity once more, which
//! turns out not to be needed), refreshing as rule 12.
//!
//! # What is abstract
//!
//! * A *value* is the set of transactions that it was computed from, as far as they matter
//!   for the key. Whether it is current is whether it is the set that the database shows.
//! * The WAL is its commit records; a position counts them, so that a record's beginning and
//!   end are apart. Flushed and written are apart for asynchronous commits only.
//! * A slot is made at once, wherever the WAL is, also beside open transactions, for which
//!   Postgres mostly waits; those come through whole or not at all.
//! * One script of Redis, one SQL statement, one SCAN step for one key are single actions.
//!   Everything between two of them may take any time: no clock forces anybody on, so
//!   time-outs are never counted on. (Rule 12 has a clock: [`refresh`].)
//! * A step's answer comes, is lost, or the step is given up, sent again, and executed later.
//!   It does not outlive a restart of Redis: its connection does not.
//! * Redis restarts empty or with a dump taken at any moment, or evicts its state; a dump is
//!   whole (the state, values and leases of one moment).
//! * One batch is under way at a time. The pipeline makes the next while one is applied:
//!   that is a batch whose application takes longer.
//! * Nonces and tokens never repeat; worlds that differ in their names only are one.
//!   (Fillers of a kind are sorted: in a trace their numbers may change from line to line.)
//! * Up to four transactions, two keys, two fillers, two daemons, and each fault as often as
//!   its scenario says. What needs more of them at once is not found.
//!
//! # What is not covered
//!
//! Mapping and loading (that the right keys are named, that a value depends on nothing else);
//! the xid's 32 bits (`snapshot`); timelines and another system's WAL (compared by the real
//! `verdict`, not explored; a standby's are explored in `loader::standby`'s own tests);
//! partitions' replica identities; the certificate (rule 11); generations of scoped caches;
//! Redis's own replication, other than as a restart with an older state; that anything happens
//! at all (liveness), but for coming to rest.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and a model's numbers are small"
)]

mod action;
mod chain;
mod check;
mod daemon;
#[cfg(feature = "long-tests")]
mod deep;
mod does;
mod fan_out;
mod filler;
mod gaps;
mod gate;
mod invariants;
mod may;
mod own_writes;
mod pipeline;
mod postgres;
mod publication;
mod purge;
mod redis;
mod refresh;
mod replica;
mod rules;
mod scenario;
mod set;
mod two_daemons;
mod world;
