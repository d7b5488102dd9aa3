//! What depends on what: from a row's change to the cache keys that depended on it.
//!
//! Pure: no I/O. In goes the configuration, then the stream's Relation messages and row
//! changes; out come keys, rows for lookups and whole caches.
//!
//! ```text
//! Config ── compile ──> Mapping ── plan(Relation) ──> TablePlan ── apply(row change) ──> ChangeSet
//!                          ^                                                               │ │ │
//!                          └── add_lookup_results <── the database <── LookupPlan <────────┘ │ │
//!                                                                            keys <──────────┘ │
//!                                                                    whole caches <────────────┘
//! ```
//!
//! What must hold, and where it is argued:
//!
//! - No value can forge another key, and no two caches can share one: [`template`],
//!   [`escape`], [`collide`].
//! - What the stream does not carry leads to more being dropped, never to less: `row` says
//!   what is known, `predicate` and `apply` what follows from it.
//! - Memory follows distinct keys, never rows: [`changes`].
//!
//! # Decisions that the configuration's reader should know
//!
//! - All names are written as in SQL: what is not in double quotes is lower case
//!   ([`name`]). A column named `createdAt` is `'"createdAt"'` in TOML.
//! - Two parameters of a key have a separator between them, `:` by custom
//!   ([`template`]); elsewhere keys hold any text but white space.
//! - A rule of a scoped cache names the *generation key*: the template up to
//!   `{generation}`, that replaced by the word itself (`v1:search:7:generation`).
//! - A `via` gives every parameter that is not enumerated; it cannot be mixed with
//!   columns. With `whole`, whatever it returns drops the cache.
//! - A null parameter yields no key even if another one is unknown.
//! - A composed cache without a key of its own is none of [`Mapping::caches`]: it has no
//!   entries, no rule can reach it, and a command that names it means its parts.
//! - Redis keys that begin with `unstale:` are the daemon's own: no cache may reach there,
//!   neither by a key nor by a purge.

mod apply;
mod candidates;
pub mod changes;
pub mod collide;
mod compare;
mod compile;
pub mod composition;
pub mod condition;
pub mod escape;
pub mod explain;
mod id;
pub mod lookup;
pub mod lookup_rows;
pub mod model;
pub mod name;
pub mod needs;
mod origin;
pub mod plan;
mod predicate;
mod row;
mod selection;
mod shape;
pub mod template;
pub(crate) mod token;
pub mod types;
pub mod via;

pub(crate) use compile::reaches_own_keys;
pub use model::Mapping;
