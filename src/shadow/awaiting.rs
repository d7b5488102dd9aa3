//! Entries that await their grace, and what becomes of each. Pure: no clock, no Redis.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::lsn::Lsn;
use crate::mapping::changes::{Key, Origin};
use crate::snapshot::Xid;

/// How many changes of one entry are kept apart: by rule and operation.
const CHANGES: usize = 8;

/// What an entry looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Of its bytes.
    pub digest: [u8; 32],
    /// When it expires, by Redis' clock (Unix time in ms); `None`: never.
    pub expires: Option<i64>,
}

/// A change that reaches an entry.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// By which rule.
    pub origin: Origin,
    /// Its transaction.
    pub xid: Xid,
    /// Where that transaction's commit ends.
    pub lsn: Lsn,
    /// When it was seen.
    pub at: Instant,
    /// It surely reached this entry, and was seen in time: the same bytes tell something.
    pub certain: bool,
}

/// What became of an entry after a change. The room's own documentation has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Not cached when the change was seen.
    Absent,
    /// Gone within the grace.
    Removed,
    /// Other bytes.
    Replaced,
    /// The same bytes with another expiry.
    Renewed,
    /// The same bytes, and right.
    Current,
    /// Its life was over.
    Expired,
    /// The same bytes, and the database gives others.
    Stale,
    /// The same bytes; nothing to compare them with.
    SameBytes,
    /// The same bytes, and nobody can say whether they should be.
    Undecided,
    /// Not looked at: too many waited, or Redis did not answer.
    Skipped,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 10] = [
        Outcome::Absent,
        Outcome::Removed,
        Outcome::Replaced,
        Outcome::Renewed,
        Outcome::Current,
        Outcome::Expired,
        Outcome::Stale,
        Outcome::SameBytes,
        Outcome::Undecided,
        Outcome::Skipped,
    ];

    /// The label `result` of `unstale_shadow_keys_total`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Absent => "absent",
            Outcome::Removed => "removed",
            Outcome::Replaced => "replaced",
            Outcome::Renewed => "renewed",
            Outcome::Current => "current",
            Outcome::Expired => "expired",
            Outcome::Stale => "stale",
            Outcome::SameBytes => "same_bytes",
            Outcome::Undecided => "undecided",
            Outcome::Skipped => "skipped",
        }
    }

    /// The application should have removed it, and has not.
    #[must_use]
    pub fn is_missed(self) -> bool {
        matches!(self, Outcome::Stale | Outcome::SameBytes)
    }
}

/// What a comparison with the database gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The same value.
    Equal,
    /// Another one, of a cache whose values can be compared.
    Differs,
    /// Nothing to compare with, or no answer.
    None,
    /// Another one, which may have other reasons than a change.
    Doubtful,
}

/// How an entry was found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Not as it was.
    Ended(Outcome),
    /// With the same bytes.
    Still {
        /// It has another expiry.
        renewed: bool,
    },
}

/// Compares two looks at an entry; `clock`: Redis' time at the second one.
#[must_use]
pub fn compare(first: &Sight, now: Option<&Sight>, clock: i64) -> Found {
    match now {
        None if first.expires.is_some_and(|at| at <= clock) => Found::Ended(Outcome::Expired),
        None => Found::Ended(Outcome::Removed),
        Some(now) if now.digest != first.digest => Found::Ended(Outcome::Replaced),
        Some(now) => Found::Still { renewed: now.expires != first.expires },
    }
}

fn decide(renewed: bool, evidence: Evidence, certain: bool) -> Outcome {
    match (evidence, renewed, certain) {
        (Evidence::Equal, ..) => Outcome::Current,
        (Evidence::Differs, ..) => Outcome::Stale,
        (Evidence::Doubtful, ..) => Outcome::Undecided,
        (Evidence::None, true, _) => Outcome::Renewed,
        (Evidence::None, false, true) => Outcome::SameBytes,
        (Evidence::None, false, false) => Outcome::Undecided,
    }
}

/// An entry whose grace has passed.
#[derive(Debug, Clone)]
pub struct Due {
    /// The entry.
    pub key: Key,
    /// What it looked like at its first change.
    pub first: Sight,
    number: u64,
    touched: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Awaiting {
    entries: HashMap<Key, Awaited, foldhash::fast::RandomState>,
    /// When which is due, about in that order; void if the entry has another number.
    order: VecDeque<(Instant, u64, Key)>,
    next: u64,
    grace: Duration,
    capacity: usize,
}

#[derive(Debug)]
struct Awaited {
    number: u64,
    first: Sight,
    changes: Vec<Change>,
    since: Instant,
    last: Instant,
    /// Counts its changes.
    touched: u64,
}

impl Awaiting {
    /// Room for so many entries.
    #[must_use]
    pub fn new(grace: Duration, capacity: usize) -> Self {
        let (entries, order) = (HashMap::default(), VecDeque::new());
        Awaiting { entries, order, next: 0, grace, capacity }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether this key is looked at. What waits already is always; of others, from half of the
    /// room on, ever fewer. `chance` is from 0 to 1, evenly.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a chance; the numbers are small")]
    pub fn takes(&self, key: &Key, chance: f64) -> bool {
        let free = self.capacity.saturating_sub(self.entries.len()) as f64;
        let half = (self.capacity / 2).max(1) as f64;
        self.entries.contains_key(key) || chance * half < free
    }

    /// A change was seen, and the entry looked so. Gives what has become of earlier changes by
    /// this, and of this one if nothing is there.
    pub fn saw(
        &mut self,
        key: Key,
        sight: Option<Sight>,
        change: Change,
        clock: i64,
    ) -> Vec<(Key, Change, Outcome)> {
        let mut ended = Vec::new();
        if let Some(awaited) = self.entries.get_mut(&key) {
            match compare(&awaited.first, sight.as_ref(), clock) {
                Found::Still { .. } => {
                    awaited.touch(change);
                    return ended;
                }
                Found::Ended(outcome) => {
                    let over = self.entries.remove(&key).map(|awaited| awaited.changes);
                    let over = over.unwrap_or_default().into_iter();
                    ended.extend(over.map(|earlier| (key.clone(), earlier, outcome)));
                }
            }
        }
        match sight {
            None => ended.push((key, change, Outcome::Absent)),
            Some(first) => self.enter(key, first, vec![change], change.at),
        }
        ended
    }

    /// Entries that are to be judged now, at most so many. Each is to be given back with
    /// [`Awaiting::conclude`] or [`Awaiting::put_back`].
    pub fn due(&mut self, now: Instant, at_most: usize) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < at_most {
            if self.order.front().is_none_or(|(at, ..)| *at > now) {
                break;
            }
            let Some((_, number, key)) = self.order.pop_front() else { break };
            let Some(awaited) = self.entries.get(&key).filter(|a| a.number == number) else {
                continue;
            };
            let at = awaited.due(self.grace);
            if at > now {
                self.order.push_back((at, number, key));
                continue;
            }
            let (first, touched) = (awaited.first, awaited.touched);
            due.push(Due { key, first, number, touched });
        }
        due
    }

    /// It could not be judged now.
    pub fn put_back(&mut self, due: Due, at: Instant) {
        if self.is_known(&due) {
            self.order.push_back((at, due.number, due.key));
        }
    }

    /// It was found again with other bytes, or not at all.
    pub fn ended(&mut self, due: &Due, outcome: Outcome) -> Vec<(Key, Change, Outcome)> {
        if !self.is_known(due) {
            return Vec::new();
        }
        let changes = self.entries.remove(&due.key).map(|awaited| awaited.changes);
        let each = changes.unwrap_or_default().into_iter();
        each.map(|change| (due.key.clone(), change, outcome)).collect()
    }

    /// It was found again with the same bytes. What came too late to have had its grace goes on
    /// waiting; so does all of it, for a while, if a change has come since it was given out.
    pub fn conclude(
        &mut self,
        due: Due,
        sight: Sight,
        renewed: bool,
        evidence: Evidence,
        now: Instant,
    ) -> Vec<(Key, Change, Outcome)> {
        if !self.is_known(&due) {
            return Vec::new();
        }
        let Some(awaited) = self.entries.get(&due.key) else { return Vec::new() };
        let at = awaited.due(self.grace);
        if awaited.touched != due.touched && at > now {
            self.order.push_back((at, due.number, due.key));
            return Vec::new();
        }
        let changes = self.entries.remove(&due.key).map(|awaited| awaited.changes);
        let (old, young): (Vec<Change>, Vec<Change>) = changes
            .unwrap_or_default()
            .into_iter()
            .partition(|change| change.at + self.grace <= now);
        if let Some(since) = young.iter().map(|change| change.at).min() {
            self.enter(due.key.clone(), sight, young, since);
        }
        let told =
            |change: Change| (due.key.clone(), change, decide(renewed, evidence, change.certain));
        old.into_iter().map(told).collect()
    }

    fn is_known(&self, due: &Due) -> bool {
        self.entries.get(&due.key).is_some_and(|awaited| awaited.number == due.number)
    }

    fn enter(&mut self, key: Key, first: Sight, changes: Vec<Change>, since: Instant) {
        let number = self.next;
        self.next += 1;
        let last = changes.iter().map(|change| change.at).max().unwrap_or(since);
        self.order.push_back((since + self.grace, number, key.clone()));
        self.entries.insert(key, Awaited { number, first, changes, since, last, touched: 0 });
        // What is void counts, too.
        if self.order.len() > 2 * self.capacity.max(1) {
            let entries = &self.entries;
            let valid = |key: &Key, number| entries.get(key).is_some_and(|a| a.number == number);
            self.order.retain(|(_, number, key)| valid(key, *number));
        }
    }
}

impl Awaited {
    /// Once the last change has had its grace, but not later than after twice the grace.
    fn due(&self, grace: Duration) -> Instant {
        (self.last + grace).min(self.since + 2 * grace)
    }

    fn touch(&mut self, change: Change) {
        self.touched += 1;
        self.last = self.last.max(change.at);
        let same = |other: &Change| {
            (other.origin.rule, other.origin.operation)
                == (change.origin.rule, change.origin.operation)
        };
        if self.changes.len() < CHANGES && !self.changes.iter().any(same) {
            self.changes.push(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Operation;
    use crate::mapping::model::{CacheId, RuleId};

    const GRACE: Duration = Duration::from_secs(5);

    fn sight(digest: u8, expires: i64) -> Sight {
        Sight { digest: [digest; 32], expires: Some(expires) }
    }

    fn key(name: &str) -> Key {
        Key::from(name.as_bytes())
    }

    fn change(rule: u16, at: Instant) -> Change {
        let origin = Origin { rule: RuleId(rule), cache: CacheId(0), operation: Operation::Update };
        Change { origin, xid: Xid(1), lsn: Lsn(1), at, certain: true }
    }

    fn outcomes(told: &[(Key, Change, Outcome)]) -> Vec<(u16, Outcome)> {
        told.iter().map(|(_, change, outcome)| (change.origin.rule.0, *outcome)).collect()
    }

    #[test]
    fn what_is_not_there_at_the_change_is_not_followed() {
        let mut awaiting = Awaiting::new(GRACE, 10);
        let told = awaiting.saw(key("a"), None, change(0, Instant::now()), 0);
        assert_eq!(outcomes(&told), [(0, Outcome::Absent)]);
        assert!(awaiting.is_empty());
    }

    #[test]
    fn an_entry_is_judged_after_its_grace_and_not_before() {
        let start = Instant::now();
        let mut awaiting = Awaiting::new(GRACE, 10);
        assert!(awaiting.saw(key("a"), Some(sight(1, 9)), change(0, start), 0).is_empty());
        assert!(awaiting.due(start + GRACE / 2, 10).is_empty());
        let due = awaiting.due(start + GRACE, 10).pop().unwrap();
        let told = awaiting.conclude(due, sight(1, 9), false, Evidence::None, start + GRACE);
        assert_eq!(outcomes(&told), [(0, Outcome::SameBytes)]);
        assert!(awaiting.is_empty() && awaiting.due(start + 9 * GRACE, 10).is_empty());
    }

    #[test]
    fn what_two_looks_tell() {
        let first = sight(1, 1000);
        for (now, clock, expected) in [
            (None, 999, Found::Ended(Outcome::Removed)),
            (None, 1000, Found::Ended(Outcome::Expired)),
            (Some(sight(2, 1000)), 0, Found::Ended(Outcome::Replaced)),
            (Some(sight(1, 1000)), 0, Found::Still { renewed: false }),
            (Some(sight(1, 1001)), 0, Found::Still { renewed: true }),
        ] {
            assert_eq!(compare(&first, now.as_ref(), clock), expected);
        }
        let endless = Sight { expires: None, ..first };
        assert_eq!(compare(&endless, None, i64::MAX), Found::Ended(Outcome::Removed));
    }

    #[test]
    fn only_a_comparison_proves_and_only_it_acquits() {
        for (renewed, evidence, certain, expected) in [
            (false, Evidence::Equal, true, Outcome::Current),
            (false, Evidence::Differs, true, Outcome::Stale),
            (false, Evidence::Differs, false, Outcome::Stale),
            (true, Evidence::Differs, true, Outcome::Stale),
            (true, Evidence::Equal, true, Outcome::Current),
            (true, Evidence::None, true, Outcome::Renewed),
            (false, Evidence::None, true, Outcome::SameBytes),
            (false, Evidence::None, false, Outcome::Undecided),
            (false, Evidence::Doubtful, true, Outcome::Undecided),
        ] {
            assert_eq!(decide(renewed, evidence, certain), expected);
        }
    }

    #[test]
    fn an_entry_that_was_replaced_before_the_next_change_answers_for_the_earlier_one() {
        let start = Instant::now();
        let mut awaiting = Awaiting::new(GRACE, 10);
        awaiting.saw(key("a"), Some(sight(1, 9)), change(0, start), 0);
        let told = awaiting.saw(key("a"), Some(sight(2, 9)), change(1, start), 0);
        assert_eq!(outcomes(&told), [(0, Outcome::Replaced)]);
        let told = awaiting.saw(key("a"), None, change(2, start), 0);
        assert_eq!(outcomes(&told), [(1, Outcome::Removed), (2, Outcome::Absent)]);
    }

    #[test]
    fn changes_again_within_the_grace_are_judged_together_once_the_last_has_had_it() {
        let start = Instant::now();
        let mut awaiting = Awaiting::new(GRACE, 10);
        awaiting.saw(key("a"), Some(sight(1, 9)), change(0, start), 0);
        let later = start + GRACE / 2;
        awaiting.saw(key("a"), Some(sight(1, 9)), change(1, later), 0);
        awaiting.saw(key("a"), Some(sight(1, 9)), change(1, later), 0);
        assert!(awaiting.due(start + GRACE, 10).is_empty());
        let due = awaiting.due(later + GRACE, 10).pop().unwrap();
        let told = awaiting.conclude(due, sight(1, 9), false, Evidence::Differs, later + GRACE);
        assert_eq!(outcomes(&told), [(0, Outcome::Stale), (1, Outcome::Stale)]);
    }

    #[test]
    fn an_entry_that_changes_without_pause_is_judged_all_the_same() {
        let start = Instant::now();
        let mut awaiting = Awaiting::new(GRACE, 10);
        for n in 0..20_u16 {
            awaiting.saw(key("a"), Some(sight(1, 9)), change(n, start + GRACE * n.into() / 10), 0);
        }
        let now = start + 2 * GRACE;
        let due = awaiting.due(now, 10).pop().unwrap();
        let told = awaiting.conclude(due, sight(1, 9), false, Evidence::Differs, now);
        assert_eq!(told.len(), CHANGES, "{:?}", outcomes(&told));
        assert!(awaiting.is_empty());
    }

    #[test]
    fn a_change_during_the_judgement_postpones_it() {
        let start = Instant::now();
        let mut awaiting = Awaiting::new(GRACE, 10);
        awaiting.saw(key("a"), Some(sight(1, 9)), change(0, start), 0);
        let now = start + GRACE;
        let due = awaiting.due(now, 10).pop().unwrap();
        awaiting.saw(key("a"), Some(sight(1, 9)), change(1, now), 0);
        assert!(awaiting.conclude(due, sight(1, 9), false, Evidence::Differs, now).is_empty());
        let due = awaiting.due(now + GRACE, 10).pop().unwrap();
        // Gone meanwhile, and seen by the next change: there is nothing left to conclude.
        awaiting.saw(key("a"), None, change(2, now + GRACE), 0);
        assert!(awaiting.ended(&due, Outcome::Removed).is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_taken_by_chance_when_room_gets_scarce() {
        let start = Instant::now();
        let mut awaiting = Awaiting::new(GRACE, 100);
        let mut taken = 0;
        for n in 0..10_000 {
            let key = key(&n.to_string());
            if awaiting.takes(&key, f64::from(n * 37 % 100) / 100.0) {
                awaiting.saw(key, Some(sight(1, 9)), change(0, start), 0);
                taken += 1;
            }
            // One that goes and comes, again and again.
            awaiting.saw(
                super::tests::key("0"),
                Some(sight(u8::from(n % 2 == 1), 9)),
                change(0, start),
                0,
            );
        }
        assert!((90..=101).contains(&taken), "{taken}");
        assert!(awaiting.len() <= 101 && awaiting.order.len() <= 201);
        assert!(awaiting.takes(&key("0"), 1.0), "what waits is looked at");
        assert!(!awaiting.takes(&key("new"), 0.99));
    }
}
