//! Composed values: a JSON object joined from entries of several caches.
//!
//! Nothing of it is stored. Each part is an entry like any other, filled by its own lease and
//! dropped by its own rules: a change of one deal drops the figures of one organization, and
//! the dashboards of its ten thousand users show the new ones at once.
//!
//! A part's bytes are taken over as they are. [`Composition::join`] looks into a part only
//! where it must: to take its members over (the outermost braces go), or to pick one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::value::RawValue;

use super::id::CacheId;

/// A composed cache.
#[derive(Debug)]
pub struct Composition {
    /// Its name in the configuration, commands and the read API.
    pub name: Box<str>,
    /// The group that commands name.
    pub group: Option<Box<str>>,
    /// How long those who read it may keep it.
    pub ttl: Duration,
    /// What has to be given to read it.
    pub parameters: BTreeSet<Box<str>>,
    /// The entries that it is made of, each once.
    pub parts: Vec<Part>,
    pub(crate) members: Vec<Member>,
}

/// An entry that a composed value is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The cache.
    pub cache: CacheId,
    /// The cache's name.
    pub name: Box<str>,
    /// The parameters that are always the same, with their values.
    pub fixed: Vec<(Box<str>, String)>,
}

/// What stands between an object's commas.
#[derive(Debug)]
pub(crate) enum Member {
    /// A name and its value.
    Named(Box<str>, Content),
    /// All members of a part.
    All { part: usize },
}

/// A member's value.
#[derive(Debug)]
pub(crate) enum Content {
    /// A parameter, as a number.
    Number(Box<str>),
    /// A parameter, as a text.
    Text(Box<str>),
    /// A part, as it is.
    Part(usize),
    /// One member of a part.
    Picked { part: usize, member: Box<str> },
    /// Another composed value.
    Object(Vec<Member>),
}

/// Why a value cannot be composed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// A parameter is not there, or is no number where one is written.
    #[error("{0}")]
    Parameter(String),
    /// A part is not what its composition takes it for.
    #[error("{composition} cannot be composed: the value of {part} {what}")]
    Part {
        /// The composed cache.
        composition: String,
        /// The part's cache.
        part: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Part {
    /// Its parameters, given those of the whole.
    pub fn values<'a>(&'a self, whole: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        // What is fixed comes first: it is what is found.
        let fixed = self.fixed.iter().map(|(name, value)| (&**name, value.as_str()));
        fixed.chain(whole.iter().copied()).collect()
    }
}

impl Composition {
    /// Whether these parameters are enough, and written as they must be.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self, values: &[(&str, &str)]) -> Result<(), ComposeError> {
        for name in &self.parameters {
            parameter(values, name)?;
        }
        numbers(&self.members, values)
    }

    /// The value, from the values of [`Composition::parts`] in their order.
    ///
    /// # Errors
    /// If a parameter or a part is not what it must be.
    pub fn join(
        &self,
        values: &[(&str, &str)],
        parts: &[impl AsRef<[u8]>],
    ) -> Result<Vec<u8>, ComposeError> {
        let length: usize = parts.iter().map(|part| part.as_ref().len()).sum();
        let mut out = Vec::with_capacity(length + 64 * (self.members.len() + 1));
        Joiner { composition: self, values, parts }.object(&self.members, &mut out)?;
        Ok(out)
    }
}

struct Joiner<'a, P> {
    composition: &'a Composition,
    values: &'a [(&'a str, &'a str)],
    parts: &'a [P],
}

impl<P: AsRef<[u8]>> Joiner<'_, P> {
    fn object(&self, members: &[Member], out: &mut Vec<u8>) -> Result<(), ComposeError> {
        out.push(b'{');
        let start = out.len();
        for member in members {
            match member {
                Member::Named(name, content) => {
                    separate(start, out);
                    out.extend_from_slice(text(name).as_bytes());
                    out.push(b':');
                    self.content(content, out)?;
                }
                Member::All { part } => {
                    let members = self.members_of(*part)?;
                    if !members.is_empty() {
                        separate(start, out);
                        out.extend_from_slice(members);
                    }
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn content(&self, content: &Content, out: &mut Vec<u8>) -> Result<(), ComposeError> {
        match content {
            Content::Number(name) => {
                out.extend_from_slice(number(self.values, name)?.as_bytes());
            }
            Content::Text(name) => {
                out.extend_from_slice(text(parameter(self.values, name)?).as_bytes());
            }
            Content::Part(part) => out.extend_from_slice(self.part(*part)?),
            Content::Picked { part, member } => {
                let members: BTreeMap<String, &RawValue> =
                    serde_json::from_slice(self.part(*part)?)
                        .map_err(|_| self.wrong(*part, "is no JSON object"))?;
                let picked = members
                    .get(&**member)
                    .ok_or_else(|| self.wrong(*part, &format!("has no member {member}")))?;
                out.extend_from_slice(picked.get().as_bytes());
            }
            Content::Object(members) => self.object(members, out)?,
        }
        Ok(())
    }

    fn part(&self, part: usize) -> Result<&[u8], ComposeError> {
        let value = self.parts.get(part).map(AsRef::as_ref);
        value.ok_or_else(|| self.wrong(part, "was not read"))
    }

    /// What stands between the braces of an object.
    fn members_of(&self, part: usize) -> Result<&[u8], ComposeError> {
        let inner = self.part(part)?.trim_ascii().strip_prefix(b"{");
        let inner = inner.and_then(|inner| inner.strip_suffix(b"}"));
        Ok(inner.ok_or_else(|| self.wrong(part, "is no JSON object"))?.trim_ascii())
    }

    fn wrong(&self, part: usize, what: &str) -> ComposeError {
        let name = self.composition.parts.get(part).map(|part| &*part.name);
        ComposeError::Part {
            composition: self.composition.name.to_string(),
            part: name.unwrap_or_default().to_owned(),
            what: what.to_owned(),
        }
    }
}

fn separate(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
}

fn numbers(members: &[Member], values: &[(&str, &str)]) -> Result<(), ComposeError> {
    for member in members {
        match member {
            Member::Named(_, Content::Number(name)) => {
                number(values, name)?;
            }
            Member::Named(_, Content::Object(members)) => numbers(members, values)?,
            Member::Named(..) | Member::All { .. } => {}
        }
    }
    Ok(())
}

fn parameter<'a>(values: &[(&str, &'a str)], name: &str) -> Result<&'a str, ComposeError> {
    let found = values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| ComposeError::Parameter(format!("the parameter {name} is not given")))
}

/// A whole number as JSON writes it: another way of writing it would be another key, too.
fn number<'a>(values: &[(&str, &'a str)], name: &str) -> Result<&'a str, ComposeError> {
    let value = parameter(values, name)?;
    let digits = value.strip_prefix('-').unwrap_or(value);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.starts_with('0') && value != "0") {
        return Err(ComposeError::Parameter(format!("{name} must be a whole number")));
    }
    Ok(value)
}

/// A JSON text.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composition(members: Vec<Member>) -> Composition {
        let part = |name: &str| Part { cache: CacheId(0), name: name.into(), fixed: Vec::new() };
        Composition {
            name: "whole".into(),
            group: None,
            ttl: Duration::from_secs(1),
            parameters: BTreeSet::from(["id".into()]),
            parts: vec![part("a"), part("b")],
            members,
        }
    }

    fn named(name: &str, content: Content) -> Member {
        Member::Named(name.into(), content)
    }

    fn join(members: Vec<Member>, parts: [&str; 2]) -> Result<String, ComposeError> {
        let values = [("id", "7"), ("q", "a \"b\"\n")];
        let joined = composition(members).join(&values, &parts)?;
        Ok(String::from_utf8(joined).expect("JSON is UTF-8"))
    }

    #[test]
    fn parts_are_taken_over_byte_for_byte() {
        let members = vec![
            named("id", Content::Number("id".into())),
            named("a \"x\"", Content::Part(0)),
            Member::All { part: 1 },
            named("q", Content::Text("q".into())),
            named("inner", Content::Object(vec![named("b", Content::Part(1))])),
        ];
        let b = "{\"y\" : [1, 2.50],\"y2\":\"\\u00e4\"}";
        let expected = format!(
            r#"{{"id":7,"a \"x\"":{{ "x":1.0}},"y" : [1, 2.50],"y2":"\u00e4","q":"a \"b\"\n","inner":{{"b":{b}}}}}"#
        );
        assert_eq!(join(members, ["{ \"x\":1.0}", b]).unwrap(), expected);
    }

    #[test]
    fn an_empty_object_leaves_no_comma_behind() {
        let all = || vec![Member::All { part: 0 }, Member::All { part: 1 }];
        assert_eq!(join(all(), ["{}", "{ }"]).unwrap(), "{}");
        assert_eq!(join(all(), ["{}", "{\"a\":1}"]).unwrap(), "{\"a\":1}");
        assert_eq!(join(all(), [" {\"a\":1} ", "{}"]).unwrap(), "{\"a\":1}");
    }

    #[test]
    fn one_member_is_picked_as_it_is_written() {
        let pick =
            |member: &str| vec![named("m", Content::Picked { part: 0, member: member.into() })];
        let part = r#"{"a":{"m":0},"m": {"x":[1.00, "é"] } ,"z":null}"#;
        assert_eq!(join(pick("m"), [part, ""]).unwrap(), r#"{"m":{"x":[1.00, "é"] }}"#);
        assert!(join(pick("y"), [part, ""]).unwrap_err().to_string().contains("has no member y"));
        assert!(join(pick("m"), ["[1]", ""]).unwrap_err().to_string().contains("of a is no JSON"));
    }

    #[test]
    fn a_number_is_written_in_one_way_only() {
        let whole = composition(vec![named("id", Content::Number("id".into()))]);
        for good in ["0", "7", "-7", "123456789012345678901234567890"] {
            assert_eq!(whole.check(&[("id", good)]), Ok(()), "{good}");
        }
        for bad in ["", "-", "007", "-0", "+1", "1.0", "1e3", " 1", "1,\"x\":2", "null"] {
            assert!(whole.check(&[("id", bad)]).is_err(), "{bad}");
        }
        assert!(whole.check(&[]).is_err());
    }

    #[test]
    fn what_a_composition_fixes_is_what_counts() {
        let part =
            Part { cache: CacheId(0), name: "a".into(), fixed: vec![("days".into(), "30".into())] };
        let values = part.values(&[("org_id", "1"), ("days", "7")]);
        assert_eq!(values.iter().find(|(name, _)| *name == "days"), Some(&("days", "30")));
    }
}
