//! SQL cut into tokens, as far as it takes to tell names and parameters from texts and
//! comments (manual, "Lexical Structure"). What they mean is left to Postgres.

use std::ops::Range;

use super::name::{is_identifier_start, read_identifier};

/// A token that somebody may care about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name or a keyword, folded as Postgres folds it.
    Name(String),
    /// `$1` or `$name`, without the `$`.
    Parameter(String),
    /// Any other character's first byte.
    Byte(u8),
}

/// Something that is never closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenError {
    /// What, in one sentence without a full stop.
    pub(crate) message: String,
    /// Where it begins.
    pub(crate) span: Range<usize>,
}

/// Cuts a statement into tokens; what is none of them (texts, numbers, comments) is left out.
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, TokenError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let open = |what: &str| TokenError {
            message: format!("{what} is never closed"),
            span: at..at + rest.chars().next().map_or(0, char::len_utf8),
        };
        let first = rest.chars().next().unwrap_or_default();
        let mut token = None;
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_length(rest).ok_or_else(|| open("this comment"))?
        } else if first == '\'' {
            text_length(rest, false).ok_or_else(|| open("this text"))?
        } else if rest.starts_with("e'") || rest.starts_with("E'") {
            let text = rest.get(1..).unwrap_or_default();
            text_length(text, true).ok_or_else(|| open("this text"))? + 1
        } else if first == '"' || is_identifier_start(first) {
            let (name, length) = read_identifier(rest).map_err(|_| open("this quoted name"))?;
            token = Some(Token::Name(name));
            length
        } else if first == '$' {
            match dollar_length(rest) {
                Some(length) => length.ok_or_else(|| open("this dollar-quoted text"))?,
                None => {
                    let length = parameter_length(rest);
                    token = Some(match rest.get(1..length) {
                        Some(name) if !name.is_empty() => Token::Parameter(name.to_owned()),
                        _ => Token::Byte(b'$'),
                    });
                    length
                }
            }
        } else if first.is_ascii_digit() {
            // Also 1.5, 1e3, 0xff, 1_000: nothing of it is a name.
            rest.bytes()
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
                .count()
        } else {
            token = rest.bytes().next().map(Token::Byte);
            first.len_utf8()
        };
        if let Some(token) = token {
            tokens.push((token, at..at + length));
        }
        at += length;
    }
    Ok(tokens)
}

/// How long `$1` or `$name` is; 1 for a `$` alone. The name is as long as Postgres would
/// read an identifier, so that nothing of it is left over.
fn parameter_length(rest: &str) -> usize {
    let digits = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        return 1 + digits;
    }
    let name = |(at, c): &(usize, char)| {
        *at == 0 || is_identifier_start(*c) || *at > 1 && c.is_ascii_digit()
    };
    rest.char_indices().take_while(name).map(|(_, c)| c.len_utf8()).sum()
}

/// Comments nest in Postgres.
fn comment_length(rest: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        match rest.as_bytes().get(at..at + 2)? {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
}

fn text_length(rest: &str, backslashes: bool) -> Option<usize> {
    let mut bytes = rest.bytes().enumerate().skip(1).peekable();
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' && backslashes {
            bytes.next();
        } else if byte == b'\'' && bytes.next_if(|(_, next)| *next == b'\'').is_none() {
            return Some(at + 1);
        }
    }
    None
}

/// `None` if no `$tag$` begins here; inside, the length up to the closing one.
fn dollar_length(rest: &str) -> Option<Option<usize>> {
    let end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..end)?;
    let name = tag.get(1..end - 1)?;
    let is_tag = !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| is_identifier_start(c) || c.is_ascii_digit());
    is_tag.then(|| rest.get(end..)?.find(tag).map(|close| end + close + end))
}
