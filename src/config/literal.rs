//! Strings as TOML writes them: where one ends, and where a byte of its value stands in it.

/// The offset, within a TOML string literal, of the byte at `decoded` of its value.
///
/// Quotes, escapes, line breaks that TOML drops and line ends that it folds all make the
/// literal longer than the value.
pub(super) fn raw_offset(literal: &str, decoded: usize) -> usize {
    let mut value_length = 0;
    for (raw, piece) in pieces(literal) {
        if value_length >= decoded {
            return raw;
        }
        value_length += piece.len_utf8();
    }
    // Behind the last character: the closing quotes.
    literal.len() - closing(literal).min(literal.len())
}

/// The TOML string at the start of `text`, quotes and all.
pub(super) fn leading(text: &str) -> Option<&str> {
    let quotes = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| text.starts_with(q))?;
    let mut at = quotes.len();
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with(quotes) {
            // Up to two quotes more belong to a text of several lines.
            let run = rest.len() - rest.trim_start_matches(quotes.chars().next()?).len();
            return text.get(..at + if quotes.len() == 3 { run.min(5) } else { 1 });
        }
        let first = rest.chars().next()?;
        at += first.len_utf8();
        if first == '\\' && quotes.starts_with('"') {
            at += text.get(at..)?.chars().next()?.len_utf8();
        }
    }
}

fn quotes(literal: &str) -> &str {
    ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quotes| literal.starts_with(quotes) && literal.len() >= 2 * quotes.len())
        .unwrap_or("")
}

fn closing(literal: &str) -> usize {
    quotes(literal).len()
}

/// The characters of the value, each with the place where the literal begins to write it.
fn pieces(literal: &str) -> Vec<(usize, char)> {
    let quotes = quotes(literal);
    let body_end = literal.len() - quotes.len();
    let mut at = quotes.len();
    let rest_at = |at: usize| literal.get(at..body_end).unwrap_or_default();
    if quotes.len() == 3 {
        // A line break right behind the opening quotes is no part of the value.
        at += ["\r\n", "\n"].iter().find(|b| rest_at(at).starts_with(**b)).map_or(0, |b| b.len());
    }
    let escapes = quotes.starts_with('"');
    let mut found = Vec::new();
    while let Some(first) = rest_at(at).chars().next() {
        let rest = rest_at(at);
        match first {
            '\\' if escapes => {
                let (written, value) = escape(rest);
                found.extend(value.map(|value| (at, value)));
                at += written;
            }
            '\r' if rest.starts_with("\r\n") => {
                found.push((at, '\n'));
                at += 2;
            }
            _ => {
                found.push((at, first));
                at += first.len_utf8();
            }
        }
    }
    found
}

/// The length of the escape at the start of `rest`, and the character that it means:
/// none for a line break that is escaped away.
fn escape(rest: &str) -> (usize, Option<char>) {
    let code = |digits: usize| {
        let hex = rest.get(2..2 + digits).unwrap_or_default();
        let value = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
        (2 + hex.len(), Some(value.unwrap_or(char::REPLACEMENT_CHARACTER)))
    };
    match rest.chars().nth(1) {
        Some('u') => code(4),
        Some('U') => code(8),
        Some('b') => (2, Some('\u{8}')),
        Some('t') => (2, Some('\t')),
        Some('n') => (2, Some('\n')),
        Some('f') => (2, Some('\u{c}')),
        Some('r') => (2, Some('\r')),
        Some('e') => (2, Some('\u{1b}')),
        Some(c @ ('"' | '\\')) => (2, Some(c)),
        _ => {
            let behind = rest.get(1..).unwrap_or_default();
            let blank = behind.len() - behind.trim_start_matches([' ', '\t', '\r', '\n']).len();
            (1 + blank, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(literal: &str) -> String {
        pieces(literal).into_iter().map(|(_, piece)| piece).collect()
    }

    #[test]
    fn points_at_the_character_as_it_is_written() {
        assert_eq!(raw_offset(r#""a = 1""#, 4), 5);
        assert_eq!(raw_offset(r#""\u00e9 x""#, 3), 8); // é is two bytes, written as six
        assert_eq!(raw_offset("\"\"\"\nab\"\"\"", 1), 5);
        assert_eq!(raw_offset("'''ab'''", 2), 5);
        assert_eq!(raw_offset("\"a \\\n   b\"", 2), 8);
    }

    proptest! {
        #[test]
        fn reads_every_literal_as_toml_does(
            quotes in prop_oneof![Just("\""), Just("'"), Just("\"\"\""), Just("'''")],
            body in "([a\u{e9} '\"]|\\\\[btnfr\"\\\\]|\\\\u00e9|\\\\U0001F600|\\\\\n  |\n|\r\n){0,12}",
        ) {
            let literal = format!("{quotes}{body}{quotes}");
            if let Ok(toml_edit::Value::String(value)) = literal.parse::<toml_edit::Value>() {
                prop_assert_eq!(&decode(&literal), value.value());
            }
        }

        #[test]
        fn no_literal_makes_it_panic(literal in "\\PC{0,20}|[\"'\\\\u\n]{0,9}", decoded in 0_usize..30) {
            prop_assert!(raw_offset(&literal, decoded) <= literal.len());
        }
    }
}
