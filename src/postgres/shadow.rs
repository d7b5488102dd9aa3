//! Whether a statement reads rows of a kind: the planner is asked.
//!
//! An empty temporary table of the same name shadows the real one, with a CHECK that admits
//! rows of that kind only. If the planner can prove from it that the statement finds none
//! (`constraint_exclusion`), the plan has no scan of the table. All in a transaction that is
//! rolled back. A name with its schema cannot be shadowed, nor what a view reads: then
//! there is no answer.

use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

use super::client::SqlClient;
use super::error::PgError;
use crate::mapping::name::{Quoted, TableName};

/// A kind of rows: those where a column is null, or is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKind {
    /// The table.
    pub table: TableName,
    /// The column.
    pub column: String,
    /// Whether it is null there.
    pub null: bool,
}

/// Whether the plan of a statement has a scan for rows of the kind; `None` if that cannot
/// be told.
pub async fn reads(
    client: &SqlClient,
    sql: &str,
    parameters: &[String],
    kind: &RowKind,
) -> Result<Option<bool>, PgError> {
    let name = Quoted(&kind.table.table);
    let negation = if kind.null { "" } else { "NOT " };
    let types = match parameters {
        [] => String::new(),
        types => format!("({})", types.join(", ")),
    };
    let prepare = format!(
        "BEGIN READ WRITE;
         SET LOCAL constraint_exclusion = on;
         SET LOCAL plan_cache_mode = force_generic_plan;
         CREATE TEMPORARY TABLE {name} (LIKE {}, CHECK ({} IS {negation}NULL)) ON COMMIT DROP",
        kind.table.qualified(),
        Quoted(&kind.column),
    );
    let explain = match parameters.len() {
        0 => "EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE unstale_shadow".to_owned(),
        count => {
            let nulls = vec!["NULL"; count].join(", ");
            format!("EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE unstale_shadow({nulls})")
        }
    };
    let mut prepared = false;
    let answer = async {
        client.batch_execute(&prepare).await?;
        client.batch_execute(&format!("PREPARE unstale_shadow{types} AS {sql}")).await?;
        prepared = true;
        client.simple_query(&explain).await
    }
    .await;
    client.batch_execute("ROLLBACK").await?;
    if prepared {
        client.batch_execute("DEALLOCATE unstale_shadow").await?;
    }
    match answer {
        Ok(messages) => {
            let plan = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => serde_json::from_str(row.get(0)?).ok(),
                _ => None,
            });
            Ok(plan.and_then(|plan: Value| scanned(&plan, &kind.table)))
        }
        // A statement that cannot be planned this way: no answer.
        Err(error) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `Some(true)` for a scan of the shadow, `None` for one of the real table.
fn scanned(plan: &Value, table: &TableName) -> Option<bool> {
    let mut found = false;
    let mut parts = vec![plan];
    while let Some(part) = parts.pop() {
        match part {
            Value::Array(items) => parts.extend(items),
            Value::Object(fields) => {
                if fields.get("Relation Name").and_then(Value::as_str) == Some(&*table.table) {
                    let schema = fields.get("Schema").and_then(Value::as_str).unwrap_or_default();
                    if schema == &*table.schema {
                        return None;
                    }
                    found |= schema.starts_with("pg_temp");
                }
                parts.extend(fields.values());
            }
            _ => {}
        }
    }
    Some(found)
}
