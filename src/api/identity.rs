//! Who a user is, as the identity cache has it.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// A user, as far as access depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// The user's id, as keys have it.
    #[serde(deserialize_with = "id")]
    pub user_id: String,
    /// The user's organization.
    #[serde(default, deserialize_with = "optional_id")]
    pub organization_id: Option<String>,
    /// Whether that is active; `None` without one.
    #[serde(default)]
    pub organization_is_active: Option<bool>,
    /// The name of the user's role.
    #[serde(default)]
    pub role_name: Option<String>,
    /// Whether the user may do anything at all.
    pub is_active: bool,
    /// Whether the user may do everything.
    pub is_superuser: bool,
}

impl Identity {
    /// Reads a value of the identity cache; `None` if it is none.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Identity> {
        serde_json::from_slice(value).ok()
    }

    /// Whether the role's name, case and dashes aside, is `organization admin` or `org admin`.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        let name = self.role_name.as_deref().unwrap_or_default().to_lowercase();
        let words: Vec<&str> =
            name.split(|c: char| c == '-' || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
        matches!(words.as_slice(), ["organization" | "org", "admin"])
    }
}

/// An id as a key has it, of what Django's keys are: a whole number, or digits in a text, or
/// a UUID. Two spellings of one id must not make two keys, of which changes reach one.
#[must_use]
pub fn canonical_id(text: &str) -> Option<String> {
    if text.len() <= 19 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<i64>().ok().map(|id| id.to_string());
    }
    canonical_uuid(text)
}

/// A UUID as Postgres prints it; `None` if it is not one with all its dashes.
#[must_use]
pub fn canonical_uuid(text: &str) -> Option<String> {
    let dashes = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits = |(at, b): (usize, u8)| if dashes(at) { b == b'-' } else { b.is_ascii_hexdigit() };
    (text.len() == 36 && text.bytes().enumerate().all(fits)).then(|| text.to_ascii_lowercase())
}

/// A whole number or a text, each as a key has it; `null` where there may be none.
struct Id;

impl<'de> Visitor<'de> for Id {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a text")
    }

    fn visit_i64<E: de::Error>(self, id: i64) -> Result<Self::Value, E> {
        Ok(Some(id.to_string()))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Self::Value, E> {
        i64::try_from(id).map_err(E::custom).and_then(|id| self.visit_i64(id))
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<Self::Value, E> {
        Ok(Some(id.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = deserializer.deserialize_any(Id)?;
    id.ok_or_else(|| de::Error::invalid_type(de::Unexpected::Unit, &Id))
}

fn optional_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(Id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_is_known_by_the_name_of_the_role() {
        let with = |role: &str| {
            let value = format!(
                r#"{{"user_id":7,"organization_id":null,"organization_is_active":null,"role_name":{role},"is_active":true,"is_superuser":false}}"#
            );
            Identity::read(value.as_bytes()).unwrap().is_admin()
        };
        for admin in [
            "\"Organization Admin\"",
            "\"org-admin\"",
            "\" ORG  ADMIN \"",
            "\"organization-admin\"",
        ] {
            assert!(with(admin), "{admin}");
        }
        for other in
            ["null", "\"admin\"", "\"org administrator\"", "\"super org admin\"", "\"orgadmin\""]
        {
            assert!(!with(other), "{other}");
        }
    }

    #[test]
    fn ids_are_numbers_or_texts_and_nothing_else() {
        let read = |user: &str, organization: &str| {
            let value = format!(
                r#"{{"user_id":{user},"organization_id":{organization},"is_active":true,"is_superuser":false}}"#
            );
            Identity::read(value.as_bytes()).map(|read| (read.user_id, read.organization_id))
        };
        let is = |user: &str, organization: Option<&str>| {
            Some((user.to_owned(), organization.map(str::to_owned)))
        };
        assert_eq!(read("7", "1"), is("7", Some("1")));
        assert_eq!(read("\"7\"", "\"a-b\""), is("7", Some("a-b")));
        assert_eq!(read("-7", "null"), is("-7", None));
        assert_eq!(read("9223372036854775807", "null"), is("9223372036854775807", None));
        for wrong in ["null", "true", "7.5", "[7]", "{}", "9223372036854775808"] {
            assert_eq!(read(wrong, "1"), None, "{wrong}");
            assert_eq!(read("7", wrong).is_some(), wrong == "null", "{wrong}");
        }
    }

    #[test]
    fn one_id_has_one_spelling() {
        assert_eq!(canonical_id("007").as_deref(), Some("7"));
        assert_eq!(
            canonical_id("C0FFEE00-0000-0000-0000-00000000000A").as_deref(),
            Some("c0ffee00-0000-0000-0000-00000000000a")
        );
        for wrong in ["", "+7", "-7", "7 ", "9223372036854775808", "7:1", "{7}", "c0ffee"] {
            assert_eq!(canonical_id(wrong), None, "{wrong}");
        }
    }
}
