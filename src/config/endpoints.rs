//! `[[endpoints]]`: what the read API serves, and to whom.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::caches::Scalar;
use super::keyword::keywords;

/// `[[endpoints]]`: one path, and the cache whose entries it serves.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The path, such as `/api/cached/organizations/{id}/info/`. It is also served without
    /// the slash at its end, or with one.
    pub path: String,
    /// The cache.
    pub cache: String,
    /// The name of the value in the answer, beside `cache_info`.
    pub envelope: String,
    /// Whether the daemon's live figures stand beside the value, which is then the member
    /// `statistics` of them.
    #[serde(default)]
    pub live: bool,
    /// What it is, in a few words, for the OpenAPI document.
    #[serde(default)]
    pub summary: Option<String>,
    /// What a value looks like, as JSON, for the OpenAPI document.
    #[serde(default)]
    pub example: Option<String>,
    /// Who may. Default: superusers alone.
    #[serde(default)]
    pub who: Who,
    /// Where each parameter of the cache's key comes from.
    #[serde(default)]
    pub parameters: BTreeMap<String, EndpointParameter>,
    /// The parameter that names the organization, of which `member` and `admin` must be.
    #[serde(default = "org_id")]
    pub organization: String,
    /// The parameter that names the user, which `self` must be.
    #[serde(default = "user_id")]
    pub user: String,
    /// The header `Cache-Control` of what is answered.
    #[serde(default = "revalidate")]
    pub cache_control: String,
}

/// Who may call an endpoint. But for `anyone`, a token is needed, and its user must be active.
/// Superusers may all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Without a token.
    Anyone,
    /// Each user, about himself; not if his organization is inactive.
    #[serde(rename = "self")]
    Myself,
    /// The members of the organization that is asked about, if it is active.
    Member,
    /// Its administrators: members whose role is named `organization admin` or `org admin`,
    /// case and dashes aside.
    Admin,
    /// Superusers.
    #[default]
    Superuser,
}

/// Where a parameter comes from: at least one of `path`, `query`, `identity` and `constant`.
/// With `query` and `identity`, the query wins where it is given.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointParameter {
    /// The `{name}` in the path.
    pub path: Option<String>,
    /// The name in the query, `?name=…`.
    pub query: Option<String>,
    /// What is known of the user.
    pub identity: Option<IdentityField>,
    /// Always this.
    pub constant: Option<Scalar>,
    /// What it must be: the type of the column that the rules of the cache give it by.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// What it is when the query does not give it. Without it the query must.
    pub default: Option<Scalar>,
    /// The least integer that is allowed. Default: 1.
    pub min: Option<i64>,
    /// The greatest integer that is allowed.
    pub max: Option<i64>,
    /// How many characters a text must have at least. Default: 1.
    pub min_length: Option<u32>,
    /// How many characters a text may have. Default: 100.
    pub max_length: Option<u32>,
    /// The values that are allowed, and no others.
    pub one_of: Option<Vec<Scalar>>,
    /// Whether white space around a text is taken off.
    pub trim: bool,
    /// Whether a text is made lower case.
    pub lowercase: bool,
}

/// What a parameter must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Any text without control characters.
    #[default]
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A UUID.
    Uuid,
}

/// What is known of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentityField {
    /// The user's id.
    UserId,
    /// The id of the user's organization.
    OrganizationId,
}

keywords!(Who {
    "anyone" => Anyone,
    "self" => Myself,
    "member" => Member,
    "admin" => Admin,
    "superuser" => Superuser,
});
keywords!(ParameterType { "text" => Text, "integer" => Integer, "uuid" => Uuid });
keywords!(IdentityField { "user_id" => UserId, "organization_id" => OrganizationId });

fn org_id() -> String {
    "org_id".to_owned()
}
fn user_id() -> String {
    "user_id".to_owned()
}
fn revalidate() -> String {
    "private, no-cache".to_owned()
}
