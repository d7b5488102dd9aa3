//! Named parameters: `$org_id` in the file, `$1` on the wire.
//!
//! A name that stands in a text, a quoted name or a comment is none, and `$tag$` begins a
//! dollar-quoted text, as Postgres has it; so no parameter may be followed by a `$`.

use std::ops::Range;

use crate::mapping::token::{Token, TokenError, tokens};

/// A statement with numbered parameters, and the names that they had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parametrized {
    /// The statement as Postgres takes it, without a semicolon at its end.
    pub sql: String,
    /// The name of `$1`, of `$2`, and so on, each once, in the order of their appearance.
    pub names: Vec<String>,
    /// Each parameter's place in the text, and in `sql`.
    places: Vec<(Range<usize>, Range<usize>)>,
}

/// Why a text cannot be a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParameterError {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do next.
    pub hint: &'static str,
    /// Where in the text.
    pub span: Range<usize>,
}

impl Parametrized {
    /// Numbers the named parameters of one statement.
    ///
    /// # Errors
    /// If something is never closed, a parameter has a number, or it is more than one
    /// statement.
    pub fn parse(text: &str) -> Result<Parametrized, ParameterError> {
        let mut tokens = tokens(text).map_err(|TokenError { message, span }| ParameterError {
            message,
            hint: "close it",
            span,
        })?;
        let mut end = text.len();
        while let Some((Token::Byte(b';'), span)) = tokens.last() {
            end = span.start;
            tokens.pop();
        }
        let mut parsed = Parametrized { sql: String::new(), names: Vec::new(), places: Vec::new() };
        let mut copied = 0;
        for (token, span) in tokens {
            match token {
                Token::Byte(b';') => {
                    let message = "a query is one statement".to_owned();
                    return Err(ParameterError {
                        message,
                        hint: "leave out what follows it",
                        span,
                    });
                }
                Token::Parameter(name) => {
                    if name.starts_with(|c: char| c.is_ascii_digit()) {
                        let message = format!("the parameter ${name} has no name");
                        let hint = "write the name that the cache's key gives it, such as $org_id";
                        return Err(ParameterError { message, hint, span });
                    }
                    parsed.sql.push_str(text.get(copied..span.start).unwrap_or_default());
                    copied = span.end;
                    parsed.push(name, span);
                }
                Token::Name(_) | Token::Byte(_) => {}
            }
        }
        parsed.sql.push_str(text.get(copied..end).unwrap_or_default());
        Ok(parsed)
    }

    fn push(&mut self, name: String, place: Range<usize>) {
        let number = match self.names.iter().position(|known| *known == name) {
            Some(known) => known + 1,
            None => {
                self.names.push(name);
                self.names.len()
            }
        };
        let start = self.sql.len();
        self.sql.push('$');
        self.sql.push_str(&number.to_string());
        self.places.push((place, start..self.sql.len()));
    }

    /// Where in the text a place of `sql` comes from (both in bytes): of what stands within
    /// a parameter, the parameter.
    #[must_use]
    pub fn original(&self, offset: usize) -> usize {
        let mut moved = (0, 0);
        for (original, rewritten) in &self.places {
            if offset < rewritten.start {
                break;
            }
            if offset < rewritten.end {
                return original.start;
            }
            moved = (original.end, rewritten.end);
        }
        moved.0 + (offset - moved.1)
    }

    /// Where the text first names a parameter.
    #[must_use]
    pub fn place_of(&self, name: &str) -> Option<Range<usize>> {
        let number = self.names.iter().position(|known| known == name)? + 1;
        let numbered = format!("${number}");
        let found = self.places.iter().find(|(_, rewritten)| {
            self.sql.get(rewritten.clone()).is_some_and(|text| text == numbered)
        });
        found.map(|(original, _)| original.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Parametrized {
        Parametrized::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn names_become_numbers_and_the_same_name_the_same_number() {
        let query = parsed("select $org_id::bigint, $days + $org_id, $größe;\n");
        assert_eq!(query.sql, "select $1::bigint, $2 + $1, $3");
        assert_eq!(query.names, ["org_id", "days", "größe"]);
    }

    #[test]
    fn what_postgres_reads_as_text_name_or_comment_stays() {
        for text in [
            "select '$a', E'\\'$a', '''$a'",
            "select \"$a\", x$a, \"\"\"$a\"",
            "select $$ $a $$, $q$ $a $$ $q$",
            "select 1 -- $a\n /* $a /* $b */ $c */",
        ] {
            let query = parsed(text);
            assert_eq!((query.sql.as_str(), query.names.len()), (text, 0), "{text}");
        }
    }

    #[test]
    fn what_is_no_single_query_with_named_parameters_is_refused() {
        for (text, at) in [("select $1", 7), ("select 1; select 2", 8), ("select 'a", 7)] {
            let error = Parametrized::parse(text).expect_err(text);
            assert_eq!(error.span.start, at, "{text}: {error}");
        }
    }

    #[derive(Debug, Clone)]
    enum Piece {
        Parameter(&'static str),
        Other(&'static str),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let parameter = prop_oneof![Just("a"), Just("org_id"), Just("é"), Just("_1")];
        let other = prop_oneof![
            Just("'$a'"),
            Just("\"$a\""),
            Just("$$ $a $$"),
            Just("$t$ $a $$ $t$"),
            Just("/* $a */"),
            Just("-- $a\n"),
            Just("E'\\' $a'"),
            Just("x$a"),
            Just("é + 1.5::int[]"),
        ];
        prop_oneof![parameter.prop_map(Piece::Parameter), other.prop_map(Piece::Other)]
    }

    proptest! {
        #[test]
        fn every_parameter_is_numbered_and_nothing_else_is_touched(
            pieces in prop::collection::vec(piece(), 0..12)
        ) {
            let mut text = String::from("select");
            let mut expected = String::from("select");
            let mut names: Vec<&str> = Vec::new();
            let mut places = Vec::new();
            for piece in &pieces {
                text.push(' ');
                expected.push(' ');
                places.push((text.len(), expected.len()));
                match piece {
                    Piece::Other(sql) => {
                        text.push_str(sql);
                        expected.push_str(sql);
                    }
                    Piece::Parameter(name) => {
                        if !names.contains(name) {
                            names.push(name);
                        }
                        let number = names.iter().position(|known| known == name).unwrap() + 1;
                        text.push_str(&format!("${name}"));
                        expected.push_str(&format!("${number}"));
                    }
                }
            }
            let query = parsed(&text);
            prop_assert_eq!(&query.sql, &expected);
            prop_assert_eq!(&query.names, &names);
            for (original, rewritten) in places {
                prop_assert_eq!(query.original(rewritten), original);
            }
        }

        #[test]
        fn any_text_is_a_query_or_an_error(text in "(\\$|\\$a|\\$1|'|\"|/\\*|\\*/|--|;|\\\\|e|é|1|\n| ){0,12}") {
            match Parametrized::parse(&text) {
                Ok(query) => prop_assert!(text.is_char_boundary(query.original(query.sql.len()).min(text.len()))),
                Err(error) => prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error),
            }
        }
    }
}
