//! The receiving half of a replication stream: bytes in, frames lent out.
//!
//! Reading and parsing are apart. [`FrameReader::fill`] awaits the socket and is
//! cancel-safe, so it may stand in a `select!`; [`FrameReader::next`] never waits and lends
//! the payload straight from the buffer. All frames of a read are thus handled without
//! another system call, a copy, or an allocation.

use std::time::Duration;

use bytes::BufMut as _;
use tokio::io::{AsyncReadExt as _, ReadHalf};

use super::about::About;
use super::backend::{self, take_i64, take_u8, take_u64};
use super::error::PgError;
use super::socket::Stream;
use super::wire::{log_notice, tag};
use crate::lsn::Lsn;

/// The buffer's usual size: enough that a busy stream takes a system call per some
/// hundreds of changes.
const CAPACITY: usize = 256 << 10;
/// Below this much room at the end, what is left is moved to the front before a read.
const ROOM: usize = 32 << 10;
/// Longer than any message that Postgres can build (`MaxAllocSize`: 1 GiB less one byte).
const LIMIT: usize = 1 << 30;

/// What the server sends while it streams. `clock` is the server's, in microseconds
/// since 2000-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// One message of the output plug-in.
    XLogData {
        /// Where the WAL that it comes from begins.
        wal_start: Lsn,
        /// How far the server has WAL.
        wal_end: Lsn,
        /// When it was sent.
        clock: i64,
        /// The message.
        data: &'a [u8],
    },
    /// The server is alive and has read this far.
    Keepalive {
        /// How far it has read; with nothing in flight, all before it concerns nobody here.
        wal_end: Lsn,
        /// When it was sent.
        clock: i64,
        /// It wants a status at once, or it will give the connection up.
        reply_requested: bool,
    },
    /// The server ends the stream, as an answer to [`super::feedback::FeedbackWriter::finish`].
    CopyDone,
}

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Streaming,
    /// CopyDone came; the command's completion is to come.
    CopyDone,
    /// The server is ready for another command.
    Ready,
}

/// The receiving half of a replication stream.
///
/// Use: `loop { while let Some(frame) = reader.next()? { … } reader.fill().await? }`.
pub struct FrameReader {
    stream: ReadHalf<Stream>,
    /// What was received; its length is what is filled.
    buffer: Vec<u8>,
    /// Where the first message begins that was not yet lent.
    start: usize,
    state: State,
    about: About,
}

impl FrameReader {
    pub(super) fn new(stream: ReadHalf<Stream>, received: &[u8], about: About) -> FrameReader {
        let mut buffer = Vec::with_capacity(CAPACITY.max(received.len()));
        buffer.extend_from_slice(received);
        FrameReader { stream, buffer, start: 0, state: State::Streaming, about }
    }

    /// Reads whatever has arrived, at least one byte.
    ///
    /// Cancel-safe: if the future is dropped, nothing that arrived is lost.
    pub async fn fill(&mut self) -> Result<(), PgError> {
        self.make_room()?;
        let room = self.buffer.capacity().saturating_sub(self.buffer.len());
        // Limited, for a full Vec would double itself without being asked.
        let read = self.stream.read_buf(&mut (&mut self.buffer).limit(room)).await;
        match read {
            Ok(0) => Err(PgError::lost("the server closed the replication connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(PgError::io("reading the replication stream", error)),
        }
    }

    /// The next whole frame, lent until the next call; `None` when more must be read first.
    ///
    /// An error ends the stream: drop both halves and connect again.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, PgError> {
        loop {
            let pending = self.buffer.get(self.start..).unwrap_or_default();
            let Some(length) = backend::message_length(pending, LIMIT)? else { return Ok(None) };
            if pending.len() < length {
                return Ok(None);
            }
            let (begin, end) = (self.start, self.start.saturating_add(length));
            self.start = end;
            // Reborrowed by index: a borrow that is returned from a loop would hold for all of it.
            match self.buffer.get(begin) {
                Some(&tag::COPY_DATA) if self.state == State::Streaming => {
                    let body = self.buffer.get(begin.saturating_add(5)..end).unwrap_or_default();
                    return frame(body).map(Some);
                }
                // What was under way when we said that we are done.
                Some(&tag::COPY_DATA) => {}
                Some(&tag::COPY_DONE) => {
                    self.state = State::CopyDone;
                    return Ok(Some(Frame::CopyDone));
                }
                Some(&other) => {
                    let body = self.buffer.get(begin.saturating_add(5)..end).unwrap_or_default();
                    self.state = beside(other, body, self.state, &self.about)?;
                }
                None => return Ok(None),
            }
        }
    }

    /// After [`super::feedback::FeedbackWriter::finish`]: reads and drops what is still under
    /// way until the server has ended the stream, at most for `within`.
    ///
    /// In the middle of a large transaction the server may go on sending for a while; then
    /// this times out, and dropping the connection is all that is left. Nothing is lost:
    /// what was not acknowledged comes again.
    pub async fn drain(&mut self, within: Duration) -> Result<(), PgError> {
        let drained = async {
            loop {
                while self.next()?.is_some() {}
                if self.state == State::Ready {
                    return Ok(());
                }
                self.fill().await?;
            }
        };
        tokio::time::timeout(within, drained).await.unwrap_or_else(|_| {
            Err(PgError::timeout("the server did not end the stream in time").with_remedy(
                "it is in the middle of a large transaction: the connection is dropped",
            ))
        })
    }

    /// Makes room for a read: usually by forgetting what was lent, rarely by growing.
    fn make_room(&mut self) -> Result<(), PgError> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            // A single huge row must not be paid for ever after.
            self.buffer.shrink_to(CAPACITY);
        }
        let room = |buffer: &Vec<u8>| buffer.capacity().saturating_sub(buffer.len());
        if self.start > 0 && room(&self.buffer) < ROOM {
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(self.buffer.len().saturating_sub(self.start));
            self.start = 0;
        }
        if room(&self.buffer) == 0 {
            // One message fills it all. Grow by doubling towards its length, as its bytes
            // arrive: a length that lies costs at most twice what was really sent.
            let length = backend::message_length(&self.buffer, LIMIT)?.unwrap_or(CAPACITY);
            let target = length.min(self.buffer.capacity().saturating_mul(2));
            self.buffer.reserve_exact(target.saturating_sub(self.buffer.len()).max(1));
        }
        Ok(())
    }
}

/// The body of a CopyData message.
fn frame(mut body: &[u8]) -> Result<Frame<'_>, PgError> {
    match take_u8(&mut body)? {
        b'w' => Ok(Frame::XLogData {
            wal_start: Lsn(take_u64(&mut body)?),
            wal_end: Lsn(take_u64(&mut body)?),
            clock: take_i64(&mut body)?,
            data: body,
        }),
        b'k' => Ok(Frame::Keepalive {
            wal_end: Lsn(take_u64(&mut body)?),
            clock: take_i64(&mut body)?,
            reply_requested: take_u8(&mut body)? != 0,
        }),
        other => Err(PgError::protocol(format!(
            "the server sent a replication message of type {:?}",
            char::from(other)
        ))),
    }
}

/// A message that is not part of the stream; the state after it.
fn beside(tag: u8, body: &[u8], state: State, about: &About) -> Result<State, PgError> {
    match (tag, state) {
        (tag::ERROR_RESPONSE, _) => {
            Err(PgError::server(&backend::server_error(body)?, about).during("replication stream"))
        }
        (tag::NOTICE_RESPONSE, _) => log_notice(body).map(|()| state),
        (tag::PARAMETER_STATUS, _) => {
            let (name, value) = backend::parameter_status(body)?;
            tracing::debug!(name, value, "Postgres reports a setting");
            Ok(state)
        }
        (tag::NOTIFICATION_RESPONSE, _) => Ok(state),
        // A server that shuts down ends the command without CopyDone.
        (tag::COMMAND_COMPLETE, State::Streaming) => {
            Err(PgError::lost("the server ended the replication stream: it is shutting down"))
        }
        (tag::COMMAND_COMPLETE, _) => Ok(state),
        (tag::READY_FOR_QUERY, State::CopyDone) => Ok(State::Ready),
        _ => Err(PgError::protocol(format!(
            "the server sent a message of type {:?} into the replication stream",
            char::from(tag)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_kinds_of_frame_are_read() {
        let mut keepalive = b"k".to_vec();
        keepalive.extend(7_u64.to_be_bytes());
        keepalive.extend((-1_i64).to_be_bytes());
        keepalive.push(1);
        assert_eq!(
            frame(&keepalive).unwrap(),
            Frame::Keepalive { wal_end: Lsn(7), clock: -1, reply_requested: true }
        );
        assert!(frame(&keepalive[..17]).is_err(), "cut off");
        assert!(frame(b"").is_err());
        assert!(frame(b"x").is_err());
    }

    /// A reader, and the server's end of its socket.
    fn pair() -> (FrameReader, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (read, _write) = tokio::io::split(Stream::Unix(ours));
        (FrameReader::new(read, &[], About::a_query()), theirs)
    }

    fn xlog_data(position: u64, length: usize) -> Vec<u8> {
        let mut message = vec![tag::COPY_DATA];
        message.extend(u32::try_from(4 + 1 + 24 + length).unwrap().to_be_bytes());
        message.push(b'w');
        message.extend(position.to_be_bytes());
        message.extend([0; 16]);
        message.extend((0..=250).cycle().take(length));
        message
    }

    #[tokio::test]
    async fn frames_arrive_whole_however_the_bytes_are_cut() {
        use tokio::io::AsyncWriteExt as _;
        // Around the buffer's size, far over it, and small ones in between.
        let lengths: Vec<usize> = (0..400)
            .map(|i| match i % 50 {
                0 => CAPACITY - 40 + i / 5,
                1 => 3 * CAPACITY,
                n => n * n,
            })
            .collect();
        let (mut reader, mut server) = pair();
        let sent = lengths.clone();
        let writing = tokio::spawn(async move {
            let mut bytes = Vec::new();
            for (position, length) in (0..).zip(sent) {
                bytes.extend(xlog_data(position, length));
            }
            let mut rest = bytes.as_slice();
            let mut cut = 1;
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                server.write_all(head).await.unwrap();
                rest = tail;
                cut = cut * 7 % 65_537;
            }
            server
        });
        let mut arrived = 0;
        while arrived < lengths.len() {
            while let Some(frame) = reader.next().unwrap() {
                let Frame::XLogData { wal_start, data, .. } = frame else { panic!("{frame:?}") };
                assert_eq!(wal_start, Lsn(arrived as u64));
                assert_eq!(data.len(), lengths[arrived]);
                assert!(data.iter().enumerate().all(|(i, &b)| usize::from(b) == i % 251));
                arrived += 1;
            }
            if arrived < lengths.len() {
                reader.fill().await.unwrap();
            }
        }
        drop(writing.await.unwrap());
        assert!(reader.buffer.capacity() <= 4 * CAPACITY, "{}", reader.buffer.capacity());
        let ended = reader.fill().await.unwrap_err();
        assert_eq!(ended.class(), super::super::error::Class::Retry, "{ended}");
    }

    #[tokio::test]
    async fn a_length_that_lies_takes_no_memory() {
        use tokio::io::AsyncWriteExt as _;
        let (mut reader, mut server) = pair();
        server.write_all(&[b'd', 0x3f, 0xff, 0xff, 0xff, b'w']).await.unwrap();
        reader.fill().await.unwrap();
        assert_eq!(reader.next().unwrap(), None);
        server.write_all(&[0; 64]).await.unwrap();
        reader.fill().await.unwrap();
        assert_eq!(reader.buffer.capacity(), CAPACITY, "a gigabyte was announced, not sent");

        for wrong in
            [[b'd', 0xff, 0xff, 0xff, 0xff], [b'd', 0, 0, 0, 3], [b'd', 0x7f, 0xff, 0xff, 0xff]]
        {
            let (mut reader, mut server) = pair();
            server.write_all(&wrong).await.unwrap();
            reader.fill().await.unwrap();
            let error = reader.next().unwrap_err();
            assert_eq!(error.kind(), super::super::error::Kind::Protocol, "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_frame_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(frame(&bytes));
            let about = About::a_query();
            for state in [State::Streaming, State::CopyDone, State::Ready] {
                if let Some((tag, body)) = bytes.split_first() {
                    drop(beside(*tag, body, state, &about));
                }
            }
        }
    }
}
