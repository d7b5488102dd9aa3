//! Getting the stream: checks, creates what is missing, and makes the slot ours (rule 7).
//!
//! The order matters. *The slot first, then its position*: START_REPLICATION makes the slot
//! ours; a position read earlier could still be moved by another daemon, and so could the
//! state in Redis. *The same server*: the snapshots of the gate mean nothing if they come
//! from another one than the stream; the ordinary connection must see the slot held by the
//! very process that serves the stream. *Nothing stays cached that is not followed*: a gap
//! begins before anything that could wait, such as the slot's creation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use super::assemble::{Dialect, Unbelieved};
use super::context::Context;
use super::end::End;
use super::gap::Found;
use super::hand::Hand;
use super::invalidate::prefixes;
use super::points::Point;
use super::rewrites::{self, Known};
use crate::lsn::Lsn;
use crate::mapping::model::TableId;
use crate::mapping::name::TableName;
use crate::postgres::announce;
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::postgres::feedback::FeedbackWriter;
use crate::postgres::frames::FrameReader;
use crate::postgres::partitions::partitioned;
use crate::postgres::publication::Publication;
use crate::postgres::replication::{PgoutputOptions, ReplicationConnection};
use crate::postgres::server::{ServerFacts, counts_as_standby, new_slots_begin_whole, wal_insert};
use crate::postgres::slot::{SlotState, drop_slot, writers};
use crate::postgres::storage::files;
use crate::status::reason::GapReason;
use crate::status::{Health, Phase};
use crate::store::state::{Identity, State};

/// A stream that is ours, and what is known of the server behind it.
pub struct Stream {
    /// The reading and the writing half, until they are taken.
    pub halves: Option<(FrameReader, FeedbackWriter)>,
    /// What was asked of it.
    pub dialect: Dialect,
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
    /// The slot was created for this stream, and began when nothing was open that it will
    /// deliver.
    pub slot_began_whole: bool,
    /// The literal prefixes of all that this mapping and the one before it manage.
    pub prefixes: BTreeSet<String>,
    /// The state as it was found in Redis once the stream was ours.
    pub state: Option<State>,
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
pub(super) async fn stream(
    context: &Context,
    hand: &mut Hand,
    forced: Option<GapReason>,
) -> Result<Stream, End> {
    let before = hand.state().await?;
    let client =
        SqlClient::connect(&context.connect, context.config.postgres.statement_timeout.get())
            .await?;
    let facts = context.answered(ServerFacts::read(&client)).await?;
    check_server(&facts)?;
    check_standbys(&facts.synchronous_standby_names, context.connect.application_name())?;
    context.status.postgres(Health::Up);
    let mut gap = forced;

    fit(context, &client, hand).await?;

    let config = &context.config.postgres;
    let slot = context.answered(SlotState::read(&client, &config.slot)).await?;
    // Older servers have no such slots; `check` says so.
    let failover = config.failover && facts.version_num >= 170_000;
    let lacks_failover = failover && slot.as_ref().is_some_and(|slot| !slot.failover);
    let slot = usable_slot(slot, &config.slot, context.connect.database())?;
    let slot_is_there = match slot {
        Slot::Ready if forced == Some(GapReason::PublicationMissing) => {
            warn!(
                slot = config.slot,
                "the slot cannot be read past a time without the publication: it is dropped and created anew"
            );
            context.answered(drop_slot(&client, &config.slot)).await?;
            false
        }
        Slot::Ready => true,
        Slot::Missing => {
            gap.get_or_insert(without_slot(before.as_ref(), &facts.system_id));
            false
        }
        Slot::Lost(reason) => {
            warn!(
                slot = config.slot,
                reason, "the server has invalidated the slot: it is dropped and created anew"
            );
            context.answered(drop_slot(&client, &config.slot)).await?;
            gap.get_or_insert(GapReason::SlotLost);
            false
        }
    };

    let mut replication = ReplicationConnection::connect(&context.connect).await?;
    let system = context.answered(replication.identify_system()).await?;
    if system.system_id != facts.system_id {
        return Err(End::Again(format!(
            "two connections reached two servers (system identifiers {} and {}): let postgres.url name one of them",
            facts.system_id, system.system_id
        )));
    }
    if !slot_is_there {
        if let Some(reason) = gap {
            hand.broken(context, before.as_ref(), reason).await?;
        }
        create_slot(context, &client, &mut replication, failover).await?;
        context.points.reach(Point::SlotCreated).await;
    }
    if slot_is_there && lacks_failover {
        context.answered(replication.let_fail_over(&config.slot)).await?;
        info!(slot = config.slot, "standbys keep a copy of the slot from here on");
    }
    let pid = replication.backend_pid();
    let dialect = Dialect::of_server(facts.version_num, config.streaming);
    let options = PgoutputOptions {
        protocol: dialect.protocol.number(),
        publications: vec![config.publication.clone()],
        streaming: dialect.streaming.into(),
        // Of the application's own messages nothing is wanted.
        messages: !config.heartbeat.get().is_zero()
            || context.answered(announce::triggers(&client)).await? > 0,
        binary: false,
    };
    let starting = replication.start_replication(&config.slot, Lsn::ZERO, &options);
    let (mut reader, writer) = context.answered(starting).await?;

    // Ours now: from here on nobody else moves it.
    let slot = context.answered(SlotState::read(&client, &config.slot)).await?;
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
    // Read again: the slot's creation may have waited for who altered the publication, and begins past
    // him. What alters it from here on is further on in the stream.
    let (publication, tables) = fit(context, &client, hand).await?;
    let relations: Vec<u32> = tables.keys().copied().collect();
    let identity = Identity {
        system_id: system.system_id,
        timeline: system.timeline,
        incarnation: facts.incarnation.clone(),
        publication: publication.fingerprint_of(|table| relations.contains(&table.oid)).to_string(),
        mapping: context.rules.fingerprint(),
    };
    let partitioned = context.answered(partitioned(&client, &relations)).await?;
    let files = rewrites::known(&context.answered(files(&client, &relations)).await?);
    let found = Found {
        identity,
        confirmed_flush,
        wal_insert: context.answered(wal_insert(&client)).await?,
    };
    context.points.reach(Point::SlotTaken).await;
    // Only now: until the slot was ours, another daemon may have moved it on.
    let state = hand.state().await?;
    Ok(Stream {
        halves: Some((reader, writer)),
        dialect,
        client,
        wal_sender_timeout: facts.wal_sender_timeout,
        found,
        relations,
        tables,
        files,
        partitioned,
        gap,
        slot_began_whole: !slot_is_there && new_slots_begin_whole(facts.version_num),
        prefixes: prefixes(context, before.as_ref()),
        state,
    })
}

/// Why everything begins anew where there is no slot: the reason that says most.
fn without_slot(before: Option<&State>, system_id: &str) -> GapReason {
    match before {
        None => GapReason::NoState,
        // Upgraded, or loaded from a dump: nobody has dropped the slot. (An invalid state names no system.)
        Some(state) if state.valid && state.identity.system_id != system_id => {
            GapReason::OtherSystem
        }
        Some(_) => GapReason::SlotMissing,
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

/// The publication and the OIDs of the mapped tables in it. Where that is not what it must be, nothing
/// may stay cached: what is not published is not invalidated.
async fn fit(
    context: &Context,
    client: &SqlClient,
    hand: &mut Hand,
) -> Result<(Publication, BTreeMap<u32, TableId>), End> {
    match published(context, client).await? {
        Ok(published) => Ok(published),
        Err(unfit) => {
            let state = hand.state().await?.filter(|state| state.valid);
            if state.is_some() {
                hand.broken(context, state.as_ref(), GapReason::PublicationChanged).await?;
            }
            Err(End::Blocked(unfit))
        }
    }
}

/// The same, or what is wrong with it.
async fn published(
    context: &Context,
    client: &SqlClient,
) -> Result<Result<(Publication, BTreeMap<u32, TableId>), String>, End> {
    let name = &context.config.postgres.publication;
    let Some(publication) = context.answered(Publication::read(client, name)).await? else {
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
    failover: bool,
) -> Result<(), End> {
    context.status.enter(Phase::CreatingSlot);
    let slot = &context.config.postgres.slot;
    let creating = async {
        match failover {
            true => replication.create_failover_slot(slot).await,
            false => replication.create_slot(slot).await,
        }
    };
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
                let whom = writers(client).await?;
                info!(slot, waiting_for = whom.join("; "), "the slot is being created: Postgres waits for open writing transactions to end");
            }
        }
    }
}
