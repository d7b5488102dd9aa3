//! The statement of a rule's `via`: one for a whole batch of changed rows.
//!
//! ```sql
//! WITH changed AS (
//!   SELECT t.c0::pg_catalog.int8 AS "role_id" FROM unnest($1::text[]) AS t(c0)
//! )
//! SELECT DISTINCT (v."user_id")::text, (v."org_id")::text FROM (
//! …the via…
//! ) AS v
//! ```
//!
//! Values go in and come out as text, as the stream and the keys have them; in between
//! they have their columns' types, so that joins use the indexes.

use crate::pgoutput::message::Relation;

use super::model::RuleId;
use super::types::TypeNames;
use super::via::Via;

/// A rule's query over `changed`, ready to be prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupPlan {
    /// The rule.
    pub rule: RuleId,
    /// The statement. Its parameters are one `text[]` for each of `columns`, in order; its
    /// result has one text column for each of `outputs`, null where there is no key.
    pub sql: String,
    /// The columns of `changed`.
    pub columns: Vec<Box<str>>,
    /// The parameters that it finds; none if any row at all drops the whole cache.
    pub outputs: Vec<String>,
    /// The via over `changed` as it is: for whoever wants to know what it reads and where
    /// its results come from.
    pub bare_sql: String,
}

impl LookupPlan {
    pub(super) fn new(
        rule: RuleId,
        via: &Via,
        outputs: Vec<String>,
        relation: &Relation,
        types: &TypeNames,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut changed = Vec::new();
        for (index, column) in via.columns.iter().enumerate() {
            let type_id = relation.columns.iter().find(|c| c.name == *column).map(|c| c.type_id);
            let cast = type_id.and_then(|id| types.sql_name(id)).map(|name| format!("::{name}"));
            if cast.is_none() {
                problems.push(format!(
                    "the type of column {column} was not announced: its via reads it as text"
                ));
            }
            changed.push(format!("t.c{index}{} AS {}", cast.unwrap_or_default(), quoted(column)));
        }
        let numbers = 0..via.columns.len();
        let arrays: Vec<String> = numbers.clone().map(|n| format!("${}::text[]", n + 1)).collect();
        let names: Vec<String> = numbers.map(|n| format!("c{n}")).collect();
        let (found, limit) = if outputs.is_empty() {
            ("1".to_owned(), " LIMIT 1")
        } else {
            let columns: Vec<String> =
                outputs.iter().map(|name| format!("(v.{})::text", quoted(name))).collect();
            (format!("DISTINCT {}", columns.join(", ")), "")
        };
        let changed = format!(
            "WITH changed AS (\n  SELECT {} FROM unnest({}) AS t({})\n)",
            changed.join(", "),
            arrays.join(", "),
            names.join(", "),
        );
        let sql = format!("{changed}\nSELECT {found} FROM (\n{}\n) AS v{limit}", via.sql);
        let bare_sql = format!("{changed}\nSELECT * FROM (\n{}\n) AS v", via.sql);
        LookupPlan { rule, sql, columns: via.columns.clone(), outputs, bare_sql }
    }
}

/// Always in quotes: a column may have any name.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
