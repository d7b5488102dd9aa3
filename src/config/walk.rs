//! The values of a TOML text, each with its place.

use std::collections::BTreeMap;
use std::ops::Range;

use figment::value::{Dict, Value};
use toml_edit::{Item, TableLike};

use super::problem::{ConfigPath, Problem, Segment};
use super::redact::{Exposure, exposure, url_secrets};

/// Collects values and places from a parsed file.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) spans: BTreeMap<ConfigPath, Spans>,
    pub(super) problems: Vec<Problem>,
}

#[derive(Default)]
pub(super) struct Spans {
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Option<Range<usize>>,
    scalar: bool,
}

impl Walk {
    pub(super) fn table(&mut self, table: &dyn TableLike, path: &ConfigPath) -> Dict {
        let mut values = Dict::new();
        for (name, item) in table.iter() {
            let at = path.child(name);
            let key = table.get_key_value(name).and_then(|(key, _)| key.span());
            self.spans.entry(at.clone()).or_default().key = key;
            values.extend(self.item(item, &at).map(|value| (name.to_owned(), value)));
        }
        values
    }

    fn item(&mut self, item: &Item, path: &ConfigPath) -> Option<Value> {
        let spot = self.spans.entry(path.clone()).or_default();
        spot.value = item.span();
        match item {
            Item::None => None,
            Item::Table(table) => Some(Value::from(self.table(table, path))),
            Item::ArrayOfTables(tables) => {
                let mut values = Vec::new();
                for (index, table) in tables.iter().enumerate() {
                    let at = path.child(index);
                    self.spans.entry(at.clone()).or_default().value = table.span();
                    values.push(Value::from(self.table(table, &at)));
                }
                Some(Value::from(values))
            }
            Item::Value(value) => Some(self.value(value, path)),
        }
    }

    fn value(&mut self, value: &toml_edit::Value, path: &ConfigPath) -> Value {
        let spot = self.spans.entry(path.clone()).or_default();
        spot.value = value.span();
        spot.scalar = !value.is_array() && !value.is_inline_table();
        match value {
            toml_edit::Value::String(text) => Value::from(text.value().as_str()),
            toml_edit::Value::Integer(number) => Value::from(*number.value()),
            toml_edit::Value::Float(number) => Value::from(*number.value()),
            toml_edit::Value::Boolean(truth) => Value::from(*truth.value()),
            toml_edit::Value::Datetime(time) => {
                self.problems.push(
                    Problem::new(path.clone(), "no setting is a date or a time").hint(
                        "put a text in double quotes; a length of time is written like \"15m\"",
                    ),
                );
                Value::from(time.value().to_string())
            }
            toml_edit::Value::Array(array) => {
                let values = array.iter().enumerate();
                Value::from(
                    values
                        .map(|(index, value)| self.value(value, &path.child(index)))
                        .collect::<Vec<_>>(),
                )
            }
            toml_edit::Value::InlineTable(table) => Value::from(self.table(table, path)),
        }
    }

    /// What must not be shown.
    pub(super) fn secrets(&self, text: &str) -> Vec<Range<usize>> {
        let mut secrets = Vec::new();
        for (path, spans) in self.spans.iter().filter(|(_, spans)| spans.scalar) {
            let Some(span) = &spans.value else { continue };
            let value = text.get(span.clone()).unwrap_or_default();
            match exposure(path) {
                Exposure::Shown => continue,
                Exposure::Hidden => secrets.push(span.clone()),
                Exposure::Url => secrets.extend(
                    url_secrets(value)
                        .into_iter()
                        .map(|r| span.start + r.start..span.start + r.end),
                ),
            }
            // A comment behind it may be what it was before.
            let rest =
                text.get(span.end..).and_then(|rest| rest.lines().next()).unwrap_or_default();
            if rest.trim_start().starts_with('#') {
                secrets.push(span.end..span.end + rest.len());
            }
        }
        secrets
    }
}

/// A value that came from a text, for [`super::overrides`].
pub(super) fn parse_value(text: &str) -> Option<Value> {
    let value = text.parse::<toml_edit::Value>().ok()?;
    Some(Walk::default().value(&value, &ConfigPath::root()))
}

/// A value deep in tables: `a.b = value` as `{ a = { b = value } }`.
pub(super) fn nested(path: &ConfigPath, value: Value) -> Option<Dict> {
    let mut value = value;
    for segment in path.0.iter().rev() {
        let Segment::Key(key) = segment else { return None };
        value = Value::from(Dict::from([(key.clone(), value)]));
    }
    value.into_dict()
}
