//! Bearer tokens: JSON Web Tokens (RFC 7519) as djangorestframework-simplejwt signs them.
//!
//! A key here knows its algorithm, and only a key verifies: the token's `alg` is compared
//! with the key's, never used to choose how to verify. So `none` is no algorithm, and a
//! public key can never become an HMAC's secret. That leaves a base64 text, a comparison
//! and one call into ring, which TLS brings anyway.
//!
//! # Why no library
//!
//! `jsonwebtoken`, the one that is kept well, was weighed (11.1). Since version 10 it has no way over
//! ring: `aws_lc_rs` builds C with a toolchain of its own, and `rust_crypto` brings 27 crates that are
//! not here yet, a second `hmac` and `rsa` 0.9 among them, which is not constant in time
//! (RUSTSEC-2023-0071; `make deny` refuses it). 9.3 is built on ring, and is not kept any more. What
//! would be left to write is what this file mostly is: which key and which algorithm a `kid` means,
//! which files hold a key, the claims of simplejwt, and refusing what its defaults let pass (an `nbf`
//! of a wrong type; ids in two spellings). `tests/api/tokens.rs` has the attacks. Should a version come
//! that verifies by ring, or Redis' and Postgres' TLS leave ring, weigh it anew.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{hmac, signature};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};
use x509_cert::der::Decode as _;
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::identity::canonical_id;
use super::verified::{Remembered, Times, Verified};
use crate::config::api::{Algorithm, Jwt, JwtKey};

/// Longer than any token that simplejwt makes.
const LONGEST: usize = 8_192;

/// Whose tokens are taken.
pub struct Keys {
    keys: Vec<Key>,
    leeway: Duration,
    audience: Option<String>,
    issuer: Option<String>,
    remembered: Remembered,
}

struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    Secret(hmac::Key),
    Public(signature::UnparsedPublicKey<Vec<u8>>),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11): none is.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    exp: Number,
    nbf: Option<Number>,
    aud: Option<Value>,
    iss: Option<Value>,
    token_type: Option<Value>,
    user_id: Value,
}

impl Keys {
    /// Reads the keys where the configuration says they are.
    ///
    /// # Errors
    /// Which one cannot be used, and why.
    pub fn load(config: &Jwt) -> Result<Keys, String> {
        let keys = config.all_keys().map(|key| Key::load(&key)).collect::<Result<_, _>>()?;
        Ok(Keys {
            keys,
            leeway: config.leeway.get(),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            remembered: Remembered::default(),
        })
    }

    /// Whether no token will ever be taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The user that a token is for.
    ///
    /// # Errors
    /// Why it is not taken, in words that tell nothing of the keys.
    pub fn user(&self, token: &str, now: SystemTime) -> Result<Arc<str>, &'static str> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = self.leeway.as_secs_f64();
        if let Some(known) = self.remembered.get(token) {
            known.times.check(now, leeway)?;
            return Ok(known.user);
        }
        let verified = self.verify(token)?;
        verified.times.check(now, leeway)?;
        let user = Arc::clone(&verified.user);
        self.remembered.put(token, verified);
        Ok(user)
    }

    /// All but whether it counts now.
    fn verify(&self, token: &str) -> Result<Verified, &'static str> {
        if token.len() > LONGEST {
            return Err("the token is too long");
        }
        let malformed = "the token is no JSON Web Token";
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
        let header: Header = object(&decode(header)?).ok_or(malformed)?;
        if header.crit.is_some() {
            return Err("the token has extensions that are not known here");
        }
        let key = self.key(header.kid.as_deref()).ok_or("no key here has signed the token")?;
        if header.alg != key.algorithm.as_str() {
            return Err("the token is not signed by the algorithm of its key");
        }
        let signature = decode(signature)?;
        if !key.verifies(signed.as_bytes(), &signature) {
            return Err("the token's signature is wrong");
        }
        let claims =
            object(&decode(claims)?).ok_or("the token lacks a claim, or one is of a wrong type")?;
        self.check(claims)
    }

    /// By its name; a token that names none, or one that is not known, is for the key without.
    fn key(&self, kid: Option<&str>) -> Option<&Key> {
        let named =
            kid.and_then(|kid| self.keys.iter().find(|key| key.kid.as_deref() == Some(kid)));
        named.or_else(|| self.keys.iter().find(|key| key.kid.is_none()))
    }

    fn check(&self, claims: Claims) -> Result<Verified, &'static str> {
        let wrong = "the token's times are not numbers";
        let number = |number: &Number| number.as_f64().ok_or(wrong);
        let expires = number(&claims.exp)?;
        let not_before = claims.nbf.as_ref().map(number).transpose()?;
        let times = Times { not_before, expires };
        if claims.token_type.as_ref().and_then(Value::as_str) != Some("access") {
            return Err("the token is no access token");
        }
        if let Some(expected) = &self.issuer
            && claims.iss.as_ref().and_then(Value::as_str) != Some(expected)
        {
            return Err("the token is of another issuer");
        }
        if let Some(expected) = &self.audience {
            let is = |aud: &Value| aud.as_str() == Some(expected);
            let any = match &claims.aud {
                Some(Value::Array(several)) => several.iter().any(is),
                Some(one) => is(one),
                None => false,
            };
            if !any {
                return Err("the token is for another audience");
            }
        }
        let id = match claims.user_id {
            Value::Number(number) => canonical_id(&number.to_string()),
            Value::String(text) => canonical_id(&text),
            _ => None,
        };
        Ok(Verified { user: id.ok_or("the token names no user")?.into(), times })
    }
}

impl Key {
    fn load(key: &JwtKey) -> Result<Key, String> {
        let (kid, algorithm) = (key.kid.clone(), key.algorithm);
        let what = match &kid {
            Some(kid) => format!("the key {kid:?} in [api.jwt]"),
            None => "the key in [api.jwt]".to_owned(),
        };
        let material = match (&key.secret, &key.secret_file, &key.public_key_file) {
            (Some(secret), ..) => secret_key(algorithm, secret.expose_secret().as_bytes()),
            (_, Some(file), _) => {
                read(file).and_then(|text| secret_key(algorithm, trim_line_end(&text)))
            }
            (_, _, Some(file)) => read(file).and_then(|pem| public_key(algorithm, &pem)),
            _ => Err("there is none".to_owned()),
        };
        let material = material.map_err(|reason| format!("{what} cannot be used: {reason}"))?;
        Ok(Key { kid, algorithm, material })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Public(key) => key.verify(message, signature).is_ok(),
        }
    }
}

/// A JSON object, as header and claims are. (serde would read a struct from a list as well, by position.)
fn object<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    bytes.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(bytes).ok()).flatten()
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| {
        format!("{} cannot be read: {error}; let this user read it", file.display())
    })
}

fn trim_line_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
    text.get(..end).unwrap_or_default()
}

fn secret_key(algorithm: Algorithm, secret: &[u8]) -> Result<Material, String> {
    let algorithm = match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        Algorithm::Rs256 | Algorithm::Es256 => {
            return Err(format!("{} has no secret: set public_key_file", algorithm.as_str()));
        }
    };
    if secret.starts_with(b"-----BEGIN") {
        return Err("the secret is a PEM file, which others may know: take a secret, or set algorithm and public_key_file".to_owned());
    }
    if secret.len() < 32 {
        return Err("the secret has less than 32 bytes, and could be guessed: take a longer one (RFC 7518, section 3.2)".to_owned());
    }
    Ok(Material::Secret(hmac::Key::new(algorithm, secret)))
}

fn public_key(algorithm: Algorithm, pem: &[u8]) -> Result<Material, String> {
    const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
    const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
    /// The DER of a key of 2048 bits, about.
    const LEAST: usize = 260;
    let no_key = || {
        "the file holds no public key: it begins with -----BEGIN PUBLIC KEY----- (openssl pkey -pubout)".to_owned()
    };
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| no_key())?;
    let info = SubjectPublicKeyInfoRef::from_der(&der).map_err(|_| no_key())?;
    let key = info.subject_public_key.raw_bytes().to_vec();
    let curve = || info.algorithm.parameters.and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
    let verify: &'static dyn signature::VerificationAlgorithm = match algorithm {
        Algorithm::Rs256 if info.algorithm.oid != RSA => {
            return Err("RS256 needs an RSA key".to_owned());
        }
        Algorithm::Rs256 if key.len() < LEAST => {
            return Err("RS256 needs a key of 2048 bits or more".to_owned());
        }
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Es256 if info.algorithm.oid != EC || curve() != Some(P256) => {
            return Err("ES256 needs a key on the curve P-256 (prime256v1)".to_owned());
        }
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
            return Err(format!(
                "{} has no public key: set secret or secret_file",
                algorithm.as_str()
            ));
        }
    };
    Ok(Material::Public(signature::UnparsedPublicKey::new(verify, key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::duration::Span;
    use proptest::prelude::*;

    const SECRET: &str = "a secret that is long enough to be one";

    fn keys(change: impl FnOnce(&mut Jwt)) -> Keys {
        let mut config = Jwt { secret: Some(SECRET.into()), ..Jwt::default() };
        change(&mut config);
        Keys::load(&config).unwrap()
    }

    fn sign(header: &str, claims: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000)
    }

    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    #[test]
    fn a_token_of_simplejwt_names_its_user_by_number_or_text() {
        let keys = keys(|_| ());
        for (id, expected) in [("7", "7"), ("\"7\"", "7"), ("\"007\"", "7")] {
            let claims = format!(
                r#"{{"token_type":"access","exp":1001,"iat":900,"jti":"x","user_id":{id}}}"#
            );
            assert_eq!(keys.user(&sign(HEADER, &claims), now()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn times_are_numbers_and_leeway_moves_them() {
        let strict = keys(|_| ());
        let lenient = keys(|jwt| jwt.leeway = Span::seconds(60));
        for (times, taken, taken_with_leeway) in [
            (r#""exp":1001"#, true, true),
            (r#""exp":1000.5"#, true, true),
            (r#""exp":1000"#, false, true),
            (r#""exp":940"#, false, false),
            (r#""exp":2000,"nbf":1000"#, true, true),
            (r#""exp":2000,"nbf":1050"#, false, true),
            (r#""exp":2000,"nbf":1070"#, false, false),
            (r#""exp":"2000""#, false, false),
            (r#""exp":2000,"nbf":"1""#, false, false),
            (r#""exp":null"#, false, false),
            (r#""nbf":1"#, false, false),
            (r#""exp":940,"exp":2000"#, false, false),
        ] {
            let claims = format!(r#"{{{times},"token_type":"access","user_id":7}}"#);
            let token = sign(HEADER, &claims);
            assert_eq!(strict.user(&token, now()).is_ok(), taken, "{times}");
            assert_eq!(lenient.user(&token, now()).is_ok(), taken_with_leeway, "{times}");
        }
    }

    #[test]
    fn a_token_that_is_known_counts_no_longer_than_another() {
        let keys = keys(|_| ());
        let claims = r#"{"exp":1002,"nbf":1000,"token_type":"access","user_id":7}"#;
        let token = sign(HEADER, claims);
        let at = |seconds| keys.user(&token, UNIX_EPOCH + Duration::from_secs(seconds));
        assert!(at(999).is_err(), "a token that was refused is looked at again");
        assert_eq!(at(1_000).as_deref(), Ok("7"));
        assert_eq!(at(1_001).as_deref(), Ok("7"));
        assert!(at(999).is_err(), "the clock was set back");
        assert!(at(1_002).is_err());
        let forged = token.replacen('.', ".e", 1);
        assert!(keys.user(&forged, now()).is_err());
        assert!(keys.user(&token.to_uppercase(), now()).is_err());
    }

    #[test]
    fn who_it_is_for_and_from_must_be_as_configured() {
        let keys = keys(|jwt| {
            jwt.audience = Some("api".to_owned());
            jwt.issuer = Some("us".to_owned());
        });
        for (claims, taken) in [
            (r#""aud":"api","iss":"us""#, true),
            (r#""aud":["x","api"],"iss":"us""#, true),
            (r#""aud":"x","iss":"us""#, false),
            (r#""aud":"api""#, false),
            (r#""iss":"us""#, false),
        ] {
            let claims = format!(r#"{{"exp":2000,"token_type":"access","user_id":7,{claims}}}"#);
            assert_eq!(keys.user(&sign(HEADER, &claims), now()).is_ok(), taken, "{claims}");
        }
    }

    #[test]
    fn a_key_verifies_its_own_algorithm_and_nothing_else() {
        let keys = keys(|_| ());
        let claims = r#"{"exp":2000,"token_type":"access","user_id":7}"#;
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"typ":"JWT"}"#,
            "[]",
            r#"["HS256",null,null]"#,
        ] {
            assert!(keys.user(&sign(header, claims), now()).is_err(), "{header}");
        }
        let list = r#"[2000,null,null,null,"access",7]"#;
        assert!(keys.user(&sign(HEADER, list), now()).is_err(), "claims have names");
        let good = sign(HEADER, claims);
        assert!(keys.user(&good, now()).is_ok());
        let (signed, _) = good.rsplit_once('.').unwrap();
        for token in
            [signed.to_owned(), format!("{signed}."), format!("{good}."), format!("{good}=")]
        {
            assert!(keys.user(&token, now()).is_err(), "{token}");
        }
        assert!(keys.user(&"x".repeat(LONGEST + 1), now()).is_err());
        assert!(keys.user("..", now()).is_err());
    }

    #[test]
    fn a_kid_chooses_the_key() {
        let other = "another secret that is long enough, too";
        let key =
            JwtKey { kid: Some("new".to_owned()), secret: Some(other.into()), ..JwtKey::default() };
        let claims = r#"{"exp":2000,"token_type":"access","user_id":7}"#;
        let named = sign(r#"{"alg":"HS256","kid":"new"}"#, claims);
        let unknown = sign(r#"{"alg":"HS256","kid":"old"}"#, claims);
        assert!(keys(|_| ()).user(&named, now()).is_ok(), "one key takes all");
        let both = keys(|jwt| jwt.keys.push(key.clone()));
        assert!(both.user(&named, now()).is_err(), "the other key's secret has not signed it");
        assert!(both.user(&unknown, now()).is_ok());
        let only = keys(|jwt| {
            jwt.secret = None;
            jwt.keys.push(key);
        });
        assert!(only.user(&unknown, now()).is_err(), "no key is for it");
    }

    #[test]
    fn keys_that_are_none_are_refused_with_their_reason() {
        assert!(secret_key(Algorithm::Hs256, b"short").is_err());
        assert!(
            secret_key(Algorithm::Hs256, b"-----BEGIN PUBLIC KEY-----\nabcdefghijklmnop").is_err()
        );
        assert!(public_key(Algorithm::Rs256, b"nothing").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused(
            text in prop_oneof![any::<String>(), "[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,30}\\.[A-Za-z0-9_-]{0,50}"],
        ) {
            prop_assert!(keys(|_| ()).user(&text, now()).is_err());
        }

        #[test]
        fn whatever_is_signed_names_a_user_by_its_one_spelling_or_is_refused(
            header in prop_oneof![Just(HEADER.to_owned()), any::<String>()],
            id in prop_oneof![any::<i64>().prop_map(|n| n.to_string()), "\"[^\"\\\\]{0,40}\"", any::<String>()],
            exp in prop_oneof![Just("1e300".to_owned()), Just("-0.0".to_owned()), any::<f64>().prop_map(|n| n.to_string())],
        ) {
            let claims = format!(r#"{{"exp":{exp},"token_type":"access","user_id":{id}}}"#);
            if let Ok(user) = keys(|_| ()).user(&sign(&header, &claims), now()) {
                prop_assert_eq!(canonical_id(&user), Some(user.to_string()));
            }
        }

        #[test]
        fn a_byte_that_is_changed_makes_a_token_none(at: prop::sample::Index, by in 1..=127_u8) {
            let token = sign(HEADER, r#"{"exp":2000,"token_type":"access","user_id":7}"#);
            let mut bytes = token.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = (bytes[at] ^ by) & 0x7f;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assume!(changed != token);
            prop_assert!(keys(|_| ()).user(&changed, now()).is_err());
        }
    }
}
