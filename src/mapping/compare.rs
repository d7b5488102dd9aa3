//! Whether a column's text, as the stream carries it, equals a literal: by the column's
//! type.
//!
//! Exact for booleans, numbers, texts, UUIDs and enums. Of other types (timestamps, JSON,
//! …) the same value has many texts, so different texts prove nothing: such a comparison
//! may hold ([`Equality::Open`]), which drops more, never less, and the plan says so once.
//! Texts are compared by their bytes: a nondeterministic collation is not followed.

use tokio_postgres::types::Type;

use super::condition::Literal;
use super::types::TypeNames;

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Equality {
    Equal,
    Different,
    /// It cannot be told.
    Open,
}

/// A literal, made ready to be compared with values of one type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Comparison {
    Bool(bool),
    Decimal(Box<str>),
    Float4(f32),
    Float8(f64),
    Text(Box<str>),
    /// `char(n)`: trailing blanks do not count.
    Padded(Box<str>),
    /// `citext`
    CaseInsensitive(Box<str>),
    /// A type of which only equal texts are known to be equal values.
    Inexact(Box<str>),
    /// Makes no sense for the type: never told.
    Open,
}

impl Comparison {
    /// Makes a literal ready for a column of this type. The second part says what cannot
    /// be compared, if so.
    pub(super) fn new(
        literal: &Literal,
        type_id: u32,
        types: &TypeNames,
    ) -> (Self, Option<String>) {
        let comparison = match Type::from_oid(type_id) {
            Some(builtin) => Self::with_builtin(literal, &builtin),
            None => Some(Self::with_user_type(literal, types.bare_name(type_id))),
        };
        let name = || types.sql_name(type_id).unwrap_or_else(|| type_id.to_string());
        match comparison {
            None => {
                let problem = format!("{} is no value of type {}", written(literal), name());
                (Comparison::Open, Some(problem))
            }
            Some(inexact @ Comparison::Inexact(_)) => {
                let problem = format!("values of type {} cannot be compared by their text", name());
                (inexact, Some(problem))
            }
            Some(exact) => (exact, None),
        }
    }

    fn with_builtin(literal: &Literal, builtin: &Type) -> Option<Self> {
        let text = match literal {
            Literal::Bool(value) => {
                return (*builtin == Type::BOOL).then_some(Comparison::Bool(*value));
            }
            Literal::Text(text) | Literal::Number(text) => text.as_str(),
        };
        Some(match *builtin {
            Type::BOOL => Comparison::Bool(match literal {
                Literal::Text(text) => boolean(text)?,
                _ => return None,
            }),
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::NUMERIC => {
                Decimal::parse(text.trim())?;
                Comparison::Decimal(text.trim().into())
            }
            Type::FLOAT4 => Comparison::Float4(text.trim().parse().ok()?),
            Type::FLOAT8 => Comparison::Float8(text.trim().parse().ok()?),
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::CHAR => Comparison::Text(text.into()),
            Type::BPCHAR => Comparison::Padded(text.trim_end_matches(' ').into()),
            Type::UUID => Comparison::Text(uuid(text)?.into()),
            _ => Comparison::Inexact(text.into()),
        })
    }

    /// An enum, a domain or an extension's type: the stream does not say which.
    fn with_user_type(literal: &Literal, name: Option<&str>) -> Self {
        match literal {
            Literal::Bool(value) => Comparison::Bool(*value),
            Literal::Number(number) => Comparison::Decimal(number.as_str().into()),
            Literal::Text(text) if name == Some("citext") => {
                Comparison::CaseInsensitive(text.to_lowercase().into())
            }
            Literal::Text(text) => Comparison::Text(text.as_str().into()),
        }
    }

    /// Compares a value (its text form) with the literal.
    pub(super) fn compare(&self, value: &[u8]) -> Equality {
        let told = |equal| if equal { Equality::Equal } else { Equality::Different };
        let parsed = str::from_utf8(value);
        match self {
            Comparison::Text(text) => told(value == text.as_bytes()),
            Comparison::Padded(text) => {
                let blanks = value.strip_prefix(text.as_bytes());
                told(blanks.is_some_and(|rest| rest.iter().all(|b| *b == b' ')))
            }
            Comparison::Bool(wanted) => match value {
                b"t" | b"true" => told(*wanted),
                b"f" | b"false" => told(!*wanted),
                _ => Equality::Open,
            },
            Comparison::Decimal(number) if value == number.as_bytes() => Equality::Equal,
            Comparison::Decimal(number) => {
                match (parsed.ok().and_then(Decimal::parse), Decimal::parse(number)) {
                    (Some(a), Some(b)) => told(a.equals(b)),
                    _ => Equality::Open,
                }
            }
            Comparison::Float4(number) => match parsed.ok().and_then(|v| v.parse::<f32>().ok()) {
                // To Postgres NaN equals NaN.
                Some(v) => told(v.total_cmp(number).is_eq() || v == *number),
                None => Equality::Open,
            },
            Comparison::Float8(number) => match parsed.ok().and_then(|v| v.parse::<f64>().ok()) {
                Some(v) => told(v.total_cmp(number).is_eq() || v == *number),
                None => Equality::Open,
            },
            Comparison::CaseInsensitive(text) => match parsed {
                Ok(value) => told(value.to_lowercase() == **text),
                Err(_) => Equality::Open,
            },
            Comparison::Inexact(text) if value == text.as_bytes() => Equality::Equal,
            Comparison::Inexact(_) | Comparison::Open => Equality::Open,
        }
    }
}

fn written(literal: &Literal) -> String {
    match literal {
        Literal::Text(text) => format!("'{text}'"),
        Literal::Number(number) => number.clone(),
        Literal::Bool(value) => value.to_string(),
    }
}

/// What Postgres reads as a boolean (manual, "Boolean Type").
fn boolean(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if text == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        return Some(true);
    }
    (text == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2)).then_some(false)
}

/// A UUID as Postgres prints it.
fn uuid(text: &str) -> Option<String> {
    let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let digits: String =
        text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| digits.get(group));
    Some(groups.into_iter().flatten().collect::<Vec<_>>().join("-"))
}

/// A decimal number taken apart: its digits without leading and trailing zeros, and where
/// the point stands before them. Compares without allocating.
#[derive(Debug, Clone, Copy)]
enum Decimal<'a> {
    Finite { negative: bool, whole: &'a [u8], fraction: &'a [u8], exponent: i64 },
    Infinity { negative: bool },
    NaN,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, text.get(1..)?),
            b'+' => (false, text.get(1..)?),
            _ => (false, text),
        };
        if rest.eq_ignore_ascii_case("nan") {
            return Some(Decimal::NaN);
        }
        if rest.eq_ignore_ascii_case("infinity") || rest.eq_ignore_ascii_case("inf") {
            return Some(Decimal::Infinity { negative });
        }
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.as_bytes(), fraction.as_bytes());
        Some(Decimal::Finite { negative, whole, fraction, exponent: exponent.into() })
    }

    fn equals(self, other: Decimal<'_>) -> bool {
        match (self, other) {
            (Decimal::NaN, Decimal::NaN) => true,
            (Decimal::Infinity { negative: a }, Decimal::Infinity { negative: b }) => a == b,
            (
                Decimal::Finite { negative, whole, fraction, exponent },
                Decimal::Finite {
                    negative: other_negative,
                    whole: other_whole,
                    fraction: other_fraction,
                    exponent: other_exponent,
                },
            ) => {
                let (a, point_a) = significant(whole, fraction, exponent);
                let (b, point_b) = significant(other_whole, other_fraction, other_exponent);
                let (mut a, mut b) = (a.peekable(), b.peekable());
                let zero = a.peek().is_none() && b.peek().is_none();
                zero || (negative == other_negative && point_a == point_b && a.eq(b))
            }
            _ => false,
        }
    }
}

/// The digits from the first to the last that is not 0, and how many digits stand before
/// the point, counted from the first of them.
fn significant<'a>(
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
) -> (impl Iterator<Item = u8> + use<'a>, i64) {
    let all = || whole.iter().chain(fraction).copied();
    let leading = all().take_while(|digit| *digit == b'0').count();
    let trailing = all().rev().take_while(|digit| *digit == b'0').count();
    let length = (whole.len() + fraction.len()).saturating_sub(leading + trailing);
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    (all().skip(leading).take(length), exponent + count(whole.len()) - count(leading))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compare(literal: Literal, ty: &Type, value: &str) -> Equality {
        Comparison::new(&literal, ty.oid(), &TypeNames::default()).0.compare(value.as_bytes())
    }

    fn number(text: &str) -> Literal {
        Literal::Number(text.to_owned())
    }

    fn text(text: &str) -> Literal {
        Literal::Text(text.to_owned())
    }

    #[test]
    fn numbers_are_equal_by_value_not_by_text() {
        for (a, b, equal) in [
            ("1", "1.00", true),
            ("1.0", "1.00", true),
            ("0", "-0.00", true),
            ("100", "1e2", true),
            ("0.001", "1e-3", true),
            ("10", "1", false),
            ("0.1", "0.01", false),
            ("-1", "1", false),
            ("1.5", "15", false),
            ("007", "7", true),
            ("1200", "12e2", true),
            (".5", "0.50", true),
            ("123456789012345678901234567890", "123456789012345678901234567891", false),
        ] {
            let expected = if equal { Equality::Equal } else { Equality::Different };
            assert_eq!(compare(number(a), &Type::NUMERIC, b), expected, "{a} and {b}");
            assert_eq!(compare(number(b), &Type::NUMERIC, a), expected, "{b} and {a}");
        }
        assert_eq!(compare(text("nan"), &Type::NUMERIC, "NaN"), Equality::Equal);
        assert_eq!(
            compare(number("0.10000000000000000001"), &Type::FLOAT8, "0.1"),
            Equality::Equal
        );
        assert_eq!(compare(text("NaN"), &Type::FLOAT8, "NaN"), Equality::Equal);
        assert_eq!(compare(text("-inf"), &Type::FLOAT4, "-Infinity"), Equality::Equal);
        assert_eq!(compare(number("0"), &Type::FLOAT4, "-0"), Equality::Equal);
    }

    #[test]
    fn each_type_compares_as_postgres_does() {
        for (literal, ty, value, expected) in [
            (Literal::Bool(true), Type::BOOL, "t", Equality::Equal),
            (Literal::Bool(true), Type::BOOL, "f", Equality::Different),
            (text("of"), Type::BOOL, "f", Equality::Equal),
            (text("x "), Type::BPCHAR, "x   ", Equality::Equal),
            (text("x"), Type::BPCHAR, "xy  ", Equality::Different),
            (text("x"), Type::BPCHAR, "x\t ", Equality::Different),
            (text("x "), Type::TEXT, "x", Equality::Different),
            (
                text("{A0EEBC99-9C0B4EF8BB6D6BB9BD380A11}"),
                Type::UUID,
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                Equality::Equal,
            ),
            (number("1"), Type::TEXT, "1", Equality::Equal),
            (text("2024-01-01"), Type::TIMESTAMPTZ, "2024-01-01 00:00:00+00", Equality::Open),
            (number("1"), Type::BOOL, "t", Equality::Open),
            (text("many"), Type::INT4, "1", Equality::Open),
            (text("7"), Type::INT4, "7", Equality::Equal),
        ] {
            assert_eq!(compare(literal.clone(), &ty, value), expected, "{literal:?} {ty} {value}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let problem = |literal: Literal, ty: Type| {
            Comparison::new(&literal, ty.oid(), &TypeNames::default()).1
        };
        assert!(problem(number("1"), Type::BOOL).is_some());
        assert!(problem(Literal::Bool(true), Type::INT4).is_some());
        assert!(problem(text("x"), Type::UUID).is_some());
        assert!(problem(text("{}"), Type::JSONB).is_some());
        assert!(problem(text("x"), Type::VARCHAR).is_none());
    }

    #[test]
    fn citext_ignores_case_and_enums_do_not() {
        let mut types = TypeNames::default();
        types.insert(90_000, "public", "citext");
        types.insert(90_001, "public", "mood");
        let equal = |oid, value: &str| {
            Comparison::new(&text("Ab"), oid, &types).0.compare(value.as_bytes())
        };
        assert_eq!(equal(90_000, "aB"), Equality::Equal);
        assert_eq!(equal(90_001, "aB"), Equality::Different);
        assert_eq!(equal(90_001, "Ab"), Equality::Equal);
    }

    proptest! {
        #[test]
        fn decimals_compare_as_integers_of_the_same_scale_do(a in -2000i64..2000, b in -2000i64..2000, scale in 0usize..4, more in 0usize..3) {
            let shown = |n: i64, zeros: usize| {
                let digits = format!("{:0width$}", n.abs(), width = scale + 1);
                let (whole, fraction) = digits.split_at(digits.len() - scale);
                format!("{}{whole}.{fraction}{}", if n < 0 { "-" } else { "" }, "0".repeat(zeros))
            };
            let expected = if a == b { Equality::Equal } else { Equality::Different };
            prop_assert_eq!(compare(number(&shown(a, 0)), &Type::NUMERIC, &shown(b, more)), expected);
        }

        #[test]
        fn comparing_never_panics(literal: String, value: Vec<u8>, oid in prop_oneof![Just(16u32), Just(1700), Just(700), Just(701), Just(2950), Just(1042), Just(25), Just(1114), any::<u32>()]) {
            for literal in [text(&literal), number(&literal)] {
                Comparison::new(&literal, oid, &TypeNames::default()).0.compare(&value);
            }
        }
    }
}
