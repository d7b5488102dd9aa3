//! What no stream tells of, asked now and then: the publication, the slot, the suspects, the tables'
//! files, whether somebody counts us as a standby.
//!
//! It is asked on the gate's connection, which reaches the server that streams, and *beside* the
//! gate's own questions: one at a time, so that a snapshot waits for one of these at the most
//! and not for all of them. Every hundredth commit came just then, and they were the slowest.
//! And in a task of its own: an answer that nobody takes in (two thousand tables) keeps those behind it
//! on the connection waiting, so it must never wait for the gate, which may wait for them.
//!
//! # Old answers
//!
//! While the answers come the gate goes on, so they are of a moment that has passed when it
//! gets them. Nothing is concluded from what is *now*, therefore, but from the position that was
//! read last of all ([`Answers::inserted`]): every commit that the answers show was written before it.
//! What is decided is decided when the stream has passed it ([`Rewrites`](super::rewrites::Rewrites),
//! [`Suspects`](super::suspects::Suspects)), and by then all of them have come through. That is
//! later than without waiting, and never earlier. What came through before the answers came is
//! remembered there.

use std::sync::Arc;

use crate::lsn::Lsn;
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::postgres::gate::current_snapshot;
use crate::postgres::partitions::partitioned;
use crate::postgres::publication::{Publication, PublishedTable};
use crate::postgres::server::{synchronous_standby_names, wal_insert};
use crate::postgres::slot::SlotState;
use crate::postgres::storage::{File, files};
use crate::snapshot::Snapshot;

/// What is asked about.
#[derive(Debug, Clone)]
pub struct Subjects {
    /// The publication's name.
    pub publication: String,
    /// The slot's.
    pub slot: String,
    /// The mapped tables' OIDs.
    pub relations: Vec<u32>,
    /// Those of them that are partitioned.
    pub roots: Vec<u32>,
}

/// What is streamed of the mapped tables, by the catalog.
#[derive(Debug, PartialEq, Eq)]
pub struct Streamed {
    /// The fingerprint of their publication; `None`: there is none.
    pub publication: Option<String>,
    /// Those that are partitioned, and whether a partition has another replica identity.
    pub partitioned: Vec<(u32, bool)>,
}

impl Subjects {
    /// What is streamed now.
    pub async fn streamed(&self, client: &SqlClient) -> Result<Streamed, PgError> {
        let found = client.answered(Publication::read(client, &self.publication)).await?;
        let is_mapped = |table: &PublishedTable| self.relations.contains(&table.oid);
        let publication = found.map(|found| found.fingerprint_of(is_mapped).to_string());
        let partitioned = match self.roots.is_empty() {
            true => Vec::new(),
            false => client.answered(partitioned(client, &self.roots)).await?,
        };
        Ok(Streamed { publication, partitioned })
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answers {
    /// `synchronous_standby_names`
    pub standbys: String,
    /// What is streamed.
    pub streamed: Streamed,
    /// Who has ended, where suspects are waited for.
    pub snapshot: Option<Snapshot>,
    /// The slot, if it is there.
    pub slot: Option<SlotState>,
    /// The tables' files.
    pub files: Vec<File>,
    /// Where the WAL ended after all this.
    pub inserted: Lsn,
}

/// Asks all of it, one after the other.
pub async fn ask(
    client: Arc<SqlClient>,
    subjects: Arc<Subjects>,
    has_suspects: bool,
) -> Result<Answers, PgError> {
    let client = &*client;
    let Subjects { slot, relations, .. } = &*subjects;
    let standbys = client.answered(synchronous_standby_names(client)).await?;
    let streamed = subjects.streamed(client).await?;
    let snapshot = match has_suspects {
        true => Some(client.answered(current_snapshot(client)).await?),
        false => None,
    };
    let slot = client.answered(SlotState::read(client, slot)).await?;
    let files = client.answered(files(client, relations)).await?;
    Ok(Answers {
        standbys,
        streamed,
        snapshot,
        slot,
        files,
        // The last: see the module.
        inserted: client.answered(wal_insert(client)).await?,
    })
}
