//! Postgres: the replication connection, and the facts that the protocol needs from SQL.
//!
//! Two kinds of connection share one way in ([`conninfo`], sockets, TLS):
//!
//! - [`replication::ReplicationConnection`] speaks the walsender's protocol by hand over
//!   `postgres-protocol`, because `tokio-postgres` cannot. Once it streams it falls apart
//!   into a [`frames::FrameReader`] and a [`feedback::FeedbackWriter`], so that a consumer
//!   that is slow to read never holds up the feedback that keeps the connection alive.
//! - [`client::SqlClient`] is `tokio-postgres` for everything else: slots, publications,
//!   snapshots, lookups.
//!
//! Every failure is a [`error::PgError`]: what happened, whether trying again can help,
//! and what to do. It is classified by SQLSTATE, never by the words of a message, which
//! follow the server's language and version.

mod about;
pub mod announce;
mod auth;
mod backend;
pub mod catalog;
pub mod client;
pub mod conninfo;
pub mod error;
pub mod feedback;
pub mod frames;
pub mod gate;
pub mod heartbeat;
pub mod partitions;
mod password;
pub mod publication;
pub mod reads;
pub mod relation;
pub mod replication;
pub mod server;
pub mod shadow;
pub mod slot;
mod socket;
pub mod storage;
pub mod suspects;
pub mod timeline;
mod tls;
mod url;
mod wire;
