//! The read API: what is cached, over HTTP, to whom it may be shown.
//!
//! # The way of a hit
//!
//! ```text
//!  head ─▶ path ─▶ token ─▶ who is it? ─▶ may he? ─▶ MGET certificate, value ─▶ envelope
//!  server  endpoints token   held in       access     store::reader             respond
//!                            the process
//! ```
//!
//! One round trip to Redis in all. Who the user is (and of a scoped cache the generation) is
//! held in the process ([`Held`](crate::fill::held::Held), which has the argument why that is
//! never older than Redis), the value comes with the certificate in one command
//! ([`Reader`](crate::store::reader::Reader)), and its bytes are copied between two texts that were
//! made when the configuration was read: nothing is parsed.
//!
//! A miss takes a lease, loads and stores as every filler does ([`crate::fill`]). What is not to
//! be trusted is not asked: `reading` has the table of when the cache is passed over, and the
//! argument for reading one's own writes.
//!
//! # What is where
//!
//! Pure: [`endpoints`] (the table, compiled from `[[endpoints]]`; all that an OpenAPI document
//! needs is in it), [`parameters`], [`identity`], [`access`], [`token`], [`conditional`],
//! [`encoding`], [`problem`], [`own`], [`openapi`], [`schemas`]. With I/O: [`server`] (connections), `handle` (one
//! request), `reading` (one value), `management` (orders, and how it stands), [`service`] (what a
//! reload replaces).
//!
//! # A reload
//!
//! The queries are part of the rules. A request that was begun by the former ones might store what
//! their query gave after the gap that the new ones declare. So the API changes over first,
//! and the run by the new rules begins when nobody reads or fills by the former ones any more
//! ([`service::Retired`]).
//!
//! # Decisions
//!
//! - A path is served with and without the slash at its end, without a redirect.
//! - Tokens are verified here, by ring: [`token`] says why no library does it.
//! - A user who is not active gets 401, as djangorestframework-simplejwt has it; one whose
//!   organization is not active 403; one without organization 404, `no-organization`.
//! - A parameter of the path that cannot be is 404, one of the query 400.
//! - `Last-Modified` and `Age` count from when this process saw these bytes first: a value does not
//!   say when it was stored (`seen`).
//! - What nobody vouches for is not served, but for caches with `stale_if_error`: copies of what was
//!   answered lately, while the database does not answer (`stale` says which, and how old).

pub mod access;
mod body;
pub mod conditional;
mod counted;
mod digits;
pub mod encoding;
pub mod endpoints;
mod handle;
pub mod identity;
mod management;
pub mod openapi;
pub mod own;
pub mod parameters;
pub mod problem;
mod reading;
mod respond;
pub mod schemas;
mod seen;
pub mod server;
pub mod service;
mod stale;
pub mod threads;
pub mod token;
mod trace;
mod verified;
