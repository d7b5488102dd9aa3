//! What is known for sure of the numbered rows, and what was seen that cannot be.
//!
//! Each row is written by one writer alone, and its version only grows. A version is noted with
//! a position that its commit ends at or below: taken by the writer once the commit had
//! returned. So a value with an older version is stale as soon as the watermark has passed that
//! position, and whoever asks the read API for that position must get that version at least.
//!
//! Whoever commits in haste (`synchronous_commit = off`) may lose it in a crash, though it was
//! visible: what was noted of such commits since the last crash is forgotten with the next.
//!
//! What no stream carries (a table is not published just then, or it is rewritten) event triggers
//! tell of in the stream. Where there are none, the daemon learns of it within a second or two, and not
//! from a position: such versions are not noted, and what the daemon itself finds stale meanwhile is
//! known to be.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use unstale::lsn::Lsn;

/// The daemon looks once a second, and what it sees then has to be carried out.
const LOOKED: Duration = Duration::from_secs(3);

pub struct Ledger {
    /// Whatever happens is told of in the stream.
    announced: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By row: its versions.
    versions: HashMap<u32, Vec<Noted>>,
    /// How many crashes there were that lose commits.
    era: u64,
    /// Since when changes are not streamed, if they are not.
    unheard: Option<SystemTime>,
    /// When they were not, and until when that may be overlooked.
    overlooked: Vec<(SystemTime, SystemTime)>,
    tally: Tally,
}

#[derive(Clone, Copy)]
struct Noted {
    version: u64,
    /// A position that its commit ends at or below.
    by: Lsn,
    hasty: bool,
}

/// A version that was committed.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    pub version: u64,
    /// By then the WAL was written up to there; of a hasty one it will be.
    pub by: Lsn,
    /// In haste, in this era.
    pub hasty: Option<u64>,
    /// The stream carries it.
    pub heard: bool,
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
    pub fn new(announced: bool) -> Ledger {
        Ledger { announced, inner: Mutex::default() }
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Inner) -> T) -> T {
        use_it(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A commit has returned. One whose era is over is lost, or nobody knows.
    pub fn committed(&self, row: u32, committed: Committed) {
        let Committed { version, by, hasty, heard } = committed;
        self.with(|inner| {
            if heard && hasty.is_none_or(|era| era == inner.era) {
                let noted = Noted { version, by, hasty: hasty.is_some() };
                inner.versions.entry(row).or_default().push(noted);
            }
        });
        self.count("versions");
    }

    /// To be asked before a hasty commit.
    pub fn era(&self) -> u64 {
        self.with(|inner| inner.era)
    }

    /// From here on changes are not streamed, and unless event triggers tell of it nobody knows.
    pub fn overlooks(&self) {
        if !self.announced {
            self.with(|inner| inner.unheard = Some(SystemTime::now()));
        }
    }

    /// From here on they are again.
    pub fn hears(&self) {
        self.with(|inner| {
            if let Some(since) = inner.unheard.take() {
                inner.overlooked.push((since, SystemTime::now() + LOOKED));
            }
        });
    }

    /// The same before and after a commit: the stream carries it.
    pub fn hearing(&self) -> Option<usize> {
        self.with(|inner| inner.unheard.is_none().then_some(inner.overlooked.len()))
    }

    /// Whether what was stale just then may have been overlooked.
    pub fn may_overlook(&self, at: SystemTime) -> bool {
        self.with(|inner| {
            inner.unheard.is_some_and(|since| since <= at)
                || inner.overlooked.iter().any(|(since, until)| (*since..*until).contains(&at))
        })
    }

    /// The server has crashed. Gives a position that all hasty commits ended at or below.
    pub fn forget_hasty(&self) -> Option<Lsn> {
        self.with(|inner| {
            inner.era += 1;
            let all = inner.versions.values().flatten();
            let last = all.filter(|noted| noted.hasty).map(|noted| noted.by).max();
            for versions in inner.versions.values_mut() {
                versions.retain(|noted| !noted.hasty);
            }
            last
        })
    }

    /// A version that `version` lacks although it was committed below `watermark`.
    pub fn lacks(&self, row: u32, version: u64, watermark: Lsn) -> Option<(u64, Lsn)> {
        self.with(|inner| {
            let known = inner.versions.get(&row)?;
            let next = known.partition_point(|noted| noted.version <= version);
            let next = known.get(next).filter(|noted| noted.by <= watermark);
            next.map(|noted| (noted.version, noted.by))
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
