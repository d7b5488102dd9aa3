//! Where the log goes and how it looks.
//!
//! One record, one line: what Postgres said, a row's key or a client's header may hold a line break, and
//! what follows it would look like a record of its own. So control characters and line breaks of
//! every kind are spelled out (`\u000a`) wherever they come from, in one place behind all records.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::output::spelled_out;
use crate::config::model::{Log, LogFormat};

/// Sets up logging for the whole process.
///
/// # Errors
/// If the level is no filter or the file cannot be opened: what is wrong and what to do.
pub(super) fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.level).map_err(|e| {
        format!(
            "log.level {:?} is no filter ({e}): write info, debug, or info,unstale::pipeline=debug",
            log.level
        )
    })?;
    let (writer, colours) = match &log.file {
        None => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|e| format!("cannot write to log.file {}: {e}", path.display()))?;
            (BoxMakeWriter::new(Mutex::new(file)), false)
        }
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines { to: writer, colours })
        .with_ansi(colours);
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| format!("cannot start the log: {e}"))
}

/// Gives each record a [`Line`].
struct Lines<M> {
    to: M,
    colours: bool,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Lines<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { to: self.to.make_writer(), colours: self.colours }
    }
}

/// Writes one record, which comes in one piece with its line end.
struct Line<W> {
    to: W,
    /// Records are coloured.
    colours: bool,
}

/// The sequences by which a record is coloured, behind their escape character. Others' text can hold
/// no more of them than these, which change how a word looks and neither hide nor move it.
const OWN: [&str; 10] =
    ["[0m", "[1m", "[2m", "[3m", "[31m", "[32m", "[33m", "[34m", "[35m", "[36m"];

impl<W: Write> Write for Line<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let (line, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*text, ""),
        };
        // Line and paragraph separators: some who show a log obey them.
        let harmful = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let mut shown = String::with_capacity(text.len());
        for (number, piece) in line.split('\u{1b}').enumerate() {
            let own = self.colours && OWN.iter().any(|sequence| piece.starts_with(sequence));
            if number > 0 {
                shown.push_str(if own { "\u{1b}" } else { "\\u001b" });
            }
            shown.push_str(&spelled_out(piece, harmful));
        }
        shown.push_str(end);
        self.to.write_all(shown.as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing::{error, subscriber, warn};

    use super::*;

    /// What is written of two records, the first of which holds this.
    fn written(hostile: &str, colours: bool) -> String {
        let kept = Arc::new(Mutex::new(Vec::new()));
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(piece)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let to = Arc::clone(&kept);
        let log = tracing_subscriber::fmt()
            .with_ansi(colours)
            .with_writer(Lines { to: move || Kept(Arc::clone(&to)), colours })
            .finish();
        subscriber::with_default(log, || {
            warn!(key = hostile, error = %hostile, "Redis said: {hostile}");
            error!("the next");
        });
        let bytes = kept.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_record_is_one_line_whatever_it_holds() {
        for hostile in [
            "a\nERROR forged",
            "a\rb",
            "a\u{85}b",
            "a\u{2028}b",
            "a\0b",
            "a\u{1b}[2Jb",
            "a\u{9b}2Jb",
        ] {
            let text = written(hostile, false);
            assert_eq!(text.lines().count(), 2, "{text}");
            let others = |c: char| (c.is_control() && c != '\n') || c == '\u{2028}';
            assert!(!text.contains(others), "{text:?}");
            assert!(text.contains("the next\n"), "{text}");
        }
        assert!(written("a\nb", false).contains(r"Redis said: a\u000ab"));
    }

    #[test]
    fn colours_are_our_own() {
        for hostile in ["a\n\u{1b}[2Jb", "\u{1b}[8mhidden", "\u{1b}]0;title\u{7}", "\u{1b}[1A\r"] {
            let text = written(hostile, true);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.contains("\u{1b}[33m WARN"), "{text:?}");
            let mut sequences = text.split('\u{1b}').skip(1);
            assert!(sequences.all(|rest| OWN.iter().any(|own| rest.starts_with(own))), "{text:?}");
        }
    }
}
