//! Whatever a key template says, it is an error with its place, or keys and values give each other
//! back, and no value makes a key of another template's.

use std::collections::BTreeMap;

use unstale::mapping::collide::KeyPattern;
use unstale::mapping::escape::{escape_into, is_separator, unescape};
use unstale::mapping::template::Template;

/// Reads `input`, by lines: a template, another one, a key, and the values of parameters.
///
/// # Panics
/// If a template breaks a promise.
pub(crate) fn check(input: &[u8]) -> bool {
    let mut pieces = input.split(|byte| *byte == b'\n');
    let mut next = || pieces.next().unwrap_or_default();
    let (source, other, key) = (next(), next(), next());
    let values: Vec<&[u8]> = pieces.take(16).collect();
    for value in values.iter().chain([&key]) {
        check_escape(value);
    }
    let (source, other) = (String::from_utf8_lossy(source), String::from_utf8_lossy(other));
    let (Some(template), other) = (parse(&source), parse(&other)) else { return false };
    if let Some(values) = template.values(key) {
        let values: Vec<&[u8]> = values.iter().map(|(_, value)| &**value).collect();
        assert_eq!(render(&template, &values), key, "{template}: another key of the same values");
    }
    let backwards: Vec<&[u8]> = values.iter().rev().copied().collect();
    let keys = [&values, &backwards].map(|values| check_key(&template, values));
    let count = template.parameters().count();
    let value_of =
        |values: &[&[u8]], at: usize| values.get(at).copied().unwrap_or_default().to_vec();
    let same = (0..count).all(|at| value_of(&values, at) == value_of(&backwards, at));
    assert_eq!(keys[0] == keys[1], same, "{template}: one key for one set of values");

    let apart = |other: &Template| {
        let first = template.parameters().next().unwrap_or_default();
        let mut escaped = Vec::new();
        escape_into(&value_of(&values, 0), &mut escaped);
        let one = String::from_utf8(escaped).ok().map(|one| (first.to_owned(), vec![one]));
        let (any, one) = (BTreeMap::new(), one.into_iter().collect());
        let theirs = KeyPattern::new(other, &any);
        for enumerated in [&any, &one] {
            let ours = KeyPattern::new(&template, enumerated);
            assert_eq!(ours.can_collide(&theirs), theirs.can_collide(&ours));
            if other.values(&keys[0]).is_some() {
                assert!(ours.can_collide(&theirs), "{template} and {other} are not apart");
            }
        }
    };
    other.iter().for_each(apart);
    if let Some(generation) = template.generation_key() {
        assert_eq!(Template::parse(generation.source()).as_ref(), Ok(&generation));
        check_key(&generation, &values);
        apart(&generation);
    }
    true
}

fn parse(source: &str) -> Option<Template> {
    match Template::parse(source) {
        Ok(template) => {
            assert_eq!(template.source(), source);
            assert_eq!(
                template.parts().iter().map(ToString::to_string).collect::<String>(),
                source
            );
            Some(template)
        }
        Err(error) => {
            assert!(source.get(error.span.clone()).is_some(), "{error:?} is not in {source:?}");
            assert!(!error.message.is_empty() && !error.hint.is_empty());
            None
        }
    }
}

/// The key of these values, which give each other back.
fn check_key(template: &Template, values: &[&[u8]]) -> Vec<u8> {
    let key = render(template, values);
    assert!(key.starts_with(template.prefix().as_bytes()) && !template.prefix().is_empty());
    let value = |at: usize| values.get(at).copied().unwrap_or_default().to_vec();
    let expected: Vec<_> =
        template.parameters().enumerate().map(|(at, name)| (name, value(at))).collect();
    assert_eq!(template.values(&key), Some(expected), "{template} of {key:?}");
    key
}

/// Parameters without a value have an empty one.
fn render(template: &Template, values: &[&[u8]]) -> Vec<u8> {
    let names: Vec<&str> = template.parameters().collect();
    let value = |name: &str| {
        let at = names.iter().position(|known| *known == name)?;
        Some(values.get(at).copied().unwrap_or_default())
    };
    let mut key = Vec::new();
    assert!(template.render(value, &mut key).is_some());
    key
}

fn check_escape(value: &[u8]) {
    let mut escaped = Vec::new();
    escape_into(value, &mut escaped);
    assert!(str::from_utf8(&escaped).is_ok() && !escaped.iter().any(|byte| is_separator(*byte)));
    assert_eq!(unescape(&escaped).as_deref(), Some(value));
    if let Some(read) = unescape(value) {
        let mut again = Vec::new();
        escape_into(&read, &mut again);
        assert_eq!(again, value, "a second spelling");
    }
}
