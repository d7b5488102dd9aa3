//! A heartbeat, from its writing to the WAL until it is applied.

use std::time::Instant;

use crate::pgoutput::message::LogicalMessage;
use crate::postgres::heartbeat::PREFIX;

/// One heartbeat; no other is like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat(u128);

impl Beat {
    /// A new one.
    #[must_use]
    pub fn fresh() -> Beat {
        Beat(fastrand::u128(..))
    }

    /// As the message says it.
    #[must_use]
    pub fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// What a message says, if it may be one of ours.
    #[must_use]
    pub fn read(message: &LogicalMessage<'_>) -> Option<Beat> {
        if !message.transactional || message.prefix != PREFIX || message.content.len() != 32 {
            return None;
        }
        let text = str::from_utf8(message.content).ok()?;
        u128::from_str_radix(text, 16).ok().map(Beat)
    }
}

/// One under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beating {
    pub(super) beat: Beat,
    pub(super) since: Instant,
    /// It is in the WAL for sure: from here on it counts as lag.
    pub(super) committed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn only_a_transactional_message_of_the_right_form_can_be_one() {
        let beat = Beat::fresh();
        let text = beat.text();
        let message = |transactional, prefix, content| {
            Beat::read(&LogicalMessage { transactional, lsn: Lsn(1), prefix, content })
        };
        assert_eq!(message(true, PREFIX, text.as_bytes()), Some(beat));
        assert_eq!(message(false, PREFIX, text.as_bytes()), None);
        assert_eq!(message(true, "outbox", text.as_bytes()), None);
        for other in [&b""[..], b"hello", &[0xff; 32], &text.as_bytes()[1..]] {
            assert_eq!(message(true, PREFIX, other), None);
        }
    }
}
