//! What the pipeline is doing, and whether the services answer.

use serde::Serialize;

/// What the pipeline is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "phase", content = "detail", rename_all = "snake_case")]
pub enum Phase {
    /// Connecting, or about to.
    Connecting,
    /// Another session holds the slot.
    WaitingForSlot {
        /// Its process, if the server said so.
        pid: Option<i32>,
    },
    /// The slot is being created: the server waits for open transactions.
    CreatingSlot,
    /// A gap was declared, everything managed is being dropped.
    Purging {
        /// Why.
        reason: &'static str,
    },
    /// Changes flow.
    Streaming,
    /// Something must be mended first; nothing is cached meanwhile.
    Blocked {
        /// What, and how.
        reason: String,
    },
    /// Finishing what is under way.
    Draining,
}

/// Why a service is not up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last attempt succeeded.
    Up,
    /// It did not.
    Down(String),
}
