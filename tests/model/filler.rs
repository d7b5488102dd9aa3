//! Fillers: lease, then read, then store (rules 4 and 5). A filler may pause anywhere, for
//! any time: nothing forces its next step.

use super::redis::Token;
use super::set::{Lsn, Txs};

/// How far a filler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Filler {
    #[default]
    Idle,
    /// It read the frontier before it asked for a lease: rule 5 broken.
    Asked { frontier: Lsn },
    /// It has a lease; a reader of a standby has the frontier, too.
    Leased { token: Token, frontier: Lsn },
    /// The standby was seen to be past the frontier.
    Checked { token: Token },
    /// It took its snapshot and is still to look at the replay position: rule 5 broken.
    Unchecked { token: Token, frontier: Lsn, snapshot: Txs },
    /// It has its value, computed from this snapshot.
    Loaded { token: Token, snapshot: Txs },
}

impl Filler {
    pub fn token_mut(&mut self) -> Option<&mut Token> {
        match self {
            Filler::Idle | Filler::Asked { .. } => None,
            Filler::Leased { token, .. }
            | Filler::Checked { token }
            | Filler::Unchecked { token, .. }
            | Filler::Loaded { token, .. } => Some(token),
        }
    }
}
