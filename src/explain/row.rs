//! Rows as the user writes them (JSON), and as the stream would carry them. Pure.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::model::Operation;
use crate::config::problem::nearest;
use crate::mapping::name::Quoted;
use crate::pgoutput::encode;
use crate::pgoutput::error::DecodeError;
use crate::pgoutput::message::{OldTuple, Relation, ReplicaIdentity, Tuple, Value};

/// A row: columns by the names that the catalog holds.
#[derive(Debug, Clone)]
pub struct JsonRow(Vec<(String, Box<RawValue>)>);

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Number,
    Text,
    /// An object or an array.
    Structure,
}

impl JsonRow {
    /// Reads a JSON object. Numbers stay as they are written.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| {
            format!(
                "{error}; write a row as a JSON object, such as '{{\"id\": 7, \"name\": \"x\"}}'"
            )
        })
    }
}

impl<'de> Deserialize<'de> for JsonRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;

        impl<'de> Visitor<'de> for Columns {
            type Value = JsonRow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonRow, A::Error> {
                let mut row: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if row.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom(format_args!(
                            "column {name:?} is given twice"
                        )));
                    }
                    row.push((name, value));
                }
                Ok(JsonRow(row))
            }
        }

        deserializer.deserialize_map(Columns)
    }
}

/// A change as it was asked for.
#[derive(Debug, Clone)]
pub struct Change {
    /// What is done to the row.
    pub operation: Operation,
    old: Option<JsonRow>,
    new: Option<JsonRow>,
}

impl Change {
    /// Only a new row is an INSERT, only an old one a DELETE, both are an UPDATE, unless
    /// the operation says otherwise.
    ///
    /// # Errors
    /// If the operation has another number of rows.
    pub fn new(
        operation: Option<Operation>,
        new: Option<JsonRow>,
        old: Option<JsonRow>,
    ) -> Result<Self, &'static str> {
        let operation = match (operation, &new, &old) {
            (Some(operation), ..) => operation,
            (None, Some(_), None) => Operation::Insert,
            (None, Some(_), Some(_)) => Operation::Update,
            (None, None, Some(_)) => Operation::Delete,
            (None, None, None) => {
                return Err("give the new row, the old row (--old), both, or --operation truncate");
            }
        };
        match (operation, new.is_some(), old.is_some()) {
            (Operation::Insert, true, false)
            | (Operation::Update, true, _)
            | (Operation::Delete, false, true)
            | (Operation::Truncate, false, false) => Ok(Change { operation, old, new }),
            (Operation::Insert, ..) => Err("an INSERT has a new row and no old one (--old)"),
            (Operation::Update, ..) => Err("an UPDATE has a new row, and an old one (--old)"),
            (Operation::Delete, ..) => Err("a DELETE has an old row only: give it as --old"),
            (Operation::Truncate, ..) => Err("a TRUNCATE has no rows: leave them out"),
        }
    }

    fn rows(&self) -> impl Iterator<Item = &(String, Box<RawValue>)> {
        self.new.iter().chain(&self.old).flat_map(|row| &row.0)
    }

    /// The columns that are given.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.rows().map(|(name, _)| name.as_str())
    }

    /// What is given for a column, unless it is null.
    pub(super) fn scalar(&self, column: &str) -> Option<Scalar> {
        self.rows().filter(|(name, _)| name == column).find_map(|(_, raw)| scalar(raw))
    }

    /// Each column's value on both sides.
    ///
    /// # Errors
    /// If a row has a column that the table has not.
    pub(super) fn cells(&self, relation: &Relation) -> Result<Cells, String> {
        let side = |row: &Option<JsonRow>| -> Result<Vec<Option<Cell>>, String> {
            let mut cells = vec![None; relation.columns.len()];
            for (name, raw) in row.iter().flat_map(|row| &row.0) {
                let at = relation.columns.iter().position(|column| *column.name == **name);
                match at.and_then(|at| cells.get_mut(at)) {
                    Some(cell) => *cell = Some(value(raw)?),
                    None => return Err(unknown(name, relation)),
                }
            }
            Ok(cells)
        };
        Ok(Cells {
            operation: self.operation,
            old_given: self.old.is_some(),
            names: relation.columns.iter().map(|column| column.name.clone()).collect(),
            old: side(&self.old)?,
            new: side(&self.new)?,
        })
    }
}

fn unknown(name: &str, relation: &Relation) -> String {
    let known: Vec<&str> = relation.columns.iter().map(|column| &*column.name).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("it has {}", known.join(", ")),
    };
    format!("the table has no column {}; {hint}", Quoted(name))
}

fn scalar(raw: &RawValue) -> Option<Scalar> {
    match raw.get().bytes().next() {
        Some(b'n') => None,
        Some(b't' | b'f') => Some(Scalar::Bool),
        Some(b'"') => Some(Scalar::Text),
        Some(b'{' | b'[') => Some(Scalar::Structure),
        _ => Some(Scalar::Number),
    }
}

fn value(raw: &RawValue) -> Result<Cell, String> {
    Ok(match scalar(raw) {
        None => None,
        Some(Scalar::Bool) => raw.get().get(..1).map(str::to_owned),
        Some(Scalar::Text) => Some(serde_json::from_str(raw.get()).map_err(|e| e.to_string())?),
        Some(Scalar::Number | Scalar::Structure) => Some(raw.get().to_owned()),
    })
}

/// Null, or the text.
type Cell = Option<String>;

/// A change, column by column; `None`: not given.
pub(super) struct Cells {
    pub(super) operation: Operation,
    old_given: bool,
    names: Vec<Box<str>>,
    old: Vec<Option<Cell>>,
    new: Vec<Option<Cell>>,
}

impl Cells {
    /// The texts that are given for a column.
    pub(super) fn texts_mut(&mut self, column: &str) -> impl Iterator<Item = &mut String> {
        let at = self.names.iter().position(|name| **name == *column);
        [&mut self.old, &mut self.new]
            .into_iter()
            .filter_map(move |side| side.get_mut(at?)?.as_mut()?.as_mut())
    }

    /// Fills in what was not given; notes where that matters. `read` are the columns that
    /// rules read.
    pub(super) fn complete(&mut self, relation: &Relation, read: &BTreeSet<&str>) -> Vec<String> {
        let mut notes = Vec::new();
        let (mut nulls, mut lost) = (Vec::new(), Vec::new());
        let update = self.operation == Operation::Update;
        let has_old = matches!(self.operation, Operation::Update | Operation::Delete);
        let sides = self.old.iter_mut().zip(&mut self.new);
        for (column, (old, new)) in relation.columns.iter().zip(sides) {
            let name = &*column.name;
            let carried = column.key;
            if has_old && !carried && read.contains(name) {
                lost.push(Quoted(name).to_string());
            }
            let missing = match self.operation {
                Operation::Insert => new.is_none(),
                Operation::Delete => old.is_none() && carried,
                Operation::Update => old.is_none() && new.is_none(),
                Operation::Truncate => false,
            };
            if missing && read.contains(name) {
                nulls.push(Quoted(name).to_string());
            }
            if update {
                // What one row does not say is as the other says.
                let filled = (old.clone().or(new.clone()), new.clone().or(old.clone()));
                (*old, *new) = filled;
            }
        }
        if update && !self.old_given {
            notes.push(
                "no old row was given (--old): the change leaves every column as it was".to_owned(),
            );
        }
        if !nulls.is_empty() {
            notes.push(format!("not given, taken for null: {}", nulls.join(", ")));
        }
        if has_old && !relation.columns.iter().any(|column| column.key) {
            notes.push(format!(
                "the table's replica identity ({}) names no column: Postgres refuses UPDATE and DELETE while it is published",
                identity_name(relation.identity)
            ));
        } else if !lost.is_empty() {
            notes.push(format!(
                "the replica identity ({}) does not carry the old {}: unknown to the daemon, so more is dropped than need be (`unstale setup` gives the table a better one)",
                identity_name(relation.identity),
                lost.join(", ")
            ));
        }
        notes
    }

    /// The rows as `pgoutput` would send them.
    pub(super) fn wire(&self, relation: &Relation) -> Wire {
        fn as_value(cell: Option<&Cell>) -> Value<'_> {
            match cell {
                Some(Some(text)) => Value::Text(text.as_bytes()),
                Some(None) | None => Value::Null,
            }
        }
        let whole = |side: &[Option<Cell>]| {
            encode::tuple(&side.iter().map(|cell| as_value(cell.as_ref())).collect::<Vec<_>>())
        };
        let key = || {
            let cells = relation.columns.iter().zip(&self.old);
            let value = |(column, cell): (&crate::pgoutput::message::RelationColumn, _)| {
                let cell: &Option<Cell> = cell;
                if column.key { as_value(cell.as_ref()) } else { Value::Null }
            };
            encode::tuple(&cells.map(value).collect::<Vec<_>>())
        };
        let key_changed = || {
            let sides = self.old.iter().zip(&self.new);
            relation.columns.iter().zip(sides).any(|(column, (old, new))| column.key && old != new)
        };
        let full = relation.identity == ReplicaIdentity::Full;
        let old = match self.operation {
            Operation::Insert | Operation::Truncate => None,
            _ if full => Some(whole(&self.old)),
            Operation::Delete => Some(key()),
            Operation::Update => key_changed().then(key),
        };
        let new = matches!(self.operation, Operation::Insert | Operation::Update)
            .then(|| whole(&self.new));
        Wire { full, old, new }
    }
}

/// Encoded rows.
pub(super) struct Wire {
    full: bool,
    old: Option<Vec<u8>>,
    new: Option<Vec<u8>>,
}

impl Wire {
    pub(super) fn tuples(&self) -> Result<(Option<OldTuple<'_>>, Option<Tuple<'_>>), DecodeError> {
        fn read(row: &Option<Vec<u8>>) -> Result<Option<Tuple<'_>>, DecodeError> {
            row.as_deref().map(|row| Tuple::parse(row).map(|(tuple, _)| tuple)).transpose()
        }
        let kind = if self.full { OldTuple::Full } else { OldTuple::Key };
        Ok((read(&self.old)?.map(kind), read(&self.new)?))
    }
}

/// As SQL names it.
pub(super) fn identity_name(identity: ReplicaIdentity) -> &'static str {
    match identity {
        ReplicaIdentity::Default => "default",
        ReplicaIdentity::Nothing => "nothing",
        ReplicaIdentity::Full => "full",
        ReplicaIdentity::Index => "index",
    }
}
