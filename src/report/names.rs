//! Keys and ids as reports show them: whatever bytes a row's values put there, no control characters, and
//! not without end.

/// The longest that is shown, in characters.
const LONGEST: usize = 200;

/// Bytes as a text for people: a terminal obeys nothing in it, and a page holds it in a line.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        if at >= LONGEST {
            shown.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// What turns text around, or joins it, without being seen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        for (bytes, expected) in [
            (&b"v1:org:data:7"[..], "v1:org:data:7"),
            (b"a\x1b[2Jb\n", "a\\u{1b}[2Jb\\u{a}"),
            ("r\u{202e}l".as_bytes(), "r\\u{202e}l"),
            (b"\xff", "\u{fffd}"),
        ] {
            assert_eq!(shown(bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn no_control_character_and_no_endless_text(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
            let text = shown(&bytes);
            prop_assert!(!text.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert!(text.chars().count() <= 8 * LONGEST + 1);
        }
    }
}
