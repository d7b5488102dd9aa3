//! A cache's query with each `$name` replaced.

/// Replaces each `$name` outside of literals, quoted names and comments.
pub(super) fn replace(sql: &str, mut by: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(next) = rest.chars().next() {
        if let Some(length) = opaque(rest) {
            let (piece, after) = rest.split_at(length);
            out.push_str(piece);
            rest = after;
            continue;
        }
        if next == '$'
            && let Some(name) = name(rest.get(1..).unwrap_or_default())
        {
            out.push_str(&by(name));
            rest = rest.get(1 + name.len()..).unwrap_or_default();
            continue;
        }
        // A whole word at once: `a$b` is a name in SQL, and no parameter.
        let word = rest.find(|c: char| !is_word(c) && c != '$').unwrap_or(rest.len());
        let length = if is_word(next) { word } else { next.len_utf8() };
        let (piece, after) = rest.split_at(length);
        out.push_str(piece);
        rest = after;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn name(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    let name = text.get(..end)?;
    (name.starts_with(|c: char| c.is_alphabetic() || c == '_')).then_some(name)
}

/// The length of what begins here and in which nothing is replaced.
fn opaque(text: &str) -> Option<usize> {
    let until = |begin: &str, end: &str| {
        let inside = text.strip_prefix(begin)?;
        Some(inside.find(end).map_or(text.len(), |at| begin.len() + at + end.len()))
    };
    // A doubled quote ends one literal and begins the next: the same in effect.
    until("'", "'")
        .or_else(|| until("\"", "\""))
        .or_else(|| until("--", "\n"))
        .or_else(|| until("/*", "*/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_are_replaced() {
        let sql = "select $a::int, '$a ''$a', \"$a\", a$a, 1 -- $a\n /* $a */ + $a_b where x=$a";
        assert_eq!(
            replace(sql, |name| format!("<{name}>")),
            "select <a>::int, '$a ''$a', \"$a\", a$a, 1 -- $a\n /* $a */ + <a_b> where x=<a>"
        );
    }
}
