//! The first act of every gap (rule 8a): nothing is leased, nothing is certified, and
//! everything that is managed goes.

use std::collections::BTreeSet;

use tracing::warn;

use super::chain::Chain;
use super::context::Context;
use super::end::End;
use super::points::Point;
use crate::lsn::Lsn;
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
    let before = state.map(|state| state.prefixes.clone()).unwrap_or_default();
    own_prefixes(context).into_iter().chain(before).collect()
}

/// As a purge takes them.
pub(super) fn as_slices(prefixes: &BTreeSet<String>) -> Vec<&[u8]> {
    prefixes.iter().map(String::as_bytes).collect()
}
