//! Transaction ids and what a snapshot says of them.
//!
//! The visibility gate (rule 1) asks one question: does every new snapshot of
//! the primary contain the transaction with this xid? The stream names a
//! transaction by its 32-bit xid; `pg_current_snapshot()` speaks of 64-bit ones
//! (manual, "Transaction ID and Snapshot Information Functions"). [`Snapshot::widen`] joins
//! the two. That is sound because an xid in the stream and the snapshot's `xmax`
//! are never 2^31 transactions apart: Postgres refuses to hand out xids long
//! before that (wraparound protection).

use std::fmt;
use std::str::FromStr;

/// A transaction id as the replication stream carries it: 32 bits, wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid(pub u32);

impl Xid {
    /// How many transactions after `earlier` this one got its id, given that it did and that
    /// they are not 2^31 apart.
    #[must_use]
    pub fn since(self, earlier: Xid) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction id with its epoch (`xid8`): 64 bits, never wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FullXid(pub u64);

impl FullXid {
    /// The 32 bits that the stream carries of it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the epoch is what is cut off, on purpose")]
    pub fn short(self) -> Xid {
        Xid(self.0 as u32)
    }
}

impl fmt::Display for FullXid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A snapshot as `pg_current_snapshot()` prints it: `xmin:xmax:xip,xip,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: FullXid,
    xmax: FullXid,
    /// In progress when the snapshot was taken; ascending.
    in_progress: Vec<FullXid>,
}

impl Snapshot {
    /// The 64-bit id of a transaction that the stream named, the one nearest
    /// to this snapshot's `xmax`.
    #[must_use]
    pub fn widen(&self, xid: Xid) -> FullXid {
        let xmax = self.xmax;
        let ahead = xid.0.wrapping_sub(xmax.short().0);
        FullXid(if ahead < 1 << 31 {
            xmax.0.saturating_add(u64::from(ahead))
        } else {
            xmax.0.saturating_sub(u64::from(ahead.wrapping_neg()))
        })
    }

    /// Whether this snapshot, and so every later one, sees what the
    /// transaction wrote, given that it committed.
    #[must_use]
    pub fn contains(&self, xid: FullXid) -> bool {
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// [`Snapshot::contains`] for a transaction as the stream names it.
    #[must_use]
    pub fn shows(&self, xid: Xid) -> bool {
        self.contains(self.widen(xid))
    }

    /// The transactions that were in progress.
    #[must_use]
    pub fn in_progress(&self) -> &[FullXid] {
        &self.in_progress
    }

    /// The first id that was not yet assigned.
    #[must_use]
    pub fn xmax(&self) -> FullXid {
        self.xmax
    }
}

/// What was found where a snapshot was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a snapshot: expected xmin:xmax:xip,… as pg_current_snapshot() prints it")]
pub struct ParseSnapshotError(String);

impl FromStr for Snapshot {
    type Err = ParseSnapshotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.splitn(3, ':');
            let mut bound = || Some(FullXid(parts.next()?.parse().ok()?));
            let (xmin, xmax) = (bound()?, bound()?);
            let list = parts.next()?;
            let mut in_progress = list
                .split(',')
                .filter(|xid| !xid.is_empty())
                .map(|xid| xid.parse().map(FullXid).ok())
                .collect::<Option<Vec<_>>>()?;
            in_progress.sort_unstable();
            (xmin <= xmax).then_some(Snapshot { xmin, xmax, in_progress })
        };
        parse().ok_or_else(|| ParseSnapshotError(text.to_owned()))
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.in_progress.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().expect("a snapshot")
    }

    #[test]
    fn in_progress_and_future_are_not_shown() {
        let s = snapshot("10:20:10,14");
        for (xid, shown) in
            [(9, true), (10, false), (11, true), (14, false), (19, true), (20, false), (25, false)]
        {
            assert_eq!(s.shows(Xid(xid)), shown, "xid {xid}");
        }
        assert!(snapshot("10:10:").shows(Xid(9)));
    }

    #[test]
    fn xids_widen_across_the_epoch() {
        // xmax is just past 2^32: a small xid is of the new epoch, a large one of the old.
        let s = snapshot("4294967290:4294967300:4294967295,4294967297");
        assert_eq!(s.widen(Xid(3)), FullXid(4_294_967_299));
        assert_eq!(s.widen(Xid(4_294_967_295)), FullXid(4_294_967_295));
        assert!(!s.shows(Xid(4_294_967_295)), "in progress, in the old epoch");
        assert!(!s.shows(Xid(1)), "in progress, in the new epoch");
        assert!(s.shows(Xid(2)));
        assert!(!s.shows(Xid(4)), "not assigned yet");
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for wrong in ["", "1", "1:2", "a:2:", "1:b:", "2:1:", "1:2:x", "1:2:1:3", "-1:2:"] {
            assert!(wrong.parse::<Snapshot>().is_err(), "{wrong:?} was taken for a snapshot");
        }
    }

    proptest! {
        #[test]
        fn every_xid_near_xmax_widens_to_itself(xmax in 3u64..1 << 40, back in 0u64..(1 << 31) - 1, ahead in 0u64..(1 << 31) - 1) {
            let s = Snapshot { xmin: FullXid(xmax), xmax: FullXid(xmax), in_progress: vec![] };
            let earlier = FullXid(xmax.saturating_sub(back));
            let later = FullXid(xmax + ahead);
            prop_assert_eq!(s.widen(earlier.short()), earlier);
            prop_assert_eq!(s.widen(later.short()), later);
        }

        #[test]
        fn print_and_parse_agree(xmin in 0u64..1000, gap in 0u64..50, xip in proptest::collection::btree_set(0u64..50, 0..10)) {
            let s = Snapshot {
                xmin: FullXid(xmin),
                xmax: FullXid(xmin + gap),
                in_progress: xip.into_iter().map(|x| FullXid(xmin + x)).collect(),
            };
            prop_assert_eq!(s.to_string().parse(), Ok(s));
        }
    }
}
