//! What a rule's `via` reads of `changed`.
//!
//! The query is not understood, only cut into tokens, so that comments and texts are told
//! from names. Whatever it reads of `changed` is written `changed.column`: the set is then
//! built with exactly these columns ([`super::lookup`]), and anything else (an alias, a
//! bare column) fails when Postgres prepares the statement, never silently.

use std::collections::BTreeSet;
use std::ops::Range;

use super::token::{Token, TokenError, tokens};

/// A `via` query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The query without a semicolon at its end.
    pub sql: Box<str>,
    /// The columns of `changed` that it reads, in alphabetical order; never empty.
    pub columns: Vec<Box<str>>,
}

/// Why a text can be no `via`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ViaError {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do next.
    pub hint: &'static str,
    /// Where in the text.
    pub span: Range<usize>,
}

impl Via {
    /// Finds the columns of `changed` in a query.
    ///
    /// # Errors
    /// If it reads none, all at once (`changed.*`), or is not one statement.
    pub fn parse(text: &str) -> Result<Self, ViaError> {
        const HINT: &str = "write every column of the changed rows as changed.column";
        let mut tokens = tokens(text).map_err(|TokenError { message, span }| ViaError {
            message,
            hint: "close it",
            span,
        })?;
        let mut sql = text.trim_end();
        while let Some((Token::Byte(b';'), span)) = tokens.last() {
            sql = text.get(..span.start).unwrap_or_default().trim_end();
            tokens.pop();
        }
        let mut columns = BTreeSet::new();
        let mut mentioned = None;
        for (at, (token, span)) in tokens.iter().enumerate() {
            let near = |offset: usize| tokens.get(at + offset).map(|(token, _)| token);
            let fail = |message: &str, hint| {
                Err(ViaError { message: message.to_owned(), hint, span: span.clone() })
            };
            match token {
                Token::Byte(b';') => return fail("one query only", "leave out what follows it"),
                Token::Parameter(_) => {
                    return fail(
                        "a via has no parameters",
                        "read the changed rows as changed.column",
                    );
                }
                // schema.changed is a table of that name.
                Token::Name(name)
                    if name == "changed"
                        && (at == 0
                            || tokens.get(at - 1).is_none_or(|(t, _)| *t != Token::Byte(b'.'))) =>
                {
                    mentioned.get_or_insert_with(|| span.clone());
                    match (near(1), near(2)) {
                        (Some(Token::Byte(b'.')), Some(Token::Name(column))) => {
                            columns.insert(column.as_str());
                        }
                        (Some(Token::Byte(b'.')), _) => {
                            return fail("changed has no columns but those that are named", HINT);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        if columns.is_empty() {
            let message = match mentioned {
                Some(_) => "it names no column of changed, and so finds the same for every change",
                None => "it does not read changed, and so finds the same for every change",
            };
            return Err(ViaError {
                message: message.to_owned(),
                hint: HINT,
                span: mentioned.unwrap_or(0..text.len()),
            });
        }
        Ok(Via { sql: sql.into(), columns: columns.into_iter().map(Into::into).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn columns(text: &str) -> Vec<String> {
        let via = Via::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        via.columns.into_iter().map(Into::into).collect()
    }

    #[test]
    fn every_column_of_changed_is_found_and_nothing_else() {
        for (text, expected) in [
            ("select 1 from changed where changed.a = 1", vec!["a"]),
            ("select Changed . B, \"changed\".\"C d\", changed.b", vec!["C d", "b"]),
            (
                "select changed.a -- changed.no\n, '; changed.no' /* changed.no /* ; */ */",
                vec!["a"],
            ),
            ("select E'\\' changed.no', $q$ ; changed.no $q$, $$'$$, changed.a", vec!["a"]),
            ("select x.changed.no, unchanged.no, changed2.no, changed.a", vec!["a"]),
            ("select 1.e5, 1.0changed, changed.a /* a", vec![]),
        ] {
            match expected.is_empty() {
                true => assert!(Via::parse(text).is_err(), "{text}"),
                false => assert_eq!(columns(text), expected, "{text}"),
            }
        }
    }

    #[test]
    fn a_semicolon_at_the_end_is_cut_and_one_within_refused() {
        let via = Via::parse("select changed.a ; -- all of it\n").expect("one statement");
        assert_eq!(&*via.sql, "select changed.a");
        assert_eq!(&*Via::parse("select changed.a;;").expect("one").sql, "select changed.a");
        let two = Via::parse("select changed.a; select 2").expect_err("two statements");
        assert_eq!(two.span, 16..17);
    }

    #[test]
    fn what_does_not_read_changed_is_refused() {
        assert!(Via::parse("select id from users").is_err());
        assert_eq!(Via::parse("select c.a from changed c").expect_err("alias").span, 16..23);
        assert!(Via::parse("select changed.* from changed").is_err());
        assert!(Via::parse("select changed.a where x = $1").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_via_or_an_error(text in "(changed|\\.|\\$|'|\"|/\\*|\\*/|--|;|\\\\|e|é|1|\n| ){0,12}") {
            if let Err(error) = Via::parse(&text) {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
            }
        }
    }
}
