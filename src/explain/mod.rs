//! What a change would reach, rule by rule: `unstale explain`.
//!
//! The change is made up, all else is real: the table's shape and replica identity come
//! from the catalog, the values pass through the server's own types and come back as the
//! stream would print them, the rows are encoded as `pgoutput` would send them (so what
//! the replica identity does not carry is *unknown* here, too), the plan is the daemon's,
//! and the queries of rules with a `via` run on the database as it is now.
//!
//! What one row does not say of an UPDATE is as the other row says. What neither says, or
//! an INSERT's or a DELETE's only row does not, is taken for null, and a note tells where a
//! rule reads it.
//!
//! Without a database ([`offline`]) the table has the columns that are known from the
//! rules and the rows, with the types that their values suggest, under FULL.

mod report;
pub mod row;

use tokio_postgres::types::{ToSql, Type};

use crate::config::problem::nearest;
use crate::mapping::Mapping;
use crate::mapping::changes::ChangeSet;
use crate::mapping::explain::{Explained, Yields};
use crate::mapping::lookup::LookupPlan;
use crate::mapping::name::{Quoted, TableName};
use crate::mapping::plan::TablePlan;
use crate::mapping::types::TypeNames;
use crate::pgoutput::message::{Relation, RelationColumn, ReplicaIdentity};
use crate::postgres::client::SqlClient;
use crate::postgres::error::{Class, PgError};
use crate::postgres::publication::Publication;
use crate::postgres::relation::TableShape;
pub use report::Report;
use report::{Lookup, RuleReport};
use row::{Cells, Change, Scalar};

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// What was asked for makes no sense: what, and what would.
    #[error("{0}")]
    Asked(String),
    /// The configuration does not fit the database.
    #[error("{0}")]
    Configuration(String),
    /// Postgres failed, or cannot be reached.
    #[error(transparent)]
    Postgres(#[from] PgError),
}

/// Explains a change on the database as it is now.
pub async fn online(
    client: &SqlClient,
    mapping: &Mapping,
    publication: &str,
    table: &TableName,
    change: Change,
) -> Result<Report, ExplainError> {
    let shape = shape(client, mapping, table).await?;
    let mut notes = published(client, publication, table).await?;
    notes.extend(about(&shape, mapping, table));
    let mut cells = change.cells(&shape.relation).map_err(ExplainError::Asked)?;
    as_the_stream_prints(client, &shape, &mut cells).await?;

    let mut types = TypeNames::default();
    for named in &shape.types {
        types.insert(named.oid, &named.schema, &named.name);
    }
    let explained = explain(mapping, &shape.relation, &types, cells, notes)?;
    let Some((plan, mut report)) = explained else {
        return Ok(Report::without_rules(table, change.operation, &shape.relation));
    };
    for rule in &mut report.rules {
        let Some(lookup) = &mut rule.lookup else { continue };
        let Some(statement) = plan.lookup(rule.id) else { continue };
        match look_up(client, statement, lookup).await {
            Ok(found) => {
                let mut changes = ChangeSet::default();
                mapping.add_lookup_results(rule.id, change.operation, found, &mut changes);
                rule.found(&changes);
            }
            Err(error) if error.class() == Class::Retry && error.sqlstate().is_none() => {
                return Err(error.into());
            }
            // As the daemon would: its cache is dropped as a whole.
            Err(error) => rule.failed(&error),
        }
    }
    report.sum_up();
    Ok(report)
}

/// Explains a change as far as that is possible without a database.
///
/// # Errors
/// If no rule is for the table, or the rows cannot be.
pub fn offline(
    mapping: &Mapping,
    table: &TableName,
    change: &Change,
) -> Result<Report, ExplainError> {
    let Some((_, model)) = mapping.table(table) else {
        return Err(ExplainError::Asked(format!(
            "no rule is for the table {table}; {}",
            mapped_instead(mapping, table)
        )));
    };
    let mut names: Vec<Box<str>> = Vec::new();
    let rules = model.rules.iter().filter_map(|id| mapping.rule(*id));
    let read = rules.flat_map(|rule| rule.reads());
    for name in read.chain(change.names()) {
        if !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }
    let column = |name: Box<str>| RelationColumn {
        key: true,
        type_id: match change.scalar(&name) {
            Some(Scalar::Bool) => Type::BOOL.oid(),
            Some(Scalar::Number) => Type::NUMERIC.oid(),
            Some(Scalar::Structure) => Type::JSONB.oid(),
            Some(Scalar::Text) | None => Type::TEXT.oid(),
        },
        name,
        type_modifier: -1,
    };
    let relation = Relation {
        id: 0,
        namespace: table.schema.clone(),
        name: table.table.clone(),
        identity: ReplicaIdentity::Full,
        columns: names.into_iter().map(column).collect(),
    };
    let cells = change.cells(&relation).map_err(ExplainError::Asked)?;
    let note = "offline: the table's columns, types and replica identity were not looked at (FULL is \
                assumed), and no query was run";
    let explained =
        explain(mapping, &relation, &TypeNames::default(), cells, vec![note.to_owned()])?;
    Ok(match explained {
        Some((_, mut report)) => {
            report.replica_identity = None;
            report.sum_up();
            report
        }
        None => Report::without_rules(table, change.operation, &relation),
    })
}

fn explain(
    mapping: &Mapping,
    relation: &Relation,
    types: &TypeNames,
    mut cells: Cells,
    notes: Vec<String>,
) -> Result<Option<(TablePlan, Report)>, ExplainError> {
    let Some(plan) = mapping.plan(relation, types) else { return Ok(None) };
    let rules = mapping.table(plan.name()).map(|(_, model)| model.rules.as_slice());
    let rules = rules.unwrap_or_default().iter().filter_map(|id| mapping.rule(*id));
    let read = rules.flat_map(|rule| rule.reads()).collect();
    let mut report = Report::new(plan.name(), cells.operation, relation);
    report.notes = notes;
    report.notes.extend(cells.complete(relation, &read));
    report.problems = plan.problems().to_vec();
    let wire = cells.wire(relation);
    let (old, new) = wire.tuples().map_err(|error| ExplainError::Asked(error.to_string()))?;
    for Explained { rule, cache, yields } in plan.explain(cells.operation, old, new) {
        let cache = mapping.cache(cache).map(|cache| cache.name.to_string()).unwrap_or_default();
        let mut told = RuleReport::new(rule, mapping.describe(rule), cache);
        match yields {
            Yields::Nothing(why) => told.nothing = Some(why.to_owned()),
            Yields::Keys(keys) => told.keys = keys.iter().map(ToString::to_string).collect(),
            Yields::Whole(reason) => told.whole = Some(reason.as_str()),
            Yields::Lookup(rows) => {
                let columns = plan.lookup(rule).map(|lookup| lookup.columns.clone());
                told.lookup = Some(Lookup::new(columns.unwrap_or_default(), rows));
            }
        }
        report.rules.push(told);
    }
    Ok(Some((plan, report)))
}

async fn shape(
    client: &SqlClient,
    mapping: &Mapping,
    table: &TableName,
) -> Result<TableShape, ExplainError> {
    if let Some(shape) = TableShape::read(client, &table.schema, &table.table).await? {
        return Ok(shape);
    }
    if mapping.table(table).is_some() {
        return Err(ExplainError::Configuration(format!(
            "[[tables]] names {table}, and the database has no such table: check postgres.url and the table's name"
        )));
    }
    Err(ExplainError::Asked(format!(
        "there is no table {table}; {}",
        mapped_instead(mapping, table)
    )))
}

/// Whether the table's changes come through at all.
async fn published(
    client: &SqlClient,
    publication: &str,
    table: &TableName,
) -> Result<Vec<String>, PgError> {
    let found = Publication::read(client, publication).await?;
    let note = match &found {
        None => Some(format!(
            "publication {publication} does not exist yet, so no change comes through: run `unstale setup`"
        )),
        Some(found) if found.table(&table.schema, &table.table).is_none() => Some(format!(
            "publication {publication} lacks {table}, so its changes do not come through: run `unstale setup`"
        )),
        Some(_) => None,
    };
    Ok(note.into_iter().collect())
}

fn about(shape: &TableShape, mapping: &Mapping, table: &TableName) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((schema, name)) = &shape.partition_of
        && mapping.table(table).is_none()
    {
        let root = TableName::new(schema, name);
        notes.push(format!(
            "{table} is a partition of {root}, under whose name the stream has its changes: explain that"
        ));
    }
    if shape.is_partitioned {
        notes.push(
            "the table is partitioned: which old values come through follows each partition's own replica identity"
                .to_owned(),
        );
    }
    notes
}

fn mapped_instead(mapping: &Mapping, table: &TableName) -> String {
    let known: Vec<String> = mapping.tables().map(|(_, table)| table.name.to_string()).collect();
    match nearest(&table.to_string(), known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are rules for {}", known.join(", ")),
    }
}

/// Sends each value through its column's type, to have it as the stream would.
async fn as_the_stream_prints(
    client: &SqlClient,
    shape: &TableShape,
    cells: &mut Cells,
) -> Result<(), ExplainError> {
    for (column, declared) in shape.relation.columns.iter().zip(&shape.declared) {
        for text in cells.texts_mut(&column.name) {
            // format() prints as the type's output function does, which ::text does not
            // for booleans and padded texts.
            let sql = format!("SELECT pg_catalog.format('%s', $1::text::{declared})");
            let row = client.query_one(&sql, &[&*text]).await.map_err(PgError::from);
            match row {
                Ok(row) => *text = row.try_get(0).map_err(PgError::from)?,
                // Data exceptions, and what a domain's check refuses.
                Err(error)
                    if error.sqlstate().is_some_and(|code| {
                        code.starts_with("22") || code.starts_with("23") || code == "42846"
                    }) =>
                {
                    return Err(ExplainError::Asked(format!(
                        "column {} is {declared}: {}",
                        Quoted(&column.name),
                        error.what()
                    )));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn look_up(
    client: &SqlClient,
    plan: &LookupPlan,
    lookup: &Lookup,
) -> Result<Vec<Vec<Option<String>>>, PgError> {
    let columns: Vec<Vec<Option<&str>>> = (0..plan.columns.len())
        .map(|at| lookup.rows.iter().map(|row| row.get(at)?.as_deref()).collect())
        .collect();
    let parameters: Vec<&(dyn ToSql + Sync)> =
        columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
    let rows = client.query(&plan.sql, &parameters).await?;
    rows.iter()
        .map(|row| {
            (0..plan.outputs.len()).map(|at| row.try_get(at).map_err(PgError::from)).collect()
        })
        .collect()
}
