//! Who a user is, as the identity cache has it.

use serde::Deserialize;

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

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl From<NumberOrText> for String {
    fn from(id: NumberOrText) -> String {
        match id {
            NumberOrText::Number(number) => number.to_string(),
            NumberOrText::Text(text) => text,
        }
    }
}

fn id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    NumberOrText::deserialize(deserializer).map(String::from)
}

fn optional_id<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(Option::<NumberOrText>::deserialize(deserializer)?.map(String::from))
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
