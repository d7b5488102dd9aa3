//! What an operator does by hand: `warm`, `invalidate`, `clear`, `status`, `test`. The command line and
//! the read API's management endpoints go through here, so both mean the same by the same words.
//!
//! ```text
//! Request ── organization (by name or id) ──> Filter ── Selection ──> remove | survey | coverage | measure
//! ```
//!
//! [`selection`] is pure: which entries a request means. [`organization`] asks the database
//! which organization a name is. The rest acts.
//!
//! # Which entries are one organization's
//!
//! Keys say it. A cache whose template has the parameter that means an organization
//! (`caches.organization_parameter`, by default `org_id`) has it in every key, and a key is taken
//! apart by its template. Where the parameters that are asked for are all that a key has, the
//! keys are written down without looking for them; elsewhere the cache's literal prefix is scanned.
//! Of a scoped cache the generation goes: one step, and its entries are never asked for again.
//! A cache whose keys do not name the organization (`v1:identity:{user_id}`) is asked by its
//! `population`, which takes `$organization`: a user that it does not list, one that is not active
//! for instance, is not found that way. A cache that knows of neither is left out, and the
//! answer says so. None of this carries the guarantee: the daemon's own rules do.
//!
//! # Why what was computed before is never stored after
//!
//! Let *t* be the moment at which a removal begins. When it has ended, no entry that it means holds
//! a value whose lease was taken before *t*.
//!
//! A key and its lease go in one atomic step ([`crate::store::remove`]). For keys that are
//! written down that is all: such a lease is gone, and so is the value, if it was stored by then.
//! Where keys are scanned for, leases are scanned first, from *t* on, and values after that.
//! SCAN shows every key that is there all the while. So a lease from before *t* that
//! still lives when the first scan ends was shown, and removed with its value; and one that was
//! used by then had stored its value before the second scan began, which shows it and
//! removes it. What is filled meanwhile by a later lease was read from the database later: it
//! may be removed, too, and costs a miss.
//!
//! The daemon is told ([`tell`]): it drops what it holds itself, and fills again what was there, of
//! caches with `rewarm`, up to a bound; the rest is filled by its next reader, or by `unstale
//! warm`.

pub mod coverage;
pub mod ground;
mod judge;
pub mod maintain;
pub mod measure;
pub mod organization;
pub mod remove;
pub mod scheduled;
pub mod selection;
pub mod status;
pub mod survey;
pub mod tell;
mod walk;
pub mod warm;

/// Told as it goes on.
pub trait Progress: Send + Sync {
    /// So many more keys were looked at.
    fn keys(&self, looked_at: usize);
}

/// Nobody watches.
impl Progress for () {
    fn keys(&self, _: usize) {}
}
