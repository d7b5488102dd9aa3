//! Reading through the cache, and filling it: the lease first, then the database, then the
//! store (rule 4).
//!
//! [`filler`] is the one way in which this program puts values into Redis, [`read`] how
//! readers come to them. Readers of one key share what it costs ([`flights`]), and nobody else
//! in this process loads it beside them ([`loading`]). [`life`] says how long a value lives,
//! purely. [`held`] is what this process keeps itself.

pub mod filler;
mod flights;
pub mod held;
pub mod life;
pub mod loading;
pub mod read;
