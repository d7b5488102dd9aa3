//! What must be right before the daemon runs, and what makes it so: `check` and `setup`.
//!
//! Facts in, findings and statements out. What asks the servers ([`facts`],
//! [`dependencies`], [`cache_server`]) decides nothing; what decides ([`identity`], [`replication`],
//! [`coverage`], [`encryption`], [`plan`]) is pure. `check` and `setup` share the decisions: each statement
//! that `check` prints is the one that `setup` runs.
//!
//! The order of the set-up keeps the application working at every moment: identities come
//! first, then the publication, since the server refuses UPDATE and DELETE on a published
//! table without an identity. For the same reason no publication gets a column list.

pub mod cache_server;
pub mod coverage;
pub mod dependencies;
pub mod encryption;
pub mod facts;
pub mod finding;
pub mod identity;
pub mod places;
pub mod plan;
pub mod populations;
pub mod replica;
pub mod replication;
pub mod run;
pub mod script;
pub mod serving;
pub mod step;
pub mod tables;
