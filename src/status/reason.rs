//! Why everything managed is dropped (rule 8): the names that logs, metrics and `/readyz` share.

/// Why a gap was declared. The names are the label of `unstale_gaps_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Redis holds no state: a first start, a restart without its data, a flush, an eviction.
    NoState,
    /// Redis' state is invalid: a gap was declared and not finished.
    Unfinished,
    /// The nonce found in Redis is not this daemon's last one: Redis lost writes, an old
    /// dump was put back, or another daemon wrote.
    ChainBroken,
    /// The slot does not exist.
    SlotMissing,
    /// The server invalidated the slot: what it held back is gone.
    SlotLost,
    /// The slot is ahead of what was applied: it was created anew, or moved.
    SlotAhead,
    /// Another system identifier: another database.
    OtherSystem,
    /// Another timeline: a standby was promoted or a backup restored.
    OtherTimeline,
    /// The server's WAL ends before what was applied: it was restored to an earlier time.
    WalBehind,
    /// Postgres recovered from a crash: what was visible of asynchronous commits may be gone.
    CrashRecovery,
    /// The mapping is another.
    MappingChanged,
    /// The publication is another: what was written before may have come through in part.
    PublicationChanged,
    /// The publication did not exist when a change was written: the slot cannot be read
    /// past that.
    PublicationMissing,
    /// A partition's replica identity differs from its root's, or differed until now: old
    /// values were misread.
    IdentityChanged,
    /// A transaction committed and never came through the stream.
    Suspect,
}

impl GapReason {
    /// All of them.
    pub const ALL: [GapReason; 15] = [
        GapReason::NoState,
        GapReason::Unfinished,
        GapReason::ChainBroken,
        GapReason::SlotMissing,
        GapReason::SlotLost,
        GapReason::SlotAhead,
        GapReason::OtherSystem,
        GapReason::OtherTimeline,
        GapReason::WalBehind,
        GapReason::CrashRecovery,
        GapReason::MappingChanged,
        GapReason::PublicationChanged,
        GapReason::PublicationMissing,
        GapReason::IdentityChanged,
        GapReason::Suspect,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::NoState => "no_state",
            GapReason::Unfinished => "unfinished",
            GapReason::ChainBroken => "chain_broken",
            GapReason::SlotMissing => "slot_missing",
            GapReason::SlotLost => "slot_lost",
            GapReason::SlotAhead => "slot_ahead",
            GapReason::OtherSystem => "other_system",
            GapReason::OtherTimeline => "other_timeline",
            GapReason::WalBehind => "wal_behind",
            GapReason::CrashRecovery => "crash_recovery",
            GapReason::MappingChanged => "mapping_changed",
            GapReason::PublicationChanged => "publication_changed",
            GapReason::PublicationMissing => "publication_missing",
            GapReason::IdentityChanged => "identity_changed",
            GapReason::Suspect => "suspect",
        }
    }
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_reasons_share_a_name() {
        let names: std::collections::HashSet<_> =
            GapReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), GapReason::ALL.len());
    }
}
