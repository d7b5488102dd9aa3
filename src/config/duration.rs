//! Lengths of time as people write them: `90s`, `15m`, `1h 30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// The units, from the greatest to the smallest, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Longer than any setting needs, short enough that adding it to a point in time never overflows.
const LONGEST_DAYS: u64 = 36_500;

/// A length of time: whole numbers with their units `d`, `h`, `m`, `s` or `ms`, the
/// greatest unit first, such as `500ms`, `90s`, `15m`, `4h` or `1h 30m`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(
    with = "String",
    extend("pattern" = "^[0-9]+(d|h|m|s|ms)( *[0-9]+(h|m|s|ms))*$"),
    example = "15m",
    example = "1h 30m"
)]
pub struct Span(Duration);

impl Span {
    /// A span of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Span(Duration::from_secs(seconds))
    }

    /// A span of milliseconds.
    #[must_use]
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Span(Duration::from_millis(milliseconds))
    }

    /// The same as the standard library has it.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        for (unit, length) in UNITS {
            let count = rest / u128::from(length);
            rest %= u128::from(length);
            if count > 0 {
                let gap = if text.is_empty() { "" } else { " " };
                text.push_str(&format!("{gap}{count}{unit}"));
            }
        }
        f.pad(&text)
    }
}

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSpanError {
    /// Nothing, or nothing but spaces.
    #[error("an empty text is not a length of time")]
    Empty,
    /// A unit without its number, or a number that is not whole.
    #[error("{0:?} is not a length of time: expected a whole number before its unit")]
    Number(String),
    /// `3600`.
    #[error("{0:?} is not a length of time: the number lacks its unit")]
    NoUnit(String),
    /// `1 hourr`.
    #[error("{text:?} is not a length of time: {unit:?} is not a unit")]
    Unit {
        /// The whole text.
        text: String,
        /// What stood for a unit.
        unit: String,
    },
    /// `30m 1h`, `1h 1h`.
    #[error("{0:?} is not a length of time: units go from the greatest to the smallest, each once")]
    Order(String),
    /// More than a century.
    #[error("{0:?} is too long: at most {LONGEST_DAYS}d")]
    TooLong(String),
}

/// What may be written, for hints.
pub(crate) const ALLOWED: &str = "write whole numbers with their units d, h, m, s or ms, such as \"500ms\", \"90s\", \"15m\" or \"1h 30m\"";

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = || text.to_owned();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(ParseSpanError::Empty);
        }
        let mut total = 0_u64;
        let mut units = UNITS.iter();
        while !rest.is_empty() {
            let (digits, after) = split_while(rest, |c| c.is_ascii_digit());
            // A space between is no crime, and `1 hour` then names its culprit.
            let (unit, after) = split_while(after.trim_start(), char::is_alphabetic);
            if digits.is_empty() || (unit.is_empty() && !after.is_empty()) {
                return Err(ParseSpanError::Number(whole()));
            }
            if unit.is_empty() {
                return Err(ParseSpanError::NoUnit(whole()));
            }
            if UNITS.iter().all(|(name, _)| *name != unit) {
                return Err(ParseSpanError::Unit { text: whole(), unit: unit.to_owned() });
            }
            // Going on where the last unit was found keeps them in order.
            let Some((_, length)) = units.find(|(name, _)| *name == unit) else {
                return Err(ParseSpanError::Order(whole()));
            };
            total = digits
                .parse::<u64>()
                .ok()
                .and_then(|count| count.checked_mul(*length))
                .and_then(|part| part.checked_add(total))
                .filter(|total| *total <= LONGEST_DAYS * 86_400_000)
                .ok_or_else(|| ParseSpanError::TooLong(whole()))?;
            rest = after.trim_start();
        }
        Ok(Span::milliseconds(total))
    }
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time, such as \"15m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                // What follows the line break is shown as the hint.
                text.parse().map_err(|e: ParseSpanError| E::custom(format_args!("{e}\n{ALLOWED}")))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span, E> {
                Err(E::custom(format_args!(
                    "{number} is not a length of time: the number lacks its unit\n{ALLOWED}"
                )))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Span, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom(format_args!(
                        "{number} is not a length of time: it is negative and lacks its unit\n{ALLOWED}"
                    ))),
                }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("15m", 900_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            (" 2d ", 172_800_000),
            ("0s", 0),
            ("1 h", 3_600_000),
        ] {
            assert_eq!(text.parse(), Ok(Span::milliseconds(milliseconds)), "{text:?}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_the_rest() {
        let reason = |text: &str| text.parse::<Span>().unwrap_err().to_string();
        insta::assert_snapshot!(
            ["", "3600", "1 hourr", "30m 1h", "1h 1h", "s", "-1s", "1.5h", "1h,30m", "40000d", "1us", "99999999999999999999s"]
                .map(reason).join("\n"),
            @r#"
        an empty text is not a length of time
        "3600" is not a length of time: the number lacks its unit
        "1 hourr" is not a length of time: "hourr" is not a unit
        "30m 1h" is not a length of time: units go from the greatest to the smallest, each once
        "1h 1h" is not a length of time: units go from the greatest to the smallest, each once
        "s" is not a length of time: expected a whole number before its unit
        "-1s" is not a length of time: expected a whole number before its unit
        "1.5h" is not a length of time: expected a whole number before its unit
        "1h,30m" is not a length of time: expected a whole number before its unit
        "40000d" is too long: at most 36500d
        "1us" is not a length of time: "us" is not a unit
        "99999999999999999999s" is too long: at most 36500d
        "#
        );
    }

    proptest! {
        #[test]
        fn every_span_survives_print_and_parse(milliseconds in 0..=LONGEST_DAYS * 86_400_000) {
            let span = Span::milliseconds(milliseconds);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-z .\u{e9}-]{0,12}|\\PC*") {
            if let Ok(span) = text.parse::<Span>() {
                prop_assert_eq!(span.to_string().parse(), Ok(span));
            }
        }
    }
}
