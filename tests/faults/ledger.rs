//! What is known for sure of the numbered rows, and what was seen that cannot be.
//!
//! Each row is written by one writer alone, and its version only grows. A version is noted with
//! a position that its commit ends at or below: taken by the writer once the commit had
//! returned. So a value with an older version is stale as soon as the watermark has passed that
//! position, and whoever asks the read API for that position must get that version at least.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use unstale::lsn::Lsn;

#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// By row: its versions, each with a position that its commit ends at or below.
    versions: HashMap<u32, Vec<(u64, Lsn)>>,
    tally: Tally,
}

/// What was counted, and what was wrong.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub counts: BTreeMap<&'static str, u64>,
    /// By reason, of all daemons.
    pub gaps: BTreeMap<String, u64>,
    /// Read from Redis although a change that it lacks was applied.
    pub stale_stored: Vec<String>,
    /// Served although a newer one was asked for.
    pub stale_served: Vec<String>,
    /// Changes that removed nothing.
    pub lost: Vec<String>,
    pub panics: Vec<String>,
    /// Whatever else should not be.
    pub other: Vec<String>,
    /// The log of the last daemon.
    pub log: String,
}

impl Ledger {
    fn with<T>(&self, use_it: impl FnOnce(&mut Inner) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A commit has returned; by then the WAL was written up to `by`.
    pub fn committed(&self, row: u32, version: u64, by: Lsn) {
        self.with(|inner| inner.versions.entry(row).or_default().push((version, by)));
        self.count("versions");
    }

    /// A version that `version` lacks although it was committed below `watermark`.
    pub fn lacks(&self, row: u32, version: u64, watermark: Lsn) -> Option<(u64, Lsn)> {
        self.with(|inner| {
            let known = inner.versions.get(&row)?;
            let next = known.partition_point(|(other, _)| *other <= version);
            known.get(next).copied().filter(|(_, by)| *by <= watermark)
        })
    }

    pub fn count(&self, what: &'static str) {
        self.with(|inner| *inner.tally.counts.entry(what).or_default() += 1);
    }

    pub fn note(&self, note: impl FnOnce(&mut Tally)) {
        self.with(|inner| note(&mut inner.tally));
    }

    pub fn tally(&self) -> Tally {
        self.with(|inner| inner.tally.clone())
    }
}

impl Tally {
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    pub fn is_clean(&self) -> bool {
        let Tally { stale_stored, stale_served, lost, panics, other, .. } = self;
        [stale_stored, stale_served, lost, panics, other].iter().all(|wrong| wrong.is_empty())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            write!(f, "{what}={count} ")?;
        }
        write!(f, "gaps={:?} ", self.gaps)?;
        write!(
            f,
            "stale_stored={} stale_served={} lost={} panics={} other={}",
            self.stale_stored.len(),
            self.stale_served.len(),
            self.lost.len(),
            self.panics.len(),
            self.other.len()
        )?;
        let Tally { stale_stored, stale_served, lost, panics, other, .. } = self;
        for wrong in [stale_stored, stale_served, lost, panics, other] {
            for one in wrong.iter().take(5) {
                write!(f, "\n    {one}")?;
            }
        }
        Ok(())
    }
}
