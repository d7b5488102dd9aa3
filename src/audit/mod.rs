//! Comparing what is cached with what the database says.
//!
//! A difference alone means nothing: the database moves on, and the daemon follows some
//! milliseconds later. An entry is *stale* only if it still differs after everything that the
//! comparison saw was applied. What is asked of Redis and Postgres, in this order:
//!
//! 1. WATCH the entry (and its scope's generation), then read it.
//! 2. Load its value again, on the primary. Equal: good.
//! 3. Read the WAL's insert position: past the commit record of all that the load has seen.
//! 4. Wait until the watermark has passed it: all of that is applied.
//! 5. EXEC. It fails if anything has touched the entry since 1, were it only to store the same
//!    bytes again; then it all begins anew.
//!
//! If the EXEC goes through, the entry was stored before 1 and nothing has removed it until 4.
//! Whatever the load saw and the entry depends on was applied by then, hence before the entry
//! was stored (or it would have been removed), hence is in it (rule 4). And nothing is in
//! it that the load has not seen: it was loaded first. So both are values of the same rows, and
//! a difference is a broken promise. There is no other way to be called stale, so writes that
//! never pause give no false alarms; and values that go to and fro do not hide one.
//!
//! Of a cache with `on_change = "refresh"` an old value may stay for `max_staleness` after the first
//! change that it lacks (rule 12), and that is its expiry: the EXEC also asks how long the entry
//! still lives. Not longer than `max_staleness`: it is *due*, and allowed. Longer, or for ever:
//! whatever it lacks gave it no due, so it is stale. (The last `max_staleness` of a life that no
//! change has cut looks the same: there, a broken promise would not be seen.)
//!
//! Values of one day (queries that name `$timezone`) end at midnight by Redis' clock, and change
//! at midnight by Postgres': in the first minute of a day a difference of theirs tells nothing.
//!
//! Without a daemon that certifies the cache (rule 11) nothing is ever decided: a
//! difference is then *undecided*.
//!
//! [`compare`] is the story above, [`run`] does it for many, [`sample`] picks which,
//! [`tally`] counts. [`sampler`] does it in the daemon, one entry now and then.

pub mod compare;
pub mod run;
pub mod sample;
pub mod sampler;
pub mod tally;
