//! Key templates: `v1:deal_stats:{org_id}:{days}`.
//!
//! # Why two different tuples of parameters never give the same key
//!
//! Between any two parameters there stands a separator, a byte that no escaped value
//! contains ([`is_separator`]; a template without one is refused). Cut a key at its
//! separators, and the pieces are the template's *segments*, each with one parameter at
//! the most between fixed text: take that text off, unescape, and the value is there.
//! [`Template::parse`] is just that, and what proves two templates apart
//! ([`super::collide`]) compares the same segments.

use std::fmt;
use std::ops::Range;

use super::escape::{escape_into, is_separator, unescape};

/// The parameter that stands for a scope's generation, and the literal that stands in its
/// place in the key that holds the generation.
pub const GENERATION: &str = "generation";

/// A compiled key template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    source: Box<str>,
    parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that stands in every key.
    Literal(Box<str>),
    /// A parameter, by name.
    Parameter(Box<str>),
}

/// What stands between two separators of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) before: &'a str,
    pub(super) parameter: Option<&'a str>,
    pub(super) after: &'a str,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do next.
    pub hint: &'static str,
    /// Where in the text.
    pub span: Range<usize>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// If a key could not be taken apart again, or the purge would have no prefix to scan for.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let template = Template { source: source.into(), parts: read_parts(source)? };
        template.check_boundaries()?;
        Ok(template)
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its pieces, in order; never two literals in a row.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The names of its parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Parameter(name) => Some(&**name),
            Part::Literal(_) => None,
        })
    }

    /// The literal text before the first parameter: what a purge scans for. Never empty.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// For a scoped cache: the key that holds the scope's generation, `{generation}` replaced
    /// by its own name and what follows left out. `None` without `{generation}`.
    #[must_use]
    pub fn generation_key(&self) -> Option<Template> {
        let at = self.parts.iter().position(|part| *part == Part::Parameter(GENERATION.into()))?;
        let mut parts = self.parts.get(..at)?.to_vec();
        match parts.last_mut() {
            Some(Part::Literal(text)) => *text = format!("{text}{GENERATION}").into(),
            _ => parts.push(Part::Literal(GENERATION.into())),
        }
        let source = parts.iter().map(ToString::to_string).collect::<String>().into();
        Some(Template { source, parts })
    }

    /// Appends the key for these values to `out`. `None` (and `out` as far as it went) if a
    /// parameter has no value.
    pub fn render<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v [u8]>,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Parameter(name) => escape_into(value(name)?, out),
            }
        }
        Some(())
    }

    /// The values of the parameters, in order, of a key that this template gives (without
    /// what `redis.key_prefix` puts before it); `None` for any other key.
    #[must_use]
    pub fn values(&self, key: &[u8]) -> Option<Vec<(&str, Vec<u8>)>> {
        let mut values = Vec::new();
        let mut rest = Some(key);
        for (segment, separator) in self.segments() {
            let current = rest?;
            let end = current.iter().position(|b| is_separator(*b));
            let (piece, found, after) = match end.and_then(|end| current.split_at_checked(end)) {
                Some((piece, after)) => (piece, after.first().copied(), after.get(1..)),
                None => (current, None, None),
            };
            if found != separator {
                return None;
            }
            rest = after;
            match segment.parameter {
                None if piece == segment.before.as_bytes() => {}
                None => return None,
                Some(name) => {
                    let value = piece.strip_prefix(segment.before.as_bytes())?;
                    values.push((name, unescape(value.strip_suffix(segment.after.as_bytes())?)?));
                }
            }
        }
        rest.is_none().then_some(values)
    }

    /// The template cut at its separators, each piece with the separator behind it.
    pub(super) fn segments(&self) -> Vec<(Segment<'_>, Option<u8>)> {
        let empty = Segment { before: "", parameter: None, after: "" };
        let mut segments = Vec::new();
        let mut current = empty;
        for part in &self.parts {
            match part {
                Part::Parameter(name) => current.parameter = Some(name),
                Part::Literal(text) => {
                    let mut rest = &**text;
                    while let Some(end) = rest.bytes().position(is_separator) {
                        let (piece, after) = rest.split_at(end);
                        current.put(piece);
                        segments.push((current, after.bytes().next()));
                        current = empty;
                        rest = after.get(1..).unwrap_or_default();
                    }
                    current.put(rest);
                }
            }
        }
        segments.push((current, None));
        segments
    }

    /// Refuses what could not be taken apart again, or purged.
    fn check_boundaries(&self) -> Result<(), TemplateError> {
        let whole = 0..self.source.len();
        if self.prefix().is_empty() {
            return Err(TemplateError {
                message: "a key begins with literal text, by which its entries can be found"
                    .to_owned(),
                hint: "write a prefix of its own before the first parameter, such as v1:deal_stats:",
                span: whole,
            });
        }
        let mut separated = true;
        for part in &self.parts {
            match part {
                Part::Literal(text) => separated |= text.bytes().any(is_separator),
                Part::Parameter(name) if !separated => {
                    let written = format!("{{{name}}}");
                    let start = self.source.find(&written).unwrap_or_default();
                    return Err(TemplateError {
                        message: format!(
                            "nothing tells where the parameter before {written} ends: a value may \
                             itself hold what stands between"
                        ),
                        hint: "write : between two parameters; in a value it is escaped",
                        span: start..start + written.len(),
                    });
                }
                Part::Parameter(_) => separated = false,
            }
        }
        Ok(())
    }
}

impl<'a> Segment<'a> {
    fn put(&mut self, text: &'a str) {
        if self.parameter.is_some() { self.after = text } else { self.before = text }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Literal(text) => f.write_str(text),
            Part::Parameter(name) => write!(f, "{{{name}}}"),
        }
    }
}

fn read_parts(source: &str) -> Result<Vec<Part>, TemplateError> {
    let fail = |message: String, hint, span| Err(TemplateError { message, hint, span });
    const NAMES: &str = "a parameter is written {name}, with lower-case letters, digits and _";
    let mut parts: Vec<Part> = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some(inner) = rest.strip_prefix('{') {
            let Some(length) = inner.find('}') else {
                return fail("this brace is never closed".to_owned(), NAMES, at..source.len());
            };
            let span = at..at + length + 2;
            let name = inner.get(..length).unwrap_or_default();
            if !is_parameter_name(name) {
                return fail(format!("{{{name}}} is no parameter"), NAMES, span);
            }
            if parts.contains(&Part::Parameter(name.into())) {
                let hint = "each parameter stands in the key once";
                return fail(format!("{{{name}}} stands here a second time"), hint, span);
            }
            parts.push(Part::Parameter(name.into()));
            at = span.end;
        } else {
            let length = rest.find('{').unwrap_or(rest.len());
            let text = rest.get(..length).unwrap_or_default();
            if let Some(brace) = text.find('}') {
                let span = at + brace..at + brace + 1;
                return fail("this brace was never opened".to_owned(), NAMES, span);
            }
            if let Some((offset, c)) =
                text.char_indices().find(|(_, c)| c.is_whitespace() || c.is_control())
            {
                let span = at + offset..at + offset + c.len_utf8();
                return fail(
                    "a key holds no white space".to_owned(),
                    "write _ or : in its place",
                    span,
                );
            }
            parts.push(Part::Literal(text.into()));
            at += length;
        }
    }
    Ok(parts)
}

/// `[a-z_][a-z0-9_]*`
pub(super) fn is_parameter_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template(source: &str) -> Template {
        Template::parse(source).unwrap_or_else(|e| panic!("{source}: {e}"))
    }

    fn render(template: &Template, values: &[Vec<u8>]) -> Vec<u8> {
        let names: Vec<&str> = template.parameters().collect();
        let mut key = Vec::new();
        let value = |name: &str| Some(&*values[names.iter().position(|n| *n == name)?]);
        template.render(value, &mut key).expect("every parameter has a value");
        key
    }

    #[test]
    fn a_template_renders_its_values_in_place() {
        let t = template("v1:deal_stats:{org_id}:{days}");
        assert_eq!(t.prefix(), "v1:deal_stats:");
        assert_eq!(t.parameters().collect::<Vec<_>>(), ["org_id", "days"]);
        assert_eq!(render(&t, &[b"7".into(), b"30".into()]), b"v1:deal_stats:7:30");
        assert_eq!(template("v1:all").prefix(), "v1:all");
    }

    #[test]
    fn what_could_not_be_taken_apart_again_is_refused_where_it_stands() {
        for (source, span) in [
            ("", 0..0),
            ("{a}:x", 0..5),
            ("v1:{a}{b}", 6..9),
            ("v1:{a}-{b}", 7..10),
            ("v1:{a}:{a}", 7..10),
            ("v1:{a", 3..5),
            ("v1:a}", 4..5),
            ("v1:{}", 3..5),
            ("v1:{A}", 3..6),
            ("v1:{1a}", 3..7),
            ("v1:{{a}}", 3..7),
            ("v1: {a}", 3..4),
        ] {
            let error = Template::parse(source).expect_err(source);
            assert_eq!(error.span, span, "{source}: {error}");
        }
    }

    #[test]
    fn no_value_can_forge_another_key() {
        let t = template("v1:user_perms:{user_id}:{org_id}");
        assert_eq!(render(&t, &[b"1:2".into(), b"3".into()]), b"v1:user_perms:1%3A2:3");
        assert_eq!(t.values(b"v1:user_perms:1:2:3"), None);
        let search = template("v1:s:{org}:{generation}:{q}");
        let generation = search.generation_key().expect("it is scoped");
        assert_eq!(generation.source(), "v1:s:{org}:generation");
        assert_eq!(
            render(&generation, &[b"7:generation".into()]),
            b"v1:s:7%3Ageneration:generation"
        );
    }

    #[test]
    fn only_keys_of_the_template_are_taken_apart() {
        let t = template("v1:a-{x}-z:{y}");
        assert_eq!(t.values(b"v1:a-1-z:2"), Some(vec![("x", b"1".to_vec()), ("y", b"2".to_vec())]));
        assert_eq!(t.values(b"v1:a--z:"), Some(vec![("x", vec![]), ("y", vec![])]));
        for other in
            ["v1:a-z:2", "v1:a-1-z", "v1:a-1-z:2:3", "v2:a-1-z:2", "v1:a-1-z*2", "", "v1:a-%4-z:1"]
        {
            assert_eq!(t.values(other.as_bytes()), None, "{other}");
        }
        assert_eq!(template("v1:all").values(b"v1:all"), Some(vec![]));
        assert_eq!(template("v1:all").values(b"v1:al"), None);
    }

    /// Any template that is accepted: pieces of literals and parameters at random.
    fn any_template() -> impl Strategy<Value = Template> {
        let literal = "[a-z0-9:*\\[\\]%._é-]{0,4}";
        (literal, proptest::collection::vec(literal, 0..4)).prop_filter_map(
            "not a template",
            |(first, literals)| {
                let mut source = first;
                for (i, literal) in literals.iter().enumerate() {
                    source.push_str(&format!("{{p{i}}}{literal}"));
                }
                Template::parse(&source).ok()
            },
        )
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        // Short and full of trouble, so that two values are often nearly the same.
        prop_oneof![
            "[ab:%*{}\\[\\]-]{0,3}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..3),
            "(%3A|:|25|generation|é){0,3}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn a_key_gives_back_the_values_it_was_made_of(t in any_template(), values in proptest::collection::vec(any_value(), 4)) {
            let key = render(&t, &values);
            let expected: Vec<_> = t.parameters().zip(values).collect();
            prop_assert_eq!(t.values(&key), Some(expected));
        }

        #[test]
        fn distinct_values_give_distinct_keys(
            t in any_template(),
            a in proptest::collection::vec(any_value(), 4),
            b in proptest::collection::vec(any_value(), 4),
        ) {
            let n = t.parameters().count();
            prop_assert_eq!(a[..n] == b[..n], render(&t, &a) == render(&t, &b));
        }

        #[test]
        fn taking_apart_never_panics(t in any_template(), key: Vec<u8>) {
            if let Some(values) = t.values(&key) {
                let values: Vec<_> = values.into_iter().map(|(_, v)| v).collect();
                prop_assert_eq!(render(&t, &values), key);
            }
        }

        #[test]
        fn any_text_is_a_template_or_an_error(source: String) {
            if let Err(error) = Template::parse(&source) {
                prop_assert!(source.get(error.span.clone()).is_some(), "{:?}", error);
            }
        }
    }
}
