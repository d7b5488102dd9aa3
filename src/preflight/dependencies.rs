//! Asks Postgres what every query and every `via` reads; decides nothing but whether they
//! can be used at all.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::finding::{Finding, Section};
use super::places::{Places, rule_name, rule_path};
use super::populations;
use crate::loader::parameters::Parametrized;
use crate::mapping::Mapping;
use crate::mapping::lookup::LookupPlan;
use crate::mapping::model::{CacheId, RuleId};
use crate::mapping::types::TypeNames;
use crate::postgres::catalog::{Catalog, Kind, Table};
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::postgres::reads::{Described, Reads, ReadsError, describe};
use crate::postgres::relation::TableShape;
use crate::postgres::shadow::{self, RowKind};
use crate::rules::Rules;

const HERE: Section = Section::Dependencies;

/// Everything that the server has said.
#[derive(Debug, Clone, Default)]
pub struct Dependencies {
    /// What is read, by whom, for which cache.
    pub readers: Vec<Reader>,
    /// What only the populations need: no cache depends on it.
    pub populations: Vec<Reads>,
    /// The tables that are read, and the mapped ones.
    pub catalog: Catalog,
    /// The kinds of rows (null here or there) that a cache's query reads.
    pub row_kinds: BTreeMap<CacheId, BTreeSet<RowKind>>,
    /// The kinds of rows of which nobody can tell whether a cache's query reads them.
    pub unknown: BTreeMap<CacheId, BTreeSet<RowKind>>,
    /// The kinds of rows for which a rule finds nothing.
    pub blind: BTreeMap<RuleId, BTreeSet<RowKind>>,
    /// What is wrong with the statements themselves.
    pub findings: Vec<Finding>,
}

impl Dependencies {
    /// The tables and views that the daemon's role must be allowed to read.
    pub fn selected(&self) -> impl Iterator<Item = &Table> {
        let asked = |oid: &u32| self.all_reads().any(|reads| reads.selected.contains(oid));
        self.catalog.tables.iter().filter(move |(oid, _)| asked(oid)).map(|(_, table)| table)
    }

    fn all_reads(&self) -> impl Iterator<Item = &Reads> {
        self.readers.iter().map(|reader| &reader.reads).chain(&self.populations)
    }
}

/// A statement that reads for a cache.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The cache.
    pub cache: CacheId,
    /// The rule whose `via` it is; `None` for the cache's query.
    pub rule: Option<RuleId>,
    /// What it reads.
    pub reads: Reads,
}

/// What can be asked again about a statement.
struct Known {
    sql: String,
    described: Described,
}

/// Asks about every query and every `via`.
pub async fn gather(
    client: &SqlClient,
    rules: &Rules,
    facts: &Facts,
    places: &Places<'_>,
) -> Result<Dependencies, PgError> {
    let mut gathering = Gathering {
        client,
        mapping: &rules.mapping,
        facts,
        places,
        found: Dependencies::default(),
        queries: BTreeMap::new(),
        lookups: BTreeMap::new(),
    };
    for (id, cache) in rules.mapping.caches() {
        if let Some(sql) = rules.queries.get(&*cache.name) {
            gathering.query(id, sql).await?;
        }
    }
    let (populations, findings) = populations::gather(client, rules, facts, places).await?;
    gathering.found.populations = populations;
    gathering.found.findings.extend(findings);
    for (name, oid) in &facts.mapped {
        if oid.is_some()
            && let Some(shape) = TableShape::read(client, &name.schema, &name.table).await?
        {
            gathering.lookups_of(&shape).await?;
        }
    }
    gathering.read_catalog().await?;
    if facts.own.temporary {
        gathering.row_kinds().await?;
    }
    Ok(gathering.found)
}

struct Gathering<'a> {
    client: &'a SqlClient,
    mapping: &'a Mapping,
    facts: &'a Facts,
    places: &'a Places<'a>,
    found: Dependencies,
    queries: BTreeMap<CacheId, Known>,
    lookups: BTreeMap<RuleId, (Known, LookupPlan)>,
}

impl Gathering<'_> {
    async fn query(&mut self, id: CacheId, text: &str) -> Result<(), PgError> {
        let Some(cache) = self.mapping.cache(id) else { return Ok(()) };
        let name = &*cache.name;
        let at = |offset| self.places.in_query(name, text, offset);
        let problem =
            |message: String| Finding::problem(HERE, format!("query of {name}: {message}"));
        let query = match Parametrized::parse(text) {
            Ok(query) => query,
            Err(error) => {
                let found = problem(error.message).at(at(error.span.start)).hint(error.hint);
                self.found.findings.push(found);
                return Ok(());
            }
        };
        let mut keys: Vec<&str> = cache.template.parameters().collect();
        if cache.generation_key.is_some() {
            keys.retain(|key| *key != "generation");
        }
        for parameter in &query.names {
            if !keys.contains(&parameter.as_str()) && parameter != "timezone" {
                let place = query.place_of(parameter).and_then(|place| at(place.start));
                let hint = format!("a query may use ${} and $timezone", keys.join(", $"));
                let message = format!("${parameter} is no parameter of the cache's key");
                self.found.findings.push(problem(message).at(place).hint(hint));
            }
        }
        for key in keys.iter().filter(|key| !query.names.iter().any(|name| name == *key)) {
            let message =
                format!("query of {name}: it never uses ${key}, so all its values are alike");
            let hint = "use it, or take it out of the key";
            self.found.findings.push(Finding::warning(HERE, message).at(at(0)).hint(hint));
        }
        let described = match describe(self.client, &query.sql, self.facts.own.temporary).await {
            Ok(described) => described,
            Err(ReadsError::Postgres(error)) => return Err(error),
            Err(ReadsError::Statement { message, hint, offset }) => {
                let place = at(offset.map_or(0, |offset| query.original(offset)));
                let found = problem(message).at(place);
                let hint = hint.unwrap_or_else(|| "correct the query".to_owned());
                self.found.findings.push(found.hint(hint));
                return Ok(());
            }
        };
        self.result(&described, &problem).into_iter().for_each(|found| {
            self.found.findings.push(found.at(at(0)));
        });
        self.reads(id, None, &described.reads, &format!("query of {name}"), at(0));
        self.queries.insert(id, Known { sql: query.sql, described });
        Ok(())
    }

    /// A query gives one JSON column.
    fn result(
        &self,
        described: &Described,
        problem: &dyn Fn(String) -> Finding,
    ) -> Option<Finding> {
        let [column] = described.columns.as_slice() else {
            let count = described.columns.len();
            return Some(
                problem(format!("it returns {count} columns")).hint(
                    "return one column of type json: select row_to_json(value) from (…) value",
                ),
            );
        };
        let is_json = matches!(column.type_name.as_str(), "json" | "jsonb" | "text");
        (!is_json).then(|| {
            problem(format!("its column {} is of type {}", column.name, column.type_name))
                .hint("return json: select row_to_json(value) from (…) value")
        })
    }

    async fn lookups_of(&mut self, shape: &TableShape) -> Result<(), PgError> {
        let mut types = TypeNames::default();
        for named in &shape.types {
            types.insert(named.oid, &named.schema, &named.name);
        }
        let Some(plan) = self.mapping.plan(&shape.relation, &types) else { return Ok(()) };
        for problem in plan.problems() {
            let place = self.places.of(crate::config::problem::ConfigPath::root()
                .child("tables")
                .child(usize::from(plan.table().0)));
            let hint =
                "correct the rule; for a generated column name those that it is computed from";
            let found = Finding::problem(HERE, problem.clone()).at(place).hint(hint);
            self.found.findings.push(found);
        }
        for lookup in plan.lookups() {
            self.lookup(lookup).await?;
        }
        Ok(())
    }

    async fn lookup(&mut self, lookup: &LookupPlan) -> Result<(), PgError> {
        let Some(rule) = self.mapping.rule(lookup.rule) else { return Ok(()) };
        let Some(via) = rule.via() else { return Ok(()) };
        let what = format!("via of {}", rule_name(self.mapping, rule));
        let path = rule_path(rule).child("via");
        let at = |offset| self.places.within(path.clone(), &via.sql, offset);
        // As it will run; then as it is, for the origins of its columns.
        for sql in [&lookup.sql, &lookup.bare_sql] {
            let described = match describe(self.client, sql, self.facts.own.temporary).await {
                Ok(described) => described,
                Err(ReadsError::Postgres(error)) => return Err(error),
                Err(ReadsError::Statement { message, hint, offset }) => {
                    // Behind the via stand the names of what it must return.
                    let start = sql.find(&*via.sql).unwrap_or_default();
                    let inside = offset.and_then(|offset| offset.checked_sub(start));
                    let inside = inside.filter(|offset| *offset <= via.sql.len());
                    let hint = match inside {
                        None if !lookup.outputs.is_empty() => {
                            format!("it returns {}, named so", lookup.outputs.join(", "))
                        }
                        _ => hint.unwrap_or_else(|| "correct the query".to_owned()),
                    };
                    let found = Finding::problem(HERE, format!("{what}: {message}"))
                        .at(at(inside.unwrap_or_default()))
                        .hint(hint);
                    self.found.findings.push(found);
                    return Ok(());
                }
            };
            if *sql == lookup.bare_sql {
                self.reads(rule.cache, Some(lookup.rule), &described.reads, &what, at(0));
                let known = Known { sql: sql.clone(), described };
                self.lookups.insert(lookup.rule, (known, lookup.clone()));
            }
        }
        Ok(())
    }

    fn reads(
        &mut self,
        cache: CacheId,
        rule: Option<RuleId>,
        reads: &Reads,
        what: &str,
        place: Option<String>,
    ) {
        if !reads.opaque.is_empty() {
            let names: Vec<&str> = reads.opaque.iter().map(String::as_str).collect();
            let message = format!("{what}: what {} reads cannot be seen", names.join(", "));
            let hint = "make sure that a rule covers each table in it; or write its body as BEGIN ATOMIC … END, which can be seen into, or declare it IMMUTABLE if it reads none";
            self.found.findings.push(Finding::warning(HERE, message).at(place).hint(hint));
        }
        self.found.readers.push(Reader { cache, rule, reads: reads.clone() });
    }

    async fn read_catalog(&mut self) -> Result<(), PgError> {
        let read =
            self.found.all_reads().flat_map(|reads| reads.columns.keys().chain(&reads.selected));
        let mapped = self.facts.mapped.iter().filter_map(|(_, oid)| oid.as_ref());
        let oids: BTreeSet<u32> = read.chain(mapped).copied().collect();
        let oids: Vec<u32> = oids.into_iter().collect();
        self.found.catalog = Catalog::read(self.client, &oids, &self.facts.role.name).await?;
        Ok(())
    }

    /// Which kinds of rows the queries read, and which of them a rule cannot find: rows
    /// where a column is null, or is not.
    async fn row_kinds(&mut self) -> Result<(), PgError> {
        for (cache, query) in &self.queries {
            let (mut read, mut unknown) = (BTreeSet::new(), BTreeSet::new());
            for kind in self.candidates(&query.described.reads) {
                let parameters = &query.described.parameters;
                match shadow::reads(self.client, &query.sql, parameters, &kind).await? {
                    Some(true) => read.insert(kind),
                    Some(false) => false,
                    None => unknown.insert(kind),
                };
            }
            self.found.row_kinds.insert(*cache, read);
            self.found.unknown.insert(*cache, unknown);
        }
        let rules: Vec<RuleId> = self.mapping.rules().map(|(id, _)| id).collect();
        for id in rules {
            let blind = self.blind(id).await?;
            self.found.blind.insert(id, blind);
        }
        Ok(())
    }

    /// The nullable columns that a statement reads, each null and not null.
    fn candidates(&self, reads: &Reads) -> Vec<RowKind> {
        let mut kinds = Vec::new();
        for (oid, columns) in &reads.columns {
            let Some(table) = self.found.catalog.tables.get(oid) else { continue };
            if !matches!(table.kind, Kind::Table | Kind::Partitioned) {
                continue;
            }
            let nullable = table.columns.iter().filter(|column| {
                !column.not_null && (columns.contains(&column.number) || reads.whole.contains(oid))
            });
            for column in nullable {
                kinds.extend([true, false].map(|null| RowKind {
                    table: table.name.clone(),
                    column: column.name.clone(),
                    null,
                }));
            }
        }
        kinds
    }

    async fn blind(&self, id: RuleId) -> Result<BTreeSet<RowKind>, PgError> {
        let mut blind = BTreeSet::new();
        let Some(rule) = self.mapping.rule(id) else { return Ok(blind) };
        let Some(table) = self.mapping.table_by_id(rule.table) else { return Ok(blind) };
        // A parameter that is null names no key.
        blind.extend(rule.parameters().map(|(_, column)| RowKind {
            table: table.name.clone(),
            column: column.to_owned(),
            null: true,
        }));
        if let Some((known, plan)) = self.lookups.get(&id) {
            if plan.outputs.is_empty() {
                // Whether it finds anything is all that counts.
                for kind in self.candidates(&known.described.reads) {
                    let parameters = &known.described.parameters;
                    let finds = shadow::reads(self.client, &known.sql, parameters, &kind).await?;
                    if finds == Some(false) {
                        blind.insert(kind);
                    }
                }
            } else {
                blind.extend(self.null_outputs(known, plan));
            }
        }
        blind.extend(self.excluded(rule).await?);
        Ok(blind)
    }

    /// The columns from which a `via` takes its parameters.
    fn null_outputs(&self, known: &Known, plan: &LookupPlan) -> Vec<RowKind> {
        let outputs = known.described.columns.iter().filter(|c| plan.outputs.contains(&c.name));
        outputs
            .filter_map(|output| {
                let (oid, number) = output.origin?;
                let table = self.found.catalog.tables.get(&oid)?;
                let column = table.column_numbered(number)?;
                Some(RowKind { table: table.name.clone(), column: column.name.clone(), null: true })
            })
            .collect()
    }

    /// The rows that a rule's condition leaves out.
    async fn excluded(
        &self,
        rule: &crate::mapping::model::RuleModel,
    ) -> Result<Vec<RowKind>, PgError> {
        let config = self.places.config.tables.get(usize::from(rule.table.0));
        let condition = config
            .and_then(|table| table.invalidates.get(rule.position))
            .and_then(|rule| rule.condition.as_ref());
        let (Some(text), Some(condition)) = (condition, &rule.condition) else {
            return Ok(Vec::new());
        };
        // `old.` and `new.` are of two rows, and no condition on one.
        let one_row =
            condition.columns().iter().all(|c| c.side == crate::mapping::condition::Side::Row);
        let Some(table) = self.mapping.table_by_id(rule.table).filter(|_| one_row) else {
            return Ok(Vec::new());
        };
        let sql =
            format!("SELECT FROM {} WHERE {text}", crate::mapping::name::Quoted(&table.name.table));
        let mut excluded = Vec::new();
        let columns: BTreeSet<&str> = condition.columns().iter().map(|c| &*c.name).collect();
        for column in columns {
            for null in [true, false] {
                let kind = RowKind { table: table.name.clone(), column: column.to_owned(), null };
                if shadow::reads(self.client, &sql, &[], &kind).await? == Some(false) {
                    excluded.push(kind);
                }
            }
        }
        Ok(excluded)
    }
}
