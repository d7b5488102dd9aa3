//! The body of an order: pure.

use serde::Deserialize;

use crate::api::identity::canonical_id;

/// What is ordered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) cache_type: String,
    pub(super) organization: Option<String>,
    pub(super) user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    cache_type: String,
    #[serde(default)]
    organization_id: Option<Id>,
    #[serde(default)]
    user_id: Option<Id>,
}

#[derive(Deserialize)]
#[serde(try_from = "Raw")]
struct Id(String);

#[derive(Deserialize)]
#[serde(untagged, expecting = "an id is a whole number, digits in a text, or a UUID")]
enum Raw {
    Number(u64),
    /// `7.0` is a whole number, as JSON Schema has it.
    Float(f64),
    Text(String),
}

impl TryFrom<Raw> for Id {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Id, Self::Error> {
        let text = match raw {
            Raw::Number(number) => number.to_string(),
            Raw::Float(number) if number >= 0.0 && number.fract() == 0.0 => format!("{number:.0}"),
            Raw::Float(_) => String::new(),
            Raw::Text(text) => text,
        };
        canonical_id(&text).map(Id).ok_or("an id is a whole number, digits in a text, or a UUID")
    }
}

impl Order {
    /// Reads it. What is not known is refused: a misspelt `organization_id` must not mean all.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn read(body: &[u8]) -> Result<Order, String> {
        // Or an array would do.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err("a JSON object is allowed, with cache_type and, if need be, organization_id and user_id".to_owned());
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let id = |id: Option<Id>| id.map(|Id(id)| id);
        Ok(Order {
            cache_type: body.cache_type,
            organization: id(body.organization_id),
            user: id(body.user_id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_whole_or_not_at_all() {
        let order =
            Order::read(br#" {"cache_type": "all", "organization_id": 7.0, "user_id": "042"}"#);
        let order = order.unwrap();
        assert_eq!((order.organization.as_deref(), order.user.as_deref()), (Some("7"), Some("42")));
        let order = Order::read(br#"{"cache_type": "user", "organization_id": null}"#).unwrap();
        assert_eq!(order.organization, None);
        for wrong in [
            "",
            "[\"all\"]",
            "\"all\"",
            "{}",
            r#"{"cache_type": 7}"#,
            r#"{"cache_type": "all", "organisation_id": 7}"#,
            r#"{"cache_type": "all", "organization_id": -7}"#,
            r#"{"cache_type": "all", "organization_id": 7.5}"#,
            r#"{"cache_type": "all", "organization_id": true}"#,
            r#"{"cache_type": "all", "organization_id": "7:8"}"#,
            r#"{"cache_type": "all", "organization_id": 1, "organization_id": 2}"#,
            r#"{"cache_type": "all"} {"#,
        ] {
            assert!(Order::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
