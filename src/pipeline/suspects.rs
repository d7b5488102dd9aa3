//! Transactions that may never come through the stream (rule 8).
//!
//! A transaction may have written its commit record before the slot's start, so that the
//! slot will never stream it, and still be invisible (it waits for a synchronous standby):
//! whatever is filled now lacks it. Those that held a write lock on a mapped table when
//! the gap was declared are *suspects*. They are not waited for: one may be open for hours.
//! When one has ended, the stream is watched until it has passed a position read after
//! the end. By then the transaction has come through, or it never will; if it
//! never did and yet committed, that is a gap again.
//!
//! After the publication changed, transactions that were open at that moment come through
//! *in part*: for those having come through proves nothing.
//!
//! The list is part of the state in Redis: a restart must not forget it.

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::snapshot::{FullXid, Snapshot, Xid};

/// The suspects of the last gap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Suspects(Vec<Suspect>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Suspect {
    xid: u64,
    /// Comes through in part only.
    partial: bool,
    /// It has ended, and this WAL position was read after it.
    #[serde(skip)]
    ended_before: Option<Lsn>,
}

impl Suspects {
    /// New suspects; `partial` says which may come through in part.
    #[must_use]
    pub fn new(xids: &[FullXid], partial: impl Fn(FullXid) -> bool) -> Self {
        let suspect =
            |&xid: &FullXid| Suspect { xid: xid.0, partial: partial(xid), ended_before: None };
        Suspects(xids.iter().map(suspect).collect())
    }

    /// As stored. What cannot be read is no list: the caller has a broken state.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As it is stored.
    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one was known to come through in part.
    #[must_use]
    pub fn is_partial(&self, xid: FullXid) -> bool {
        self.0.iter().any(|suspect| suspect.partial && suspect.xid == xid.0)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A transaction came through the stream as a whole: it is none, unless in part.
    /// Says whether the list changed.
    pub fn came_through(&mut self, xid: Xid) -> bool {
        let before = self.0.len();
        self.0.retain(|suspect| suspect.partial || FullXid(suspect.xid).short() != xid);
        before != self.0.len()
    }

    /// Some have ended: `snapshot` was taken, and after it the WAL position `inserted`
    /// was read.
    pub fn note_ended(&mut self, snapshot: &Snapshot, inserted: Lsn) {
        for suspect in &mut self.0 {
            if suspect.ended_before.is_none() && snapshot.contains(FullXid(suspect.xid)) {
                suspect.ended_before = Some(inserted);
            }
        }
    }

    /// Those whose case can be decided, now that the stream has passed `passed`.
    #[must_use]
    pub fn due(&self, passed: Lsn) -> Vec<FullXid> {
        let due = |suspect: &&Suspect| suspect.ended_before.is_some_and(|end| end <= passed);
        self.0.iter().filter(due).map(|suspect| FullXid(suspect.xid)).collect()
    }

    /// This one is settled: it did not commit.
    pub fn clear(&mut self, xid: FullXid) {
        self.0.retain(|suspect| suspect.xid != xid.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn a_suspect_is_due_once_it_ended_and_the_stream_passed() {
        let mut suspects = Suspects::new(&[FullXid(10), FullXid(11)], |_| false);
        suspects.note_ended(&snapshot("10:20:10"), Lsn(500));
        assert_eq!(suspects.due(Lsn(499)), []);
        assert_eq!(suspects.due(Lsn(500)), [FullXid(11)], "10 is still open");
        suspects.note_ended(&snapshot("20:20:"), Lsn(900));
        assert_eq!(
            suspects.due(Lsn(500)),
            [FullXid(11)],
            "the first position after the end counts"
        );
        assert_eq!(suspects.due(Lsn(900)), [FullXid(10), FullXid(11)]);
        suspects.clear(FullXid(10));
        suspects.clear(FullXid(11));
        assert!(suspects.is_empty());
    }

    #[test]
    fn one_that_came_through_is_none_unless_in_part() {
        let mut whole = Suspects::new(&[FullXid((1 << 32) + 7)], |_| false);
        assert!(!whole.came_through(Xid(8)));
        assert!(whole.came_through(Xid(7)));
        assert!(whole.is_empty());
        let mut partial = Suspects::new(&[FullXid(7)], |_| true);
        assert!(!partial.came_through(Xid(7)));
        partial.note_ended(&snapshot("8:8:"), Lsn(1));
        assert_eq!(partial.due(Lsn(1)), [FullXid(7)]);
    }

    #[test]
    fn a_restart_remembers_them() {
        let mut suspects = Suspects::new(&[FullXid(10)], |_| true);
        suspects.note_ended(&snapshot("20:20:"), Lsn(5));
        let read = Suspects::read(&suspects.write()).unwrap();
        assert_eq!(
            read,
            Suspects::new(&[FullXid(10)], |_| true),
            "but its end is looked for again"
        );
        assert_eq!(Suspects::read("nonsense"), None);
    }
}
