//! The ways to raise a version: whatever writes a row, the change must come through.

use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt as _;

use crate::ledger::Committed;
use crate::load::{Session, finish_prepared};

/// Rows that are written over and over, so that a transaction is large; each third of them by
/// whoever raises the versions of a third.
const BALLAST: &str = "id between 101 and 1000";

/// By which a version is raised.
#[derive(Debug, Clone, Copy)]
enum Way {
    Update,
    OnConflict,
    Merge,
    /// Triggers and foreign keys do not fire.
    AsReplica,
    /// Removed, and put back by COPY.
    Copy,
    /// `PREPARE TRANSACTION`, and its commit a while later.
    Prepared,
    /// In blocks while it is in progress, with a subtransaction that is rolled back.
    Streamed,
    /// TRUNCATE, and everything back.
    Truncated,
}

impl Way {
    fn any() -> Way {
        match fastrand::u32(0..150) {
            0 => Way::Truncated,
            1..6 => Way::Streamed,
            6..16 => Way::Prepared,
            16..28 => Way::Copy,
            28..40 => Way::AsReplica,
            40..52 => Way::Merge,
            52..64 => Way::OnConflict,
            _ => Way::Update,
        }
    }

    /// What stands between BEGIN and the commit. It gives the new version.
    fn body(self, row: u32) -> String {
        let update =
            format!("update item set version = version + 1 where id = {row} returning version");
        match self {
            Way::Update | Way::Prepared | Way::Copy => update,
            Way::AsReplica => format!("set local session_replication_role = replica; {update}"),
            Way::OnConflict => format!(
                "insert into item values ({row}, 0) on conflict (id) do update set version = item.version + 1 returning version"
            ),
            Way::Merge => format!(
                "merge into item using (select {row} as id) as changed on item.id = changed.id
                     when matched then update set version = version + 1;
                 select version from item where id = {row}"
            ),
            Way::Streamed => {
                let ballast = format!(
                    "update item set version = version where {BALLAST} and id % 3 = {}",
                    row % 3
                );
                format!(
                    "savepoint s; update item set version = version + 1000 where id = {row}; {ballast};
                     rollback to s; {ballast}; savepoint s; {update}; release s; {ballast}"
                )
            }
            Way::Truncated => format!(
                "lock table item; create temporary table kept on commit drop as select * from item;
                 truncate item; insert into item select id, version + (id = {row})::int from kept;
                 select version from item where id = {row}"
            ),
        }
    }
}

/// A version more. `None`: it was refused, or nobody knows what came of it.
pub async fn raise(session: &mut Session, row: u32) -> Option<Committed> {
    let hearing = session.stage.ledger.hearing();
    let hasty = session.stage.hasty.is_set().then(|| session.stage.ledger.era());
    let begin = if hasty.is_some() { "begin; set local synchronous_commit = off" } else { "begin" };
    let way = Way::any();
    let version = match way {
        Way::Copy => copied(session, begin, row).await?,
        Way::Prepared => {
            let name = format!("row {row}");
            let sql = format!("{begin}; {}; prepare transaction '{name}'", way.body(row));
            let prepared = session.run(&sql).await;
            finish_prepared(session, &name, prepared.is_none()).await;
            prepared?.first()?.parse().ok()?
        }
        _ => {
            let sql = format!("{begin}; {}; commit", way.body(row));
            session.run(&sql).await?.first()?.parse().ok()?
        }
    };
    // Of a session that was lost in between nobody knows; then it is not noted.
    let position = if hasty.is_some() { "insert" } else { "flush" };
    let by = session.run(&format!("select pg_current_wal_{position}_lsn()::text")).await?;
    let heard = hearing.is_some() && hearing == session.stage.ledger.hearing();
    Some(Committed { version, by: by.first()?.parse().ok()?, hasty, heard })
}

async fn copied(session: &mut Session, begin: &str, row: u32) -> Option<u64> {
    let removed = format!("{begin}; delete from item where id = {row} returning version");
    let version = session.run(&removed).await?.first()?.parse::<u64>().ok()? + 1;
    let copied = async {
        let client = session.client().await?;
        let sink = client.copy_in("copy item (id, version) from stdin").await.ok()?;
        let mut sink = pin!(sink);
        sink.send(Bytes::from(format!("{row}\t{version}\n"))).await.ok()?;
        sink.finish().await.ok()?;
        client.batch_execute("commit").await.ok()
    };
    if copied.await.is_none() {
        _ = session.run("rollback").await;
        return None;
    }
    Some(version)
}
