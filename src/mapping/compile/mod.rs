//! From the configuration to a [`Mapping`]: everything that is wrong, at once.

mod caches;
mod compositions;
mod fingerprint;
mod rules;

use std::collections::HashMap;

use crate::config::model::{Config, Table};
use crate::config::problem::{ConfigPath, Problem};

use super::model::{Mapping, RuleId, TableId, TableModel};
use super::name::TableName;
use caches::Caches;
pub(crate) use caches::reaches_own_keys;

impl Mapping {
    /// Compiles the configuration's caches and tables.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with its place and what to do about it.
    pub fn new(config: &Config) -> Result<Mapping, Vec<Problem>> {
        let mut problems = Vec::new();
        let caches = Caches::compile(config, &mut problems);
        let mut mapping = Mapping {
            caches: Vec::new(),
            compositions: compositions::compile(config, &caches, &mut problems),
            tables: Vec::new(),
            rules: Vec::new(),
            table_by_name: HashMap::new(),
            overlaps: Vec::new(),
            fingerprint: fingerprint::of(config),
            organization_parameter: config.caches.organization_parameter.as_str().into(),
            user_parameter: config.caches.user_parameter.as_str().into(),
        };
        for (index, table) in config.tables.iter().enumerate() {
            let path = ConfigPath::root().child("tables").child(index);
            mapping.add_table(table, &path, &caches, &mut problems);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        mapping.overlaps = caches.overlaps();
        mapping.caches = caches.into_models();
        Ok(mapping)
    }

    fn add_table(
        &mut self,
        table: &Table,
        path: &ConfigPath,
        caches: &Caches<'_>,
        problems: &mut Vec<Problem>,
    ) {
        let Ok(id) = u16::try_from(self.tables.len()).map(TableId) else {
            let message = format!("more than {} tables", u16::MAX);
            problems.push(Problem::new(path.clone(), message).hint("run a second daemon"));
            return;
        };
        let name = match table.name.parse::<TableName>() {
            Ok(name) => name,
            Err(error) => {
                let hint = "write table or schema.table as in SQL, such as sales.\"Order Items\"";
                let place = path.child("name");
                problems.push(Problem::new(place, error.message).within(error.span).hint(hint));
                // Its rules are still looked at; the mapping comes to nothing anyway.
                TableName::new("", &table.name)
            }
        };
        if self.table_by_name.insert(name.clone(), id).is_some() {
            let message = format!("the table {name} stands here a second time");
            let hint = "move its rules to the first one: a table has one list";
            problems.push(Problem::new(path.child("name"), message).hint(hint));
        }
        if table.invalidates.is_empty() {
            let message = format!("the table {name} reaches no cache");
            let hint = "add a rule, such as invalidates = [{ cache = \"…\", … }], or leave the \
                        table out";
            problems.push(Problem::new(path.clone(), message).hint(hint));
        }
        let mut model = TableModel { name, rules: Vec::new() };
        for (position, rule) in table.invalidates.iter().enumerate() {
            let path = path.child("invalidates").child(position);
            let Some(rule) = rules::compile(rule, (id, position), &path, caches, problems) else {
                continue;
            };
            let Ok(rule_id) = u16::try_from(self.rules.len()).map(RuleId) else {
                let message = format!("more than {} rules", u16::MAX);
                problems.push(Problem::new(path, message).hint("run a second daemon"));
                break;
            };
            self.rules.push(rule);
            model.rules.push(rule_id);
        }
        self.tables.push(model);
    }
}
