//! Rows: checked once when decoded, then walked without a `Result`.

use std::fmt;
use std::iter::FusedIterator;

use super::error::DecodeError;
use super::reader::{Malformed, Reader};

/// One column of a row.
///
/// `Debug` shows the kind and the length only, so that no row's value reaches a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL. In an [`OldTuple::Key`] also every column outside of the key.
    Null,
    /// A TOASTed value that the UPDATE did not touch: the old row's, not sent.
    Unchanged,
    /// In the type's text form.
    Text(&'a [u8]),
    /// In the type's binary form (only when asked for by `binary`).
    Binary(&'a [u8]),
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Text(value) => write!(f, "Text({} bytes)", value.len()),
            Self::Binary(value) => write!(f, "Binary({} bytes)", value.len()),
        }
    }
}

/// The old row of an UPDATE or DELETE, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// Only the replica identity's columns hold values.
    Key(Tuple<'a>),
    /// The whole row (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The row, however much of it is known.
    #[must_use]
    pub fn tuple(&self) -> Tuple<'a> {
        match *self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// A row: as many values as its [`Relation`](super::message::Relation) has columns.
///
/// The only way to one is through the decoder or [`Tuple::parse`], so the body
/// is known to hold exactly `columns` whole values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    body: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Reads the row at the start of `bytes` (manual, `TupleData`), and gives
    /// what follows it.
    ///
    /// # Errors
    /// If there is no whole row at the start of `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut reader = Reader::new(bytes);
        match Self::read(&mut reader) {
            Ok(tuple) => Ok((tuple, reader.rest())),
            Err(malformed) => Err(DecodeError::in_tuple(bytes, malformed)),
        }
    }

    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let columns = reader.u16("the number of columns")?;
        let start = reader.rest();
        for _ in 0..columns {
            match reader.u8(COLUMN_KIND)? {
                b't' | b'b' => {
                    let _ = reader.counted("a column's length", "a column's value")?;
                }
                b'n' | b'u' => {}
                _ => return Err(reader.malformed_before(1, COLUMN_KIND)),
            }
        }
        let length = start.len().saturating_sub(reader.rest().len());
        let (body, _) = start.split_at_checked(length).unwrap_or((start, &[]));
        Ok(Self { columns, body })
    }

    /// How many columns the row has.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether it is a row without columns (a table may have none).
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The values, in the order of the relation's columns.
    #[must_use]
    #[inline]
    pub fn iter(&self) -> Values<'a> {
        Values { left: self.columns, rest: self.body }
    }

    /// As it goes over the wire: the number of columns, then the values.
    pub(super) fn wire(&self) -> (u16, &'a [u8]) {
        (self.columns, self.body)
    }
}

const COLUMN_KIND: &str = "a column's kind: n, u, t or b";

impl<'a> IntoIterator for Tuple<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Tuple<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The values of a [`Tuple`].
#[derive(Debug, Clone)]
pub struct Values<'a> {
    left: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    /// The body was checked by [`Tuple::read`]: each `?` below is a branch that
    /// is never taken, there so that nothing could panic even if it were.
    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        let (&kind, rest) = self.rest.split_first()?;
        let value = match kind {
            b'n' => {
                self.rest = rest;
                Value::Null
            }
            b'u' => {
                self.rest = rest;
                Value::Unchanged
            }
            _ => {
                let (length, rest) = rest.split_first_chunk()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (value, rest) = rest.split_at_checked(length)?;
                self.rest = rest;
                if kind == b'b' { Value::Binary(value) } else { Value::Text(value) }
            }
        };
        self.left = self.left.saturating_sub(1);
        Some(value)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.left);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Values<'_> {}
impl FusedIterator for Values<'_> {}
