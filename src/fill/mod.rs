//! Reading through the cache, and filling it: the lease first, then the database, then the
//! store (rule 4).
//!
//! [`filler`] is the one way in which this program puts values into Redis. [`life`] says
//! for how long, purely. [`held`] is what this process keeps itself.

pub mod filler;
pub mod held;
pub mod life;
