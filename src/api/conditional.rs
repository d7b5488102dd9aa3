//! Conditional requests (RFC 9110, section 13): pure.
//!
//! `ETag` is made of the value's bytes, and weak: what stands beside the value, and the
//! encoding, may differ.
//!
//! `Last-Modified` has whole seconds, and a value may change twice in one. So it is told only
//! of a value that was seen for the first time [`SETTLED`] ago: a client that was told
//! of the second `t` was told so when `t` was over, with the value that was current then; the
//! next one is told of a later second than `t`, whatever the clock is set to ([`super::seen`]). Without that, `If-Modified-Since` would give 304 for a value
//! that the client does not have.

use std::time::{Duration, SystemTime};

use super::digits::hexadecimal;
use xxhash_rust::xxh3::xxh3_128;

/// How long a value must have been there before its time is told.
pub const SETTLED: Duration = Duration::from_secs(2);

/// What a value is known by.
#[must_use]
pub fn hash(value: &[u8]) -> u128 {
    xxh3_128(value)
}

/// An entity tag: `W/"…"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; 36]);

/// The entity tag of a value.
#[must_use]
pub fn etag(hash: u128) -> Tag {
    let mut tag = *b"W/\"________________________________\"";
    if let Some(digits) = tag.get_mut(3..35) {
        digits.copy_from_slice(&hexadecimal(hash));
    }
    Tag(tag)
}

impl Tag {
    /// As a header has it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Without what makes it weak.
    fn opaque(&self) -> &[u8] {
        self.0.get(2..).unwrap_or_default()
    }
}

/// Whether `If-None-Match` has this tag: weak comparison, a list, or `*`.
#[must_use]
pub fn none_match(header: &str, etag: &Tag) -> bool {
    let is_ours = |tag: &str| {
        let tag = tag.trim();
        tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.opaque()
    };
    // Our tags have no comma, so a foreign one that has is no match either way.
    header.trim() == "*" || header.split(',').any(is_ours)
}

/// What is told of the time of a value that was first seen then.
#[must_use]
pub fn last_modified(seen: SystemTime, now: SystemTime) -> Option<SystemTime> {
    now.duration_since(seen).is_ok_and(|since| since >= SETTLED).then_some(seen)
}

/// Whether `If-Modified-Since` is the very time that is told, in whole seconds. A *later* one is no
/// proof: another daemon's clock, or this one's before it was set back, may have told it of
/// another value.
#[must_use]
pub fn not_modified_since(header: &str, last_modified: SystemTime) -> bool {
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
    };
    httpdate::parse_http_date(header).is_ok_and(|since| seconds(since) == seconds(last_modified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        let tag = etag(hash(b"{}"));
        let text = str::from_utf8(tag.as_bytes()).unwrap();
        let strong = text.trim_start_matches("W/");
        for (header, expected) in [
            (text.to_owned(), true),
            (strong.to_owned(), true),
            (format!("\"x\", {text} ,\"y\""), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
            (String::new(), false),
            (strong.trim_matches('"').to_owned(), false),
        ] {
            assert_eq!(none_match(&header, &tag), expected, "{header}");
        }
        assert_ne!(hash(b"{}"), hash(b"[]"));
    }

    #[test]
    fn a_time_is_told_once_its_second_is_over() {
        let seen = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_900);
        assert_eq!(last_modified(seen, seen + Duration::from_millis(1_999)), None);
        assert_eq!(last_modified(seen, seen + SETTLED), Some(seen));
        assert_eq!(last_modified(seen, seen - SETTLED), None, "the clock was set back");
        assert!(not_modified_since("Thu, 01 Jan 1970 00:16:40 GMT", seen));
        assert!(!not_modified_since("Thu, 01 Jan 1970 00:16:39 GMT", seen));
        assert!(!not_modified_since("Thu, 01 Jan 1970 00:16:41 GMT", seen), "of another value");
        assert!(!not_modified_since("yesterday", seen));
    }
}
