//! `[api]`: the read API's listener, its limits and its keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::address::socket_address;
use super::duration::Span;
use super::keyword::keywords;

/// `[api]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Whether the daemon serves the `[[endpoints]]`. Without endpoints nothing listens.
    pub enabled: bool,
    /// Where they are served, such as `127.0.0.1:8080`. An address that others can reach needs
    /// a key in `[api.jwt]`.
    #[serde(deserialize_with = "socket_address")]
    #[schemars(with = "String", extend("pattern" = ":[0-9]{1,5}$"))]
    pub listen: SocketAddr,
    /// The cache that says who a user is, by the parameter `user_id`: a JSON object with
    /// `user_id`, `organization_id`, `organization_is_active`, `role_name`, `is_active` and
    /// `is_superuser`.
    pub identity: String,
    /// What browsers may keep: what each endpoint's `cache_control` says, or nothing without
    /// asking (`private, no-cache`), so that they never show what the daemon has dropped.
    pub browser_cache: BrowserCache,
    /// Origins whose pages may read answers (CORS), such as `https://app.example.com`; `*`: all.
    pub cors_origins: Vec<String>,
    /// Whether answers are compressed for who accepts gzip or br.
    pub compress: bool,
    /// How large the head of a request may be.
    #[schemars(range(min = 8_192, max = 1_048_576))]
    pub max_header_bytes: usize,
    /// How large the body of a request may be.
    #[schemars(range(max = 1_048_576))]
    pub max_body_bytes: usize,
    /// How long a client may take to send the head of a request, or to take in what was
    /// answered; so long also an idle connection is kept.
    pub header_timeout: Span,
    /// How long answering may take.
    pub request_timeout: Span,
    /// How many threads serve requests, each with a connection to Redis: what of the machine's
    /// cores the API may take. Fewer cost less for each request, more answer more of them.
    #[schemars(range(min = 1, max = 64))]
    pub threads: usize,
    /// How many connections are served at once. Who comes then gets 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: usize,
    /// How many of the database's connections the API uses at once.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_loads: usize,
    /// How long a request may wait for one of them. Then it gets 503.
    pub max_load_wait: Span,
    /// How many bytes of copies are kept for caches with `stale_if_error`.
    #[schemars(range(min = 65_536, max = 1_099_511_627_776_u64))]
    pub max_stale_bytes: usize,
    /// How long a request with `Unstale-Min-LSN` waits for the watermark, before it is
    /// answered from the database.
    pub min_lsn_timeout: Span,
    /// How many orders to warm or to invalidate one caller may give a minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub management_per_minute: u32,
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// Whose tokens are taken.
    pub jwt: Jwt,
}

/// `[api.jwt]`: bearer tokens as djangorestframework-simplejwt signs them. Its first settings
/// are one key; `keys` has further ones, for rotation.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwt {
    /// The `kid` of tokens that are signed by this key. Without it: all that name no key, or
    /// one that no key here has.
    pub kid: Option<String>,
    /// What this key signs by. A token that claims another algorithm is refused.
    pub algorithm: Algorithm,
    /// The secret of HS256, HS384 and HS512 (Django: `SECRET_KEY`), of at least 32 bytes. Better
    /// kept out of the file: UNSTALE_API__JWT__SECRET or `secret_file`.
    #[schemars(with = "Option<String>")]
    pub secret: Option<SecretString>,
    /// A file that holds the secret alone (a mounted secret).
    pub secret_file: Option<PathBuf>,
    /// The public key of RS256 and ES256: a PEM file.
    pub public_key_file: Option<PathBuf>,
    /// Further keys.
    pub keys: Vec<JwtKey>,
    /// By how much clocks may differ, when `exp` and `nbf` are looked at.
    pub leeway: Span,
    /// The `aud` that a token must have.
    pub audience: Option<String>,
    /// The `iss` that a token must have.
    pub issuer: Option<String>,
}

/// One of `api.jwt.keys`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JwtKey {
    /// The `kid` of tokens that are signed by this key. Without it: all that name no key, or
    /// one that no key here has.
    pub kid: Option<String>,
    /// What this key signs by. A token that claims another algorithm is refused.
    pub algorithm: Algorithm,
    /// The secret of HS256, HS384 and HS512, of at least 32 bytes.
    #[schemars(with = "Option<String>")]
    pub secret: Option<SecretString>,
    /// A file that holds the secret alone (a mounted secret).
    pub secret_file: Option<PathBuf>,
    /// The public key of RS256 and ES256: a PEM file.
    pub public_key_file: Option<PathBuf>,
}

/// What a token is signed by (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "HS256")]
    Hs256,
    /// HMAC with SHA-384.
    #[serde(rename = "HS384")]
    Hs384,
    /// HMAC with SHA-512.
    #[serde(rename = "HS512")]
    Hs512,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

/// What browsers may keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrowserCache {
    /// What each endpoint's `cache_control` says.
    #[default]
    AsConfigured,
    /// Everything, but nothing is shown without asking.
    Revalidate,
}

/// Which requests are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// Each.
    #[default]
    All,
    /// Those that were answered with 400 or above.
    Errors,
    /// None.
    Off,
}

keywords!(Algorithm {
    "HS256" => Hs256,
    "HS384" => Hs384,
    "HS512" => Hs512,
    "RS256" => Rs256,
    "ES256" => Es256,
});
keywords!(BrowserCache { "as_configured" => AsConfigured, "revalidate" => Revalidate });
keywords!(AccessLog { "all" => All, "errors" => Errors, "off" => Off });

impl Algorithm {
    /// The name, as tokens have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        }
    }

    /// Whether who checks a token could also sign one.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
    }
}

impl Jwt {
    /// All keys that are configured: the first settings, if they are one, and `keys`.
    pub fn all_keys(&self) -> impl Iterator<Item = JwtKey> + '_ {
        let first = JwtKey {
            kid: self.kid.clone(),
            algorithm: self.algorithm,
            secret: self.secret.clone(),
            secret_file: self.secret_file.clone(),
            public_key_file: self.public_key_file.clone(),
        };
        let is_key = first.has_material();
        is_key.then_some(first).into_iter().chain(self.keys.iter().cloned())
    }
}

impl JwtKey {
    /// Whether it says where the key is.
    #[must_use]
    pub fn has_material(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some() || self.public_key_file.is_some()
    }
}

impl Default for Api {
    fn default() -> Self {
        Api {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            identity: "identity".to_owned(),
            browser_cache: BrowserCache::default(),
            cors_origins: Vec::new(),
            compress: true,
            max_header_bytes: 16_384,
            max_body_bytes: 65_536,
            header_timeout: Span::seconds(15),
            request_timeout: Span::seconds(10),
            threads: 2,
            max_connections: 1024,
            max_loads: 8,
            max_load_wait: Span::seconds(1),
            max_stale_bytes: 32 << 20,
            min_lsn_timeout: Span::milliseconds(500),
            management_per_minute: 30,
            access_log: AccessLog::default(),
            jwt: Jwt::default(),
        }
    }
}
