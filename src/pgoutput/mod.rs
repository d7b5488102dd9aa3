//! The logical replication messages of the `pgoutput` plug-in: bytes in, messages out.

pub mod message;
