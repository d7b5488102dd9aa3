//! How a column's value stands in a key: so that no value can forge another key.
//!
//! Percent-encoded are `%` itself, what separates parameters (see [`is_separator`]), white
//! space, control characters and bytes that are not UTF-8. `%` makes the encoding
//! injective; the separators make whole keys so (see [`super::template`]).

/// A byte that no escaped value contains, and that may therefore stand between two
/// parameters: `:` by custom. The others also have a meaning in Redis' patterns.
#[must_use]
pub fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b'{' | b'}' | b'*' | b'?' | b'[' | b']' | b'\\')
}

fn is_escaped(c: char) -> bool {
    c == '%' || u8::try_from(c).is_ok_and(is_separator) || c.is_whitespace() || c.is_control()
}

/// Appends the value to `out`, escaped.
pub fn escape_into(value: &[u8], out: &mut Vec<u8>) {
    // Numbers, UUIDs and words need nothing: by far the most of them.
    if value.iter().all(|b| b.is_ascii_graphic() && *b != b'%' && !is_separator(*b)) {
        out.extend_from_slice(value);
        return;
    }
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).as_bytes();
            if is_escaped(c) { percent(bytes, out) } else { out.extend_from_slice(bytes) }
        }
        percent(chunk.invalid(), out);
    }
}

fn percent(bytes: &[u8], out: &mut Vec<u8>) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + (nibble - 10) };
    for byte in bytes {
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xF)]);
    }
}

/// The value that was escaped; `None` if [`escape_into`] never writes this.
#[must_use]
pub fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'%' {
            let mut nibble = || {
                char::from(*bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
            };
            value.push(nibble()? << 4 | nibble()?);
        } else {
            value.push(byte);
        }
    }
    let mut again = Vec::with_capacity(escaped.len());
    escape_into(&value, &mut again);
    (again == escaped).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escape(value: &[u8]) -> String {
        let mut out = Vec::new();
        escape_into(value, &mut out);
        String::from_utf8(out).expect("escaped text is UTF-8")
    }

    #[test]
    fn ordinary_values_stay_readable_and_the_others_are_encoded() {
        assert_eq!(escape(b"42"), "42");
        assert_eq!(escape("Größe".as_bytes()), "Größe");
        assert_eq!(escape(b"7:generation"), "7%3Ageneration");
        assert_eq!(escape(b"100% {a}*?[b]\\\n"), "100%25%20%7Ba%7D%2A%3F%5Bb%5D%5C%0A");
        assert_eq!(escape("a\u{a0}b\u{85}".as_bytes()), "a%C2%A0b%C2%85");
        assert_eq!(escape(b"\xff\xc3"), "%FF%C3");
    }

    #[test]
    fn what_escaping_never_writes_is_not_unescaped() {
        for wrong in ["%", "%4", "%41", "%3a", "%ZZ", "a:b", " ", "%C3%A9"] {
            assert_eq!(unescape(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_value_survives_escape_and_unescape(value: Vec<u8>) {
            let escaped = escape(&value);
            prop_assert!(!escaped.bytes().any(is_separator));
            prop_assert_eq!(unescape(escaped.as_bytes()), Some(value));
        }

        #[test]
        fn every_text_survives_escape_and_unescape(value: String) {
            prop_assert_eq!(unescape(escape(value.as_bytes()).as_bytes()), Some(value.into_bytes()));
        }
    }
}
