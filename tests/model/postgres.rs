//! Postgres: transactions, the WAL, the slot, a standby.

use super::scenario::Scenario;
use super::set::{Lsn, Set, TXS, Txs};

/// Where a transaction is. Its xid is its place in the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TxState {
    #[default]
    Idle,
    /// It has an xid, has written, and holds its locks.
    Open,
    /// Its commit record is written and flushed; no snapshot shows it yet.
    Recorded,
    /// It has ended: every new snapshot shows it.
    Visible,
    Aborted,
}

/// The slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Commit records before it are never streamed.
    pub start: Lsn,
    /// What was acknowledged: the stream starts here.
    pub confirmed: Lsn,
    /// The daemon whose walsender holds it.
    pub holder: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Postgres {
    pub txs: [TxState; TXS],
    /// Whose commit records the WAL holds; zero past `inserted`.
    wal: [u8; TXS],
    pub inserted: Lsn,
    /// The walsenders send, and a crash leaves, what is flushed.
    pub flushed: Lsn,
    /// How far the standby has replayed.
    pub replayed: Lsn,
    pub slot: Option<Slot>,
    /// Changes with every crash recovery.
    pub incarnation: u8,
    /// Changes with every ALTER PUBLICATION.
    pub publication: u8,
    /// What these wrote before the publication had the table is not streamed.
    pub partial: Txs,
}

impl Postgres {
    pub fn new() -> Self {
        Postgres {
            txs: [TxState::Idle; TXS],
            wal: [0; TXS],
            inserted: 0,
            flushed: 0,
            replayed: 0,
            slot: None,
            incarnation: 1,
            publication: 1,
            partial: Set::EMPTY,
        }
    }

    fn all(&self, states: &[TxState]) -> Txs {
        Set::those(TXS, |tx| states.contains(&self.txs[tx]))
    }

    /// What a new snapshot of the primary shows.
    pub fn visible(&self) -> Txs {
        self.all(&[TxState::Visible])
    }

    /// What has an xid and has not ended.
    pub fn running(&self) -> Txs {
        self.all(&[TxState::Open, TxState::Recorded])
    }

    /// What a new snapshot of the standby shows: replay makes visible.
    pub fn visible_on_standby(&self) -> Txs {
        Set::those(TXS, |tx| self.wal[..usize::from(self.replayed)].contains(&(tx as u8)))
    }

    /// The transaction whose commit record begins at `at`.
    pub fn record(&self, at: Lsn) -> usize {
        usize::from(self.wal[usize::from(at)])
    }

    /// The end of the transaction's commit record.
    pub fn record_end(&self, tx: usize) -> Option<Lsn> {
        (0..self.inserted).find(|at| self.record(*at) == tx).map(|at| at + 1)
    }

    /// Whether the transaction may begin: xids are given out in order.
    pub fn may_begin(&self, tx: usize) -> bool {
        self.txs[tx] == TxState::Idle && self.txs[..tx].iter().all(|t| *t != TxState::Idle)
    }

    /// Writes the commit record.
    pub fn commit(&mut self, tx: usize, scenario: &Scenario) {
        self.wal[usize::from(self.inserted)] = tx as u8;
        self.inserted += 1;
        if scenario.txs[tx].asynchronous {
            self.txs[tx] = TxState::Visible;
        } else {
            self.flushed = self.inserted;
            self.txs[tx] = TxState::Recorded;
        }
    }

    /// Crashes and recovers: what was not flushed never was; what was, is visible.
    pub fn crash(&mut self) {
        for at in self.flushed..self.inserted {
            let tx = self.record(at);
            self.txs[tx] = TxState::Aborted;
            self.wal[usize::from(at)] = 0;
        }
        self.inserted = self.flushed;
        for tx in &mut self.txs {
            *tx = match *tx {
                TxState::Open => TxState::Aborted,
                TxState::Recorded => TxState::Visible,
                other => other,
            };
        }
        self.incarnation += 1;
        if let Some(slot) = &mut self.slot {
            slot.holder = None;
        }
    }

    /// The transactions in progress that a snapshot lists, all of which hold locks on the
    /// mapped table. A snapshot ends at the last xid that has *ended*; one's own, assigned
    /// and ended just before, is later than all.
    pub fn in_progress(&self, by_own_xid: bool) -> Txs {
        let ended = self.all(&[TxState::Visible, TxState::Aborted]);
        let last = ended.iter().last();
        let listed = |tx: usize| by_own_xid || last.is_some_and(|last| tx < last);
        Set::those(TXS, |tx| self.running().contains(tx) && listed(tx))
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.running().is_empty() && self.flushed == self.inserted
    }
}
