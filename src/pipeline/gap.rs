//! Whether everything managed must be dropped at a start (rule 7). Pure: [`verdict`] compares
//! what Redis says with what Postgres says.

use crate::lsn::Lsn;
use crate::status::reason::GapReason;
use crate::store::state::{Identity, State};

/// What Postgres says, read once the slot is ours.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which database, which configuration.
    pub identity: Identity,
    /// Where the slot stands.
    pub confirmed_flush: Lsn,
    /// Where the server's WAL ends.
    pub wal_insert: Lsn,
}

/// Whether the state in Redis still stands: `None` if it does.
#[must_use]
pub fn verdict(state: Option<&State>, found: &Found) -> Option<GapReason> {
    let Some(state) = state else { return Some(GapReason::NoState) };
    let (was, is) = (&state.identity, &found.identity);
    let broken = [
        (!state.valid, GapReason::Unfinished),
        (was.system_id != is.system_id, GapReason::OtherSystem),
        (was.timeline != is.timeline, GapReason::OtherTimeline),
        (was.incarnation != is.incarnation, GapReason::CrashRecovery),
        (state.watermark < found.confirmed_flush, GapReason::SlotAhead),
        (state.watermark > found.wal_insert, GapReason::WalBehind),
        (was.mapping != is.mapping, GapReason::MappingChanged),
        (was.publication != is.publication, GapReason::PublicationChanged),
    ];
    broken.into_iter().find_map(|(is_so, reason)| is_so.then_some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::state::Nonce;

    fn identity() -> Identity {
        Identity {
            system_id: "7".to_owned(),
            timeline: 1,
            incarnation: "a".to_owned(),
            publication: "p".to_owned(),
            mapping: "m".to_owned(),
        }
    }

    fn state() -> State {
        State {
            valid: true,
            nonce: Nonce::found("n".to_owned()),
            watermark: Lsn(100),
            frontier: Lsn(100),
            identity: identity(),
            prefixes: vec![],
            closed: vec![],
            files: "{}".to_owned(),
            suspects: "[]".to_owned(),
        }
    }

    fn found() -> Found {
        Found { identity: identity(), confirmed_flush: Lsn(100), wal_insert: Lsn(100) }
    }

    #[test]
    fn what_agrees_is_no_gap() {
        assert_eq!(verdict(Some(&state()), &found()), None);
        let slot_behind = Found { confirmed_flush: Lsn(40), ..found() };
        assert_eq!(verdict(Some(&state()), &slot_behind), None, "it is streamed again");
    }

    #[test]
    fn every_disagreement_is_a_gap_with_its_reason() {
        let with = |change: fn(&mut State, &mut Found)| {
            let (mut state, mut found) = (state(), found());
            change(&mut state, &mut found);
            verdict(Some(&state), &found)
        };
        assert_eq!(verdict(None, &found()), Some(GapReason::NoState));
        assert_eq!(with(|s, _| s.valid = false), Some(GapReason::Unfinished));
        assert_eq!(with(|_, f| f.identity.system_id.push('1')), Some(GapReason::OtherSystem));
        assert_eq!(with(|_, f| f.identity.timeline = 2), Some(GapReason::OtherTimeline));
        assert_eq!(with(|_, f| f.identity.incarnation.push('1')), Some(GapReason::CrashRecovery));
        assert_eq!(with(|_, f| f.confirmed_flush = Lsn(101)), Some(GapReason::SlotAhead));
        assert_eq!(with(|_, f| f.wal_insert = Lsn(99)), Some(GapReason::WalBehind));
        assert_eq!(with(|_, f| f.identity.mapping.push('1')), Some(GapReason::MappingChanged));
        assert_eq!(
            with(|_, f| f.identity.publication.push('1')),
            Some(GapReason::PublicationChanged)
        );
    }
}
