//! Which old values a table's rules need: what `check` compares with its replica identity.

use std::collections::BTreeMap;

use crate::config::model::Operation;

use super::condition::Side;
use super::model::{Mapping, RuleId, RuleModel, Target};
use super::name::TableName;

/// A rule's need of an old column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The rule.
    pub rule: RuleId,
    /// What happens while the old value is unknown.
    pub consequence: Consequence,
}

/// What an unknown old value leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consequence {
    /// The rule applies more often than it must.
    Widens,
    /// The rule's whole cache is dropped.
    Escalates,
}

impl Mapping {
    /// The columns whose old values the table's rules need under UPDATE or DELETE, each
    /// with the rules that do.
    #[must_use]
    pub fn needed_old_columns(&self, table: &TableName) -> BTreeMap<Box<str>, Vec<Need>> {
        let mut needed: BTreeMap<Box<str>, Vec<Need>> = BTreeMap::new();
        let rules = self.table(table).into_iter().flat_map(|(_, model)| &model.rules);
        for (id, rule) in rules.filter_map(|id| Some((*id, self.rule(*id)?))) {
            for (column, consequence) in rule.old_columns() {
                needed.entry(column.into()).or_default().push(Need { rule: id, consequence });
            }
        }
        needed
    }
}

impl RuleModel {
    fn old_columns(&self) -> BTreeMap<&str, Consequence> {
        let mut needed: BTreeMap<&str, Consequence> = BTreeMap::new();
        let mut need = |column, consequence: Consequence| {
            let entry = needed.entry(column).or_insert(consequence);
            *entry = consequence.max(*entry);
        };
        let update = self.on.contains(Operation::Update);
        if !update && !self.on.contains(Operation::Delete) {
            return needed;
        }
        if update {
            for column in self.columns.iter().flatten() {
                need(column, Consequence::Widens);
            }
        }
        for column in self.condition.iter().flat_map(|condition| condition.columns()) {
            if column.side != Side::New {
                need(&column.name, Consequence::Widens);
            }
        }
        let keys = match &self.target {
            Target::Columns { columns, .. } => columns.as_slice(),
            Target::Lookup { via, .. } | Target::WholeIfFound { via } => via.columns.as_slice(),
            Target::Whole => &[],
        };
        for column in keys {
            need(column, Consequence::Escalates);
        }
        needed
    }
}
