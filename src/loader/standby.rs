//! Whether a value that a standby gave may be stored under a lease (rule 5), purely.
//!
//! A lease comes with the *frontier*: the greatest end of a commit that was ever handed to
//! Redis, and the system identifier and timeline that it belongs to. Everything that was
//! applied to any key before the lease was committed at or before the frontier. So a value
//! may be stored if its snapshot shows all of that history up to the frontier. What is
//! applied after the lease voids it.
//!
//! On the primary every snapshot taken after the lease does (rule 1). On a standby
//! none needs to, and the standby's own snapshots do not tell: they list nothing in progress.
//! What tells is how far it has replayed, for a commit is visible there as soon as its record
//! is replayed, and the replayed position moves on only after that. Three steps, in this order:
//!
//! 1. `pg_last_wal_replay_lsn()`, a statement of its own: at or past the frontier, in recovery
//!    ([`may_begin`]). Else wait, and ask again.
//! 2. The load, on the same connection, by a later statement: so by a later snapshot.
//! 3. IDENTIFY_SYSTEM on the same running server, after the load: the lease's system and
//!    timeline ([`may_count`]).
//!
//! # Why the timeline comes last
//!
//! Positions of two timelines cannot be compared, and a standby may change its timeline at
//! any moment: when it goes over to a primary that was promoted, or is promoted itself. But a
//! running server only ever moves on, and only to a timeline that descends from the one it is
//! on. So if it replays the lease's timeline *after* the load (3), it replayed at (1) that
//! timeline, or one that it descends from at a fork further on: either way the position that
//! was past the frontier is one of the lease's own history. And at (2) it had nothing to show
//! that is of another history. Asked before the load, the answer would be out of date.
//!
//! | the standby | seen by |
//! |---|---|
//! | lags | (1) |
//! | follows an old primary after another was promoted, and the lease is of the new one | (3): it replays the old timeline, whatever its position |
//! | follows a new primary, and the lease is still of the old one | (3) |
//! | goes over, or is promoted, between (1) and (3) | (3) |
//! | was promoted before | (1): not in recovery, and (3) |
//! | is restarted between (1) and (2), and replays from further back | the connection is gone |
//! | is of another cluster | (3) |
//!
//! `pg_control_checkpoint()`, which everybody may read, would not do for (3): it tells the
//! timeline of the last restart point, and a standby that has left the lease's timeline
//! since would pass (see [`crate::postgres::timeline`]).
//!
//! # What it cannot see
//!
//! Two histories under one system identifier and one timeline: a copy of the data folder that
//! was started as a primary without being promoted, or two standbys that were promoted apart
//! from each other and took the same number. Nor can Postgres' own standbys tell them apart.
//!
//! # Clocks
//!
//! What a query calls today is the clock's matter of the server that it runs on. An entry of
//! the day ends at the midnight that the *primary* told; a standby whose clock says that
//! another day ends is passed over.

use std::time::{Duration, SystemTime};

use crate::lsn::Lsn;

/// What a lease asks of a standby.
#[derive(Debug, Clone, Copy)]
pub struct Needed<'a> {
    /// It must have replayed this much.
    pub frontier: Lsn,
    /// Of this database.
    pub system_id: &'a str,
    /// On this timeline.
    pub timeline: u32,
    /// For values that depend on the day: when the present one ends.
    pub day_ends: Option<SystemTime>,
}

impl Needed<'_> {
    /// Whether any standby can be judged by it. Without a frontier none can: an empty one is
    /// what a state would have in which nothing was ever applied.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.frontier > Lsn::ZERO && self.timeline > 0 && !self.system_id.is_empty()
    }
}

/// What a server says before the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// How far it has replayed; `None`: nothing yet.
    pub replayed: Option<Lsn>,
    /// When the present day ends by its clock, if it was asked.
    pub day_ends: Option<SystemTime>,
}

/// Why a server will not do, however long one waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Not in recovery.
    #[error("it is no standby (was it promoted?)")]
    NoStandby,
    /// By its clock it is another day.
    #[error("by its clock it is another day than by the primary's")]
    OtherDay,
    /// Another database.
    #[error("its system identifier is {found}, the cache is filled from {needed}")]
    OtherSystem {
        /// The server's.
        found: String,
        /// The lease's.
        needed: String,
    },
    /// Another history of this database.
    #[error("it replays timeline {found}, the cache is filled from timeline {needed}")]
    OtherTimeline {
        /// The server's.
        found: u32,
        /// The lease's.
        needed: u32,
    },
}

/// What follows of a [`Position`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Load, by a later statement.
    Load,
    /// It has not replayed enough: ask again.
    Wait,
    /// Load from the primary.
    Never(Mismatch),
}

/// Judges what a server said before the load.
#[must_use]
pub fn may_begin(needed: &Needed<'_>, position: &Position) -> Verdict {
    match position.replayed {
        _ if !position.in_recovery => Verdict::Never(Mismatch::NoStandby),
        _ if needed.day_ends.is_some() && needed.day_ends != position.day_ends => {
            Verdict::Never(Mismatch::OtherDay)
        }
        Some(replayed) if needed.is_known() && replayed >= needed.frontier => Verdict::Load,
        _ => Verdict::Wait,
    }
}

/// Judges what the server is, asked after the load.
///
/// # Errors
/// If what it gave is not of the lease's history.
pub fn may_count(needed: &Needed<'_>, system_id: &str, timeline: u32) -> Result<(), Mismatch> {
    if system_id != needed.system_id {
        let (found, needed) = (system_id.to_owned(), needed.system_id.to_owned());
        return Err(Mismatch::OtherSystem { found, needed });
    }
    if timeline != needed.timeline {
        return Err(Mismatch::OtherTimeline { found: timeline, needed: needed.timeline });
    }
    Ok(())
}

/// How long a replica that failed is left alone: growing, so that a dead one costs nothing.
#[derive(Debug)]
pub struct Rests(Duration);

impl Rests {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    /// The next one. `chance` is from 0 to 1: it shortens the rest by half at the most, so
    /// that many daemons do not come at once.
    pub fn next(&mut self, chance: f64) -> Duration {
        let rest = self.0;
        self.0 = (rest * 2).min(Self::LONGEST);
        rest.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }
}

impl Default for Rests {
    fn default() -> Self {
        Rests(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: Needed<'_> =
        Needed { frontier: Lsn(100), system_id: "7", timeline: 2, day_ends: None };

    fn at(replayed: u64) -> Position {
        Position { in_recovery: true, replayed: Some(Lsn(replayed)), day_ends: None }
    }

    #[test]
    fn a_standby_may_be_read_once_it_has_replayed_the_frontier() {
        assert_eq!(may_begin(&NEEDED, &at(99)), Verdict::Wait);
        assert_eq!(may_begin(&NEEDED, &at(100)), Verdict::Load);
        assert_eq!(may_begin(&NEEDED, &at(101)), Verdict::Load);
        assert_eq!(may_begin(&NEEDED, &Position { replayed: None, ..at(0) }), Verdict::Wait);
    }

    #[test]
    fn a_lease_without_a_frontier_is_for_the_primary() {
        for unknown in [
            Needed { frontier: Lsn::ZERO, ..NEEDED },
            Needed { timeline: 0, ..NEEDED },
            Needed { system_id: "", ..NEEDED },
        ] {
            assert!(!unknown.is_known());
            assert_eq!(may_begin(&unknown, &at(u64::MAX)), Verdict::Wait);
        }
    }

    #[test]
    fn a_server_that_is_no_standby_is_not_read_whatever_its_position() {
        let promoted = Position { in_recovery: false, ..at(u64::MAX) };
        assert_eq!(may_begin(&NEEDED, &promoted), Verdict::Never(Mismatch::NoStandby));
    }

    #[test]
    fn a_value_of_the_day_needs_the_same_day() {
        let day = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * n);
        let needed = Needed { day_ends: Some(day(8)), ..NEEDED };
        let other = Verdict::Never(Mismatch::OtherDay);
        assert_eq!(
            may_begin(&needed, &Position { day_ends: Some(day(8)), ..at(100) }),
            Verdict::Load
        );
        assert_eq!(may_begin(&needed, &Position { day_ends: Some(day(7)), ..at(100) }), other);
        assert_eq!(may_begin(&needed, &at(100)), other);
    }

    #[test]
    fn only_the_leases_own_history_counts() {
        assert_eq!(may_count(&NEEDED, "7", 2), Ok(()));
        assert!(matches!(may_count(&NEEDED, "8", 2), Err(Mismatch::OtherSystem { .. })));
        for other in [0, 1, 3] {
            assert!(matches!(may_count(&NEEDED, "7", other), Err(Mismatch::OtherTimeline { .. })));
        }
    }

    #[test]
    fn rests_grow_to_half_a_minute_and_begin_anew() {
        let mut rests = Rests::default();
        let seconds: Vec<u64> = (0..7).map(|_| rests.next(0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(Rests::default().next(1.0), Duration::from_millis(500));
    }

    /// The timeline that a server is on which moves to the next one at each fork.
    fn timeline_at(forks: &[u64], position: u64) -> u32 {
        u32::try_from(forks.iter().filter(|fork| position > **fork).count()).unwrap() + 1
    }

    /// Every way in which a server can replay while it is asked, loads and is identified, and
    /// every lease. `identified`: when the timeline is asked, of the three moments. Gives how
    /// many loads passed, and how many of them should not have.
    fn explore(identified: usize) -> (u32, u32) {
        let (mut passed, mut wrong) = (0, 0);
        let forks: [&[u64]; 5] = [&[], &[2], &[4], &[2, 4], &[2, 3]];
        for (forks, end) in forks.into_iter().flat_map(|forks| (0..=6).map(move |end| (forks, end)))
        {
            let moments = (0..=end).flat_map(|a| (a..=end).map(move |b| [a, b, end]));
            for moments in moments {
                // The lease's primary shares some of the forks, and then goes on by itself.
                for (shared, frontier) in
                    (0..=forks.len()).flat_map(|shared| (1..=6).map(move |f| (shared, f)))
                {
                    let timeline = u32::try_from(shared).unwrap() + 1;
                    let needed = Needed { frontier: Lsn(frontier), timeline, ..NEEDED };
                    let [asked, snapshot, _] = moments;
                    let found = timeline_at(forks, moments[identified]);
                    if may_begin(&needed, &at(asked)) != Verdict::Load
                        || may_count(&needed, "7", found).is_err()
                    {
                        continue;
                    }
                    // What both have in common ends where the server goes another way.
                    let common = forks.get(shared).copied().unwrap_or(u64::MAX);
                    passed += 1;
                    let lacks = snapshot.min(common) < frontier;
                    let foreign = snapshot > common;
                    wrong += u32::from(lacks || foreign);
                }
            }
        }
        (passed, wrong)
    }

    #[test]
    fn what_passes_is_of_the_leases_history() {
        let (passed, wrong) = explore(2);
        assert!(passed > 100 && wrong == 0, "{wrong} of {passed}");
    }

    #[test]
    fn a_timeline_asked_before_the_load_lets_another_history_through() {
        assert!(explore(0).1 > 0);
    }
}
