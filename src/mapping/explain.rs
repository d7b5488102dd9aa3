//! Why a change reaches what it reaches: for `unstale explain`.

use crate::config::model::Operation;
use crate::pgoutput::message::{OldTuple, Tuple};

use super::apply::Verdict;
use super::changes::{ChangeSet, Escalation, Key};
use super::model::{CacheId, RuleId};
use super::plan::TablePlan;
use super::row::Room;

/// What one rule makes of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The rule.
    pub rule: RuleId,
    /// The cache that it is for.
    pub cache: CacheId,
    /// What it yields.
    pub yields: Yields,
}

/// What a rule yields, or why nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Yields {
    /// Nothing, for this reason.
    Nothing(&'static str),
    /// These keys, in order.
    Keys(Vec<Key>),
    /// These rows of `changed`, to be looked up: a value for each column of the rule's
    /// [`LookupPlan`](super::lookup::LookupPlan).
    Lookup(Vec<Vec<Option<String>>>),
    /// The whole cache.
    Whole(Escalation),
}

impl TablePlan {
    /// What each rule of the table makes of a change, in the order of the configuration.
    #[must_use]
    pub fn explain(
        &self,
        operation: Operation,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
    ) -> Vec<Explained> {
        let mut room = Room::new();
        let row = self.layout.read(operation, old, new, &mut room);
        let explain = |rule: &super::plan::RulePlan| {
            let mut out = ChangeSet::default();
            let yields = if operation == Operation::Truncate && rule.on.contains(operation) {
                Yields::Whole(Escalation::Truncate)
            } else {
                let verdict = rule.apply(operation, row, &mut out);
                yields(verdict, &mut out)
            };
            Explained { rule: rule.rule, cache: rule.cache, yields }
        };
        self.rules.iter().map(explain).collect()
    }
}

fn yields(verdict: Verdict, out: &mut ChangeSet) -> Yields {
    match verdict {
        Verdict::OtherOperation => Yields::Nothing("the rule is not for this operation"),
        Verdict::Unchanged => Yields::Nothing("none of the rule's columns has changed"),
        Verdict::Excluded => Yields::Nothing("the rule's where does not hold"),
        Verdict::NullParameter => Yields::Nothing("a parameter of the key is null"),
        Verdict::Reached => {
            if let Some((_, reason, _)) = out.whole().next() {
                return Yields::Whole(reason);
            }
            let mut rows = Vec::new();
            for (_, lookup) in out.lookups() {
                for columns in lookup.batches(1) {
                    let row = columns.into_iter().flatten().map(|value| value.map(str::to_owned));
                    rows.push(row.collect());
                }
            }
            if !rows.is_empty() {
                rows.sort_unstable();
                return Yields::Lookup(rows);
            }
            let mut keys: Vec<Key> = out.take_keys().map(|(key, _)| key).collect();
            keys.sort_unstable();
            Yields::Keys(keys)
        }
    }
}
