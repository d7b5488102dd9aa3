//! The language of `where`: a condition on the values of one row.
//!
//! ```text
//! condition  = condition "or" condition | condition "and" condition | "not" condition
//!            | "(" condition ")" | test
//! test       = column [ ( "=" | "<>" | "!=" ) literal
//!                     | ["not"] "in" "(" literal { "," literal } ")"
//!                     | "is" ["not"] "null" ]
//! column     = [ "old." | "new." ] name          a column alone must be boolean
//! literal    = 'text' | number | true | false
//! ```
//!
//! It means what it means in SQL. What is evaluated, and how an unknown value counts, is
//! in the module `predicate`.

use std::ops::Range;

use super::name::{is_identifier_start, read_identifier};

/// A condition as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `column = literal`; `<>` is its [`Condition::Not`].
    Equals(ColumnRef, Literal),
    /// `column in (…)`.
    In(ColumnRef, Vec<Literal>),
    /// `column is null`.
    IsNull(ColumnRef),
    /// All of them.
    And(Vec<Condition>),
    /// Any of them.
    Or(Vec<Condition>),
    /// The contrary; of null it is null.
    Not(Box<Condition>),
}

/// A column that a condition reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnRef {
    /// Which row's.
    pub side: Side,
    /// The column.
    pub name: Box<str>,
}

/// Which row of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The row at hand: an UPDATE is looked at once as its old, once as its new row.
    Row,
    /// The old one; all null for an INSERT.
    Old,
    /// The new one; all null for a DELETE.
    New,
}

/// What a column is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `'text'`
    Text(String),
    /// `42`, `-1.50`, `1e3`
    Number(String),
    /// `true`, `false`
    Bool(bool),
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where in the text.
    pub span: Range<usize>,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// If it is none; the error says where in `text`.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, end: text.len() };
        let condition = parser.any_of()?;
        match parser.peek() {
            None => Ok(condition),
            Some(_) => parser.fail("here the condition should end, or go on with and, or"),
        }
    }

    /// The columns that it reads.
    pub fn columns(&self) -> Vec<&ColumnRef> {
        match self {
            Condition::Equals(column, _) | Condition::In(column, _) | Condition::IsNull(column) => {
                vec![column]
            }
            Condition::And(all) | Condition::Or(all) => {
                all.iter().flat_map(Condition::columns).collect()
            }
            Condition::Not(inner) => inner.columns(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A name, and whether it was quoted (then it is no word of the language).
    Name(String, bool),
    Literal(Literal),
    Symbol(&'static str),
}

/// Deeper nesting is refused rather than left to the stack.
const MAX_DEPTH: usize = 64;

struct Parser {
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
    depth: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, ConditionError> {
        let span = self.tokens.get(self.at).map_or(self.end..self.end, |(_, span)| span.clone());
        Err(ConditionError { message: message.into(), span })
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        self.take(&Token::Name(word.to_owned(), false))
    }

    fn symbol(&mut self, symbol: &'static str) -> bool {
        self.take(&Token::Symbol(symbol))
    }

    fn any_of(&mut self) -> Result<Condition, ConditionError> {
        let mut all = vec![self.all_of()?];
        while self.word("or") {
            all.push(self.all_of()?);
        }
        Ok(one_or(all, Condition::Or))
    }

    fn all_of(&mut self) -> Result<Condition, ConditionError> {
        let mut all = vec![self.negation()?];
        while self.word("and") {
            all.push(self.negation()?);
        }
        Ok(one_or(all, Condition::And))
    }

    fn negation(&mut self) -> Result<Condition, ConditionError> {
        if self.depth >= MAX_DEPTH {
            return self.fail("the condition is nested too deeply");
        }
        self.depth += 1;
        let condition = if self.word("not") {
            Condition::Not(Box::new(self.negation()?))
        } else if self.symbol("(") {
            let inner = self.any_of()?;
            if !self.symbol(")") {
                return self.fail("a closing parenthesis is expected here, or and, or");
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn test(&mut self) -> Result<Condition, ConditionError> {
        let column = self.column()?;
        if self.symbol("=") {
            return Ok(Condition::Equals(column, self.literal()?));
        }
        if self.symbol("<>") || self.symbol("!=") {
            return Ok(Condition::Not(Box::new(Condition::Equals(column, self.literal()?))));
        }
        if self.word("is") {
            let negated = self.word("not");
            if !self.word("null") {
                return self.fail("is and is not take null; compare with = and <>");
            }
            return Ok(negated_if(negated, Condition::IsNull(column)));
        }
        let negated = self.word("not");
        if self.word("in") {
            return Ok(negated_if(negated, Condition::In(column, self.list()?)));
        }
        match self.peek() {
            _ if negated => self.fail("in is expected here: not in ('a', 'b')"),
            None | Some(Token::Symbol(")")) => Ok(Condition::Equals(column, Literal::Bool(true))),
            Some(Token::Name(word, false)) if word == "and" || word == "or" => {
                Ok(Condition::Equals(column, Literal::Bool(true)))
            }
            Some(Token::Symbol(symbol)) if matches!(*symbol, "<" | "<=" | ">" | ">=") => {
                self.fail("a condition knows =, <>, in and is null, but no order")
            }
            Some(_) => self.fail("=, <>, in, is null or is not null is expected here"),
        }
    }

    fn column(&mut self) -> Result<ColumnRef, ConditionError> {
        let Some(Token::Name(first, quoted)) = self.peek().cloned() else {
            return self.fail("a column is expected here");
        };
        if !quoted && matches!(first.as_str(), "and" | "or" | "not" | "in" | "is" | "null") {
            return self
                .fail("a column is expected here; one of this name stands in double quotes");
        }
        self.at += 1;
        if !self.symbol(".") {
            return Ok(ColumnRef { side: Side::Row, name: first.into() });
        }
        let side = match first.as_str() {
            "old" if !quoted => Side::Old,
            "new" if !quoted => Side::New,
            _ => {
                self.at -= 2;
                return self.fail("before the dot only old and new may stand");
            }
        };
        match self.peek().cloned() {
            Some(Token::Name(name, _)) => {
                self.at += 1;
                Ok(ColumnRef { side, name: name.into() })
            }
            _ => self.fail("a column is expected here"),
        }
    }

    fn literal(&mut self) -> Result<Literal, ConditionError> {
        let literal = match self.peek() {
            Some(Token::Literal(literal)) => literal.clone(),
            Some(Token::Name(word, false)) if word == "true" => Literal::Bool(true),
            Some(Token::Name(word, false)) if word == "false" => Literal::Bool(false),
            Some(Token::Name(word, false)) if word == "null" => {
                return self.fail("nothing equals null: write is null or is not null");
            }
            Some(Token::Name(_, true)) => {
                return self
                    .fail("this is a column in double quotes; a text stands in single ones");
            }
            _ => return self.fail("a 'text', a number, true or false is expected here"),
        };
        self.at += 1;
        Ok(literal)
    }

    fn list(&mut self) -> Result<Vec<Literal>, ConditionError> {
        if !self.symbol("(") {
            return self.fail("a list is expected here: in ('a', 'b')");
        }
        let mut list = vec![self.literal()?];
        while self.symbol(",") {
            list.push(self.literal()?);
        }
        if !self.symbol(")") {
            return self.fail("a comma or the list's closing parenthesis is expected here");
        }
        Ok(list)
    }
}

fn one_or(mut all: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match all.pop() {
        Some(only) if all.is_empty() => only,
        Some(last) => {
            all.push(last);
            join(all)
        }
        None => join(all),
    }
}

fn negated_if(negated: bool, condition: Condition) -> Condition {
    if negated { Condition::Not(Box::new(condition)) } else { condition }
}

fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, ConditionError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 {
            at += blank;
            continue;
        }
        let (token, length) = token(rest).map_err(|(message, length)| ConditionError {
            message: message.to_owned(),
            span: at..at + length,
        })?;
        tokens.push((token, at..at + length));
        at += length;
    }
    Ok(tokens)
}

/// The token at the start of `rest`, and its length.
fn token(rest: &str) -> Result<(Token, usize), (&'static str, usize)> {
    const SYMBOLS: [&str; 11] = ["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ",", "."];
    let first = rest.chars().next().unwrap_or_default();
    if first == '\'' {
        return text_literal(rest).ok_or(("this text lacks its closing quote", rest.len()));
    }
    if first.is_ascii_digit() || matches!(first, '-' | '+' | '.') {
        // A dot between names is a symbol; a number may begin with one.
        let length = number_length(rest);
        if length > 0 {
            let number = rest.get(..length).unwrap_or_default().to_owned();
            return Ok((Token::Literal(Literal::Number(number)), length));
        }
    }
    if first == '"' || is_identifier_start(first) {
        let (name, length) = read_identifier(rest).map_err(|message| (message, rest.len()))?;
        return Ok((Token::Name(name, first == '"'), length));
    }
    SYMBOLS
        .into_iter()
        .find(|symbol| rest.starts_with(symbol))
        .map(|symbol| (Token::Symbol(symbol), symbol.len()))
        .ok_or(("a condition knows no such character", first.len_utf8()))
}

fn text_literal(rest: &str) -> Option<(Token, usize)> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != '\'' {
            value.push(c);
        } else if chars.next_if(|(_, next)| *next == '\'').is_some() {
            value.push('\'');
        } else {
            return Some((Token::Literal(Literal::Text(value)), at + 1));
        }
    }
    None
}

/// The length of the number at the start of `rest`, 0 if there is none.
fn number_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let sign = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let whole = digits(sign);
    let mut length = sign + whole;
    if bytes.get(length) == Some(&b'.') {
        let fraction = digits(length + 1);
        if whole + fraction == 0 {
            return 0;
        }
        length += 1 + fraction;
    } else if whole == 0 {
        return 0;
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'-' | b'+')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Condition {
        Condition::parse(text).unwrap_or_else(|e| panic!("{text}: {e} at {:?}", e.span))
    }

    fn column(side: Side, name: &str) -> ColumnRef {
        ColumnRef { side, name: name.into() }
    }

    #[test]
    fn conditions_are_read_as_sql_reads_them() {
        let a = || column(Side::Row, "a");
        let is = |c, text: &str| Condition::Equals(c, Literal::Text(text.to_owned()));
        assert_eq!(parse("A = 'it''s'"), is(a(), "it's"));
        assert_eq!(parse("\"A b\"!='x'"), Condition::Not(is(column(Side::Row, "A b"), "x").into()));
        assert_eq!(
            parse("old.a is null and not new.\"a\" IS NOT NULL or a"),
            Condition::Or(vec![
                Condition::And(vec![
                    Condition::IsNull(column(Side::Old, "a")),
                    Condition::Not(
                        Condition::Not(Condition::IsNull(column(Side::New, "a")).into()).into()
                    ),
                ]),
                Condition::Equals(a(), Literal::Bool(true)),
            ])
        );
        assert_eq!(
            parse("a not in (1, -2.50, .5e-3, true, 'x')"),
            Condition::Not(
                Condition::In(
                    a(),
                    vec![
                        Literal::Number("1".into()),
                        Literal::Number("-2.50".into()),
                        Literal::Number(".5e-3".into()),
                        Literal::Bool(true),
                        Literal::Text("x".into()),
                    ]
                )
                .into()
            )
        );
        assert_eq!(parse("not (a or b)"), Condition::Not(parse("a or b").into()));
        assert_eq!(parse("\"old\" = 1").columns(), [&column(Side::Row, "old")]);
    }

    #[test]
    fn what_is_no_condition_is_refused_where_it_goes_wrong() {
        for (text, span) in [
            ("", 0..0),
            ("a =", 3..3),
            ("a = b", 4..5),
            ("a = \"b\"", 4..7),
            ("a = null", 4..8),
            ("a is 1", 5..6),
            ("a in 1", 5..6),
            ("a in (1", 7..7),
            ("a in ()", 6..7),
            ("a < 1", 2..3),
            ("a = 'x", 4..6),
            ("(a = 1", 6..6),
            ("a = 1)", 5..6),
            ("a b", 2..3),
            ("a not b", 6..7),
            ("t.a = 1", 0..1),
            ("old.", 4..4),
            ("a = 1 and", 9..9),
            ("and = 1", 0..3),
            ("a ; b", 2..3),
            ("1 = a", 0..1),
            ("a = - 1", 4..5),
        ] {
            let error = Condition::parse(text).expect_err(text);
            assert_eq!(error.span, span, "{text}: {error}");
        }
        assert!(Condition::parse(&"(".repeat(100_000)).is_err());
        assert!(Condition::parse(&"not ".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_condition_or_an_error(text in "(a|old|new|not|and|or|in|is|null|true|[ .,()=<>'\"é0-9e+-]){0,12}") {
            if let Err(error) = Condition::parse(&text) {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
            }
        }
    }
}
