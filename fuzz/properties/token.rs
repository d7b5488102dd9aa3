//! Whatever a bearer token says, nobody is who has not been named by one of the keys' owners, for this,
//! for now, and by the one spelling of his id.

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;
use unstale::api::identity::canonical_id;
use unstale::api::token::Keys;
use unstale::config::api::{Algorithm, Jwt, JwtKey};
use unstale::config::duration::Span;

const NOW: u64 = 1_000;
const LEEWAY: u64 = 60;
const AUDIENCE: &str = "api";
const ISSUER: &str = "us";
const KID: &str = "new";
const SECRET: &str = "a secret that is long enough to be one";
const OTHER: &str =
    "another secret that is long enough, and for HS512 longer than sixty-four bytes";
const PEM: &[u8] = include_bytes!("../../tests/api/jwt/rs256_public.pem");

/// The first takes what simplejwt makes; the second is told for whom, by whom, and who else may sign.
static SETTINGS: LazyLock<[Keys; 2]> = LazyLock::new(|| {
    let mut pem = tempfile::NamedTempFile::new().expect("a file");
    pem.write_all(PEM).expect("written");
    let plain = Jwt { secret: Some(SECRET.into()), ..Jwt::default() };
    let named =
        |kid: &str, algorithm| JwtKey { kid: Some(kid.to_owned()), algorithm, ..JwtKey::default() };
    let more = Jwt {
        leeway: Span::seconds(LEEWAY),
        audience: Some(AUDIENCE.to_owned()),
        issuer: Some(ISSUER.to_owned()),
        keys: vec![
            JwtKey { secret: Some(OTHER.into()), ..named(KID, Algorithm::Hs512) },
            JwtKey { public_key_file: Some(pem.path().into()), ..named("rs", Algorithm::Rs256) },
        ],
        ..plain.clone()
    };
    [plain, more].map(|jwt| Keys::load(&jwt).expect("keys"))
});

/// Reads `input`: a digit that says what is done with the rest, and the rest: a token, or a line for
/// the header and lines for the claims, which are then signed by a key.
///
/// # Panics
/// If a token breaks a promise.
pub(crate) fn check(input: &[u8]) -> bool {
    let Some((&how, rest)) = input.split_first() else { return false };
    let strict = usize::from(how & 1);
    let keys = &SETTINGS[strict];
    let token = match how >> 1 & 3 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        1 => sign(rest, hmac::HMAC_SHA256, SECRET),
        2 => sign(rest, hmac::HMAC_SHA512, OTHER),
        _ => {
            // Something that is good, and then changed.
            let (change, rest) = rest.split_at(rest.len().min(2));
            let mut token = sign(rest, hmac::HMAC_SHA256, SECRET);
            if let [at, to] = change {
                let at = usize::from(*at) * token.len() / 256;
                let to = char::from(*to & 0x7f).to_string();
                token.replace_range(at..at + 1, &to);
            }
            token
        }
    };
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let taken = keys.user(&token, at(NOW));
    assert_eq!(keys.user(&token, at(NOW)), taken, "looked at again");
    let Ok(user) = taken else { return false };
    assert_eq!(canonical_id(&user).as_deref(), Some(&*user), "an id has one spelling");
    check_taken(&token, &user, strict == 1, at(NOW));
    true
}

/// What follows of a token that was taken, as another would have computed it.
fn check_taken(token: &str, user: &str, strict: bool, now: SystemTime) {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{token} has not three parts") };
    // What is not looked at may be what this reader refuses: half a surrogate pair, say.
    let json = |part: &str| -> Option<Value> {
        let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64");
        serde_json::from_slice(&bytes).ok()
    };
    let signed = token.rsplit_once('.').map(|(signed, _)| signed).unwrap_or_default();
    let (Some(head), Some(said)) = (json(header), json(claims)) else { return };
    assert!(head.get("crit").is_none_or(Value::is_null), "{head}");
    let by_other = strict && head["kid"] == KID;
    let (algorithm, secret) =
        if by_other { (hmac::HMAC_SHA512, OTHER) } else { (hmac::HMAC_SHA256, SECRET) };
    assert_eq!(head["alg"], if by_other { "HS512" } else { "HS256" });
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    let expected = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    assert_eq!(signature, expected, "nobody's signature was taken");

    let leeway = if strict { LEEWAY } else { 0 } as f64;
    let now_seconds = now.duration_since(UNIX_EPOCH).map(|d| d.as_secs_f64()).unwrap_or_default();
    let expires = said["exp"].as_f64().expect("a number");
    assert!(now_seconds < expires + leeway, "{said}");
    if let Some(from) = said.get("nbf").filter(|from| !from.is_null()) {
        assert!(now_seconds >= from.as_f64().expect("a number") - leeway, "{said}");
    }
    assert_eq!(said["token_type"], "access");
    if strict {
        assert_eq!(said["iss"], ISSUER);
        let aud = &said["aud"];
        let among = aud.as_array().is_some_and(|all| all.iter().any(|one| one == AUDIENCE));
        assert!(aud == AUDIENCE || among, "{said}");
    }
    let id = match &said["user_id"] {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        other => panic!("{other} is nobody"),
    };
    assert_eq!(canonical_id(&id).as_deref(), Some(user));
    // It was remembered, and ends all the same.
    let ended = expires + leeway + 1.0;
    if ended < 1e12 {
        let then = UNIX_EPOCH + Duration::from_secs_f64(ended);
        assert!(SETTINGS[usize::from(strict)].user(token, then).is_err(), "{said} does not end");
    }
}

/// A token of a header and claims, which stand below each other; alone it is the claims, and the header
/// is the usual.
fn sign(parts: &[u8], algorithm: hmac::Algorithm, secret: &str) -> String {
    let mut parts = parts.splitn(2, |byte| *byte == b'\n');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let (header, claims) = match second {
        Some(claims) => (first, claims),
        None => (&b"{\"alg\":\"HS256\"}"[..], first),
    };
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}
