//! Why something is dropped.

use std::fmt;

use super::id::{CacheId, RuleId};
use crate::config::model::Operation;

/// Why something is dropped: the first change that reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// By which rule.
    pub rule: RuleId,
    /// The cache that the rule reaches.
    pub cache: CacheId,
    /// What was done to the row.
    pub operation: Operation,
}

/// Why a whole cache is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Escalation {
    /// The stream does not carry the old value that a key is made of.
    OldValueUnknown,
    /// A TRUNCATE.
    Truncate,
    /// More keys than the limit.
    KeyLimit,
    /// A column that the rule reads is no longer there.
    ColumnGone,
    /// The rule says `whole = true`.
    Rule,
    /// The rule's `via` failed.
    LookupFailed,
    /// The table was rewritten, which the stream does not tell.
    Rewritten,
}

impl Escalation {
    /// All of them.
    pub const ALL: [Escalation; 7] = [
        Escalation::OldValueUnknown,
        Escalation::Truncate,
        Escalation::KeyLimit,
        Escalation::ColumnGone,
        Escalation::Rule,
        Escalation::LookupFailed,
        Escalation::Rewritten,
    ];

    /// The value of the metric's label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Escalation::OldValueUnknown => "old_value_unknown",
            Escalation::Truncate => "truncate",
            Escalation::KeyLimit => "key_limit",
            Escalation::ColumnGone => "column_gone",
            Escalation::Rule => "rule",
            Escalation::LookupFailed => "lookup_failed",
            Escalation::Rewritten => "rewritten",
        }
    }
}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
