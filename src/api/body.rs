//! What is sent behind the head: a value in its envelope. Small ones are copied together, for each
//! piece costs more than a copy of it; larger ones are not.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Up to so many bytes are copied.
const SMALL: usize = 4_096;

/// Up to three pieces, one after the other. Empty ones are passed over.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// In reverse: what is sent next is the last.
    rest: [Bytes; 3],
}

impl Pieces {
    pub(super) fn of(first: Bytes, second: Bytes, third: Bytes) -> Pieces {
        Pieces { rest: [third, second, first] }
    }

    /// What stands before and behind a value, and the value.
    pub(super) fn around(opening: &Bytes, value: &Bytes, closing: &Bytes) -> Pieces {
        if opening.len() + value.len() + closing.len() > SMALL {
            return Pieces::of(opening.clone(), value.clone(), closing.clone());
        }
        Bytes::from([&**opening, &**value, &**closing].concat()).into()
    }
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Pieces {
        Pieces::of(whole, Bytes::new(), Bytes::new())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.rest.iter_mut().rev().find(|piece| !piece.is_empty());
        Poll::Ready(next.map(|piece| Ok(Frame::data(std::mem::take(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = self.rest.iter().map(Bytes::len).sum::<usize>();
        SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn pieces_come_in_their_order_and_are_as_long_as_they_say() {
        let of = |text: &'static str| Bytes::from_static(text.as_bytes());
        let large = Bytes::from(vec![b'x'; SMALL]);
        let all = ["[", str::from_utf8(&large).unwrap(), "]"].concat();
        for (pieces, expected) in [
            (Pieces::around(&of("a"), &of("bc"), &of("d")), "abcd"),
            (Pieces::around(&of("["), &large, &of("]")), &all),
            (Pieces::of(of("a"), of("bc"), of("d")), "abcd"),
            (Pieces::of(of(""), of("bc"), of("")), "bc"),
            (of("abc").into(), "abc"),
            (Pieces::default(), ""),
        ] {
            assert_eq!(pieces.size_hint().exact(), Some(expected.len() as u64));
            assert_eq!(pieces.is_end_stream(), expected.is_empty());
            let collected = pieces.collect().await.unwrap().to_bytes();
            assert_eq!(collected, expected.as_bytes());
        }
    }
}
