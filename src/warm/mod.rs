//! Filling again what a change removed, before anybody asks for it.
//!
//! [`queue`] decides what goes next, [`refresh`] when an entry is refreshed that may stay for a
//! while, both purely. [`rewarm`] is the task that does it. On demand
//! (`unstale warm`), [`population`] says which entries a cache should have, and [`once`] fills
//! those that are not there.
//!
//! Warming is a courtesy: a job that is lost (the daemon dies, the queue is full) costs the
//! next reader a miss, never a stale value. It fills by lease as everybody does.

pub mod once;
pub mod population;
pub mod queue;
pub mod refresh;
pub mod rewarm;
