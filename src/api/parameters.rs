//! Where a parameter comes from and what it may be: pure.
//!
//! A parameter ends up in a key, and the rules of the mapping render the same key from a
//! column. So each value has one spelling here, the one that Postgres prints: `007` is 7, a
//! UUID is lower case. Otherwise it would make a key that no change ever reaches.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::identity::{Identity, canonical_uuid};
use super::problem::Problem;
use crate::config::endpoints::{EndpointParameter, IdentityField, ParameterType};
use crate::config::model::Scalar;

/// A parameter of an endpoint's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the cache's key.
    pub name: Box<str>,
    /// The `{name}` in the path.
    pub path: Option<Box<str>>,
    /// The name in the query.
    pub query: Option<Box<str>>,
    /// What is known of the user.
    pub identity: Option<IdentityField>,
    /// Always this.
    pub constant: Option<String>,
    /// When the query does not give it.
    pub default: Option<String>,
    /// What it may be.
    pub allowed: Allowed,
    /// The values that are cached, of those that are allowed; `None`: all.
    pub cached: Option<Vec<String>>,
}

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// One of these.
    OneOf(Vec<String>),
    /// A whole number.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A text.
    Text {
        /// Characters at least.
        min: u32,
        /// Characters at the most.
        max: u32,
        /// White space around it is taken off.
        trim: bool,
        /// It is made lower case.
        lowercase: bool,
    },
    /// A UUID.
    Uuid,
}

/// The parameters of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values<'e> {
    /// Each with its value, in the endpoint's order.
    pub values: Vec<(&'e str, String)>,
    /// Whether all are of those that are cached.
    pub cached: bool,
}

impl Values<'_> {
    /// The value of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// As fillers take them.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

/// A query, decoded.
#[derive(Debug, Clone, Default)]
pub struct Query<'q>(Vec<(Cow<'q, str>, Option<Cow<'q, str>>)>);

impl<'q> Query<'q> {
    /// Takes `a=1&b=x+y` apart. What is not UTF-8 is kept as nothing, and refused once asked for.
    #[must_use]
    pub fn parse(query: &'q str) -> Query<'q> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true).unwrap_or(Cow::Borrowed("")), decode(value, true))
        });
        Query(pairs.collect())
    }

    /// The value of one parameter.
    fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut found = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Problem::parameter(name, "it is given more than once")),
            (None, None) => Ok(None),
            (Some(None), None) => Err(Problem::parameter(name, "it is not UTF-8, percent-encoded")),
            (Some(Some(value)), None) => Ok(Some(value)),
        }
    }
}

/// Percent-decoded; `None` if that is not UTF-8, or if a `%` stands without its digits.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    let digits = |rest: &str| {
        let bytes = rest.as_bytes();
        matches!(bytes, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
    };
    if text.split('%').skip(1).any(|rest| !digits(rest)) {
        return None;
    }
    if plus_is_space && text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced)
            .decode_utf8()
            .ok()
            .map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode_str(text).decode_utf8().ok()
}

impl Parameter {
    /// From the configuration; `cached` are the values that the cache enumerates.
    ///
    /// # Errors
    /// What is wrong, and with which of its settings.
    pub(super) fn compile(
        name: &str,
        config: &EndpointParameter,
        cached: Option<&Vec<String>>,
    ) -> Result<Parameter, (&'static str, String)> {
        let allowed = Allowed::compile(config)?;
        let scalar = |setting: &'static str, value: &Option<Scalar>| {
            let Some(value) = value else { return Ok(None) };
            allowed.read(&text_of(value)).map(Some).map_err(|()| {
                (
                    setting,
                    format!("{:?} is not allowed here: {}", text_of(value), allowed.describe()),
                )
            })
        };
        Ok(Parameter {
            name: name.into(),
            path: config.path.as_deref().map(Into::into),
            query: config.query.as_deref().map(Into::into),
            identity: config.identity,
            constant: scalar("constant", &config.constant)?,
            default: scalar("default", &config.default)?,
            cached: cached.cloned(),
            allowed,
        })
    }

    /// Its value in a request. `path` gives the raw value of a `{name}`.
    pub(super) fn value(
        &self,
        path: impl Fn(&str) -> Option<String>,
        query: &Query<'_>,
        identity: Option<&Identity>,
    ) -> Result<String, Problem> {
        if let Some(constant) = &self.constant {
            return Ok(constant.clone());
        }
        if let Some(name) = &self.path {
            // A path that cannot be is no path.
            let value = path(name).and_then(|raw| self.allowed.read(&raw).ok());
            return value.ok_or_else(Problem::no_such_path);
        }
        if let Some(name) = &self.query
            && let Some(raw) = query.get(name)?
        {
            return self
                .allowed
                .read(raw)
                .map_err(|()| Problem::parameter(name, self.allowed.describe()));
        }
        if let Some(field) = self.identity {
            let identity = identity.ok_or_else(Problem::no_token)?;
            return match field {
                IdentityField::UserId => Ok(identity.user_id.clone()),
                IdentityField::OrganizationId => {
                    identity.organization_id.clone().ok_or_else(Problem::no_organization)
                }
            };
        }
        self.default.clone().ok_or_else(|| {
            let name = self.query.as_deref().unwrap_or(&self.name);
            Problem::parameter(name, format!("it is missing: {}", self.allowed.describe()))
        })
    }
}

impl Allowed {
    fn compile(config: &EndpointParameter) -> Result<Allowed, (&'static str, String)> {
        let not_for = |setting: &'static str, is_set: bool, kind: &str| {
            if is_set {
                Err((setting, format!("{setting} means nothing for {kind}")))
            } else {
                Ok(())
            }
        };
        let texts = config.min_length.is_some() || config.max_length.is_some();
        let numbers = config.min.is_some() || config.max.is_some();
        if config.kind != ParameterType::Text {
            not_for("min_length", texts, "what is no text")?;
            not_for("trim", config.trim, "what is no text")?;
            not_for("lowercase", config.lowercase, "what is no text")?;
        }
        if config.kind != ParameterType::Integer {
            not_for("min", numbers, "what is no integer: set type = \"integer\"")?;
        }
        let allowed = match config.kind {
            ParameterType::Uuid => Allowed::Uuid,
            ParameterType::Integer => {
                let (min, max) = (config.min.unwrap_or(1), config.max.unwrap_or(i64::MAX));
                if min > max {
                    return Err(("max", format!("no integer is from {min} to {max}")));
                }
                Allowed::Integer { min, max }
            }
            ParameterType::Text => {
                let min = config.min_length.unwrap_or(1);
                let max = config.max_length.unwrap_or(100);
                if min > max || max > 1000 {
                    return Err(("max_length", "it is from min_length to 1000".to_owned()));
                }
                Allowed::Text { min, max, trim: config.trim, lowercase: config.lowercase }
            }
        };
        let Some(values) = &config.one_of else { return Ok(allowed) };
        let read = |value: &Scalar| {
            let text = text_of(value);
            allowed.read(&text).map_err(|()| {
                ("one_of", format!("{text:?} is not allowed here: {}", allowed.describe()))
            })
        };
        let values = values.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return Err(("one_of", "no value is allowed".to_owned()));
        }
        Ok(Allowed::OneOf(values))
    }

    /// The one spelling of a value that is allowed.
    fn read(&self, raw: &str) -> Result<String, ()> {
        match self {
            Allowed::OneOf(values) => values.iter().find(|v| *v == raw).cloned().ok_or(()),
            Allowed::Uuid => canonical_uuid(raw).ok_or(()),
            Allowed::Integer { min, max } => {
                let digits = raw.strip_prefix('-').unwrap_or(raw);
                // More would be no integer, or one that was padded to no end.
                let plain = (1..=19).contains(&digits.len());
                if !plain || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(());
                }
                let number: i64 = raw.parse().map_err(|_| ())?;
                if (*min..=*max).contains(&number) { Ok(number.to_string()) } else { Err(()) }
            }
            Allowed::Text { min, max, trim, lowercase } => {
                let text = if *trim { raw.trim() } else { raw };
                // Of what was typed: some letters are two in lower case.
                let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                let text = if *lowercase { text.to_lowercase() } else { text.to_owned() };
                let plain = !text.chars().any(char::is_control);
                if plain && (*min..=*max).contains(&length) { Ok(text) } else { Err(()) }
            }
        }
    }

    /// What is allowed, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Allowed::OneOf(values) => format!("one of {} is allowed", values.join(", ")),
            Allowed::Uuid => "a UUID is allowed".to_owned(),
            Allowed::Integer { min, max: i64::MAX } => {
                format!("a whole number from {min} is allowed")
            }
            Allowed::Integer { min, max } => {
                format!("a whole number from {min} to {max} is allowed")
            }
            Allowed::Text { min, max, .. } => {
                format!("a text of {min} to {max} characters is allowed")
            }
        }
    }
}

pub(super) fn text_of(value: &Scalar) -> String {
    match value {
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameter(config: EndpointParameter) -> Parameter {
        Parameter::compile("p", &config, None).unwrap()
    }

    fn of_query(parameter: &Parameter, query: &str) -> Result<String, u16> {
        parameter
            .value(|_| None, &Query::parse(query), None)
            .map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn one_value_has_one_spelling() {
        let days = parameter(EndpointParameter {
            query: Some("days".to_owned()),
            kind: ParameterType::Integer,
            default: Some(Scalar::Number(30)),
            max: Some(365),
            ..EndpointParameter::default()
        });
        for (query, value) in [
            ("", Ok("30")),
            ("days=7", Ok("7")),
            ("days=007", Ok("7")),
            ("days=%37", Ok("7")),
            ("x=1&days=365&y", Ok("365")),
            ("days=366", Err(400)),
            ("days=0", Err(400)),
            ("days=-7", Err(400)),
            ("days=", Err(400)),
            ("days=7.0", Err(400)),
            ("days=+7", Err(400)),
            ("days=7&days=7", Err(400)),
            ("days=7&d%61ys=8", Err(400)),
            ("days=99999999999999999999", Err(400)),
            ("days=%ff", Err(400)),
            ("days=%", Err(400)),
            ("days=7%00", Err(400)),
        ] {
            assert_eq!(of_query(&days, query), value.map(str::to_owned), "{query}");
        }
    }

    #[test]
    fn a_text_is_trimmed_folded_and_bounded() {
        let q = parameter(EndpointParameter {
            query: Some("q".to_owned()),
            min_length: Some(2),
            trim: true,
            lowercase: true,
            ..EndpointParameter::default()
        });
        for (query, value) in [
            ("q=ACME", Ok("acme")),
            ("q=+Big+Deal%20", Ok("big deal")),
            ("q=%C3%89t%C3%A9", Ok("été")),
            ("q=a", Err(400)),
            ("q=+a+", Err(400)),
            ("q=a%00b", Err(400)),
            ("q=a%0Ab", Err(400)),
            ("", Err(400)),
        ] {
            assert_eq!(of_query(&q, query), value.map(str::to_owned), "{query}");
        }
        assert_eq!(of_query(&q, &format!("q={}", "x".repeat(100))).map(|q| q.len()), Ok(100));
        assert_eq!(of_query(&q, &format!("q={}", "x".repeat(101))), Err(400));
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        let wrong = EndpointParameter { min: Some(1), ..EndpointParameter::default() };
        assert_eq!(Parameter::compile("p", &wrong, None).unwrap_err().0, "min");
        let wrong = EndpointParameter {
            kind: ParameterType::Integer,
            default: Some(Scalar::Number(0)),
            ..EndpointParameter::default()
        };
        assert_eq!(Parameter::compile("p", &wrong, None).unwrap_err().0, "default");
    }

    proptest! {
        #[test]
        fn no_query_panics_and_what_is_taken_is_within_bounds(query: String) {
            let p = parameter(EndpointParameter {
                query: Some("q".to_owned()),
                ..EndpointParameter::default()
            });
            if let Ok(text) = of_query(&p, &format!("q={query}")) {
                prop_assert!((1..=100).contains(&text.chars().count()));
                prop_assert!(!text.chars().any(char::is_control));
            }
        }
    }
}
