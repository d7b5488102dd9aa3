//! The explanation: as JSON for machines, as text for people.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::row::identity_name;
use crate::config::model::Operation;
use crate::mapping::changes::ChangeSet;
use crate::mapping::model::RuleId;
use crate::mapping::name::{Quoted, TableName};
use crate::pgoutput::message::Relation;
use crate::postgres::error::PgError;

/// What a change reaches.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: String,
    table: String,
    operation: &'static str,
    /// `null`: not known.
    pub(super) replica_identity: Option<&'static str>,
    pub(super) rules: Vec<RuleReport>,
    /// Everything that goes, by key.
    keys: BTreeSet<String>,
    /// The caches that go as a whole.
    whole: BTreeSet<String>,
    /// What the table, or a query, lacks: until it is mended, whole caches go.
    pub(super) problems: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// What one rule makes of it.
#[derive(Debug, Serialize)]
pub(super) struct RuleReport {
    #[serde(skip)]
    pub(super) id: RuleId,
    rule: String,
    cache: String,
    pub(super) keys: Vec<String>,
    /// Why the whole cache goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) whole: Option<&'static str>,
    /// Why nothing goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nothing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lookup: Option<Lookup>,
}

/// The rows of `changed` that the rule's query is given.
#[derive(Debug, Serialize)]
pub(super) struct Lookup {
    columns: Vec<Box<str>>,
    pub(super) rows: Vec<Vec<Option<String>>>,
    /// Whether it was run.
    ran: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Lookup {
    pub(super) fn new(columns: Vec<Box<str>>, rows: Vec<Vec<Option<String>>>) -> Self {
        Lookup { columns, rows, ran: false, error: None }
    }
}

impl RuleReport {
    pub(super) fn new(id: RuleId, rule: String, cache: String) -> Self {
        RuleReport { id, rule, cache, keys: Vec::new(), whole: None, nothing: None, lookup: None }
    }

    /// Takes in what the query found.
    pub(super) fn found(&mut self, changes: &ChangeSet) {
        self.keys = changes.keys().map(|(key, _)| key.to_string()).collect();
        self.keys.sort_unstable();
        self.whole = changes.whole().next().map(|(_, reason, _)| reason.as_str());
        if changes.is_empty() {
            self.nothing = Some("its query finds nothing".to_owned());
        }
        if let Some(lookup) = &mut self.lookup {
            lookup.ran = true;
        }
    }

    /// The query failed.
    pub(super) fn failed(&mut self, error: &PgError) {
        self.whole = Some(crate::mapping::changes::Escalation::LookupFailed.as_str());
        if let Some(lookup) = &mut self.lookup {
            lookup.error = Some(error.to_string());
        }
    }
}

impl Report {
    pub(super) fn new(table: &TableName, operation: Operation, relation: &Relation) -> Self {
        Report {
            schema: table.schema.to_string(),
            table: table.table.to_string(),
            operation: operation.as_str(),
            replica_identity: Some(identity_name(relation.identity)),
            rules: Vec::new(),
            keys: BTreeSet::new(),
            whole: BTreeSet::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn without_rules(
        table: &TableName,
        operation: Operation,
        relation: &Relation,
    ) -> Self {
        let mut report = Report::new(table, operation, relation);
        report.notes.push(format!("no rule is for the table {table}: its changes reach nothing"));
        report
    }

    /// Gathers what the rules yield.
    pub(super) fn sum_up(&mut self) {
        for rule in &self.rules {
            if rule.whole.is_some() {
                self.whole.insert(rule.cache.clone());
            }
            self.keys.extend(rule.keys.iter().cloned());
            if let Some(error) = rule.lookup.as_ref().and_then(|lookup| lookup.error.as_ref()) {
                self.problems.push(format!("{}: its query failed: {error}", rule.rule));
            }
        }
    }

    /// Whether something has to be mended.
    #[must_use]
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = TableName::new(&self.schema, &self.table);
        write!(f, "{} of {table}", self.operation)?;
        if let Some(identity) = self.replica_identity {
            write!(f, " (replica identity: {identity})")?;
        }
        writeln!(f)?;
        for rule in &self.rules {
            write!(f, "\n{rule}")?;
        }
        for (kind, texts) in [("problem", &self.problems), ("note", &self.notes)] {
            for text in texts {
                write!(f, "\n{kind}: {text}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for RuleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.rule)?;
        if let Some(lookup) = &self.lookup {
            for row in &lookup.rows {
                let pairs = lookup.columns.iter().zip(row).map(|(column, value)| {
                    let value =
                        value.as_ref().map_or("null".to_owned(), |text| format!("{text:?}"));
                    format!("{} = {value}", Quoted(column))
                });
                let how = if lookup.ran { "looked up" } else { "would look up" };
                writeln!(f, "    {how} {}", pairs.collect::<Vec<_>>().join(", "))?;
            }
        }
        for key in &self.keys {
            writeln!(f, "    {key}")?;
        }
        if let Some(reason) = self.whole {
            writeln!(f, "    the whole cache {}: {}", self.cache, in_words(reason))?;
        }
        if let Some(why) = &self.nothing {
            writeln!(f, "    nothing: {why}")?;
        }
        Ok(())
    }
}

fn in_words(reason: &str) -> String {
    let words = match reason {
        "old_value_unknown" => "the stream does not carry an old value that the key is made of",
        "truncate" => "nobody knows which rows there were",
        "column_gone" => "a column that the rule reads is not there",
        "rule" => "the rule says so",
        "lookup_failed" => "the rule's query failed",
        other => return other.to_owned(),
    };
    format!("{words} ({reason})")
}
