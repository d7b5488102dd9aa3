//! The caches' queries: from what their author writes to the bytes of a value.
//!
//! A value is what the query gives, byte for byte: nothing is parsed or put together
//! here. Each load is a statement of its own on a read-only connection, so its snapshot is
//! taken after the call: after the lease, if the caller has one (rule 4).
//!
//! Under a lease a standby may be read instead of the primary (rule 5). [`standby`] says
//! when, purely, and why that is safe; [`replica`] asks, waits, and gives way to the primary
//! in good time. Nothing else ever reads it: who has no lease has no frontier to measure it
//! by.
//!
//! [`day`] says of which day a value is. [`parameters`] numbers the named parameters, [`workers`] holds the connections,
//! [`load`] runs a query and says what came of it.

pub mod day;
pub mod error;
pub mod load;
pub mod parameters;
pub mod replica;
pub mod standby;
pub(crate) mod text;
mod workers;
