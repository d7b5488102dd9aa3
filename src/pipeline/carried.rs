//! What one run leaves to the next within the process.

use super::suspects::Suspects;
use crate::snapshot::FullXid;
use crate::status::reason::GapReason;
use crate::store::state::{Identity, State};

/// Beside the state in Redis, which may be lost.
#[derive(Debug, Default)]
pub struct Carried {
    /// The run before found that everything must be dropped.
    pub forced: Option<GapReason>,
    /// Which publication was streamed, and what was known then.
    pub known: Option<Known>,
}

/// A publication as it was seen once, and which of the transactions that were open then may
/// come through in part.
///
/// Its fingerprint holds the versions of the catalog's rows: one that has changed never comes
/// back on the same server and timeline. So where it is found again, nothing has changed since,
/// and whoever came later comes through as a whole. That holds whoever remembers it: the state
/// in Redis, or this process, which still knows when the state is gone.
#[derive(Debug, Clone)]
pub struct Known {
    identity: Identity,
    suspects: Suspects,
}

impl Known {
    /// As a run begins with it.
    #[must_use]
    pub fn new(identity: &Identity, suspects: &Suspects) -> Self {
        Known { identity: identity.clone(), suspects: suspects.clone() }
    }

    /// As a state in Redis has it; `None` if it cannot be read.
    #[must_use]
    pub fn of(state: &State) -> Option<Self> {
        Some(Known::new(&state.identity, &Suspects::read(&state.suspects)?))
    }

    /// Whether the publication is the same, on the same server.
    #[must_use]
    pub fn is_of(&self, found: &Identity) -> bool {
        let was = &self.identity;
        was.system_id == found.system_id
            && was.timeline == found.timeline
            && was.publication == found.publication
    }

    /// Whether this transaction was one of those.
    #[must_use]
    pub fn is_partial(&self, xid: FullXid) -> bool {
        self.suspects.is_partial(xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_known_on_its_own_server_and_timeline_alone() {
        let identity = Identity {
            system_id: "7".to_owned(),
            timeline: 1,
            incarnation: "a".to_owned(),
            publication: "p".to_owned(),
            mapping: "m".to_owned(),
        };
        let known = Known::new(&identity, &Suspects::new(&[FullXid(5)], |_| true));
        assert!(known.is_of(&identity) && known.is_partial(FullXid(5)));
        assert!(!known.is_partial(FullXid(6)));
        let other = Identity { incarnation: "b".to_owned(), mapping: "n".to_owned(), ..identity };
        assert!(known.is_of(&other), "neither has anything to do with it");
        for other in [
            Identity { system_id: "8".to_owned(), ..other.clone() },
            Identity { timeline: 2, ..other.clone() },
            Identity { publication: "q".to_owned(), ..other.clone() },
        ] {
            assert!(!known.is_of(&other), "{other:?}");
        }
    }
}
