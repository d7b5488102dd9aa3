//! A malformed message in hexadecimal, without the row values in it.
//!
//! Only what the decoder understood is shown. From the malformed byte on
//! everything is counted and not shown, for a wrong length may have led the
//! decoder into the middle of a value.

use std::fmt::Write;

/// How many bytes of structure are shown at most.
const MOST_SHOWN: usize = 96;

/// What stands at least between a tag and the first value: of a row change the
/// relation, the tuple's kind, its number of columns, and one column's kind and
/// length; of a logical message more. As much is shown of any message, so that
/// not even a row under a wrong tag shows its values.
const BEFORE_ANY_VALUE: usize = 4 + 1 + 2 + 1 + 4;

/// Of a whole message that is malformed at `offset`.
pub(super) fn of_message(bytes: &[u8], in_stream: bool, offset: usize) -> String {
    // The tag tells what the message is, even where it is itself what is wrong.
    let mut excerpt = Excerpt::new(bytes, offset.max(1));
    let xid = if in_stream { 4 } else { 0 };
    match bytes.first() {
        Some(b'I' | b'U' | b'D') => excerpt.row_change(xid),
        _ => excerpt
            .show(1)
            .and_then(|_| excerpt.show(excerpt.understood.len().min(BEFORE_ANY_VALUE)))
            .map(drop),
    };
    excerpt.finish()
}

/// Of a tuple on its own that is malformed at `offset`.
pub(super) fn of_tuple(bytes: &[u8], offset: usize) -> String {
    let mut excerpt = Excerpt::new(bytes, offset);
    excerpt.tuple();
    excerpt.finish()
}

struct Excerpt<'a> {
    out: String,
    /// How many more bytes may be shown.
    room: usize,
    /// What is left of what the decoder understood.
    understood: &'a [u8],
    /// How many bytes it did not understand.
    beyond: usize,
}

impl<'a> Excerpt<'a> {
    fn new(bytes: &'a [u8], offset: usize) -> Self {
        let (understood, beyond) = bytes.split_at_checked(offset).unwrap_or((bytes, &[]));
        Self { out: String::new(), room: MOST_SHOWN, understood, beyond: beyond.len() }
    }

    /// Shows a field; `None` once there is none that was understood, or no room for it.
    fn show(&mut self, length: usize) -> Option<&'a [u8]> {
        let room = self.room.checked_sub(length)?;
        let (field, rest) = self.understood.split_at_checked(length)?;
        if !field.is_empty() {
            self.part(|out| field.iter().try_for_each(|byte| write!(out, "{byte:02x}")));
        }
        (self.room, self.understood) = (room, rest);
        Some(field)
    }

    fn row_change(&mut self, xid: usize) -> Option<()> {
        self.show(1)?;
        self.show(xid)?;
        self.show(4)?;
        loop {
            self.show(1)?;
            self.tuple()?;
        }
    }

    fn tuple(&mut self) -> Option<()> {
        let columns = u16::from_be_bytes(*self.show(2)?.first_chunk()?);
        for _ in 0..columns {
            if let [b't' | b'b'] = self.show(1)? {
                let length = u32::from_be_bytes(*self.show(4)?.first_chunk()?);
                let (_, rest) = self.understood.split_at_checked(usize::try_from(length).ok()?)?;
                self.understood = rest;
                self.count(usize::try_from(length).ok()?);
            }
        }
        Some(())
    }

    fn count(&mut self, bytes: usize) {
        if bytes > 0 {
            self.part(|out| write!(out, "<{bytes} bytes>"));
        }
    }

    fn finish(mut self) -> String {
        self.count(self.understood.len().saturating_add(self.beyond));
        self.out
    }

    fn part(&mut self, write: impl FnOnce(&mut String) -> std::fmt::Result) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        // Writing to a string cannot fail.
        if write(&mut self.out).is_err() {
            self.out.push('…');
        }
    }
}
