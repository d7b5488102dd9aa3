//! What to tell an operator whose stream cannot be understood.

use std::fmt;

use super::decode::Context;
use super::excerpt;
use super::reader::Malformed;

/// Bytes that are no message, without the row values among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Boxed, for the error is rare and every row change's result has room for it.
    detail: Box<Detail>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Detail {
    tag: Option<u8>,
    length: usize,
    offset: usize,
    expected: &'static str,
    excerpt: String,
}

impl DecodeError {
    #[cold]
    pub(super) fn in_message(bytes: &[u8], context: Context, malformed: Malformed) -> Self {
        let excerpt = excerpt::of_message(bytes, context.in_stream, malformed.offset);
        Self::new(bytes.first().copied(), bytes, malformed, excerpt)
    }

    #[cold]
    pub(super) fn in_tuple(bytes: &[u8], malformed: Malformed) -> Self {
        Self::new(None, bytes, malformed, excerpt::of_tuple(bytes, malformed.offset))
    }

    fn new(tag: Option<u8>, bytes: &[u8], malformed: Malformed, excerpt: String) -> Self {
        let Malformed { offset, expected } = malformed;
        Self { detail: Box::new(Detail { tag, length: bytes.len(), offset, expected, excerpt }) }
    }

    /// The message's first byte, which says what it is; `None` if there was
    /// none, or if a tuple was parsed on its own.
    #[must_use]
    pub fn tag(&self) -> Option<u8> {
        self.detail.tag
    }

    /// Where the bytes ceased to make sense, counted from the message's first.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.detail.offset
    }

    /// What should have stood there, in words.
    #[must_use]
    pub fn expected(&self) -> &'static str {
        self.detail.expected
    }

    /// The message in hexadecimal as far as it was understood: its tag, its
    /// header, and of tuples the number of columns with their kinds and
    /// lengths. Values, and everything from [`DecodeError::offset`] on, are only
    /// counted, as in `<5 bytes>`: where the structure is lost, any byte may be
    /// a row's.
    #[must_use]
    pub fn excerpt(&self) -> &str {
        &self.detail.excerpt
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail { tag, length, offset, expected, ref excerpt } = *self.detail;
        match tag {
            Some(tag) => {
                let name = name_of(tag).unwrap_or("unknown");
                write!(f, "malformed {name} message (tag '{}', ", tag.escape_ascii())?;
            }
            None => f.write_str("malformed tuple or empty message (")?,
        }
        write!(
            f,
            "{length} bytes): expected {expected} at offset {offset}, in [{excerpt}]. \
             The server's pgoutput and this decoder disagree about the format, or something \
             between them altered the bytes: nothing after this was read or acknowledged. \
             Check the server's version against those supported and report this line; \
             it shows no row's values"
        )
    }
}

impl std::error::Error for DecodeError {}

/// The manual's name for a message's tag.
fn name_of(tag: u8) -> Option<&'static str> {
    Some(match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        b'S' => "Stream Start",
        b'E' => "Stream Stop",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'p' => "Stream Prepare",
        _ => return None,
    })
}
