//! By what a request is found again: its id, and the trace that it is part of.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::digits::hexadecimal;

/// The request's id, sent back, logged, and part of each problem.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trace {
    request_id: HeaderValue,
    /// The header as it came, if it is one.
    pub(super) parent: Option<HeaderValue>,
}

impl Trace {
    /// Takes over what the client sent, as far as it is sane.
    pub(super) fn of(headers: &HeaderMap) -> Trace {
        let sent = |name: &HeaderName, is_good: fn(&str) -> bool| {
            headers.get(name).filter(|value| value.to_str().is_ok_and(is_good)).cloned()
        };
        Trace {
            request_id: sent(&REQUEST_ID, is_sane).unwrap_or_else(new_id),
            parent: sent(&TRACEPARENT, is_parent),
        }
    }

    /// The request's id.
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// The same, as it is sent back.
    pub(super) fn id_to_send(&self) -> HeaderValue {
        self.request_id.clone()
    }

    /// The id of the trace.
    pub(super) fn trace_id(&self) -> Option<&str> {
        self.parent.as_ref()?.to_str().ok()?.split('-').nth(1)
    }
}

fn new_id() -> HeaderValue {
    let digits = Bytes::copy_from_slice(&hexadecimal(fastrand::u128(..)));
    HeaderValue::from_maybe_shared(digits).unwrap_or(HeaderValue::from_static("none"))
}

/// What may stand in a log without harm.
fn is_sane(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=:".contains(&b);
    (1..=128).contains(&id.len()) && id.bytes().all(plain)
}

/// `version-trace-parent-flags` (W3C Trace Context, section 3.2.2).
fn is_parent(header: &str) -> bool {
    let mut parts = header.split('-');
    let mut hex = |length: usize, may_be_zero: bool| {
        parts.next().is_some_and(|part| {
            part.len() == length
                && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && (may_be_zero || part.bytes().any(|b| b != b'0'))
        })
    };
    let whole = hex(2, true) && hex(32, false) && hex(16, false) && hex(2, true);
    // Later versions may have more behind the flags.
    whole && !header.starts_with("ff-") && (parts.next().is_none() || !header.starts_with("00-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: HeaderName, value: &str) -> Trace {
        Trace::of(&HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]))
    }

    #[test]
    fn a_sane_id_is_kept_and_another_is_made() {
        assert_eq!(of(REQUEST_ID, "a-1:b/c=").request_id(), "a-1:b/c=");
        for wrong in ["", "a b", "a\"b", "x".repeat(129).as_str()] {
            assert_eq!(of(REQUEST_ID, wrong).request_id().len(), 32, "{wrong}");
        }
    }

    #[test]
    fn a_trace_is_passed_on_if_it_is_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(TRACEPARENT, good).trace_id(), Some("0af7651916cd43dd8448eb211c80319c"));
        for wrong in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(of(TRACEPARENT, wrong).parent, None, "{wrong}");
        }
    }
}
