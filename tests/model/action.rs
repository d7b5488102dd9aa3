//! The names of what can happen.

/// What becomes of a command that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Answered,
    AnswerLost,
    Late,
}

/// What happens next. The number says to which transaction, daemon, key or filler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Begin(usize),
    Commit(usize),
    BecomeVisible(usize),
    Abort(usize),
    FlushWal,
    Replay,
    PostgresCrashes,
    SlotIsLost,
    SlotIsRecreated,
    PublicationIsAltered,
    /// The replication connection breaks, unknown to the daemon.
    Cut(usize),

    /// Reads the state in Redis.
    Connect(usize),
    TakeSlot(usize),
    Judge(usize),
    CreateSlot(usize),
    TakeSuspects(usize),
    /// Removes the next lease or value.
    Purge(usize),
    /// Looks at the nonce after a lost session.
    CheckChain(usize),
    Send(usize, Delivery),
    Receive(usize),
    Admit(usize),
    LookUp(usize),
    Defer(usize),
    TakeUpDeferred(usize),
    /// Tells Postgres.
    Report(usize),
    /// Sees that the publication has changed.
    SeePublication(usize),
    /// Decides about a suspect that has ended.
    Settle(usize, usize),
    /// Finds another's nonce while idle.
    Renew(usize),
    /// Notices that its slot is gone.
    Notice(usize),
    Crash(usize),

    Dump,
    RestoreDump,
    FlushRedis,
    EvictState,
    LateArrives,
    LeaseExpires(usize),

    AskFrontier(usize),
    Lease(usize),
    CheckReplica(usize),
    Read(usize),
    Store(usize),
}
