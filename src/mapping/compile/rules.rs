//! `[[tables]] invalidates`

use std::sync::Arc;

use crate::config::model::{Operation, Rule};
use crate::config::problem::{ConfigPath, Problem, nearest};

use super::super::condition::Condition;
use super::super::model::{CacheModel, Operations, RuleModel, TableId, Target};
use super::super::name::parse_column;
use super::super::shape::KeyShape;
use super::super::via::Via;
use super::caches::{Caches, no_such_parameter};

/// What a rule may say beside its parameters.
const SETTINGS: [&str; 6] = ["cache", "on", "columns", "where", "via", "whole"];

const COLUMN_HINT: &str = "write the column as in SQL: names that are not all lower case stand in \
                           double quotes, such as '\"createdAt\"'";

/// Compiles one rule; `None` if it is wrong (or its cache is).
pub(super) fn compile(
    rule: &Rule,
    (table, position): (TableId, usize),
    path: &ConfigPath,
    caches: &Caches<'_>,
    problems: &mut Vec<Problem>,
) -> Option<RuleModel> {
    let before = problems.len();
    let mut compiler = RuleCompiler { rule, path, problems };
    let on = compiler.operations();
    let columns = compiler.columns(on);
    let condition = compiler.condition();
    let via = compiler.via();
    let Some((cache, model)) = caches.get(&rule.cache) else {
        compiler.unknown_cache(caches);
        return None;
    };
    let target = compiler.target(via, model?, caches.key_prefix)?;
    (problems.len() == before).then_some(RuleModel {
        table,
        position,
        cache,
        on,
        columns,
        condition,
        target,
    })
}

struct RuleCompiler<'a> {
    rule: &'a Rule,
    path: &'a ConfigPath,
    problems: &'a mut Vec<Problem>,
}

impl RuleCompiler<'_> {
    fn report(&mut self, problem: Problem, hint: impl Into<String>) {
        self.problems.push(problem.hint(hint));
    }

    fn unknown_cache(&mut self, caches: &Caches<'_>) {
        if let Some(parts) = caches.parts_of_composed(&self.rule.cache) {
            let message = format!(
                "{} is composed: it has no entries of its own that a rule could drop",
                self.rule.cache
            );
            let hint = format!("name the part that the row is read for: {}", parts.join(", "));
            return self.report(Problem::new(self.path.child("cache"), message), hint);
        }
        let message = format!("there is no cache {}", self.rule.cache);
        let hint = match nearest(&self.rule.cache, caches.names()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the caches are {}", caches.names().collect::<Vec<_>>().join(", ")),
        };
        self.report(Problem::new(self.path.child("cache"), message), hint);
    }

    fn operations(&mut self) -> Operations {
        let Some(on) = &self.rule.on else { return Operations::ALL };
        if on.is_empty() {
            let problem = Problem::new(self.path.child("on"), "the rule is for no operation");
            self.report(problem, "list insert, update, delete, or leave it out for all");
        }
        on.iter().copied().collect()
    }

    fn columns(&mut self, on: Operations) -> Option<Vec<Box<str>>> {
        let rule = self.rule;
        let names = rule.columns.as_ref()?;
        let path = self.path.child("columns");
        if names.is_empty() {
            let problem = Problem::new(path.clone(), "no UPDATE could change one of no columns");
            self.report(
                problem,
                "list the columns, leave it out for all, or leave update out of on",
            );
        } else if !on.contains(Operation::Update) {
            let message = "columns restricts UPDATE, which the rule is not for";
            self.report(Problem::new(path.clone(), message), "leave it out, or add update to on");
        }
        let columns = names
            .iter()
            .enumerate()
            .filter_map(|(index, name)| self.column(name, path.child(index)))
            .collect();
        Some(columns)
    }

    fn column(&mut self, name: &str, path: ConfigPath) -> Option<Box<str>> {
        parse_column(name)
            .map_err(|error| {
                let problem = Problem::new(path, error.message).within(error.span);
                self.report(problem, COLUMN_HINT);
            })
            .ok()
    }

    fn condition(&mut self) -> Option<Condition> {
        Condition::parse(self.rule.condition.as_ref()?)
            .map_err(|error| {
                let path = self.path.child("where");
                let problem = Problem::new(path, error.message).within(error.span);
                let hint = "such as: status = 'open' and (old.status <> 'open' or owner is null)";
                self.report(problem, hint);
            })
            .ok()
    }

    fn via(&mut self) -> Option<Via> {
        Via::parse(self.rule.via.as_ref()?)
            .map_err(|error| {
                let problem = Problem::new(self.path.child("via"), error.message);
                self.report(problem.within(error.span), error.hint);
            })
            .ok()
    }

    fn target(&mut self, via: Option<Via>, cache: &CacheModel, key_prefix: &str) -> Option<Target> {
        self.misplaced_parameters(cache);
        if self.rule.whole {
            return match (&self.rule.via, via) {
                (None, _) => Some(Target::Whole),
                (Some(_), via) => via.map(|via| Target::WholeIfFound { via }),
            };
        }
        let given = |name: &str| match self.rule.via {
            Some(_) => !cache.enumerated.contains_key(name),
            None => self.rule.parameters.contains_key(name),
        };
        let target = cache.target();
        let missing: Vec<&str> = target
            .parameters()
            .filter(|name| !given(name) && !cache.enumerated.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            let message = format!(
                "nothing gives the parameter{} {} of the key {}",
                if missing.len() > 1 { "s" } else { "" },
                missing.join(", "),
                cache.template
            );
            let first = missing.first().copied().unwrap_or_default();
            let hint = format!(
                "add {first} = \"column\", or a via that returns it, or whole = true to drop every \
                 entry"
            );
            self.report(Problem::new(self.path.clone(), message), hint);
            return None;
        }
        // Too many variants were reported with the cache.
        let prefix = key_prefix.as_bytes();
        let shape = Arc::new(KeyShape::new(prefix, target, &cache.enumerated, &given)?);
        if self.rule.via.is_some() {
            return via.map(|via| Target::Lookup { via, shape });
        }
        let rule = self.rule;
        let columns = shape
            .parameters
            .iter()
            .map(|name| self.column(rule.parameters.get(&**name)?, self.path.child(&**name)))
            .collect::<Option<_>>()?;
        Some(Target::Columns { shape, columns })
    }

    /// Parameters that the key lacks, or that something else gives already.
    fn misplaced_parameters(&mut self, cache: &CacheModel) {
        let rule = self.rule;
        for name in rule.parameters.keys() {
            let path = self.path.child(name);
            if !cache.target().parameters().any(|p| p == name) {
                let problem = match nearest(name, SETTINGS) {
                    Some(setting) => Problem::new(path, format!("a rule has no setting {name}"))
                        .on_key()
                        .hint(format!("did you mean {setting}?")),
                    None => no_such_parameter(path, name, &cache.template, cache.target()),
                };
                self.problems.push(problem);
            } else if rule.whole {
                let message = format!("whole drops every entry, whatever {name} is");
                let hint = format!("leave out either whole or {name}");
                self.report(Problem::new(path, message).on_key(), hint);
            } else if rule.via.is_some() {
                let message = format!("the via gives the parameters, so {name} is given twice");
                let hint = format!("leave it out here and return it from the query, as {name}");
                self.report(Problem::new(path, message).on_key(), hint);
            }
        }
    }
}
