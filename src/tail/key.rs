//! Which row a change is of: the values of its key's columns.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use crate::config::model::Operation;
use crate::pgoutput::message::{OldTuple, Relation, ReplicaIdentity, Tuple, Value};

/// Where the columns of a table's key stand in its tuples.
#[derive(Debug)]
pub(super) struct KeyColumns {
    columns: Vec<KeyColumn>,
    /// Whether every old row, if one is sent, holds them.
    full: bool,
}

#[derive(Debug)]
struct KeyColumn {
    /// The place in the tuple.
    at: usize,
    name: Box<str>,
    scalar: Scalar,
}

/// How a value is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scalar {
    Number,
    Bool,
    Text,
}

impl KeyColumns {
    /// The key of a table with this primary key (as the catalog has it now).
    pub(super) fn new(relation: &Relation, primary_key: &[Box<str>]) -> Self {
        let place = |name: &str| relation.columns.iter().position(|c| *c.name == *name);
        let full = relation.identity == ReplicaIdentity::Full;
        // The catalog may be ahead of the stream: a key that is not there yet is none.
        let primary: Option<Vec<usize>> = primary_key.iter().map(|name| place(name)).collect();
        let carried = |at: &usize| relation.columns.get(*at).is_some_and(|c| c.key);
        let places = match primary {
            Some(places) if !places.is_empty() && places.iter().all(carried) => places,
            _ if full => Vec::new(),
            _ => {
                let keys = relation.columns.iter().enumerate().filter(|(_, column)| column.key);
                keys.map(|(at, _)| at).collect()
            }
        };
        let columns = places.into_iter().filter_map(|at| {
            let column = relation.columns.get(at)?;
            let scalar = match Type::from_oid(column.type_id) {
                Some(
                    Type::INT2
                    | Type::INT4
                    | Type::INT8
                    | Type::OID
                    | Type::NUMERIC
                    | Type::FLOAT4
                    | Type::FLOAT8,
                ) => Scalar::Number,
                Some(Type::BOOL) => Scalar::Bool,
                _ => Scalar::Text,
            };
            Some(KeyColumn { at, name: column.name.clone(), scalar })
        });
        KeyColumns { columns: columns.collect(), full }
    }

    /// The key of the row that was changed (of an INSERT the new row's), and the new one if
    /// an UPDATE changed it.
    pub(super) fn of_change<'a>(
        &'a self,
        operation: Operation,
        old: Option<OldTuple<'a>>,
        new: Option<Tuple<'a>>,
    ) -> (Option<RowKey<'a>>, Option<RowKey<'a>>) {
        if self.columns.is_empty() {
            return (None, None);
        }
        let old = old.map(|old| self.read(old.tuple(), None));
        let new = new.map(|new| self.read(new, old.as_ref().filter(|_| self.full)));
        match (operation, old, new) {
            (Operation::Update, Some(old), Some(new)) if old.values == new.values => {
                (Some(old), None)
            }
            (Operation::Update, Some(old), new) => (Some(old), new),
            // Without an old row the key has not changed.
            (Operation::Update | Operation::Insert, _, new) => (new, None),
            (Operation::Delete | Operation::Truncate, old, _) => (old, None),
        }
    }

    /// `old` stands in for what an UPDATE did not touch and so did not send.
    fn read<'a>(&'a self, tuple: Tuple<'a>, old: Option<&RowKey<'a>>) -> RowKey<'a> {
        let value = |(index, column): (usize, &KeyColumn)| match tuple.iter().nth(column.at) {
            Some(Value::Text(text)) => Some(text),
            Some(Value::Unchanged) => {
                old.and_then(|old| old.values.get(index).copied()).unwrap_or_default()
            }
            Some(Value::Null | Value::Binary(_)) | None => None,
        };
        let values = self.columns.iter().enumerate().map(value).collect();
        RowKey { columns: &self.columns, values }
    }
}

/// A row's key: an object in JSON, `column=value …` in text.
#[derive(Debug)]
pub(super) struct RowKey<'a> {
    columns: &'a [KeyColumn],
    values: Vec<Option<&'a [u8]>>,
}

impl RowKey<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&KeyColumn, Option<&[u8]>)> {
        self.columns.iter().zip(self.values.iter().copied())
    }
}

impl Serialize for RowKey<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (column, value) in self.pairs() {
            let name = &*column.name;
            let Some(value) = value else {
                map.serialize_entry(name, &None::<()>)?;
                continue;
            };
            let text = String::from_utf8_lossy(value);
            match (column.scalar, &*text) {
                (Scalar::Bool, "t") => map.serialize_entry(name, &true)?,
                (Scalar::Bool, "f") => map.serialize_entry(name, &false)?,
                // With the digits that the server sent. NaN and Infinity are no JSON.
                (Scalar::Number, number) => match RawValue::from_string(number.to_owned()) {
                    Ok(raw) => map.serialize_entry(name, &raw)?,
                    Err(_) => map.serialize_entry(name, number)?,
                },
                (_, text) => map.serialize_entry(name, text)?,
            }
        }
        map.end()
    }
}

impl fmt::Display for RowKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (column, value)) in self.pairs().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}=", column.name)?;
            match value.map(String::from_utf8_lossy) {
                None => f.write_str("null")?,
                Some(text) if is_plain(&text) => f.write_str(&text)?,
                // In quotes, and nothing in it may move a terminal's cursor.
                Some(text) => write!(f, "{text:?}")?,
            }
        }
        Ok(())
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text != "null"
        && text.chars().all(|c| c.is_alphanumeric() || "_-.:+@/".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::encode;
    use crate::pgoutput::message::RelationColumn;

    fn relation(identity: ReplicaIdentity, columns: &[(&str, Type, bool)]) -> Relation {
        let column = |(name, r#type, key): &(&str, Type, bool)| RelationColumn {
            key: *key,
            name: (*name).into(),
            type_id: r#type.oid(),
            type_modifier: -1,
        };
        Relation {
            id: 1,
            namespace: "public".into(),
            name: "t".into(),
            identity,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn json(key: Option<RowKey<'_>>) -> String {
        serde_json::to_string(&key).unwrap()
    }

    #[test]
    fn numbers_keep_their_digits_and_what_is_no_json_number_is_a_text() {
        let relation = relation(
            ReplicaIdentity::Default,
            &[
                ("n", Type::NUMERIC, true),
                ("b", Type::BOOL, true),
                ("other", Type::TEXT, false),
                ("f", Type::FLOAT8, true),
                ("t", Type::TEXT, true),
            ],
        );
        let columns = KeyColumns::new(&relation, &["n".into(), "b".into(), "f".into(), "t".into()]);
        let wire = encode::tuple(&[
            Value::Text(b"12345678901234567890.10"),
            Value::Text(b"t"),
            Value::Text(b"secret"),
            Value::Text(b"NaN"),
            Value::Text(b"a \x1b[2J"),
        ]);
        let (tuple, _) = Tuple::parse(&wire).unwrap();
        let (key, new) = columns.of_change(Operation::Insert, None, Some(tuple));
        assert!(new.is_none());
        let shown = key.as_ref().unwrap().to_string();
        assert_eq!(shown, r#"n=12345678901234567890.10 b=t f=NaN t="a \u{1b}[2J""#);
        assert_eq!(
            json(key),
            r#"{"n":12345678901234567890.10,"b":true,"f":"NaN","t":"a \u001b[2J"}"#
        );
    }

    #[test]
    fn full_without_a_primary_key_shows_no_value() {
        let relation = relation(ReplicaIdentity::Full, &[("a", Type::TEXT, true)]);
        let columns = KeyColumns::new(&relation, &[]);
        let wire = encode::tuple(&[Value::Text(b"secret")]);
        let (tuple, _) = Tuple::parse(&wire).unwrap();
        let (old, new) =
            columns.of_change(Operation::Update, Some(OldTuple::Full(tuple)), Some(tuple));
        assert!(old.is_none() && new.is_none());
    }

    #[test]
    fn an_update_shows_the_row_that_it_changed_and_what_its_key_became() {
        let relation = relation(
            ReplicaIdentity::Full,
            &[("a", Type::INT4, true), ("big", Type::TEXT, true), ("v", Type::TEXT, true)],
        );
        let columns = KeyColumns::new(&relation, &["a".into(), "big".into()]);
        let old = encode::tuple(&[Value::Text(b"1"), Value::Text(b"x"), Value::Null]);
        let new = encode::tuple(&[Value::Text(b"2"), Value::Unchanged, Value::Null]);
        let same = encode::tuple(&[Value::Text(b"1"), Value::Unchanged, Value::Text(b"y")]);
        let old = OldTuple::Full(Tuple::parse(&old).unwrap().0);
        let (new, same) = (Tuple::parse(&new).unwrap().0, Tuple::parse(&same).unwrap().0);
        let (key, changed) = columns.of_change(Operation::Update, Some(old), Some(new));
        assert_eq!(json(key), r#"{"a":1,"big":"x"}"#);
        assert_eq!(json(changed), r#"{"a":2,"big":"x"}"#);
        let (key, changed) = columns.of_change(Operation::Update, Some(old), Some(same));
        assert_eq!(json(key), r#"{"a":1,"big":"x"}"#);
        assert!(changed.is_none());
    }

    #[test]
    fn an_index_that_lacks_the_primary_key_is_the_key_itself() {
        let relation = relation(
            ReplicaIdentity::Index,
            &[("id", Type::INT4, false), ("code", Type::TEXT, true)],
        );
        let columns = KeyColumns::new(&relation, &["id".into()]);
        let wire = encode::tuple(&[Value::Null, Value::Text(b"x")]);
        let old = OldTuple::Key(Tuple::parse(&wire).unwrap().0);
        let (key, _) = columns.of_change(Operation::Delete, Some(old), None);
        assert_eq!(json(key), r#"{"code":"x"}"#);
    }
}
