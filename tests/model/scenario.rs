//! What happens in one exploration: which transactions, keys, fillers, and how many of
//! which faults.

use super::rules::Rules;
use super::set::{KEYS, Keys, Set, TXS, Txs};

/// A transaction that may happen.
#[derive(Debug, Clone, Copy)]
pub struct Tx {
    /// The keys that its rows lead to directly.
    pub keys: Keys,
    /// It changes this parent: the keys of its children, by lookup, depend on it.
    pub parent: Option<u8>,
    /// It moves the child, key 0, from parent 0 to parent 1.
    pub moves: bool,
    /// TRUNCATE: every key of the cache, which is dropped as a whole.
    pub whole: bool,
    /// `synchronous_commit = off`: visible before its record is flushed.
    pub asynchronous: bool,
    /// It may roll back.
    pub aborts: bool,
    /// It begins, holds its locks, then commits; else it does so at once.
    pub open: bool,
}

impl Tx {
    /// A transaction that writes a row of key 0, and nothing else.
    pub const fn plain() -> Tx {
        Tx {
            keys: Set::of(&[0]),
            parent: None,
            moves: false,
            whole: false,
            asynchronous: false,
            aborts: false,
            open: false,
        }
    }

    /// One that writes a row of each of these keys.
    pub const fn on(keys: &[usize]) -> Tx {
        Tx { keys: Set::of(keys), ..Tx::plain() }
    }
}

/// Somebody who fills a key, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillerOf {
    pub key: usize,
    /// It reads a standby.
    pub replica: bool,
}

/// How often each fault may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// The daemon dies and is started again.
    pub crash: u8,
    /// The replication connection breaks and the daemon does not know yet.
    pub cut: u8,
    /// A dump of Redis is written.
    pub dump: u8,
    /// Redis restarts with the last dump.
    pub restore: u8,
    /// Redis restarts empty.
    pub flush: u8,
    /// The state is evicted, values and leases stay.
    pub evict: u8,
    /// A step is done and its answer lost.
    pub lost_answer: u8,
    /// A command's connection is given up, and it arrives later.
    pub late: u8,
    /// The slot is dropped or invalidated.
    pub slot_lost: u8,
    /// An operator drops the slot and makes it anew.
    pub slot_recreated: u8,
    /// Postgres crashes and recovers.
    pub postgres_crash: u8,
    /// ALTER PUBLICATION adds the table.
    pub publication: u8,
    /// A lease may expire.
    pub lease_expiry: bool,
}

/// How it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// All is well: the first daemon streams, the state is valid, nothing is cached.
    Streaming,
    /// There is no slot, and Redis is empty.
    Nothing,
}

/// Who reads what he has written himself (rule 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnWrites {
    NotAsked,
    /// He waits until the watermark has passed his commit, then reads the cache.
    WaitForWatermark,
    /// He waits for the frontier: rule 10 broken.
    WaitForFrontier,
    /// He waits for the watermark. And he reads the database if the state has suspects.
    AndNoSuspects,
}

/// One exploration.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub rules: Rules,
    pub txs: Vec<Tx>,
    pub keys: usize,
    pub fillers: &'static [FillerOf],
    pub daemons: usize,
    pub faults: Faults,
    pub beginning: Beginning,
    /// Also look at fills by the reading of the guarantee that does not excuse what was
    /// lost with a part of Redis's history.
    pub literal: bool,
    /// Do not look at what Postgres is told.
    pub excused: bool,
    /// Whether readers ask for their own writes.
    pub own_writes: OwnWrites,
}

/// One filler of key 0 that reads the primary.
pub const ON_PRIMARY: FillerOf = FillerOf { key: 0, replica: false };
/// One filler of key 0 that reads a standby.
pub const ON_REPLICA: FillerOf = FillerOf { key: 0, replica: true };

impl Scenario {
    /// One key, one filler, one daemon, no faults.
    pub fn of(txs: &[Tx]) -> Scenario {
        Scenario {
            rules: Rules::ALL,
            txs: txs.to_vec(),
            keys: 1,
            fillers: &[ON_PRIMARY],
            daemons: 1,
            faults: Faults::default(),
            beginning: Beginning::Streaming,
            literal: false,
            excused: false,
            own_writes: OwnWrites::NotAsked,
        }
    }

    /// The same with other rules.
    pub fn without(&self, take_out: impl FnOnce(&mut Rules)) -> Scenario {
        let mut scenario = self.clone();
        take_out(&mut scenario.rules);
        scenario
    }

    /// Which parent the child, key 0, has in this snapshot.
    fn parent(&self, snapshot: Txs) -> u8 {
        u8::from(snapshot.iter().any(|tx| self.txs.get(tx).is_some_and(|tx| tx.moves)))
    }

    /// What a load of `key` in this snapshot depends on: the value is the set of these.
    pub fn value(&self, key: usize, snapshot: Txs) -> Txs {
        let parent = self.parent(snapshot);
        Set::those(self.txs.len(), |tx| {
            snapshot.contains(tx) && {
                let tx = self.txs[tx];
                tx.keys.contains(key)
                    || tx.whole
                    || key == 0 && (tx.moves || tx.parent == Some(parent))
            }
        })
    }

    /// The keys that the transaction's own rows lead to.
    pub fn direct_keys(&self, tx: usize) -> Keys {
        let tx = self.txs[tx];
        let mut keys = tx.keys;
        if tx.moves {
            keys.insert(0);
        }
        keys
    }

    /// The keys that its lookup leads to, run on this snapshot.
    pub fn looked_up(&self, tx: usize, snapshot: Txs) -> Keys {
        match self.txs[tx].parent {
            Some(parent) if self.parent(snapshot) == parent => Set::of(&[0]),
            _ => Set::EMPTY,
        }
    }

    /// Checks that it fits into the model's bounds.
    pub fn check(&self) {
        assert!(self.txs.len() <= TXS && self.keys <= KEYS && self.keys > 0);
        assert!(self.fillers.len() <= 2 && (1..=2).contains(&self.daemons));
    }
}
