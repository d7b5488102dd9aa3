//! Counting what became of entries, and remembering which were missed. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::awaiting::{Change, Outcome};
use crate::config::model::Operation;
use crate::mapping::changes::{Escalation, Key, Origin};
use crate::mapping::model::{CacheId, RuleId};

/// How many missed entries are remembered by name.
const NAMED: usize = 1000;

/// How many replaced entries of a cache are compared to find out whether its values can be.
const TRIALS: u32 = 20;

/// Entries that changes reached, by what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Not cached when the change was seen: never, or removed already.
    pub absent: u64,
    /// Gone within the grace.
    pub removed: u64,
    /// Other bytes.
    pub replaced: u64,
    /// The same bytes with another expiry: stored anew, or kept for longer.
    pub renewed: u64,
    /// The same bytes, and what the database gives.
    pub current: u64,
    /// Its life was over.
    pub expired: u64,
    /// Missed: the same bytes, which the database does not give any more.
    pub stale: u64,
    /// Missed: the same bytes; nothing to compare them with.
    pub same_bytes: u64,
    /// The same bytes, and nobody can say whether they should be.
    pub undecided: u64,
    /// Not looked at.
    pub skipped: u64,
}

impl Counts {
    fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Absent => &mut self.absent,
            Outcome::Removed => &mut self.removed,
            Outcome::Replaced => &mut self.replaced,
            Outcome::Renewed => &mut self.renewed,
            Outcome::Current => &mut self.current,
            Outcome::Expired => &mut self.expired,
            Outcome::Stale => &mut self.stale,
            Outcome::SameBytes => &mut self.same_bytes,
            Outcome::Undecided => &mut self.undecided,
            Outcome::Skipped => &mut self.skipped,
        }
    }

    /// What the application should have removed, and has not.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.stale + self.same_bytes
    }

    /// Those that were there.
    #[must_use]
    pub fn there(&self) -> u64 {
        self.removed
            + self.replaced
            + self.renewed
            + self.current
            + self.expired
            + self.missed()
            + self.undecided
    }

    /// Adds others.
    pub fn add(&mut self, other: Counts) {
        self.absent += other.absent;
        self.removed += other.removed;
        self.replaced += other.replaced;
        self.renewed += other.renewed;
        self.current += other.current;
        self.expired += other.expired;
        self.stale += other.stale;
        self.same_bytes += other.same_bytes;
        self.undecided += other.undecided;
        self.skipped += other.skipped;
    }
}

/// A rule, and what was done to the row.
pub(super) type Way = (RuleId, Operation);

/// An entry that was missed, the last time.
#[derive(Debug, Clone)]
pub(super) struct Missed {
    pub(super) change: Change,
    pub(super) at: SystemTime,
    pub(super) proved: bool,
    pub(super) times: u64,
}

/// Whether the application stores what a cache's query gives.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Form {
    /// It was seen to.
    pub(super) equal: bool,
    /// How often it was not.
    pub(super) different: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Tally {
    pub(super) since: SystemTime,
    pub(super) ways: HashMap<Way, Counts, foldhash::fast::RandomState>,
    pub(super) missed: HashMap<(Key, Way), Missed, foldhash::fast::RandomState>,
    /// Those that were forgotten because there were too many.
    pub(super) forgotten: u64,
    pub(super) whole: BTreeMap<(RuleId, Operation, &'static str), u64>,
    pub(super) holes: BTreeMap<&'static str, u64>,
    pub(super) forms: HashMap<CacheId, Form, foldhash::fast::RandomState>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            since: SystemTime::now(),
            ways: HashMap::default(),
            missed: HashMap::default(),
            forgotten: 0,
            whole: BTreeMap::new(),
            holes: BTreeMap::new(),
            forms: HashMap::default(),
        }
    }
}

impl Tally {
    /// Counts what became of an entry.
    pub fn count(&mut self, key: &Key, change: &Change, outcome: Outcome) {
        let way = (change.origin.rule, change.origin.operation);
        self.count_way(change.origin, outcome);
        if !outcome.is_missed() {
            return;
        }
        let named = (key.clone(), way);
        let times = self.missed.get(&named).map_or(0, |missed| missed.times) + 1;
        let proved = outcome == Outcome::Stale;
        let missed = Missed { change: *change, at: SystemTime::now(), proved, times };
        self.missed.insert(named, missed);
        if self.missed.len() > NAMED {
            let oldest = self.missed.iter().min_by_key(|(_, missed)| missed.change.lsn);
            if let Some(oldest) = oldest.map(|(named, _)| named.clone()) {
                self.missed.remove(&oldest);
                self.forgotten += 1;
            }
        }
    }

    /// The same of an entry that is not named.
    pub fn count_way(&mut self, origin: Origin, outcome: Outcome) {
        *self.ways.entry((origin.rule, origin.operation)).or_default().of(outcome) += 1;
    }

    /// A cache was concerned as a whole.
    pub fn whole(&mut self, origin: Origin, reason: Escalation) {
        *self.whole.entry((origin.rule, origin.operation, reason.as_str())).or_default() += 1;
    }

    /// Changes may have gone by unseen.
    pub fn hole(&mut self, reason: &'static str) {
        *self.holes.entry(reason).or_default() += 1;
    }

    /// Whether a difference of this cache's values proves anything.
    #[must_use]
    pub fn is_comparable(&self, cache: CacheId) -> bool {
        self.forms.get(&cache).is_some_and(|form| form.equal)
    }

    /// Whether an entry that was replaced is worth a comparison: to find that out.
    #[must_use]
    pub fn is_tried(&self, cache: CacheId) -> bool {
        self.forms.get(&cache).is_none_or(|form| !form.equal && form.different < TRIALS)
    }

    /// What a comparison of an entry gave that was replaced.
    pub fn tried(&mut self, cache: CacheId, equal: bool) {
        self.compared(cache, equal);
        self.forms.entry(cache).or_default().different += u32::from(!equal);
    }

    /// What a comparison of an entry gave that was not: it says little if it differs.
    pub fn compared(&mut self, cache: CacheId, equal: bool) {
        self.forms.entry(cache).or_default().equal |= equal;
    }
}
