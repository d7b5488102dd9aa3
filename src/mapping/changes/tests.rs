use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What can happen to a set. Rule `n` reaches cache `n % 3`; even rules have keys, odd
/// ones lookups.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Add { rule: u16, value: u8 },
    Escalate { rule: u16 },
}

pub(super) fn origin(rule: u16) -> Origin {
    Origin { rule: RuleId(rule), cache: CacheId(rule % 3), operation: Operation::Update }
}

pub(super) fn take(set: &mut impl ChangeSink, step: Step) {
    match step {
        Step::Add { rule, value } if rule % 2 == 0 => {
            let key = format!("{}:{value}", rule % 3);
            set.add_key(origin(rule), |out| out.extend_from_slice(key.as_bytes()));
        }
        Step::Add { rule, value } => {
            set.add_lookup_row(origin(rule), [Some(&*value.to_string()), None].into_iter());
        }
        Step::Escalate { rule } => set.escalate(Escalation::OldValueUnknown, origin(rule)),
    }
}

fn set_of(steps: &[Step]) -> ChangeSet {
    let mut set = ChangeSet::default();
    steps.iter().for_each(|step| take(&mut set, *step));
    set
}

fn merged(mut earlier: ChangeSet, later: ChangeSet) -> ChangeSet {
    earlier.merge(later);
    earlier
}

/// Everything that a set holds but the origins.
pub(super) fn content(set: &ChangeSet) -> impl PartialEq + std::fmt::Debug + use<> {
    let keys: BTreeSet<String> = set.keys().map(|(key, _)| key.to_string()).collect();
    let whole: BTreeSet<CacheId> = set.whole().map(|(cache, ..)| cache).collect();
    let mut rows: BTreeMap<RuleId, BTreeSet<String>> = BTreeMap::new();
    for (rule, lookup) in set.lookups() {
        let texts = lookup.batches(1).map(|columns| format!("{columns:?}"));
        rows.entry(rule).or_default().extend(texts);
    }
    (keys, whole, rows, set.len(), set.approximate_bytes())
}

/// What is counted must be what is there.
pub(super) fn check(set: &ChangeSet) {
    let rows: usize = set.lookups().map(|(_, rows)| rows.len()).sum();
    assert_eq!(set.len(), set.keys().count() + rows);
    for (cache, tally) in set.tallies.iter() {
        let keys = set.keys().filter(|(_, origin)| origin.cache == cache).count();
        let lookups = set.lookups().filter(|(_, rows)| rows.origin().cache == cache);
        assert_eq!(tally.keys, keys);
        assert_eq!(tally.rows, lookups.map(|(_, rows)| rows.len()).sum::<usize>());
        assert!(tally.whole.is_none() || tally.keys + tally.rows == 0);
    }
    assert_eq!(set.key_bytes, set.keys().map(|(key, _)| key.as_bytes().len()).sum::<usize>());
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0..6u16, 0..8u8).prop_map(|(rule, value)| Step::Add { rule, value }),
        1 => (0..6u16).prop_map(|rule| Step::Escalate { rule }),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn merging_gives_what_one_set_would_have(a in any_steps(), b in any_steps()) {
        let both = merged(set_of(&a), set_of(&b));
        check(&both);
        let at_once = set_of(&[a, b].concat());
        check(&at_once);
        prop_assert_eq!(content(&both), content(&at_once));
    }

    #[test]
    fn merging_is_associative_and_commutative(a in any_steps(), b in any_steps(), c in any_steps()) {
        let left = merged(merged(set_of(&a), set_of(&b)), set_of(&c));
        let right = merged(set_of(&a), merged(set_of(&b), set_of(&c)));
        let reversed = merged(set_of(&c), merged(set_of(&b), set_of(&a)));
        prop_assert_eq!(content(&left), content(&right));
        prop_assert_eq!(content(&left), content(&reversed));
    }

    #[test]
    fn the_first_origin_stays(a in any_steps(), b in any_steps()) {
        let earlier = set_of(&a);
        let both = merged(set_of(&a), set_of(&b));
        for (key, origin) in earlier.keys() {
            if let Some(kept) = both.keys.get(key) {
                prop_assert_eq!(*kept, origin);
            }
        }
    }

    #[test]
    fn a_limit_is_kept_and_loses_nothing(steps in any_steps(), max in 0usize..20) {
        let before = set_of(&steps);
        let mut limited = set_of(&steps);
        limited.limit(max);
        check(&limited);
        prop_assert!(limited.len() <= max);
        prop_assert!(before.len() > max || limited.whole().count() == before.whole().count());
        for (key, origin) in before.keys() {
            prop_assert!(limited.contains_key(key.as_bytes()) || limited.is_whole(origin.cache));
        }
        for (_, rows) in before.lookups() {
            let cache = rows.origin().cache;
            prop_assert!(limited.is_whole(cache) || limited.lookups().any(|(_, r)| r.origin().cache == cache));
        }
    }
}

#[test]
fn past_the_limit_the_largest_cache_goes_first() {
    let mut set = ChangeSet::default();
    for value in 0..3 {
        take(&mut set, Step::Add { rule: 0, value });
    }
    for value in 0..5 {
        take(&mut set, Step::Add { rule: 4, value });
    }
    take(&mut set, Step::Add { rule: 2, value: 0 });
    set.limit(9);
    assert_eq!(set.whole().count(), 0);
    set.limit(8);
    assert_eq!(set.whole().collect::<Vec<_>>(), [(CacheId(1), Escalation::KeyLimit, origin(4))]);
    assert_eq!(set.len(), 4);
    // What comes later for that cache costs nothing.
    take(&mut set, Step::Add { rule: 4, value: 9 });
    take(&mut set, Step::Add { rule: 1, value: 9 });
    assert_eq!(set.len(), 4);
}

#[test]
fn what_is_taken_out_is_no_longer_counted() {
    let mut set = set_of(&[Step::Add { rule: 0, value: 1 }, Step::Add { rule: 3, value: 1 }]);
    assert_eq!(set.take_keys().count(), 1);
    check(&set);
    assert_eq!(set.take_lookups().len(), 1);
    check(&set);
    assert!(set.is_empty());
    set.limit(0);
    assert!(set.is_empty());
}

#[test]
fn changes_are_counted_by_table_and_operation() {
    let mut set = ChangeSet::default();
    set.count(TableId(2), Operation::Delete);
    set.count(TableId(0), Operation::Insert);
    let mut other = ChangeSet::default();
    other.count(TableId(2), Operation::Delete);
    other.count(TableId(3), Operation::Truncate);
    set.merge(other);
    assert_eq!(
        set.counts().collect::<Vec<_>>(),
        [
            (TableId(0), Operation::Insert, 1),
            (TableId(2), Operation::Delete, 2),
            (TableId(3), Operation::Truncate, 1),
        ]
    );
    assert!(set.is_empty());
}

#[test]
fn what_is_kept_is_as_long_as_what_was_reached_however_many_caches_and_tables_there_are() {
    let mut set = ChangeSet::default();
    let (rule, cache) = (RuleId(60_000), CacheId(60_000));
    let origin = Origin { rule, cache, operation: Operation::Update };
    set.count(TableId(60_000), Operation::Update);
    set.add_key(origin, |key| key.push(b'k'));
    set.add_lookup_row(origin, [Some("1")].into_iter());
    assert_eq!((set.tallies.iter().count(), set.counts.iter().count()), (1, 1));
    check(&set);
    let kept: Vec<_> = set.take_lookups();
    assert_eq!((kept.len(), set.len()), (1, 1));
}
