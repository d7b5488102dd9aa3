//! The rules of one table, bound to its shape as the stream announces it.
//!
//! A plan is rebuilt from every Relation message, so a column that was renamed, dropped or
//! retyped while streaming is seen before the first row of the new shape. A rule that
//! reads a column which is no longer there drops its whole cache on any change, and
//! [`TablePlan::problems`] says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::pgoutput::message::Relation;

use super::candidates::Candidates;
use super::changes::Escalation;
use super::lookup::LookupPlan;
use super::model::{CacheId, Mapping, Operations, RuleId, RuleModel, TableId, Target};
use super::name::TableName;
use super::predicate::Predicate;
use super::row::{Layout, Slot};
use super::shape::KeyShape;
use super::types::TypeNames;

/// What a table's changes reach, for one shape of the table.
#[derive(Debug)]
pub struct TablePlan {
    pub(super) table: TableId,
    name: TableName,
    pub(super) layout: Layout,
    pub(super) rules: Vec<RulePlan>,
    pub(super) candidates: Candidates,
    lookups: Vec<LookupPlan>,
    problems: Vec<String>,
}

/// A rule whose columns are slots of the plan's [`Layout`].
#[derive(Debug)]
pub(super) struct RulePlan {
    pub(super) rule: RuleId,
    pub(super) cache: CacheId,
    pub(super) on: Operations,
    pub(super) columns: Option<Vec<usize>>,
    pub(super) predicate: Option<Predicate>,
    pub(super) effect: Effect,
}

#[derive(Debug)]
pub(super) enum Effect {
    /// A key, from a slot for each parameter.
    Keys { shape: Arc<KeyShape>, slots: Vec<usize> },
    /// A row of `changed`, from a slot for each column.
    Lookup { slots: Vec<usize> },
    /// The whole cache.
    Whole(Escalation),
}

impl RuleModel {
    /// Every column of its own table that the rule reads.
    pub fn reads(&self) -> BTreeSet<&str> {
        let filters = self.columns.iter().flatten().map(|name| &**name);
        let condition = self.condition.iter().flat_map(|c| c.columns()).map(|c| &*c.name);
        let target = match &self.target {
            Target::Columns { columns, .. } => columns.as_slice(),
            Target::Lookup { via, .. } | Target::WholeIfFound { via } => via.columns.as_slice(),
            Target::Whole => &[],
        };
        filters.chain(condition).chain(target.iter().map(|name| &**name)).collect()
    }
}

impl Mapping {
    /// Binds a table's rules to its shape; `None` if it has no rules.
    #[must_use]
    pub fn plan(&self, relation: &Relation, types: &TypeNames) -> Option<TablePlan> {
        let name = TableName::new(&relation.namespace, &relation.name);
        let (table, model) = self.table(&name)?;
        let rules: Vec<(RuleId, &RuleModel)> =
            model.rules.iter().filter_map(|id| Some((*id, self.rule(*id)?))).collect();
        let (layout, slots) = layout(relation, &rules);
        let mut plan = TablePlan {
            table,
            name,
            layout,
            rules: Vec::new(),
            candidates: Candidates::new(&[]),
            lookups: Vec::new(),
            problems: Vec::new(),
        };
        for (id, rule) in rules {
            let cache = self.cache(rule.cache).map_or("", |cache| &cache.name);
            let bound =
                Binder { relation, types, slots: &slots, plan: &mut plan }.bind(id, rule, cache);
            plan.rules.push(bound);
        }
        plan.candidates = Candidates::new(&plan.rules);
        Some(plan)
    }
}

impl TablePlan {
    /// The table.
    #[must_use]
    pub fn table(&self) -> TableId {
        self.table
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// What is wrong between the rules and the table as it is now; `/readyz` shows it.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The statements of the rules with a `via`.
    pub fn lookups(&self) -> impl Iterator<Item = &LookupPlan> {
        self.lookups.iter()
    }

    /// The statement of one rule.
    #[must_use]
    pub fn lookup(&self, rule: RuleId) -> Option<&LookupPlan> {
        self.lookups.iter().find(|lookup| lookup.rule == rule)
    }
}

/// Each column that a rule reads gets a slot, in the order of the tuples.
fn layout<'r>(
    relation: &Relation,
    rules: &[(RuleId, &'r RuleModel)],
) -> (Layout, BTreeMap<&'r str, (usize, usize)>) {
    let read: BTreeSet<&str> = rules.iter().flat_map(|(_, rule)| rule.reads()).collect();
    let mut found: Vec<(usize, &str)> = read
        .into_iter()
        .filter_map(|name| Some((relation.columns.iter().position(|c| *c.name == *name)?, name)))
        .collect();
    found.sort_unstable();
    let slots = found
        .iter()
        .map(|(column, _)| Slot {
            column: *column,
            key: relation.columns.get(*column).is_some_and(|c| c.key),
        })
        .collect();
    let key_is_implied = Layout::key_is_implied(relation.identity);
    let by_name =
        found.iter().enumerate().map(|(slot, (column, name))| (*name, (slot, *column))).collect();
    (Layout { slots, key_is_implied }, by_name)
}

struct Binder<'a> {
    relation: &'a Relation,
    types: &'a TypeNames,
    /// Slot and place in the relation, by name.
    slots: &'a BTreeMap<&'a str, (usize, usize)>,
    plan: &'a mut TablePlan,
}

impl Binder<'_> {
    fn bind(mut self, id: RuleId, rule: &RuleModel, cache: &str) -> RulePlan {
        let mut problems = Vec::new();
        let bound = self.with_all_columns(id, rule, &mut problems);
        let consequence = match bound {
            Some(_) => "",
            None => "; until it is corrected, any change drops the whole cache",
        };
        let place = format!("{}, rule {} (cache {cache})", self.plan.name, rule.position + 1);
        let told = problems.into_iter().map(|problem| format!("{place}: {problem}{consequence}"));
        self.plan.problems.extend(told);
        bound.unwrap_or(RulePlan {
            rule: id,
            cache: rule.cache,
            on: rule.on,
            columns: None,
            predicate: None,
            effect: Effect::Whole(Escalation::ColumnGone),
        })
    }

    /// `None` if a column is gone.
    fn with_all_columns(
        &mut self,
        id: RuleId,
        rule: &RuleModel,
        problems: &mut Vec<String>,
    ) -> Option<RulePlan> {
        let gone = rule.reads().into_iter().filter(|name| !self.slots.contains_key(*name));
        problems.extend(gone.map(|name| self.gone(name)));
        if !problems.is_empty() {
            return None;
        }
        let slot_of = |name: &str| self.slots.get(name).copied();
        let slots = |names: &[Box<str>]| {
            names.iter().map(|name| slot_of(name).map(|(slot, _)| slot)).collect::<Option<Vec<_>>>()
        };
        let columns = match &rule.columns {
            Some(names) => Some(slots(names)?),
            None => None,
        };
        let predicate = match &rule.condition {
            Some(condition) => {
                Some(Predicate::bind(condition, self.relation, self.types, &slot_of, problems)?)
            }
            None => None,
        };
        let effect = match &rule.target {
            Target::Columns { shape, columns } => {
                Effect::Keys { shape: Arc::clone(shape), slots: slots(columns)? }
            }
            Target::Lookup { via, .. } | Target::WholeIfFound { via } => {
                Effect::Lookup { slots: slots(&via.columns)? }
            }
            Target::Whole => Effect::Whole(Escalation::Rule),
        };
        if let Some(via) = rule.via() {
            let outputs = rule.shape().map_or(Vec::new(), |shape| {
                shape.parameters.iter().map(ToString::to_string).collect()
            });
            let lookup = LookupPlan::new(id, via, outputs, self.relation, self.types, problems);
            self.plan.lookups.push(lookup);
        }
        Some(RulePlan { rule: id, cache: rule.cache, on: rule.on, columns, predicate, effect })
    }

    fn gone(&self, name: &str) -> String {
        let other_case =
            self.relation.columns.iter().find(|c| c.name.to_lowercase() == name.to_lowercase());
        match other_case {
            Some(column) => format!(
                "there is no column {name}, but one named \"{}\": write it in double quotes",
                column.name
            ),
            None => format!(
                "the stream carries no column {name} (dropped, renamed, generated, or not in the \
                 publication's column list)"
            ),
        }
    }
}
