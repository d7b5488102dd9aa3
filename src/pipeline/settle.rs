//! What is cached, once the stream is ours: it still stands, or everything begins anew
//! (rule 8).
//!
//! A gap, in order, and what each step is for:
//!
//! 1. The state is made invalid: no lease is given, no certificate stands. All leases go,
//!    and all values ([`invalidate`]). At once, before anything that could wait.
//! 2. The slot is created if need be, and the stream started: from here on every commit
//!    record comes through.
//! 3. Suspects are taken: what may have written its record before that and is not visible.
//! 4. Everything is purged again: what was filled between 1 and 2 is gone. (With leases
//!    refused nothing should have been; a client that does not ask for leases might.)
//! 5. The frontier is set to where the WAL is now: a replica that is behind it may lack
//!    anything. The valid state is written last, in one step of the chain: dying anywhere
//!    before it leaves an invalid state, and the next start does all of this again.

use std::collections::BTreeSet;

use tracing::{info, warn};

use super::carried::Known;
use super::chain::{Chain, Keys};
use super::context::Context;
use super::end::End;
use super::gap::verdict;
use super::invalidate::{as_slices, invalidate, own_prefixes, prefixes};
use super::points::Point;
use super::rewrites::{self, differing};
use super::stream::Stream;
use super::suspects::Suspects;
use crate::lsn::Lsn;
use crate::mapping::model::CacheId;
use crate::postgres::server::wal_insert;
use crate::postgres::suspects::suspects;
use crate::snapshot::FullXid;
use crate::status::reason::GapReason;
use crate::store::purge::Shut;
use crate::store::state::{self, Nonce, State};

/// Where the pipeline takes up.
pub struct Footing {
    /// Everything below it is applied.
    pub watermark: Lsn,
    /// The greatest commit END ever applied.
    pub frontier: Lsn,
    /// What may never come through.
    pub suspects: Suspects,
}

/// Decides whether what is cached still stands, and if not, starts anew.
pub async fn settle(
    context: &Context,
    chain: &mut Chain,
    stream: &Stream,
    known: Option<&Known>,
) -> Result<Footing, End> {
    let gap = stream.gap.or_else(|| verdict(stream.state.as_ref(), &stream.found));
    match (gap, &stream.state) {
        (None, Some(state)) => match Suspects::read(&state.suspects) {
            Some(suspects) => resume(context, chain, stream, state, suspects).await,
            None => start_anew(context, chain, stream, known, GapReason::Unfinished).await,
        },
        (None, None) => start_anew(context, chain, stream, known, GapReason::NoState).await,
        (Some(reason), _) => start_anew(context, chain, stream, known, reason).await,
    }
}

async fn resume(
    context: &Context,
    chain: &mut Chain,
    stream: &Stream,
    state: &State,
    suspects: Suspects,
) -> Result<Footing, End> {
    chain.claim(state.nonce.clone()).await?;
    context.points.reach(Point::Claimed).await;
    let mapping = &context.rules.mapping;
    // An earlier life died while it dropped these caches.
    let mut doomed: BTreeSet<CacheId> =
        state.closed.iter().filter_map(|name| Some(mapping.cache_by_name(name)?.0)).collect();
    // Or a table was rewritten while nobody looked.
    for table in differing(&rewrites::read(&state.files), &stream.files) {
        if let Some(table) = stream.tables.get(&table) {
            warn!(
                table = mapping.table_name(*table),
                "a table was rewritten: dropping what depends on it"
            );
            doomed.extend(mapping.rules_of(*table).map(|(_, rule)| rule.cache));
        }
    }
    if !doomed.is_empty() {
        let caches: Vec<_> = doomed.iter().filter_map(|id| mapping.cache(*id)).collect();
        let names: Vec<&str> = caches.iter().map(|cache| &*cache.name).collect();
        let prefixes: Vec<&[u8]> = caches.iter().map(|cache| cache.prefix.as_ref()).collect();
        chain.step(Keys::default(), &[state::closed(&names)], None).await?;
        let files = state::files(rewrites::write(&stream.files));
        let opened = [state::closed(&[]), files];
        chain.purge_then(&prefixes, Shut::Caches, &opened).await?;
    }
    context.warming.warm_ups.dropped(&doomed);
    info!(watermark = %state.watermark, suspects = suspects.len(), "resuming: what is cached still stands");
    Ok(Footing { watermark: state.watermark, frontier: state.frontier, suspects })
}

async fn start_anew(
    context: &Context,
    chain: &mut Chain,
    stream: &Stream,
    known: Option<&Known>,
    reason: GapReason,
) -> Result<Footing, End> {
    let mut prefixes = prefixes(context, stream.state.as_ref());
    prefixes.extend(stream.prefixes.iter().cloned());
    invalidate(context, chain, stream.state.as_ref(), reason).await?;
    let partial = may_be_partial(stream, known, reason);
    let suspects = context.answered(suspects(&stream.client, &stream.relations)).await?;
    let suspects = Suspects::new(&suspects, partial);
    // What commits after this comes through the stream and raises it.
    let frontier = context.answered(wal_insert(&stream.client)).await?;
    let state = State {
        valid: true,
        nonce: Nonce::found(String::new()), // the step's own
        watermark: stream.found.confirmed_flush,
        frontier,
        identity: stream.found.identity.clone(),
        prefixes: own_prefixes(context),
        closed: Vec::new(),
        files: rewrites::write(&stream.files),
        suspects: suspects.write(),
    };
    chain.purge_then(&as_slices(&prefixes), Shut::State, &state.fields()).await?;
    context.warming.gap();
    info!(watermark = %state.watermark, %frontier, suspects = suspects.len(), "started anew: fills are accepted");
    Ok(Footing { watermark: state.watermark, frontier, suspects })
}

/// Which of the transactions that are open now may come through in part: those that were
/// open when the publication changed. The gap need not be about that (the mapping may have
/// changed, too) nor be the first since, so: all, unless the publication is known to be
/// the same; then those of which it was known before. Redis may have lost what it knew, and
/// this process have kept it. None if the slot is new: its creation waited for all that was
/// open (old minor releases may not have).
fn may_be_partial(
    stream: &Stream,
    known: Option<&Known>,
    reason: GapReason,
) -> impl Fn(FullXid) -> bool {
    let of_state = stream.state.as_ref().and_then(Known::of);
    let mut either = of_state.into_iter().chain(known.cloned());
    let known = either.find(|known| known.is_of(&stream.found.identity));
    let unknown = reason == GapReason::PublicationChanged;
    let whole = stream.slot_began_whole;
    move |xid| !whole && (unknown || known.as_ref().is_none_or(|known| known.is_partial(xid)))
}
