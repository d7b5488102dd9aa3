//! The caches' queries: from what their author writes to the bytes of a value.
//!
//! A value is what the query gives, byte for byte: nothing is parsed or put together
//! here. Each load is a statement of its own on a read-only connection, so its snapshot is
//! taken after the call: after the lease, if the caller has one (rule 4).
//!
//! [`parameters`] numbers the named parameters, [`workers`] holds the connections,
//! [`load`] runs a query and says what came of it.

pub mod load;
pub mod parameters;
mod text;
mod workers;
