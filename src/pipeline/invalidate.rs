//! The first act of every gap (rule 8a): nothing is leased, nothing is certified, and
//! everything that is managed goes.
//!
//! # What the record may name
//!
//! A mapping that is no more has left entries that nothing invalidates now, while the certificate goes on:
//! so its prefixes are in the state, and go too. But the state is in Redis, and a purge takes what begins
//! with a prefix: an empty one would take the database, another's his sessions. So of what is recorded
//! only that counts which begins as `redis.key_prefix` does, up to its first colon (behind it stands
//! Django's version, which may have been another), goes on behind it, and does not reach the daemon's
//! own keys. What is left out is logged: after a change of the name itself the former entries stay until
//! they expire, unless `unstale clear` went before.

use std::collections::BTreeSet;

use tracing::warn;

use super::chain::Chain;
use super::context::Context;
use super::end::End;
use super::points::Point;
use crate::lsn::Lsn;
use crate::mapping::reaches_own_keys;
use crate::status::Phase;
use crate::status::reason::GapReason;
use crate::store::purge::Shut;
use crate::store::state::{Identity, Nonce, State};

/// Makes the state invalid and drops what this mapping and the one before it manage.
pub(super) async fn invalidate(
    context: &Context,
    chain: &mut Chain,
    state: Option<&State>,
    reason: GapReason,
) -> Result<(), End> {
    context.status.enter(Phase::Purging { reason: reason.as_str() });
    let foreign = recorded(context, state).1;
    if !foreign.is_empty() {
        warn!(
            ?foreign,
            "the state in Redis names prefixes that begin in another way than redis.key_prefix: their entries are left alone; if they were yours, by a former key_prefix, remove them by hand, or let them expire"
        );
    }
    let prefixes = prefixes(context, state);
    let invalid = State {
        valid: false,
        nonce: Nonce::found(String::new()), // the declaration's own
        watermark: Lsn::ZERO,
        frontier: Lsn::ZERO,
        identity: Identity {
            system_id: String::new(),
            timeline: 0,
            incarnation: String::new(),
            publication: String::new(),
            mapping: String::new(),
        },
        prefixes: prefixes.iter().cloned().collect(),
        closed: Vec::new(),
        files: "{}".to_owned(),
        suspects: "[]".to_owned(),
    };
    chain.declare_invalid(invalid).await?;
    context.points.reach(Point::Declared).await;
    let removed = chain.purge(&as_slices(&prefixes), Shut::State).await?;
    if context.status.gap(reason) {
        let lsn = state.map(|state| state.watermark.to_string());
        warn!(reason = reason.as_str(), lsn, removed, "gap: everything managed was dropped");
    }
    Ok(())
}

/// The literal prefixes of all managed keys.
pub(super) fn own_prefixes(context: &Context) -> Vec<String> {
    context
        .rules
        .mapping
        .prefixes()
        .iter()
        .map(|prefix| String::from_utf8_lossy(prefix).into_owned())
        .collect()
}

/// What this mapping manages, and what the one before it did.
pub(super) fn prefixes(context: &Context, state: Option<&State>) -> BTreeSet<String> {
    own_prefixes(context).into_iter().chain(recorded(context, state).0).collect()
}

/// What the state names: what counts, and what does not.
fn recorded(context: &Context, state: Option<&State>) -> (Vec<String>, Vec<String>) {
    let named = state.map(|state| state.prefixes.clone()).unwrap_or_default();
    let key_prefix = &context.config.redis.key_prefix;
    named.into_iter().partition(|prefix| may_be_ours(prefix, key_prefix))
}

/// See the module.
fn may_be_ours(prefix: &str, key_prefix: &str) -> bool {
    let name = key_prefix.split_inclusive(':').next().unwrap_or_default();
    prefix.strip_prefix(name).is_some_and(|rest| !rest.is_empty()) && !reaches_own_keys(prefix)
}

/// As a purge takes them.
pub(super) fn as_slices(prefixes: &BTreeSet<String>) -> Vec<&[u8]> {
    prefixes.iter().map(String::as_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cannot_name_what_no_mapping_of_ours_could() {
        for (prefix, key_prefix, ours) in [
            ("prs_cache:1:v1:org:data:", "prs_cache:1:", true),
            ("prs_cache:2:v1:org:data:", "prs_cache:1:", true),
            ("prs_cache:", "prs_cache:1:", false),
            ("prs_cache", "prs_cache:1:", false),
            ("p", "prs_cache:1:", false),
            ("prs_cache_v1", "prs_cache_", true),
            ("prs_cache_", "prs_cache_", false),
            ("sessions:", "prs_cache:1:", false),
            ("", "prs_cache:1:", false),
            ("", "", false),
            ("v1:org:data:", "", true),
            ("u", "", false),
            ("unstale:", "", false),
            ("unstale:other:state", "", false),
            ("unstale:x", "unst", false),
        ] {
            assert_eq!(may_be_ours(prefix, key_prefix), ours, "{prefix:?} under {key_prefix:?}");
        }
    }
}
