//! The logical replication messages of the `pgoutput` plug-in: bytes in, messages out.
//!
//! Everything here is pure: no socket, no clock, no state but whether a block of
//! a streamed transaction is open ([`decode::Decoder`]). Nothing is copied
//! except for [`message::Relation`], which is rare; a row change borrows from
//! the bytes that it came in. The format is that of the manual, "Logical
//! Replication Message Formats", protocols 1 to 4.
//!
//! Whatever the bytes are, the answer is a message or a [`error::DecodeError`]:
//! never a panic, never a message that left bytes over, never a skipped one.
//! A row that was skipped would be a stale key that nobody knows of.

pub mod decode;
pub mod encode;
pub mod error;
mod excerpt;
pub mod message;
mod reader;
pub mod timestamp;
mod tuple;
