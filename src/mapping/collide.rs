//! Could two caches ever share a key?
//!
//! Keys cut at their separators (see [`super::template`]) are equal only if the
//! separators are and every segment is. A segment is fixed text, or a parameter between
//! fixed texts: any value, or one of those that are enumerated. Two segments of the
//! second kind have a common text exactly if one's beginning begins the other's, and so
//! for the ends. Conservative only in that a parameter without enumeration is taken to
//! have every value.

use std::collections::BTreeMap;

use super::template::Template;

/// Every key that a template can give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    segments: Vec<Vec<Texts>>,
    separators: Vec<Option<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Texts {
    One(String),
    Between(String, String),
}

impl KeyPattern {
    /// The keys of a template whose enumerated parameters have these values (escaped).
    #[must_use]
    pub fn new(template: &Template, enumerated: &BTreeMap<String, Vec<String>>) -> Self {
        let mut pattern = KeyPattern { segments: Vec::new(), separators: Vec::new() };
        for (segment, separator) in template.segments() {
            let (before, after) = (segment.before, segment.after);
            let texts = match segment.parameter.map(|name| enumerated.get(name)) {
                None => vec![Texts::One(before.to_owned())],
                Some(None) => vec![Texts::Between(before.to_owned(), after.to_owned())],
                Some(Some(values)) => {
                    values.iter().map(|v| Texts::One(format!("{before}{v}{after}"))).collect()
                }
            };
            pattern.segments.push(texts);
            pattern.separators.push(separator);
        }
        pattern
    }

    /// Whether some key is of both patterns.
    #[must_use]
    pub fn can_collide(&self, other: &KeyPattern) -> bool {
        self.separators == other.separators
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|(ours, theirs)| ours.iter().any(|a| theirs.iter().any(|b| a.can_equal(b))))
    }
}

impl Texts {
    fn can_equal(&self, other: &Texts) -> bool {
        let begin = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
        let end = |a: &str, b: &str| a.ends_with(b) || b.ends_with(a);
        match (self, other) {
            (Texts::One(a), Texts::One(b)) => a == b,
            (Texts::One(text), Texts::Between(before, after))
            | (Texts::Between(before, after), Texts::One(text)) => text
                .strip_prefix(before.as_str())
                .is_some_and(|rest| rest.ends_with(after.as_str())),
            (Texts::Between(a, x), Texts::Between(b, y)) => begin(a, b) && end(x, y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(source: &str) -> KeyPattern {
        let days = BTreeMap::from([("days".to_owned(), vec!["7".to_owned(), "30".to_owned()])]);
        KeyPattern::new(&Template::parse(source).expect("a template"), &days)
    }

    #[test]
    fn only_templates_with_a_key_in_common_collide() {
        for (a, b, expected) in [
            ("v1:user_perms:{user_id}:{org_id}", "v1:user_perms:{x}", false),
            ("v1:identity:{user_id}", "v1:identity:{org_id}", true),
            ("v1:a:{x}", "v1:{y}:b", true),
            ("v1:a:{x}:c", "v1:{y}:b:d", false),
            ("v1:a:{x}", "v1:a:b", true),
            ("v1:a:n{x}", "v1:a:m{x}", false),
            ("v1:a:n{x}", "v1:a:nn{x}", true),
            ("v1:a:{x}n", "v1:a:{x}m", false),
            ("v1:a:ab{x}bc", "v1:a:abc", false),
            ("v1:a[{x}]", "v1:a:{x}", false),
            ("v1:stats:{days}", "v1:stats:all", false),
            ("v1:stats:{days}", "v1:stats:30", true),
            ("v1:stats:{days}", "v1:stats:{x}0", true),
            ("v1:stats:{days}", "v1:stats:{x}1", false),
            ("v1:s:{org}:{generation}:{q}", "v1:s:{org}:generation", false),
            ("v1:s:{org}:{generation}", "v1:s:{org}:generation", true),
        ] {
            assert_eq!(pattern(a).can_collide(&pattern(b)), expected, "{a} and {b}");
            assert_eq!(pattern(b).can_collide(&pattern(a)), expected, "{b} and {a}");
        }
    }

    proptest! {
        #[test]
        fn templates_said_to_be_apart_never_give_the_same_key(
            a in "a(:[ab]{0,2}(\\{x\\})?[ab]{0,1}){1,2}",
            b in "a(:[ab]{0,2}(\\{x\\})?[ab]{0,1}){1,2}",
            x in "[ab:]{0,3}",
            y in "[ab:]{0,3}",
        ) {
            let (Ok(a), Ok(b)) = (Template::parse(&a), Template::parse(&b)) else { return Ok(()) };
            let key = |t: &Template, value: &str| {
                let mut key = Vec::new();
                t.render(|_| Some(value.as_bytes()), &mut key).map(|()| key)
            };
            if key(&a, &x) == key(&b, &y) {
                let none = BTreeMap::new();
                prop_assert!(KeyPattern::new(&a, &none).can_collide(&KeyPattern::new(&b, &none)));
            }
        }
    }
}
