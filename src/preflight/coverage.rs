//! What is read and not covered: a change that leaves something stale in the cache.
//!
//! A cache depends on every table that its query reads, and on every table that a `via` of
//! its rules reads (else whoever was detached there is missed: the `via` no longer finds
//! him). Covered means, for each of these tables:
//!
//! - It has a rule to the cache.
//! - Each column that is read is in `columns` of one of them, or one has no `columns`: an
//!   UPDATE of anything else reaches nothing.
//! - INSERT and DELETE are in `on` of one. One that is left out is taken to be right where
//!   another table that the cache depends on has a foreign key to this one: a row that
//!   nobody references yet (or any more) is reached by the change of the one that does.
//! - The rules that stand for a column, or an operation, find every kind of row that the
//!   query reads. A parameter that is null names no key, and `where` and `whole` with a
//!   `via` leave rows out: another rule must see those.

use std::collections::{BTreeMap, BTreeSet};

use super::dependencies::{Dependencies, Reader};
use super::finding::{Finding, Section};
use super::places::{Places, rule_name, rule_path};
use crate::config::model::Operation;
use crate::config::problem::ConfigPath;
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, RuleId, RuleModel};
use crate::postgres::catalog::{Catalog, Kind, Table};
use crate::postgres::shadow::RowKind;

const HERE: Section = Section::Dependencies;

/// What a cache depends on in one table.
#[derive(Debug, Default)]
struct Demand {
    /// Columns, each with who reads it.
    columns: BTreeMap<String, BTreeSet<String>>,
    /// Who reads it at all.
    readers: BTreeSet<String>,
}

/// Everything that is read and not covered.
#[must_use]
pub fn findings(mapping: &Mapping, found: &Dependencies, places: &Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, cache) in mapping.caches() {
        let demands = demands(mapping, found, id);
        if demands.is_empty() {
            continue;
        }
        let coverage =
            Coverage { mapping, found, cache: id, name: &cache.name, demands: &demands, places };
        let holes: Vec<Finding> =
            demands.iter().flat_map(|(oid, demand)| coverage.table(*oid, demand)).collect();
        if !holes.iter().any(|hole| hole.level == super::finding::Level::Problem) {
            let tables = demands.len();
            let message = format!(
                "{}: every change of what it reads reaches it ({tables} {})",
                cache.name,
                if tables == 1 { "table" } else { "tables" }
            );
            findings.push(Finding::ok(HERE, message));
        }
        findings.extend(holes);
    }
    findings
}

/// What a cache depends on, by the table under whose name changes come.
fn demands(mapping: &Mapping, found: &Dependencies, cache: CacheId) -> BTreeMap<u32, Demand> {
    let mut demands: BTreeMap<u32, Demand> = BTreeMap::new();
    for reader in found.readers.iter().filter(|reader| reader.cache == cache) {
        let who = reader_name(mapping, reader);
        for (oid, numbers) in &reader.reads.columns {
            let Some(table) = found.catalog.tables.get(oid) else { continue };
            let whole = reader.reads.whole.contains(oid);
            let columns = streamed_columns(table, numbers, whole);
            for oid in streamed_as(&found.catalog, table) {
                let demand = demands.entry(oid).or_default();
                demand.readers.insert(who.clone());
                for column in &columns {
                    demand.columns.entry(column.clone()).or_default().insert(who.clone());
                }
            }
        }
    }
    demands
}

fn reader_name(mapping: &Mapping, reader: &Reader) -> String {
    match reader.rule.and_then(|rule| mapping.rule(rule)) {
        Some(rule) => format!("the via of {}", rule_name(mapping, rule)),
        None => "the query".to_owned(),
    }
}

/// The columns by name; of a generated one, which is not streamed, those behind it.
fn streamed_columns(table: &Table, numbers: &BTreeSet<i16>, whole: bool) -> BTreeSet<String> {
    let read = table.columns.iter().filter(|c| whole || numbers.contains(&c.number));
    read.flat_map(|column| match &column.generated_from {
        None => vec![column.name.clone()],
        Some(from) => from
            .iter()
            .filter_map(|number| table.column_numbered(*number))
            .map(|column| column.name.clone())
            .collect(),
    })
    .collect()
}

/// The tables under whose names its changes come: of a partition its root, with INHERITS
/// its children too.
fn streamed_as(catalog: &Catalog, table: &Table) -> Vec<u32> {
    match (table.root, table.kind) {
        (Some(root), _) => vec![root],
        (None, Kind::Table) => std::iter::once(table.oid)
            .chain(table.below.iter().copied().filter(|oid| catalog.tables.contains_key(oid)))
            .collect(),
        _ => vec![table.oid],
    }
}

struct Coverage<'a> {
    mapping: &'a Mapping,
    found: &'a Dependencies,
    cache: CacheId,
    name: &'a str,
    demands: &'a BTreeMap<u32, Demand>,
    places: &'a Places<'a>,
}

impl Coverage<'_> {
    fn table(&self, oid: u32, demand: &Demand) -> Vec<Finding> {
        let Some(table) = self.found.catalog.tables.get(&oid) else { return Vec::new() };
        if let Some(hole) = self.unstreamed(table, demand) {
            return vec![hole];
        }
        let rules: Vec<(RuleId, &RuleModel)> = self
            .mapping
            .rules()
            .filter(|(_, rule)| rule.cache == self.cache)
            .filter(|(_, rule)| {
                self.mapping.table_by_id(rule.table).is_some_and(|model| model.name == table.name)
            })
            .collect();
        if rules.is_empty() {
            return vec![self.no_rule(table, demand)];
        }
        let mut holes = Vec::new();
        holes.extend(self.columns(table, demand, &rules));
        for operation in [Operation::Insert, Operation::Delete] {
            holes.extend(self.operation(table, demand, &rules, operation));
        }
        holes.extend(self.rows(table, demand, &rules));
        holes
    }

    fn unstreamed(&self, table: &Table, demand: &Demand) -> Option<Finding> {
        let what = match table.kind {
            Kind::MaterializedView => "a materialized view: it changes by REFRESH",
            Kind::Foreign => "a foreign table: it changes on another server",
            _ if table.unlogged => "an unlogged table: it changes without WAL",
            _ => return None,
        };
        let message = format!(
            "{}: {} reads {}, {what}, so no stream carries its changes",
            self.name,
            listed(&demand.readers),
            table.name
        );
        let hint = "read the tables behind it instead, or live with entries as old as their ttl: then take it out of the query";
        Some(Finding::problem(HERE, message).at(self.place_of_cache()).hint(hint))
    }

    fn no_rule(&self, table: &Table, demand: &Demand) -> Finding {
        let columns: Vec<&str> = demand.columns.keys().map(String::as_str).collect();
        let which = match columns.is_empty() {
            true => String::new(),
            false => format!(" ({})", columns.join(", ")),
        };
        let message = format!(
            "{}: {} reads {}{which}, which has no rule to {}",
            self.name,
            listed(&demand.readers),
            table.name,
            self.name
        );
        let by_via_only = !demand.readers.contains("the query");
        let hint = match by_via_only {
            true => format!(
                "add a rule for it: whoever is detached by a change of {} is no longer found by the via",
                table.name
            ),
            false => format!(
                "add {{ cache = \"{}\", … }} to invalidates of [[tables]] name = \"{}\"",
                self.name, table.name
            ),
        };
        Finding::problem(HERE, message).at(self.place_of_cache()).hint(hint)
    }

    fn columns(
        &self,
        table: &Table,
        demand: &Demand,
        rules: &[(RuleId, &RuleModel)],
    ) -> Option<Finding> {
        let open: Vec<(&String, &BTreeSet<String>)> = demand
            .columns
            .iter()
            .filter(|(column, _)| !rules.iter().any(|(_, rule)| covers(rule, column)))
            .collect();
        if open.is_empty() {
            return None;
        }
        let names: Vec<&str> = open.iter().map(|(name, _)| name.as_str()).collect();
        let readers: BTreeSet<String> =
            open.iter().flat_map(|(_, readers)| readers.iter().cloned()).collect();
        let (_, rule) = rules.first()?;
        let message = format!(
            "{}: {} reads {} of {}, and an UPDATE of it reaches no entry",
            self.name,
            listed(&readers),
            names.join(", "),
            table.name
        );
        let hint =
            format!("add {} to columns of {}", names.join(", "), rule_name(self.mapping, rule));
        Some(Finding::problem(HERE, message).at(self.place_of_rule(rule)).hint(hint))
    }

    fn operation(
        &self,
        table: &Table,
        demand: &Demand,
        rules: &[(RuleId, &RuleModel)],
        operation: Operation,
    ) -> Option<Finding> {
        if rules.iter().any(|(_, rule)| rule.on.contains(operation)) {
            return None;
        }
        let (_, rule) = rules.first()?;
        let verb = operation.as_str().to_uppercase();
        let place = self.place_of_rule(rule);
        if let Some(by) = self.referenced_by(table) {
            let negative = self.mapping.cache(self.cache).and_then(|cache| cache.negative_ttl);
            if negative.is_some() && operation == Operation::Insert {
                let message = format!(
                    "{}: INSERT of {} reaches nothing, and negative_ttl remembers what was not there: \
                     right as long as the query finds its rows through {by} alone",
                    self.name, table.name
                );
                let hint = format!(
                    "add \"insert\" to on of {}, or leave out negative_ttl",
                    rule_name(self.mapping, rule)
                );
                return Some(Finding::warning(HERE, message).at(place).hint(hint));
            }
            let message = format!(
                "{}: {verb} of {} reaches nothing, which is right as long as the query finds its \
                 rows through {by} alone (it has a foreign key to them, and rules of its own)",
                self.name, table.name
            );
            return Some(Finding::note(HERE, message).at(place));
        }
        let message = format!(
            "{}: {} reads {}, and {verb} is in `on` of no rule to it",
            self.name,
            listed(&demand.readers),
            table.name
        );
        let hint =
            format!("add \"{}\" to on of {}", operation.as_str(), rule_name(self.mapping, rule));
        Some(Finding::problem(HERE, message).at(place).hint(hint))
    }

    /// A table that this cache also depends on, and that references the given one by
    /// columns that are read.
    fn referenced_by(&self, table: &Table) -> Option<String> {
        let other = self.demands.iter().find_map(|(oid, demand)| {
            let other =
                self.found.catalog.tables.get(oid).filter(|other| other.oid != table.oid)?;
            let references = other.references.iter().any(|(target, columns)| {
                *target == table.oid
                    && columns.iter().all(|number| {
                        other
                            .column_numbered(*number)
                            .is_some_and(|column| demand.columns.contains_key(&column.name))
                    })
            });
            references.then_some(other)
        })?;
        Some(other.name.to_string())
    }

    /// Kinds of rows that the query reads and no rule finds.
    fn rows(&self, table: &Table, demand: &Demand, rules: &[(RuleId, &RuleModel)]) -> Vec<Finding> {
        let place = rules.first().and_then(|(_, rule)| self.place_of_rule(rule));
        let missed = |kinds: &BTreeMap<CacheId, BTreeSet<RowKind>>| {
            kinds
                .get(&self.cache)
                .map(|kinds| self.missed(demand, rules, kinds))
                .unwrap_or_default()
        };
        let mut findings = Vec::new();
        for (kind, changes) in missed(&self.found.row_kinds) {
            let message = format!(
                "{}: its query reads {}, and no rule of {} finds them for: {}",
                self.name,
                rows_of(&kind, table),
                table.name,
                changes.join(", ")
            );
            let hint = "a null parameter names no key: add a rule with whole = true for such rows \
                        (by where, or by a via), or leave them out of the query";
            findings.push(Finding::problem(HERE, message).at(place.clone()).hint(hint));
        }
        for (kind, changes) in missed(&self.found.unknown) {
            let message = format!(
                "{}: whether its query reads {} cannot be told; if it does, no rule of {} finds \
                 them for: {}",
                self.name,
                rows_of(&kind, table),
                table.name,
                changes.join(", ")
            );
            let hint = "it can be told where the role may read the table, and the query names it \
                        without its schema and not through a view";
            findings.push(Finding::warning(HERE, message).at(place.clone()).hint(hint));
        }
        findings
    }

    /// Of these kinds of rows those that the rules standing for a change do not find, each
    /// with the changes.
    fn missed(
        &self,
        demand: &Demand,
        rules: &[(RuleId, &RuleModel)],
        kinds: &BTreeSet<RowKind>,
    ) -> BTreeMap<RowKind, Vec<String>> {
        let mut missed: BTreeMap<RowKind, Vec<String>> = BTreeMap::new();
        let mut look = |what: String, stands: &dyn Fn(&RuleModel) -> bool| {
            let standing: Vec<RuleId> =
                rules.iter().filter(|(_, rule)| stands(rule)).map(|(id, _)| *id).collect();
            // Where none stands at all, that is told already.
            for kind in kinds.iter().filter(|_| !standing.is_empty()) {
                let blind =
                    |rule: &RuleId| self.found.blind.get(rule).is_some_and(|b| b.contains(kind));
                if standing.iter().all(blind) {
                    missed.entry(kind.clone()).or_default().push(what.clone());
                }
            }
        };
        for operation in [Operation::Insert, Operation::Delete] {
            look(operation.as_str().to_uppercase(), &|rule| rule.on.contains(operation));
        }
        for column in demand.columns.keys() {
            look(format!("UPDATE of {column}"), &|rule| covers(rule, column));
        }
        missed
    }

    fn place_of_cache(&self) -> Option<String> {
        self.places.of(ConfigPath::from_iter(["caches", self.name]))
    }

    fn place_of_rule(&self, rule: &RuleModel) -> Option<String> {
        self.places.of(rule_path(rule))
    }
}

fn rows_of(kind: &RowKind, table: &Table) -> String {
    let null = if kind.null { "null" } else { "not null" };
    match kind.table == table.name {
        true => format!("rows whose {} is {null}", kind.column),
        false => format!("rows of {} whose {} is {null}", kind.table, kind.column),
    }
}

/// Whether an UPDATE of the column is a change to the rule.
fn covers(rule: &RuleModel, column: &str) -> bool {
    rule.on.contains(Operation::Update)
        && rule.columns.as_ref().is_none_or(|columns| columns.iter().any(|c| **c == *column))
}

fn listed(readers: &BTreeSet<String>) -> String {
    // The query first, however the others are named.
    let (query, vias): (Vec<&str>, Vec<&str>) =
        readers.iter().map(String::as_str).partition(|reader| *reader == "the query");
    query.into_iter().chain(vias).collect::<Vec<_>>().join(" and ")
}
