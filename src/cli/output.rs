//! What commands print: results to standard output, all else to standard error.

use std::io::{IsTerminal, Write};

use crate::config::Style;

/// Prints a line of the result. A reader that went away is no error: there is nobody left
/// to tell.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    _ = writeln!(out, "{text}");
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
