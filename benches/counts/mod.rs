//! What a change costs, in instructions and allocations: the same on a busy machine as on a calm
//! one, so that a regression can be told from the weather.
//!
//! [`work`] has the cases, each a fixed [`stream`] and how far it is followed through the program.
//! Each runs in a process of its own under [`callgrind`], and [`judge`] compares what was counted
//! with `baseline.json`. Three programs stand on this:
//!
//! * `tests/counts/`, with every `make test`: in the build that the tests are in anyway;
//! * `run.rs`, `make counts`: in an optimized build, whose figures are what a user's machine does;
//! * `benches/growth.rs`, which has more sizes and a daemon beside them.
//!
//! What counts leave out: system calls, and how long memory is waited for.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking, and none uses all of this"
)]

pub(crate) mod allocations;
pub(crate) mod baseline;
pub(crate) mod callgrind;
pub(crate) mod judge;
pub(crate) mod shape;
pub(crate) mod stream;
pub(crate) mod work;
