//! What types cannot say of `[api]`: ranges, origins, keys.

use std::collections::BTreeSet;

use secrecy::ExposeSecret as _;

use super::api::{Api, JwtKey};
use super::duration::Span;
use super::model::Config;
use super::problem::ConfigPath;
use super::validate::Checks;

impl Checks {
    pub(super) fn api(&mut self, config: &Config, api: &Api) {
        let at = |key: &str| ConfigPath::from_iter(["api", key]);
        self.number(at("max_header_bytes"), api.max_header_bytes, 8_192..=1_048_576);
        self.number(at("max_body_bytes"), api.max_body_bytes, 0..=1_048_576);
        self.number(at("threads"), api.threads, 1..=64);
        self.number(at("max_connections"), api.max_connections, 1..=1_000_000);
        self.number(at("max_loads"), api.max_loads, 1..=1_000);
        self.number(at("max_stale_bytes"), api.max_stale_bytes, 65_536..=1 << 40);
        let orders = usize::try_from(api.management_per_minute).unwrap_or(usize::MAX);
        self.number(at("management_per_minute"), orders, 1..=1_000_000);
        let minutes = Span::seconds(600);
        self.span(at("header_timeout"), api.header_timeout, Span::milliseconds(100)..=minutes);
        self.span(at("request_timeout"), api.request_timeout, Span::milliseconds(100)..=minutes);
        self.span(at("max_load_wait"), api.max_load_wait, Span::milliseconds(1)..=minutes);
        self.span(at("min_lsn_timeout"), api.min_lsn_timeout, Span::seconds(0)..=minutes);
        let jwt = at("jwt");
        self.span(jwt.child("leeway"), api.jwt.leeway, Span::seconds(0)..=Span::seconds(300));
        for (index, origin) in api.cors_origins.iter().enumerate() {
            let rest = origin.split_once("://").map(|(_, rest)| rest);
            if origin != "*" && !rest.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
                self.add(
                    at("cors_origins").child(index),
                    format!("{origin:?} is no origin"),
                    "write scheme, host and port as browsers send them, without a path, such as \"https://app.example.com\", or \"*\"",
                );
            }
        }
        for (index, key) in api.jwt.keys.iter().enumerate() {
            self.jwt_key(key, &jwt.child("keys").child(index));
        }
        let keys: Vec<JwtKey> = api.jwt.all_keys().collect();
        if let Some(first) = keys.first().filter(|_| keys.len() > api.jwt.keys.len()) {
            self.jwt_key(first, &jwt);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = keys.iter().find(|key| !seen.insert(&key.kid)) {
            let kid = twice.kid.as_deref().map(|kid| format!("the kid {kid:?}"));
            self.add(
                jwt,
                format!("two keys have {}", kid.unwrap_or_else(|| "no kid".to_owned())),
                "give each its own `kid`, or all but one",
            );
        }
        let serves = api.enabled && !config.endpoints.is_empty();
        if serves && keys.is_empty() && !api.listen.ip().is_loopback() {
            self.add(
                at("listen"),
                format!("others can reach {}, and there is no key to know them by", api.listen),
                "set UNSTALE_API__JWT__SECRET, or secret_file or public_key_file in [api.jwt]; or listen on 127.0.0.1",
            );
        }
    }

    fn jwt_key(&mut self, key: &JwtKey, path: &ConfigPath) {
        let algorithm = key.algorithm.as_str();
        let secrets = usize::from(key.secret.is_some()) + usize::from(key.secret_file.is_some());
        if key.algorithm.is_symmetric() && (secrets != 1 || key.public_key_file.is_some()) {
            self.add(
                path.clone(),
                format!("a key of {algorithm} is one secret, and nothing else"),
                "set `secret` or `secret_file`, and leave out `public_key_file`",
            );
        } else if !key.algorithm.is_symmetric() && (secrets > 0 || key.public_key_file.is_none()) {
            self.add(
                path.clone(),
                format!("a key of {algorithm} is a public key, and nothing else"),
                "set `public_key_file`, and leave out `secret` and `secret_file`",
            );
        }
        if let Some(secret) = &key.secret
            && secret.expose_secret().len() < 32
        {
            self.add(
                path.child("secret"),
                "the secret has less than 32 bytes, and could be guessed",
                "take a longer one (RFC 7518, section 3.2)",
            );
        }
    }
}
