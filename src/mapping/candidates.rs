//! Which of a table's rules a change can concern at all.
//!
//! A table may have hundreds of rules, of which a change concerns a few: most name the columns
//! of which one must change (`columns`), or the operations that they are for (`on`). Asked one by
//! one, each row would cost what all of them cost. So for each operation and each column there
//! is a set of rules, a bit each, and a row takes the union of those that its changes name.
//!
//! This leaves out, and never decides: whoever is among the candidates looks at the row himself.
//! Leaving out one who would have done something would be a change that is missed, so where a
//! set cannot be told, it is the larger one.

use super::plan::RulePlan;
use super::row::Pair;
use crate::config::model::Operation;

/// How many columns have a set of their own. Any further one shares a set, which is the larger
/// for it.
const COLUMNS: usize = u64::BITS as usize;

/// Rules by their place in the table, 64 to a word.
type Rules = Box<[u64]>;

/// The candidates of each kind of change.
#[derive(Debug)]
pub(super) struct Candidates {
    insert: Rules,
    delete: Rules,
    /// For any UPDATE.
    update: Rules,
    /// For an UPDATE that may have changed a column, by slot.
    changed: Vec<Rules>,
}

impl Candidates {
    /// Of these rules, in this order.
    pub(super) fn new(rules: &[RulePlan]) -> Self {
        let of = |may: &dyn Fn(&RulePlan) -> bool| -> Rules {
            let word = |some: &[RulePlan]| {
                some.iter().rev().fold(0, |word, rule| word << 1 | u64::from(may(rule)))
            };
            rules.chunks(64).map(word).collect()
        };
        let watches = |rule: &RulePlan, at: usize| {
            let columns = rule.columns.as_ref().filter(|_| rule.on.contains(Operation::Update));
            columns.is_some_and(|columns| columns.iter().any(|slot| slot % COLUMNS == at))
        };
        let slots = rules.iter().flat_map(|rule| rule.columns.iter().flatten());
        let sets = slots.max().map_or(0, |last| COLUMNS.min(last + 1));
        Candidates {
            insert: of(&|rule| rule.on.contains(Operation::Insert)),
            delete: of(&|rule| rule.on.contains(Operation::Delete)),
            update: of(&|rule| rule.on.contains(Operation::Update) && rule.columns.is_none()),
            changed: (0..sets).map(|at| of(&|rule| watches(rule, at))).collect(),
        }
    }

    /// The places of the candidates, in the order of the rules.
    pub(super) fn of(&self, operation: Operation, row: &[Pair<'_>]) -> impl Iterator<Item = usize> {
        let (always, changed) = match operation {
            Operation::Insert => (&self.insert, 0),
            Operation::Delete | Operation::Truncate => (&self.delete, 0),
            Operation::Update => (&self.update, changed(row)),
        };
        always.iter().enumerate().flat_map(move |(at, always)| {
            let word = ones(changed).filter_map(|column| self.changed.get(column)?.get(at));
            ones(word.fold(*always, |all, some| all | some)).map(move |bit| at * 64 + bit)
        })
    }
}

/// The columns that are not known to be unchanged.
fn changed(row: &[Pair<'_>]) -> u64 {
    let slots = row.iter().enumerate().filter(|(_, pair)| !pair.same);
    slots.fold(0, |all, (slot, _)| all | 1 << (slot % COLUMNS))
}

/// The places of a word's ones, ascending.
fn ones(word: u64) -> impl Iterator<Item = usize> {
    let mut left = word;
    std::iter::from_fn(move || {
        let at = left.trailing_zeros();
        left &= left.checked_sub(1)?;
        usize::try_from(at).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Config;
    use crate::mapping::Mapping;
    use crate::mapping::changes::{ChangeSet, Key};
    use crate::mapping::explain::Yields;
    use crate::mapping::types::TypeNames;
    use crate::pgoutput::encode;
    use crate::pgoutput::message::{
        OldTuple, Relation, RelationColumn, ReplicaIdentity, Tuple, Value,
    };

    /// More than have sets of their own.
    const WIDTH: usize = 80;

    #[derive(Debug, Clone)]
    struct Rule {
        /// Of insert, update and delete.
        on: [bool; 3],
        columns: Vec<usize>,
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let on = any::<[bool; 3]>().prop_filter("for something", |on| on.contains(&true));
        (on, prop::collection::vec(0..WIDTH, 0..4)).prop_map(|(on, mut columns)| {
            // They restrict UPDATE, so a rule that is not for it has none.
            columns.retain(|_| on[1]);
            Rule { on, columns }
        })
    }

    fn mapping(rules: &[Rule]) -> Mapping {
        let (mut caches, mut invalidates) = (String::new(), String::new());
        for (n, rule) in rules.iter().enumerate() {
            let names = ["insert", "update", "delete"].into_iter().zip(rule.on);
            let on: Vec<&str> = names.filter(|(_, on)| *on).map(|(name, _)| name).collect();
            let columns: Vec<String> = rule.columns.iter().map(|c| format!("c{c}")).collect();
            let columns = match columns.as_slice() {
                [] => String::new(),
                some => format!(", columns = {some:?}"),
            };
            caches.push_str(&format!("[caches.k{n:03}]\nkey = \"k{n:03}:{{id}}\"\n"));
            invalidates.push_str(&format!(
                "{{ cache = \"k{n:03}\", id = \"c0\", on = {on:?}{columns} }},"
            ));
        }
        let text = format!(
            "[postgres]\nurl = \"postgres://x@127.0.0.1/x\"\n[redis]\nurl = \"redis://127.0.0.1/1\"\n\
             {caches}\n[[tables]]\nname = \"t\"\ninvalidates = [{invalidates}]"
        );
        let config: Config = toml_edit::de::from_str(&text).unwrap();
        Mapping::new(&config).unwrap()
    }

    fn relation() -> Relation {
        let columns = (0..WIDTH).map(|c| RelationColumn {
            key: true,
            name: format!("c{c}").into(),
            type_id: 20,
            type_modifier: -1,
        });
        Relation {
            id: 7,
            namespace: "public".into(),
            name: "t".into(),
            identity: ReplicaIdentity::Full,
            columns: columns.collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nobody_is_left_out_who_would_have_done_something(
            rules in prop::collection::vec(any_rule(), 1..150),
            changed in prop::collection::btree_set(0..WIDTH, 0..4),
            is_old_known in any::<bool>(),
        ) {
            let mapping = mapping(&rules);
            let plan = mapping.plan(&relation(), &TypeNames::default()).unwrap();
            let old = [Value::Text(b"1"); WIDTH];
            let mut new = old;
            changed.iter().for_each(|c| new[*c] = Value::Text(b"2"));
            let (old, new) = (encode::tuple(&old), encode::tuple(&new));
            let parse = |bytes| Tuple::parse(bytes).unwrap().0;
            let old = Some(OldTuple::Full(parse(&old)));
            let new = Some(parse(&new));
            for (operation, old, new) in [
                (Operation::Insert, None, new),
                (Operation::Update, old.filter(|_| is_old_known), new),
                (Operation::Delete, old, None),
            ] {
                let mut out = ChangeSet::default();
                plan.apply(operation, old, new, &mut out);
                let keys: BTreeSet<Key> = out.keys().map(|(key, _)| key.clone()).collect();
                // This asks all of them.
                let mut expected = BTreeSet::new();
                let mut whole = 0;
                for explained in plan.explain(operation, old, new) {
                    match explained.yields {
                        Yields::Keys(keys) => expected.extend(keys),
                        Yields::Whole(_) => whole += 1,
                        _ => {}
                    }
                }
                prop_assert_eq!(out.whole().count(), whole);
                if whole == 0 {
                    prop_assert_eq!(keys, expected);
                }
            }
        }
    }
}
