//! What commands print: results to standard output, all else to standard error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use crate::config::Style;

/// Prints a line of the result, or several. A reader that went away is no error: there is nobody
/// left to tell.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    _ = writeln!(out, "{}", obeyed_by_no_terminal(text));
}

/// The text without what a terminal would obey: whoever writes to Redis or to a row also chooses
/// what keys are named. As JSON would have it, so that JSON stays what it is.
fn obeyed_by_no_terminal(text: &str) -> Cow<'_, str> {
    spelled_out(text, |c| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// The text with what is harmful as JSON spells it.
pub(super) fn spelled_out(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut spelled = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            _ = write!(spelled, "\\u{:04x}", u32::from(c));
        } else {
            spelled.push(c);
        }
    }
    Cow::Owned(spelled)
}

/// Says what went wrong.
pub(super) fn error(text: &str) {
    warn_on_stderr(&format!("error: {text}"));
}

/// Prints a text to standard error as it is.
pub(super) fn warn_on_stderr(text: &str) {
    let mut err = std::io::stderr().lock();
    _ = writeln!(err, "{}", text.trim_end());
}

/// How many columns a message may take.
pub(super) fn width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .unwrap_or(100)
        .clamp(40, 160)
}

/// How diagnostics look on standard error.
pub(super) fn style() -> Style {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match (std::io::stderr().is_terminal(), plain) {
        (true, false) => Style::Colour,
        (true, true) => Style::Unicode,
        (false, _) => Style::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out_and_json_stays_json() {
        for (text, expected) in [
            ("stale: v1:org:data:7\n\tmore", "stale: v1:org:data:7\n\tmore"),
            ("stale: v1:\u{1b}[2J\r\u{7f}\u{9b}A", "stale: v1:\\u001b[2J\\u000d\\u007f\\u009bA"),
        ] {
            assert_eq!(obeyed_by_no_terminal(text), expected);
        }
        let value = serde_json::json!({ "key": "a\u{1b}\u{7f}\u{9b}\n" });
        let read = serde_json::from_str(&obeyed_by_no_terminal(&value.to_string()));
        assert_eq!(read.ok(), Some(value));
    }
}
