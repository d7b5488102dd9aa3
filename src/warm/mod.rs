//! Filling again what a change removed, before anybody asks for it.
//!
//! [`queue`] decides what goes next, purely. [`rewarm`] is the task that does it.
//!
//! Warming is a courtesy: a job that is lost (the daemon dies, the queue is full) costs the
//! next reader a miss, never a stale value. It fills by lease as everybody does.

pub mod queue;
pub mod rewarm;
