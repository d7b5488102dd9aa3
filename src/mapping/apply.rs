//! A row's change through a table's rules.
//!
//! An INSERT is its new row, a DELETE its old one, an UPDATE both. Each of them goes
//! through a rule's `where` and yields a key, a row to look up, or the whole cache. A null
//! parameter yields no key. What the stream does not carry is never guessed: the rule's
//! whole cache goes instead (rule 9 of the protocol: unknown means more, never less).
//!
//! An UPDATE with `columns` is passed over only if every one of them is known to be
//! unchanged.

use crate::config::model::Operation;
use crate::pgoutput::message::{OldTuple, Tuple};

use super::changes::{ChangeSet, ChangeSink, Escalation, Origin};
use super::model::{Mapping, RuleId, Target};
use super::plan::{Effect, RulePlan, TablePlan};
use super::predicate::Hand;
use super::row::{Cell, Pair, Room};

/// How far a change came with a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// The rule is not for this operation.
    OtherOperation,
    /// None of the rule's `columns` has changed.
    Unchanged,
    /// The `where` is not true of the row.
    Excluded,
    /// A parameter is null.
    NullParameter,
    /// It reached something.
    Reached,
}

impl TablePlan {
    /// Adds to `out` what the change of one row reaches. An INSERT has a new row, a DELETE
    /// an old one, an UPDATE a new and perhaps an old one, as the stream has them.
    pub fn apply(
        &self,
        operation: Operation,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
        out: &mut impl ChangeSink,
    ) {
        if operation == Operation::Truncate {
            return self.truncate(out);
        }
        out.count(self.table, operation);
        let mut room = Room::new();
        let row = self.layout.read(operation, old, new, &mut room);
        for at in self.candidates.of(operation, row) {
            if let Some(rule) = self.rules.get(at) {
                rule.apply(operation, row, out);
            }
        }
    }

    /// Adds to `out` what a TRUNCATE reaches: of every rule that is for deletes, the whole
    /// cache, since nobody knows which rows there were.
    pub fn truncate(&self, out: &mut impl ChangeSink) {
        out.count(self.table, Operation::Truncate);
        for rule in self.rules.iter().filter(|rule| rule.on.contains(Operation::Truncate)) {
            out.escalate(Escalation::Truncate, rule.origin(Operation::Truncate));
        }
    }
}

impl RulePlan {
    pub(super) fn origin(&self, operation: Operation) -> Origin {
        Origin { rule: self.rule, cache: self.cache, operation }
    }

    pub(super) fn apply(
        &self,
        operation: Operation,
        row: &[Pair<'_>],
        out: &mut impl ChangeSink,
    ) -> Verdict {
        if !self.on.contains(operation) {
            return Verdict::OtherOperation;
        }
        if out.is_whole(self.cache) {
            return Verdict::Reached;
        }
        let origin = self.origin(operation);
        match operation {
            Operation::Insert => self.apply_side(origin, row, Hand::New, out),
            Operation::Delete | Operation::Truncate => self.apply_side(origin, row, Hand::Old, out),
            Operation::Update => {
                if self.columns.as_ref().is_some_and(|columns| all_same(columns, row)) {
                    return Verdict::Unchanged;
                }
                let new = self.apply_side(origin, row, Hand::New, out);
                if self.predicate.is_none() && self.old_side_is_the_new(row) {
                    return new;
                }
                new.max(self.apply_side(origin, row, Hand::Old, out))
            }
        }
    }

    /// Whether both sides yield the same, given that both pass.
    fn old_side_is_the_new(&self, row: &[Pair<'_>]) -> bool {
        match &self.effect {
            Effect::Keys { slots, .. } | Effect::Lookup { slots } => all_same(slots, row),
            Effect::Whole(_) => true,
        }
    }

    fn apply_side(
        &self,
        origin: Origin,
        row: &[Pair<'_>],
        hand: Hand,
        out: &mut impl ChangeSink,
    ) -> Verdict {
        if self.predicate.as_ref().is_some_and(|predicate| !predicate.may_hold(row, hand)) {
            return Verdict::Excluded;
        }
        let cell = |slot: usize| row.get(slot).map_or(Cell::Unknown, |pair| pair.side(hand));
        match &self.effect {
            Effect::Whole(reason) => out.escalate(*reason, origin),
            Effect::Keys { shape, slots } => {
                if slots.iter().any(|slot| cell(*slot) == Cell::Null) {
                    return Verdict::NullParameter;
                }
                if slots.iter().any(|slot| cell(*slot) == Cell::Unknown) {
                    out.escalate(Escalation::OldValueUnknown, origin);
                    return Verdict::Reached;
                }
                let value = |index: usize| match slots.get(index).map(|slot| cell(*slot)) {
                    Some(Cell::Value(value)) => Some(value),
                    _ => None,
                };
                for variant in 0..shape.variants() {
                    out.add_key(origin, |key| shape.render(variant, value, key));
                }
            }
            Effect::Lookup { slots } => {
                // A text that is not UTF-8 cannot be handed back to the database.
                let readable = |slot: &usize| match cell(*slot) {
                    Cell::Null => true,
                    Cell::Value(value) => str::from_utf8(value).is_ok(),
                    Cell::Unknown => false,
                };
                if !slots.iter().all(readable) {
                    out.escalate(Escalation::OldValueUnknown, origin);
                    return Verdict::Reached;
                }
                let values = slots.iter().map(|slot| match cell(*slot) {
                    Cell::Value(value) => str::from_utf8(value).ok(),
                    Cell::Null | Cell::Unknown => None,
                });
                out.add_lookup_row(origin, values);
            }
        }
        Verdict::Reached
    }
}

fn all_same(slots: &[usize], row: &[Pair<'_>]) -> bool {
    slots.iter().all(|slot| row.get(*slot).is_some_and(|pair| pair.same))
}

impl Mapping {
    /// Adds what a rule's lookup has found: a key for each row, in which no output is null.
    /// For a rule with `whole`, any row at all drops the cache. `operation` is that of the
    /// change that asked ([`LookupRows::origin`](super::lookup_rows::LookupRows::origin)).
    pub fn add_lookup_results<R: AsRef<[Option<String>]>>(
        &self,
        rule: RuleId,
        operation: Operation,
        rows: impl IntoIterator<Item = R>,
        out: &mut ChangeSet,
    ) {
        let Some(model) = self.rule(rule) else { return };
        let origin = Origin { rule, cache: model.cache, operation };
        for row in rows {
            let row = row.as_ref();
            match &model.target {
                Target::Lookup { shape, .. } if row.len() == shape.parameters.len() => {
                    if row.iter().any(Option::is_none) {
                        continue;
                    }
                    let value = |i: usize| row.get(i).and_then(Option::as_deref).map(str::as_bytes);
                    for variant in 0..shape.variants() {
                        out.add_key(origin, |key| shape.render(variant, value, key));
                    }
                }
                Target::WholeIfFound { .. } => out.escalate(Escalation::Rule, origin),
                // Not the rows of this rule's statement: nothing can be told from them.
                _ => out.escalate(Escalation::LookupFailed, origin),
            }
        }
    }
}
