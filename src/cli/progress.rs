//! How far long work has come, where somebody watches: a bar on standard error if that is a
//! terminal, nothing otherwise.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::{audit, manage, warm};

/// A bar. Dropping it takes it off the screen.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Of so many entries; 0: nobody knows.
    pub(super) fn new(what: &'static str) -> Bar {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {human_pos} {rate}") {
            bar.set_style(style.with_key("rate", rate));
        }
        Bar(bar)
    }
}

/// So many a second, as a round number.
fn rate(state: &ProgressState, out: &mut dyn Write) {
    _ = write!(out, "{:.0}/s", state.per_sec());
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl audit::run::Progress for Bar {
    fn expect(&self, entries: u64) {
        let template = "{msg} [{bar:40}] {human_pos}/{human_len} {rate} {eta}";
        if self.0.length().is_none()
            && let Ok(style) = ProgressStyle::with_template(template)
        {
            self.0.set_style(style.with_key("rate", rate).progress_chars("=> "));
        }
        self.0.set_length(entries);
    }

    fn one(&self) {
        self.0.inc(1);
    }
}

impl warm::once::Progress for Bar {
    fn cache(&self, name: &str, entries: usize) {
        self.0.set_message(name.to_owned());
        let entries = entries as u64;
        // All that went before is done.
        audit::run::Progress::expect(self, self.0.position() + entries);
    }

    fn one(&self) {
        self.0.inc(1);
    }
}

impl manage::Progress for Bar {
    fn keys(&self, looked_at: usize) {
        self.0.inc(looked_at as u64);
    }
}

impl Bar {
    /// What is being done now.
    pub(super) fn at(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.tick();
    }
}
