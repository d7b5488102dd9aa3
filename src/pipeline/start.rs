//! From nothing to a stream whose every change will be applied (rules 7 and 8).
//!
//! The order matters. *The slot first, then its position*: START_REPLICATION makes the slot
//! ours; a position read earlier could still be moved by another daemon. *The same server*:
//! the snapshots of the gate mean nothing if they come from another one than the stream; the
//! ordinary connection must see the slot held by the very process that serves the stream.
//!
//! A gap, in order (rule 8), and what each step is for:
//!
//! 1. The state is made invalid: no lease is given, no certificate stands. All leases go,
//!    then all values. At once, before anything that could wait.
//! 2. The slot is created if need be, and the stream started: from here on every commit
//!    record comes through.
//! 3. Suspects are taken: what may have written its record before that and is not visible.
//! 4. Everything is purged again: what was filled between 1 and 2 is gone. (With leases
//!    refused nothing should have been; a client that does not ask for leases might.)
//! 5. The frontier is set to where the WAL is now: a replica that is behind it may lack
//!    anything. The valid state is written last, in one step of the chain: dying anywhere
//!    before it leaves an invalid state, and the next start does all of this again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use super::assemble::Unbelieved;
use super::chain::Chain;
use super::end::End;
use super::gap::{Found, GapReason, verdict};
use super::rewrites::{self, Known, differing};
use super::run::Context;
use super::status::{Health, Phase};
use super::suspects::Suspects;
use crate::lsn::Lsn;
use crate::mapping::model::{CacheId, TableId};
use crate::mapping::name::TableName;
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::postgres::feedback::FeedbackWriter;
use crate::postgres::frames::FrameReader;
use crate::postgres::partitions::partitioned;
use crate::postgres::publication::Publication;
use crate::postgres::replication::{PgoutputOptions, ReplicationConnection, Streaming};
use crate::postgres::server::{ServerFacts, counts_as_standby, wal_insert};
use crate::postgres::slot::{SlotState, drop_slot};
use crate::postgres::storage::files;
use crate::postgres::suspects::suspects;
use crate::snapshot::FullXid;
use crate::store::state::{self, Identity, Nonce, State};

/// A stream that is ours, and what is known of the server behind it.
pub struct Stream {
    /// The reading and the writing half, until they are taken.
    pub halves: Option<(FrameReader, FeedbackWriter)>,
    /// An ordinary connection to the same server.
    pub client: SqlClient,
    /// How long the server waits for a sign of life; `None`: for ever.
    pub wal_sender_timeout: Option<Duration>,
    /// What the state must agree with.
    pub found: Found,
    /// The mapped tables' OIDs.
    pub relations: Vec<u32>,
    /// The same with their place in the mapping.
    pub tables: BTreeMap<u32, TableId>,
    /// The files that they are stored in.
    pub files: Known,
    /// Those that are partitioned, and whether a partition has another replica identity.
    pub partitioned: Vec<(u32, bool)>,
    /// A gap is due, whatever the state says.
    pub gap: Option<GapReason>,
    /// The slot was created for this stream.
    pub slot_is_new: bool,
    /// The literal prefixes of all that this mapping and the one before it manage.
    pub prefixes: BTreeSet<String>,
    /// The state as it was found in Redis once the stream was ours.
    pub state: Option<State>,
}

/// Where the pipeline takes up.
pub struct Footing {
    /// Everything below it is applied.
    pub watermark: Lsn,
    /// The greatest commit END ever applied.
    pub frontier: Lsn,
    /// What may never come through.
    pub suspects: Suspects,
}

impl Stream {
    /// Which old rows say nothing (see [`Unbelieved`]).
    #[must_use]
    pub fn unbelieved(&self) -> Unbelieved {
        let until = |mismatched| if mismatched { Lsn(u64::MAX) } else { self.found.wal_insert };
        Unbelieved(self.partitioned.iter().map(|(root, bad)| (*root, until(*bad))).collect())
    }
}

/// Gets the stream: checks, creates what is missing, and makes the slot ours.
pub async fn stream(
    context: &Context,
    chain: &mut Chain,
    forced: Option<GapReason>,
) -> Result<Stream, End> {
    let before = chain.state().await?;
    let client =
        SqlClient::connect(&context.connect, context.config.postgres.statement_timeout.get())
            .await?;
    let facts = answered(context, ServerFacts::read(&client)).await?;
    check_server(&facts)?;
    check_standbys(&facts.synchronous_standby_names, context.connect.application_name())?;
    context.status.postgres(Health::Up);
    let mut gap = forced;

    let published = published(context, &client).await?;
    let (publication, tables) = match published {
        Ok(published) => published,
        Err(unfit) => {
            // What is not published is not invalidated: nothing may stay cached.
            if before.as_ref().is_some_and(|state| state.valid) {
                invalidate(context, chain, before.as_ref(), GapReason::PublicationChanged).await?;
            }
            return Err(End::Blocked(unfit));
        }
    };

    let relations: Vec<u32> = tables.keys().copied().collect();
    let config = &context.config.postgres;
    let slot = answered(context, SlotState::read(&client, &config.slot)).await?;
    let slot = usable_slot(slot, &config.slot, context.connect.database())?;
    let slot_is_there = match slot {
        Slot::Ready if forced == Some(GapReason::PublicationMissing) => {
            warn!(
                slot = config.slot,
                "the slot cannot be read past a time without the publication: it is dropped and created anew"
            );
            answered(context, drop_slot(&client, &config.slot)).await?;
            false
        }
        Slot::Ready => true,
        Slot::Missing => {
            gap.get_or_insert(if before.is_some() {
                GapReason::SlotMissing
            } else {
                GapReason::NoState
            });
            false
        }
        Slot::Lost(reason) => {
            warn!(
                slot = config.slot,
                reason, "the server has invalidated the slot: it is dropped and created anew"
            );
            answered(context, drop_slot(&client, &config.slot)).await?;
            gap.get_or_insert(GapReason::SlotLost);
            false
        }
    };

    let mut replication = ReplicationConnection::connect(&context.connect).await?;
    let system = answered(context, replication.identify_system()).await?;
    if system.system_id != facts.system_id {
        return Err(End::Again(format!(
            "two connections reached two servers (system identifiers {} and {}): let postgres.url name one of them",
            facts.system_id, system.system_id
        )));
    }
    if !slot_is_there {
        if let Some(reason) = gap {
            invalidate(context, chain, before.as_ref(), reason).await?;
        }
        create_slot(context, &client, &mut replication).await?;
    }
    let pid = replication.backend_pid();
    let options = PgoutputOptions {
        protocol: super::assemble::PROTOCOL.number(),
        publications: vec![config.publication.clone()],
        streaming: Streaming::Off,
        messages: false,
        binary: false,
    };
    let starting = replication.start_replication(&config.slot, Lsn::ZERO, &options);
    let (mut reader, writer) = answered(context, starting).await?;

    // Ours now: from here on nobody else moves it.
    let slot = answered(context, SlotState::read(&client, &config.slot)).await?;
    let confirmed_flush = match slot {
        Some(slot) if slot.active_pid == Some(pid) => slot.confirmed_flush.unwrap_or_default(),
        other => {
            // The stream may have ended already, and knows better why.
            ended(&mut reader).await?;
            return Err(End::Again(format!(
                "the ordinary connection sees slot {} held by PID {:?}, the stream is served by PID {pid}: \
                 let postgres.url name one server, without a pooler",
                config.slot,
                other.and_then(|slot| slot.active_pid)
            )));
        }
    };
    let identity = Identity {
        system_id: system.system_id,
        timeline: system.timeline,
        incarnation: facts.incarnation.clone(),
        publication: publication.fingerprint_of(|table| relations.contains(&table.oid)).to_string(),
        mapping: context.rules.fingerprint(),
    };
    let partitioned = answered(context, partitioned(&client, &relations)).await?;
    let files = rewrites::known(&answered(context, files(&client, &relations)).await?);
    let found = Found {
        identity,
        confirmed_flush,
        wal_insert: answered(context, wal_insert(&client)).await?,
    };
    // Only now: until the slot was ours, another daemon may have moved it on.
    let state = chain.state().await?;
    Ok(Stream {
        halves: Some((reader, writer)),
        client,
        wal_sender_timeout: facts.wal_sender_timeout,
        found,
        relations,
        tables,
        files,
        partitioned,
        gap,
        slot_is_new: !slot_is_there,
        prefixes: prefixes(context, before.as_ref()),
        state,
    })
}

/// Decides whether what is cached still stands, and if not, starts anew.
pub async fn settle(context: &Context, chain: &mut Chain, stream: &Stream) -> Result<Footing, End> {
    let gap = stream.gap.or_else(|| verdict(stream.state.as_ref(), &stream.found));
    match (gap, &stream.state) {
        (None, Some(state)) => match Suspects::read(&state.suspects) {
            Some(suspects) => resume(context, chain, stream, state, suspects).await,
            None => start_anew(context, chain, stream, GapReason::Unfinished).await,
        },
        (None, None) => start_anew(context, chain, stream, GapReason::NoState).await,
        (Some(reason), _) => start_anew(context, chain, stream, reason).await,
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
        chain.step(&[], &[state::closed(&names)], None).await?;
        chain.purge(&prefixes).await?;
        let files = state::files(rewrites::write(&stream.files));
        chain.step(&[], &[state::closed(&[]), files], None).await?;
    }
    info!(watermark = %state.watermark, suspects = suspects.len(), "resuming: what is cached still stands");
    Ok(Footing { watermark: state.watermark, frontier: state.frontier, suspects })
}

async fn start_anew(
    context: &Context,
    chain: &mut Chain,
    stream: &Stream,
    reason: GapReason,
) -> Result<Footing, End> {
    let mut prefixes = prefixes(context, stream.state.as_ref());
    prefixes.extend(stream.prefixes.iter().cloned());
    invalidate(context, chain, stream.state.as_ref(), reason).await?;
    let partial = may_be_partial(stream, reason);
    let suspects = answered(context, suspects(&stream.client, &stream.relations)).await?;
    let suspects = Suspects::new(&suspects, partial);
    chain.purge(&as_slices(&prefixes)).await?;
    let frontier = answered(context, wal_insert(&stream.client)).await?;
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
    chain.step(&[], &state.fields(), None).await?;
    info!(watermark = %state.watermark, %frontier, suspects = suspects.len(), "started anew: fills are accepted");
    Ok(Footing { watermark: state.watermark, frontier, suspects })
}

/// Which of the transactions that are open now may come through in part: those that were
/// open when the publication changed. The gap need not be about that (the mapping may have
/// changed, too) nor be the first since, so: all, unless the publication is known to be
/// the same; then those of which it was known before. None if the slot is new: its
/// creation waited for all that was open.
fn may_be_partial(stream: &Stream, reason: GapReason) -> impl Fn(FullXid) -> bool {
    let is = &stream.found.identity.publication;
    let known = stream.state.as_ref().filter(|state| state.identity.publication == *is);
    let all = reason == GapReason::PublicationChanged || known.is_none();
    let before = known.and_then(|state| Suspects::read(&state.suspects)).unwrap_or_default();
    let slot_is_new = stream.slot_is_new;
    move |xid| !slot_is_new && (all || before.is_partial(xid))
}

/// Step 1 of a gap.
async fn invalidate(
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
    let removed = chain.purge(&as_slices(&prefixes)).await?;
    if context.status.gap(reason) {
        warn!(reason = reason.as_str(), removed, "gap: everything managed was dropped");
    }
    Ok(())
}

/// Waits for an answer, but not for ever: a server that froze in the middle of a start
/// must not freeze the daemon with it.
async fn answered<T>(
    context: &Context,
    question: impl Future<Output = Result<T, PgError>>,
) -> Result<T, End> {
    let patience = context.config.postgres.statement_timeout.get() + Duration::from_secs(5);
    match tokio::time::timeout(patience, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(End::Again(format!("Postgres did not answer within {patience:?}"))),
    }
}

/// The error with which the stream has ended, if it has.
async fn ended(reader: &mut FrameReader) -> Result<(), End> {
    let reading = async {
        loop {
            while reader.next()?.is_some() {}
            reader.fill().await?;
        }
    };
    match tokio::time::timeout(Duration::from_secs(1), reading).await {
        Ok(Err::<std::convert::Infallible, PgError>(error)) => Err(End::of_stream(error)),
        Err(_) => Ok(()),
    }
}

fn own_prefixes(context: &Context) -> Vec<String> {
    context
        .rules
        .mapping
        .prefixes()
        .iter()
        .map(|prefix| String::from_utf8_lossy(prefix).into_owned())
        .collect()
}

/// What this mapping manages, and what the one before it did.
fn prefixes(context: &Context, state: Option<&State>) -> BTreeSet<String> {
    let before = state.map(|state| state.prefixes.clone()).unwrap_or_default();
    own_prefixes(context).into_iter().chain(before).collect()
}

fn as_slices(prefixes: &BTreeSet<String>) -> Vec<&[u8]> {
    prefixes.iter().map(String::as_bytes).collect()
}

fn check_server(facts: &ServerFacts) -> Result<(), End> {
    if facts.in_recovery {
        return Err(End::Again(
            "this server is a standby, whose snapshots do not tell what is in progress: let postgres.url name the primary"
                .to_owned(),
        ));
    }
    if facts.wal_level != "logical" {
        return Err(End::Hopeless(format!(
            "wal_level is {}: run ALTER SYSTEM SET wal_level = 'logical'; and restart Postgres",
            facts.wal_level
        )));
    }
    Ok(())
}

/// A logical walsender counts as a standby like any other. If commits had to wait for this
/// one, they would wait for ever: what is not visible is not applied, what is not applied
/// is not confirmed, and what is not confirmed would not become visible.
pub(super) fn check_standbys(names: &str, application_name: &str) -> Result<(), End> {
    if counts_as_standby(names, application_name) {
        return Err(End::Hopeless(format!(
            "synchronous_standby_names = {names} counts this daemon ({application_name}) as a synchronous standby: \
             commits would wait for it, and it for them. Name the standbys alone: \
             ALTER SYSTEM SET synchronous_standby_names = '…'; SELECT pg_reload_conf(); \
             or, if only the name matches, set application_name in postgres.url"
        )));
    }
    Ok(())
}

/// The publication and the OIDs of the mapped tables in it, or what is wrong with it.
async fn published(
    context: &Context,
    client: &SqlClient,
) -> Result<Result<(Publication, BTreeMap<u32, TableId>), String>, End> {
    let name = &context.config.postgres.publication;
    let Some(publication) = answered(context, Publication::read(client, name)).await? else {
        return Ok(Err(format!(
            "publication {name} does not exist: run `unstale setup`, or `unstale setup --print` for the SQL"
        )));
    };
    if !(publication.insert && publication.update && publication.delete && publication.truncate) {
        return Ok(Err(format!(
            "publication {name} leaves out operations: run ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');"
        )));
    }
    Ok(mapped_relations(context, &publication).map(|tables| (publication, tables)))
}

/// The OIDs of the mapped tables, or what is missing from the publication.
fn mapped_relations(
    context: &Context,
    publication: &Publication,
) -> Result<BTreeMap<u32, TableId>, String> {
    let mut relations = BTreeMap::new();
    let mut missing = Vec::new();
    for (id, table) in context.rules.mapping.tables() {
        let named = |published: &&crate::postgres::publication::PublishedTable| {
            TableName::new(&published.schema, &published.name) == table.name
        };
        match publication.tables.iter().find(named) {
            Some(published) => _ = relations.insert(published.oid, id),
            None => missing.push(table.name.to_string()),
        }
    }
    if missing.is_empty() {
        return Ok(relations);
    }
    Err(format!(
        "publication {} lacks {}, whose changes would be missed: run ALTER PUBLICATION {} ADD TABLE {}; (or `unstale setup`)",
        publication.name,
        missing.join(", "),
        publication.name,
        missing.join(", ")
    ))
}

enum Slot {
    Ready,
    Missing,
    Lost(String),
}

fn usable_slot(slot: Option<SlotState>, name: &str, database: &str) -> Result<Slot, End> {
    let Some(slot) = slot else { return Ok(Slot::Missing) };
    let unfit = if slot.plugin.as_deref() != Some("pgoutput") {
        Some(format!(
            "uses the plug-in {}",
            slot.plugin.as_deref().unwrap_or("(none: it is physical)")
        ))
    } else if slot.database.as_deref() != Some(database) {
        Some(format!("belongs to the database {}", slot.database.as_deref().unwrap_or_default()))
    } else if slot.two_phase {
        Some("was created with two_phase".to_owned())
    } else {
        None
    };
    if let Some(unfit) = unfit {
        return Err(End::Hopeless(format!(
            "slot {name} {unfit}: choose another name as postgres.slot, or, if nobody needs it, run SELECT pg_drop_replication_slot('{name}');"
        )));
    }
    if slot.is_lost() {
        let reason = slot.invalidation_reason.or(slot.wal_status).unwrap_or_default();
        return Ok(Slot::Lost(reason));
    }
    Ok(Slot::Ready)
}

/// Creates the slot; the server waits for every transaction that is writing to end, so
/// says whom for.
async fn create_slot(
    context: &Context,
    client: &SqlClient,
    replication: &mut ReplicationConnection,
) -> Result<(), End> {
    context.status.enter(Phase::CreatingSlot);
    let slot = &context.config.postgres.slot;
    let creating = replication.create_slot(slot);
    tokio::pin!(creating);
    loop {
        tokio::select! {
            created = &mut creating => {
                let at = created.map_err(|error| match error.sqlstate() {
                    // Another daemon was quicker: it is there now, and busy.
                    Some("42710") => End::SlotBusy(None),
                    _ => error.into(),
                })?;
                info!(slot, %at, "created the replication slot");
                return Ok(());
            }
            () = tokio::time::sleep(Duration::from_secs(5)) => {
                let open = client
                    .query(
                        "SELECT pid, coalesce(usename, ''), (extract(epoch FROM now() - xact_start))::int8 FROM pg_stat_activity \
                         WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 5",
                        &[],
                    )
                    .await
                    .map_err(PgError::from)?;
                let whom: Vec<String> = open
                    .iter()
                    .map(|row| {
                        let (pid, user): (i32, String) = (row.get(0), row.get(1));
                        format!("PID {pid} ({user}), open for {} s", row.get::<_, Option<i64>>(2).unwrap_or_default())
                    })
                    .collect();
                info!(slot, waiting_for = whom.join("; "), "the slot is being created: Postgres waits for open writing transactions to end");
            }
        }
    }
}
