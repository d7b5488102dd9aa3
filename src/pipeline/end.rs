//! How a run ends, and what follows from it.

use super::assemble::StreamError;
use crate::postgres::error::{Class, Kind, PgError};
use crate::status::reason::GapReason;
use crate::store::error::StoreError;

/// Why a run of the pipeline ended.
#[derive(Debug)]
pub enum End {
    /// It was asked to, and everything under way was finished.
    Stopped,
    /// The connection to Postgres was lost, or could not be made: try again.
    Again(String),
    /// Redis could not be reached or refused, before anything was under way: try again.
    RedisAgain(String),
    /// The state in Redis was written by another between being read and being taken over:
    /// read it again.
    StateMoved,
    /// Everything managed must be dropped, then try again.
    Gap(GapReason),
    /// Another session holds the slot: wait.
    SlotBusy(Option<i32>),
    /// Something outside must be mended; nothing may be cached until it is.
    Blocked(String),
    /// No retry can help. (Once changes have flowed, that is not believed any more: a
    /// password that is being rotated looks the same.)
    Hopeless(String),
    /// The stream or the program is broken: going on could lose changes.
    Broken(String),
}

impl From<PgError> for End {
    fn from(error: PgError) -> Self {
        match (error.kind(), error.class()) {
            (Kind::SlotBusy { pid }, _) => End::SlotBusy(pid),
            (_, Class::Retry) => End::Again(error.to_string()),
            (_, Class::Stop) => End::Hopeless(error.to_string()),
            (_, Class::Bug) => End::Broken(error.to_string()),
        }
    }
}

impl End {
    /// Of an error in the midst of the stream. What is missing there is the publication, at
    /// the time of the change that is being decoded (manual, "Logical Replication" says
    /// nothing of it; pgoutput looks the publication up in the catalog of that time). It
    /// stays missing however often one asks: only a new slot gets past.
    #[must_use]
    pub fn of_stream(error: PgError) -> End {
        match error.kind() {
            Kind::Missing => End::Gap(GapReason::PublicationMissing),
            _ => error.into(),
        }
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        if error.is_hopeless() {
            End::Hopeless(error.to_string())
        } else {
            End::RedisAgain(error.to_string())
        }
    }
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        End::Broken(error.to_string())
    }
}
