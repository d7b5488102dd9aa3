//! Test only: rules that a daemon leaves out, so that the proof can show that it would notice.
//!
//! `UNSTALE_TEST_WITHOUT=gate` applies changes as they are streamed, visible or not. Only
//! builds with debug assertions have it; any other refuses the variable as a setting that does
//! not exist.

#[cfg(debug_assertions)]
use crate::config::TEST_WITHOUT;

/// What is left out: nothing, unless a test says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Without {
    /// The visibility gate (rule 1).
    pub(super) gate: bool,
}

impl Without {
    /// What the environment asks for. The only place that reads it, once at the start.
    #[must_use]
    pub fn from_environment() -> Self {
        #[cfg(debug_assertions)]
        if std::env::var_os(TEST_WITHOUT).is_some_and(|rule| rule == "gate") {
            tracing::error!(
                "UNSTALE_TEST_WITHOUT=gate: the visibility gate is OFF and the cache WILL become stale; this is for tests of the tests, unset it"
            );
            return Without { gate: true };
        }
        Without::default()
    }
}
