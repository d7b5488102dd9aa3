//! What a statement reads: Postgres is asked, the SQL is not parsed.
//!
//! The statement becomes the body of a temporary function (`BEGIN ATOMIC`), in a
//! transaction that is rolled back. The server then records what the body depends on, by
//! column (`pg_depend`), where EXPLAIN would list every column of a scan. Two things it
//! leaves out are found otherwise: a row as a whole (`row_to_json(t)`) depends on no column,
//! so the stored expression is searched for such variables; and what views and functions
//! read is recorded with them, so they are followed. A function whose body is a text says
//! nothing of what it reads.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::Kind;

use super::client::SqlClient;
use super::error::PgError;

/// What the server makes of a statement.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// The types of its parameters, as SQL.
    pub parameters: Vec<String>,
    /// The columns of its result.
    pub columns: Vec<ResultColumn>,
    /// What it reads.
    pub reads: Reads,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// Its type's name.
    pub type_name: String,
    /// The table's column that it is, unchanged, if it is one.
    pub origin: Option<(u32, i16)>,
}

/// Tables and columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Tables by OID, each with the columns that are read: none where it only matters which
    /// rows there are.
    pub columns: BTreeMap<u32, BTreeSet<i16>>,
    /// Tables of which whole rows are read.
    pub whole: BTreeSet<u32>,
    /// Functions whose bodies tell nothing.
    pub opaque: BTreeSet<String>,
    /// Tables and views that whoever runs it must be allowed to read: what stands behind a
    /// view is read with the rights of the view's owner.
    pub selected: BTreeSet<u32>,
}

/// Why a statement cannot be used.
#[derive(Debug)]
pub enum ReadsError {
    /// The server refuses it.
    Statement {
        /// Why.
        message: String,
        /// What the server advises.
        hint: Option<String>,
        /// Where in the statement, in bytes.
        offset: Option<usize>,
    },
    /// The server could not be asked.
    Postgres(PgError),
}

impl From<PgError> for ReadsError {
    fn from(error: PgError) -> Self {
        ReadsError::Postgres(error)
    }
}

/// What is not built in begins here (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16_384;

/// One node's references: relations by column, whole rows, functions. A node is a function
/// ('f') or a view ('v').
const REFERENCES: &str = "\
WITH node (class, oid, body) AS (
    SELECT 'pg_catalog.pg_proc'::regclass, p.oid, p.prosqlbody::text
      FROM pg_catalog.pg_proc p WHERE p.oid = $1 AND $2::text = 'f'
    UNION ALL
    SELECT 'pg_catalog.pg_rewrite'::regclass, w.oid, w.ev_action::text
      FROM pg_catalog.pg_rewrite w WHERE w.ev_class = $1 AND w.ev_type = '1' AND $2::text = 'v'
), depends AS (
    SELECT d.refclassid, d.refobjid, d.refobjsubid
      FROM node JOIN pg_catalog.pg_depend d ON d.classid = node.class AND d.objid = node.oid
), called AS (
    SELECT refobjid AS oid FROM depends WHERE refclassid = 'pg_catalog.pg_proc'::regclass
    UNION
    SELECT o.oprcode::oid FROM depends JOIN pg_catalog.pg_operator o ON o.oid = refobjid
     WHERE refclassid = 'pg_catalog.pg_operator'::regclass
)
SELECT c.relkind::text, c.oid, refobjsubid, NULL
  FROM depends JOIN pg_catalog.pg_class c ON c.oid = refobjid
 WHERE refclassid = 'pg_catalog.pg_class'::regclass AND c.oid <> $1
UNION ALL
SELECT 'w' || c.relkind::text, c.oid, 0, NULL
  FROM (SELECT DISTINCT (regexp_matches(body, ':varattno 0 :vartype ([0-9]+)', 'g'))[1]::oid
          FROM node) AS row_type (oid)
  JOIN pg_catalog.pg_type t ON t.oid = row_type.oid
  JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT CASE WHEN p.prosqlbody IS NULL THEN 'opaque' ELSE 'function' END, p.oid, 0,
       p.oid::regprocedure::text
  FROM called JOIN pg_catalog.pg_proc p ON p.oid = called.oid
 WHERE p.oid <> $1
   -- An immutable function reads no table; an extension's own have none to read.
   AND p.provolatile <> 'i'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                    WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid
                      AND e.deptype = 'e')";

/// Prepares a statement, and finds out what it reads if this role may create temporary
/// functions.
pub async fn describe(
    client: &SqlClient,
    sql: &str,
    may_create: bool,
) -> Result<Described, ReadsError> {
    let statement = client.prepare(sql).await.map_err(|error| refused(error, sql))?;
    let mut described = Described::default();
    for parameter in statement.params() {
        let row = client
            .query_one("SELECT pg_catalog.format_type($1, NULL)", &[&parameter.oid()])
            .await
            .map_err(PgError::from)?;
        described.parameters.push(row.try_get(0).map_err(PgError::from)?);
    }
    for column in statement.columns() {
        described.columns.push(ResultColumn {
            name: column.name().to_owned(),
            type_name: match column.type_().kind() {
                Kind::Domain(base) => base.name().to_owned(),
                _ => column.type_().name().to_owned(),
            },
            origin: column.table_oid().zip(column.column_id()),
        });
    }
    if may_create {
        client.batch_execute("BEGIN READ WRITE").await.map_err(PgError::from)?;
        let reads = reads(client, sql, &described.parameters).await;
        client.batch_execute("ROLLBACK").await.map_err(PgError::from)?;
        described.reads = reads?;
    }
    Ok(described)
}

async fn reads(client: &SqlClient, sql: &str, parameters: &[String]) -> Result<Reads, ReadsError> {
    let head = format!(
        "CREATE FUNCTION pg_temp.unstale_reads({}) RETURNS SETOF record LANGUAGE sql BEGIN ATOMIC\n",
        parameters.join(", ")
    );
    client
        .batch_execute(&format!("{head}{sql}\n;\nEND"))
        .await
        .map_err(|error| refused_within(error, &head, sql))?;
    let function = client
        .query_one(
            "SELECT oid FROM pg_catalog.pg_proc
              WHERE proname = 'unstale_reads' AND pronamespace = pg_my_temp_schema()",
            &[],
        )
        .await
        .map_err(PgError::from)?;
    let start: u32 = function.try_get(0).map_err(PgError::from)?;
    Ok(follow(client, start).await?)
}

async fn follow(client: &SqlClient, start: u32) -> Result<Reads, PgError> {
    let mut reads = Reads::default();
    let mut nodes = vec![(start, "f")];
    let mut seen = BTreeSet::from([start]);
    while let Some((oid, kind)) = nodes.pop() {
        for row in client.query(REFERENCES, &[&oid, &kind]).await? {
            let (what, oid, column): (&str, u32, i32) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if oid < FIRST_OF_USERS {
                continue;
            }
            if kind == "f" && matches!(what, "r" | "p" | "m" | "f" | "v") {
                reads.selected.insert(oid);
            }
            match what {
                "v" | "wv" if seen.insert(oid) => nodes.push((oid, "v")),
                "function" if seen.insert(oid) => nodes.push((oid, "f")),
                "opaque" => {
                    reads.opaque.insert(row.try_get(3)?);
                }
                "r" | "p" | "m" | "f" => {
                    let columns = reads.columns.entry(oid).or_default();
                    columns.extend(i16::try_from(column).ok().filter(|number| *number > 0));
                }
                "wr" | "wp" | "wm" | "wf" => {
                    reads.columns.entry(oid).or_default();
                    reads.whole.insert(oid);
                }
                // Seen already; sequences, composite types.
                _ => {}
            }
        }
    }
    Ok(reads)
}

fn refused(error: tokio_postgres::Error, sql: &str) -> ReadsError {
    refused_within(error, "", sql)
}

/// What the server says of a statement that stands behind `head`. Whether the connection
/// is to blame is another matter.
fn refused_within(error: tokio_postgres::Error, head: &str, sql: &str) -> ReadsError {
    let Some(reported) = error.as_db_error() else { return PgError::from(error).into() };
    // Shutdown, resources, operators: nothing about the statement.
    if matches!(reported.code().code().get(..2), Some("57" | "53" | "58" | "08" | "XX" | "55")) {
        return PgError::from(error).into();
    }
    let offset = match reported.position() {
        Some(ErrorPosition::Original(character)) => usize::try_from(*character)
            .ok()
            .and_then(|character| character.checked_sub(1 + head.chars().count()))
            .map(|character| {
                sql.char_indices().nth(character).map_or(sql.len(), |(offset, _)| offset)
            }),
        _ => None,
    };
    ReadsError::Statement {
        message: reported.message().to_owned(),
        hint: reported.hint().map(str::to_owned),
        offset,
    }
}
