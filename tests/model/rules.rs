//! The rules, each with a switch.

/// Which rules are in force. [`Rules::ALL`] is the protocol.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// 1: a transaction's keys are removed once a snapshot of the primary shows it.
    pub gate: bool,
    /// 2: lookups run on a snapshot that passed the gate.
    pub gated_lookups: bool,
    /// 2: a batch's lookups end before anything gated after it is applied.
    pub lookups_end_first: bool,
    /// 3: the removal of a key voids its lease.
    pub lease_void: bool,
    /// 3: a step is refused unless the nonce found is the last acknowledged or its own.
    pub chain: bool,
    /// 3: a purge never goes on over a reconnect: the nonce is checked, and it starts anew.
    pub session: bool,
    /// 3: nor does the step that relies on the purge: it runs on the purge's session.
    pub closing_step_on_session: bool,
    /// 4: a fill is accepted with the key's present token only, not with any lease.
    pub token_check: bool,
    /// 4: a filler that lost its Redis session drops its lease.
    pub filler_session: bool,
    /// 5: the frontier is read with the lease, not before it.
    pub frontier_with_lease: bool,
    /// 5: the replay position is read before the snapshot is taken, not after.
    pub replay_before_snapshot: bool,
    /// 5: the frontier counts the ends of commit records, not their beginnings.
    pub frontier_of_commit_end: bool,
    /// The frontier counts transactions that have no keys.
    pub frontier_of_keyless: bool,
    /// 8: a gap moves the frontier to where the WAL is.
    pub frontier_at_gap: bool,
    /// 6: Postgres is told after Redis has acknowledged.
    pub acknowledge_last: bool,
    /// 7: a restart takes up at the watermark, not at the greatest position applied.
    pub watermark_at_restart: bool,
    /// 7: a watermark behind the slot's position is a gap.
    pub slot_position: bool,
    /// 9: of a cache that is dropped, leases are voided before values are purged. (In a gap it is
    /// always the other way round, the worst there is: what slips in goes with the second purge,
    /// and no lease is left for that.)
    pub leases_before_values: bool,
    /// 8: the valid state is written after the purge.
    pub valid_last: bool,
    /// 8: suspects are taken, at all.
    pub suspects: bool,
    /// 8: suspects are taken at every gap, not only when the slot is made.
    pub suspects_at_every_gap: bool,
    /// 8: suspects are kept in the state.
    pub suspects_persisted: bool,
    /// 8: an xid of one's own is assigned and ended before suspects are looked for.
    pub suspects_by_own_xid: bool,
    /// 8: another incarnation is a gap.
    pub incarnation: bool,
    /// 8: after the publication has changed, having come through proves nothing for those
    /// that were open then, whatever else happens in between.
    pub partial: Partial,
}

/// Which suspects are not cleared by coming through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// None if the slot is new; else all, unless the state that was found has the same
    /// publication; then those that its list had.
    Remembered,
    /// All if the gap's reason is `publication_changed`, else none.
    ByReason,
    /// None.
    Never,
}

impl Rules {
    /// The protocol.
    pub const ALL: Rules = Rules {
        gate: true,
        gated_lookups: true,
        lookups_end_first: true,
        lease_void: true,
        chain: true,
        session: true,
        closing_step_on_session: true,
        token_check: true,
        filler_session: true,
        frontier_with_lease: true,
        replay_before_snapshot: true,
        frontier_of_commit_end: true,
        frontier_of_keyless: true,
        frontier_at_gap: true,
        acknowledge_last: true,
        watermark_at_restart: true,
        slot_position: true,
        leases_before_values: true,
        valid_last: true,
        suspects: true,
        suspects_at_every_gap: true,
        suspects_persisted: true,
        suspects_by_own_xid: true,
        incarnation: true,
        partial: Partial::Remembered,
    };
}
