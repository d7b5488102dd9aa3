//! What the daemon does now and then by itself: `[[schedule]]`.
//!
//! [`entry`] is what the configuration says; [`attend`] does it. When something is due, and whose turn
//! it is, is written in Redis ([`crate::store::schedule`]): a restart puts nothing off, and of
//! several daemons one does it.
//!
//! # Who does it
//!
//! The tasks live in a run of the pipeline, and the replication slot lets one daemon have a run. That
//! would be enough, but for a daemon that froze: Postgres gives its slot to another, and
//! when it thaws it goes on where it stood until it notices. So each task also has a *turn*: a
//! lease with a token, an end, and a renewal while the task is under way.
//!
//! | what happens | what follows |
//! |---|---|
//! | the holder dies | its turn expires within 15 s; what was due is still due, and is begun anew |
//! | it freezes | the same; thawed, it finds its turn lost at the next renewal, and stops |
//! | the run of the pipeline ends | the task is dropped where it stands; the next run, being the same process, has the same token and begins anew at once |
//! | an answer is lost | asked again with the same token: the turn is still ours, or was ended |
//! | Redis cannot be asked | nothing begins; what is under way stops once its turn must have expired |
//! | the records are lost (a flush, an eviction) | everything is due a period later |
//!
//! # Why done twice is harmless
//!
//! No turn can keep a frozen process from doing one thing more. So no task relies on being alone:
//! warming fills by lease as everybody does; to invalidate and to maintain only lose entries, each
//! in one atomic step with its lease, which is safe at any time; a report reads, and there are two of
//! them then.
//!
//! # When
//!
//! A period varies by a tenth to both sides, so that several daemons' tasks, or several tasks, do not
//! stay in step. It counts from a task's beginning; the next never begins before the last has ended, and
//! nothing piles up. What failed is tried again after a minute, then after two, four and so on,
//! but no later than it would be due.

pub mod attend;
pub mod entry;
