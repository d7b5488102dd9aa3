//! Names of tables and columns, in SQL's notation.
//!
//! One notation everywhere in the configuration (table names, `columns`, parameters,
//! `where`): what is not in double quotes is folded to lower case, as Postgres folds it
//! (manual, "Identifiers and Key Words").

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Postgres cuts longer names off (`NAMEDATALEN` - 1), so they could never match.
const MAX_NAME_BYTES: usize = 63;

/// A table with its schema, exactly as the catalog spells both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, `public` unless said.
    pub schema: Box<str>,
    /// The table.
    pub table: Box<str>,
}

impl TableName {
    /// A table by the names that the catalog holds (not SQL notation).
    #[must_use]
    pub fn new(schema: &str, table: &str) -> Self {
        TableName { schema: schema.into(), table: table.into() }
    }

    /// With its schema in any case, for SQL that must not depend on `search_path`.
    #[must_use]
    pub fn qualified(&self) -> String {
        format!("{}.{}", Quoted(&self.schema), Quoted(&self.table))
    }
}

/// As one writes it in SQL: quotes where they are needed, no schema if it is `public`.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.schema != "public" {
            write!(f, "{}.", Quoted(&self.schema))?;
        }
        Quoted(&self.table).fmt(f)
    }
}

impl FromStr for TableName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = parse_dotted(text)?;
        match (parts.pop(), parts.pop(), parts.pop()) {
            (Some(table), None, _) => Ok(TableName::new("public", &table)),
            (Some(table), Some(schema), None) => Ok(TableName::new(&schema, &table)),
            _ => Err(NameError::new("a table is named table or schema.table", 0..text.len())),
        }
    }
}

/// Reads a column's name in SQL notation: `organization_id`, `"camelCase"`.
///
/// # Errors
/// If it is not exactly one identifier.
pub fn parse_column(text: &str) -> Result<Box<str>, NameError> {
    let mut parts = parse_dotted(text)?;
    match (parts.pop(), parts.pop()) {
        (Some(column), None) => Ok(column.into()),
        _ => Err(NameError::new("a column is named without its table", 0..text.len())),
    }
}

/// An identifier as SQL text: in double quotes unless it is the same without.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.bytes();
        let starts = bytes.next().is_some_and(|b| b == b'_' || b.is_ascii_lowercase());
        let plain = bytes.all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit());
        if starts && plain && RESERVED.binary_search(&self.0).is_err() {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", self.0.replace('"', "\"\""))
        }
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NameError {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where in the text.
    pub span: Range<usize>,
}

impl NameError {
    fn new(message: impl Into<String>, span: Range<usize>) -> Self {
        NameError { message: message.into(), span }
    }
}

fn parse_dotted(text: &str) -> Result<Vec<String>, NameError> {
    let mut rest = text.trim();
    let mut parts = Vec::new();
    loop {
        let at = text.len() - text.trim_start().len() + (text.trim().len() - rest.len());
        let (name, length) = read_identifier(rest).map_err(|message| {
            NameError::new(message, at..at + rest.chars().next().map_or(0, char::len_utf8))
        })?;
        if name.len() > MAX_NAME_BYTES {
            let message = format!("a name has {MAX_NAME_BYTES} bytes at most in Postgres");
            return Err(NameError::new(message, at..at + length));
        }
        parts.push(name);
        rest = rest.get(length..).unwrap_or_default();
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(parts),
            None => {
                let at = at + length;
                let message = "this is no part of a name: put names with other characters than \
                               letters, digits, _ and $ in double quotes";
                return Err(NameError::new(message, at..at + rest.len()));
            }
        }
    }
}

/// The identifier at the start of `text`, folded unless quoted, and how many bytes it takes.
pub(super) fn read_identifier(text: &str) -> Result<(String, usize), &'static str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = quoted.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != '"' {
                name.push(c);
            } else if chars.next_if(|(_, next)| *next == '"').is_some() {
                name.push('"');
            } else if name.is_empty() {
                return Err("a quoted name is empty");
            } else {
                // The opening quote, what came before the closing one, the closing one.
                return Ok((name, at + 2));
            }
        }
        return Err("a quoted name lacks its closing double quote");
    }
    let length = text
        .char_indices()
        .find(|&(at, c)| !(is_identifier_start(c) || at > 0 && (c.is_ascii_digit() || c == '$')))
        .map_or(text.len(), |(at, _)| at);
    match text.get(..length) {
        Some(name) if !name.is_empty() => Ok((name.to_ascii_lowercase(), length)),
        _ => {
            Err("a name is expected here: it begins with a letter or _, or stands in double quotes")
        }
    }
}

/// Whether an identifier without quotes may begin with it.
pub(super) fn is_identifier_start(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic() || !c.is_ascii()
}

/// What Postgres reserves (manual, appendix C: "reserved" and "reserved (can be function
/// or type)"); sorted.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization",
    "binary", "both", "case", "cast", "check", "collate", "collation", "column", "concurrently",
    "constraint", "create", "cross", "current_catalog", "current_date", "current_role",
    "current_schema", "current_time", "current_timestamp", "current_user", "default", "deferrable",
    "desc", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze",
    "from", "full", "grant", "group", "having", "ilike", "in", "initially", "inner", "intersect",
    "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit", "localtime",
    "localtimestamp", "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order",
    "outer", "overlaps", "placing", "primary", "references", "returning", "right", "select",
    "session_user", "similar", "some", "symmetric", "system_user", "table", "tablesample", "then",
    "to", "trailing", "true", "union", "unique", "user", "using", "variadic", "verbose", "when",
    "where", "window", "with",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(text: &str) -> (String, String) {
        let name: TableName = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
        (name.schema.into(), name.table.into())
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let pair = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        assert_eq!(table("Deals_Deal"), pair("public", "deals_deal"));
        assert_eq!(table(r#"Sales."Order Items""#), pair("sales", "Order Items"));
        assert_eq!(table(r#""a.b"."say ""hi""""#), pair("a.b", "say \"hi\""));
        assert_eq!(table("größe"), pair("public", "größe"));
        assert_eq!(table(" a.b$1 "), pair("a", "b$1"));
    }

    #[test]
    fn what_is_no_name_is_refused_where_it_goes_wrong() {
        for (text, at) in [
            ("", 0),
            (".a", 0),
            ("a.", 2),
            ("a.b.c", 0),
            ("order items", 5),
            ("\"open", 0),
            ("\"\"", 0),
            ("1a", 0),
            ("a-b", 1),
            ("a..b", 2),
            ("a. b", 2),
            ("\"a\"b", 3),
        ] {
            let error = text.parse::<TableName>().expect_err(text);
            assert_eq!(error.span.start, at, "{text:?}: {error}");
        }
        assert!("x".repeat(64).parse::<TableName>().is_err());
        assert!(parse_column("t.a").is_err());
    }

    #[test]
    fn quotes_stand_where_sql_needs_them() {
        let shown = |schema, table| TableName::new(schema, table).to_string();
        assert_eq!(shown("public", "deals_deal"), "deals_deal");
        assert_eq!(shown("sales", "Order Items"), r#"sales."Order Items""#);
        assert_eq!(shown("public", "user"), r#""user""#);
        assert_eq!(TableName::new("public", "a").qualified(), "public.a");
        assert!(RESERVED.is_sorted());
    }

    proptest! {
        #[test]
        fn every_name_survives_print_and_parse(schema in "\\PC{1,12}", name in "\\PC{1,12}") {
            let name = TableName::new(&schema, &name);
            prop_assert_eq!(name.to_string().parse(), Ok(name.clone()));
            prop_assert_eq!(name.qualified().parse(), Ok(name));
        }
    }
}
