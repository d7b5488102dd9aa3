//! A cursor over one message that knows where it stands.

use crate::lsn::Lsn;
use crate::snapshot::Xid;

/// Where a message ceased to make sense, and what should have stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) offset: usize,
    pub(super) expected: &'static str,
}

/// Takes a message apart from its start. Every reader of a field says what it
/// expects there, in words for the operator.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total: bytes.len() }
    }

    /// What has not been read yet.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn offset(&self) -> usize {
        self.total.saturating_sub(self.rest.len())
    }

    /// What stands here is not what was `expected`.
    #[cold]
    pub(super) fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { offset: self.offset(), expected }
    }

    /// What stood `back` bytes before is not what was `expected`.
    #[cold]
    pub(super) fn malformed_before(&self, back: usize, expected: &'static str) -> Malformed {
        Malformed { offset: self.offset().saturating_sub(back), expected }
    }

    #[inline]
    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], Malformed> {
        match self.rest.split_first_chunk() {
            Some((array, rest)) => {
                self.rest = rest;
                Ok(*array)
            }
            None => Err(self.malformed(expected)),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self, expected: &'static str) -> Result<u8, Malformed> {
        self.array(expected).map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self, expected: &'static str) -> Result<u16, Malformed> {
        self.array(expected).map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self, expected: &'static str) -> Result<u32, Malformed> {
        self.array(expected).map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self, expected: &'static str) -> Result<i32, Malformed> {
        self.array(expected).map(i32::from_be_bytes)
    }

    #[inline]
    pub(super) fn i64(&mut self, expected: &'static str) -> Result<i64, Malformed> {
        self.array(expected).map(i64::from_be_bytes)
    }

    #[inline]
    pub(super) fn lsn(&mut self, expected: &'static str) -> Result<Lsn, Malformed> {
        self.array(expected).map(|raw| Lsn(u64::from_be_bytes(raw)))
    }

    #[inline]
    pub(super) fn xid(&mut self, expected: &'static str) -> Result<Xid, Malformed> {
        self.u32(expected).map(Xid)
    }

    /// `count` fields of the same size; `None`, with nothing read, if there are fewer.
    pub(super) fn arrays<const N: usize>(&mut self, count: usize) -> Option<&'a [[u8; N]]> {
        let (taken, rest) = self.rest.split_at_checked(count.checked_mul(N)?)?;
        self.rest = rest;
        let (arrays, _) = taken.as_chunks();
        Some(arrays)
    }

    /// As many bytes as the length in front of them says.
    #[inline]
    pub(super) fn counted(
        &mut self,
        expected_length: &'static str,
        expected: &'static str,
    ) -> Result<&'a [u8], Malformed> {
        // The format calls it an Int32. A negative one is larger than any
        // message when read as unsigned: one comparison refuses both.
        let length = self.u32(expected_length)?;
        let taken = usize::try_from(length).ok().and_then(|n| self.rest.split_at_checked(n));
        match taken {
            Some((value, rest)) => {
                self.rest = rest;
                Ok(value)
            }
            None => Err(self.malformed_before(size_of::<u32>(), expected)),
        }
    }

    /// A string that a zero byte ends. The connection's `client_encoding` is
    /// UTF8, so the server sends nothing else.
    pub(super) fn string(&mut self, expected: &'static str) -> Result<&'a str, Malformed> {
        memchr::memchr(0, self.rest)
            .and_then(|end| self.rest.split_at_checked(end))
            .and_then(|(text, rest)| {
                let text = std::str::from_utf8(text).ok()?;
                self.rest = rest.get(1..)?;
                Some(text)
            })
            .ok_or_else(|| self.malformed(expected))
    }
}
