//! Where the model runs the pipeline's own code: what is pure there need not be told again.

use std::sync::Arc;
use std::time::Instant;

use unstale::loader::standby::{Needed, Position, Verdict, may_begin};
use unstale::lsn::Lsn as RealLsn;
use unstale::mapping::changes::ChangeSet;
use unstale::pipeline::gap;
use unstale::pipeline::lookups::LookupPlans;
use unstale::pipeline::transaction::Transaction;
use unstale::pipeline::waiting::{Arrival, Waiting};
use unstale::snapshot::{Snapshot, Xid};
use unstale::status::reason::GapReason;
use unstale::store::state::{Identity, Nonce, State};

use super::daemon::{Found, Gap};
use super::redis::Control;
use super::set::{Lsn, TXS, Txs};

/// The xid of transaction 0.
const FIRST_XID: u32 = 10;

/// Whether a standby that has replayed this much may be read under a lease of this frontier.
pub fn may_read_standby(replayed: Lsn, frontier: Lsn) -> bool {
    // No position of a real server is zero.
    let real = |at: Lsn| RealLsn(u64::from(at) + 1);
    let needed = Needed { frontier: real(frontier), system_id: "1", timeline: 1, day_ends: None };
    let position = Position { in_recovery: true, replayed: Some(real(replayed)), day_ends: None };
    may_begin(&needed, &position) == Verdict::Load
}

/// Which of those that arrived, by position, and wait go now, and the watermark after it.
pub fn admit(
    base: Lsn,
    arrived: impl Iterator<Item = (Lsn, Option<usize>)>,
    shown: Txs,
) -> (Vec<usize>, Lsn) {
    let mut waiting = Waiting::new(RealLsn(base.into()));
    for (at, waits) in arrived {
        let end = RealLsn(u64::from(at) + 1);
        waiting.arrive(match waits {
            Some(tx) => Arrival::Transaction(transaction(tx, at, end)),
            None => Arrival::Progress(end),
        });
    }
    let admitted = waiting.admit(&snapshot(shown));
    let txs = admitted.transactions.iter().map(|t| (t.xid.0 - FIRST_XID) as usize).collect();
    (txs, admitted.watermark.0 as Lsn)
}

/// What a start makes of the state that it found.
pub fn verdict(seen: Option<Control>, found: Found, wal_insert: Lsn) -> Option<Gap> {
    let seen = seen.map(|seen| State {
        valid: seen.valid,
        nonce: Nonce::found(String::new()),
        watermark: RealLsn(seen.watermark.into()),
        frontier: RealLsn(seen.frontier.into()),
        identity: identity(seen.incarnation, seen.publication),
        prefixes: vec![],
        closed: vec![],
        files: String::new(),
        suspects: String::new(),
    });
    let found = gap::Found {
        identity: identity(found.incarnation, found.publication),
        confirmed_flush: RealLsn(found.confirmed.into()),
        wal_insert: RealLsn(wal_insert.into()),
    };
    gap::verdict(seen.as_ref(), &found).map(|reason| match reason {
        GapReason::PublicationChanged => Gap::PublicationChanged,
        _ => Gap::Other,
    })
}

fn transaction(tx: usize, at: Lsn, end_lsn: RealLsn) -> Transaction {
    Transaction {
        xid: Xid(FIRST_XID + tx as u32),
        commit_lsn: RealLsn(at.into()),
        end_lsn,
        committed_at: 0,
        sent_after: 0,
        received_at: Instant::now(),
        heartbeat: None,
        alters_publication: false,
        changes: ChangeSet::default(),
        plans: Arc::new(LookupPlans::default()),
        share: None,
    }
}

fn snapshot(shown: Txs) -> Snapshot {
    let hidden: Vec<String> = (0..TXS)
        .filter(|tx| !shown.contains(*tx))
        .map(|tx| (FIRST_XID as usize + tx).to_string())
        .collect();
    let xmax = FIRST_XID as usize + TXS;
    let xmin = hidden.first().cloned().unwrap_or_else(|| xmax.to_string());
    format!("{xmin}:{xmax}:{}", hidden.join(",")).parse().expect("a snapshot")
}

fn identity(incarnation: u8, publication: u8) -> Identity {
    Identity {
        system_id: String::new(),
        timeline: 1,
        incarnation: incarnation.to_string(),
        publication: publication.to_string(),
        mapping: String::new(),
    }
}
