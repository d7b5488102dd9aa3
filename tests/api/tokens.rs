//! Tokens that were not signed by who has the key, or not for this, are not taken.

use crate::support::api::{SECRET, Site, now, token};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

const PATH: &str = "/api/cached/organizations/1/info/";
const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn claims(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut claims = serde_json::json!({"token_type": "access", "exp": now() + 300, "user_id": 1});
    change(&mut claims);
    claims.to_string()
}

fn good() -> String {
    claims(|_| ())
}

async fn status(site: &Site, token: &str) -> u16 {
    let answer = site.get(PATH, &[("Authorization", &format!("Bearer {token}"))]).await;
    if answer.status == 401 {
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "), "{answer:?}");
        answer.problem();
    }
    answer.status
}

#[tokio::test]
async fn no_forged_or_misused_token_is_taken() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let genuine = token(HS256, &good(), SECRET);
    assert_eq!(status(&site, &genuine).await, 200);
    let (signed, signature) = genuine.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other_user = URL_SAFE_NO_PAD.encode(claims(|c| c["user_id"] = 4.into()));
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let none =
        |alg: &str| format!("{}.{}.", encode(&format!("{{\"alg\":\"{alg}\"}}")), encode(&good()));
    for (what, forged) in [
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("alg none, signed", token(r#"{"alg":"none"}"#, &good(), SECRET)),
        ("no alg", token("{}", &good(), SECRET)),
        ("another HMAC", token(r#"{"alg":"HS512"}"#, &good(), SECRET)),
        ("an asymmetric alg", token(r#"{"alg":"RS256"}"#, &good(), SECRET)),
        ("a wrong key", token(HS256, &good(), "another secret, and a long one as well")),
        ("no signature", format!("{signed}.")),
        ("no signature and no dot", signed.to_owned()),
        ("another's claims", format!("{header}.{other_user}.{signature}")),
        ("half a signature", format!("{signed}.{}", &signature[..20])),
        ("padded", format!("{genuine}=")),
        ("expired", token(HS256, &claims(|c| c["exp"] = (now() - 1).into()), SECRET)),
        (
            "never expires",
            token(HS256, &claims(|c| _ = c.as_object_mut().unwrap().remove("exp")), SECRET),
        ),
        ("expires as a text", token(HS256, &claims(|c| c["exp"] = "9999999999".into()), SECRET)),
        ("not valid yet", token(HS256, &claims(|c| c["nbf"] = (now() + 60).into()), SECRET)),
        ("valid from a text on", token(HS256, &claims(|c| c["nbf"] = "1".into()), SECRET)),
        ("a refresh token", token(HS256, &claims(|c| c["token_type"] = "refresh".into()), SECRET)),
        (
            "of no type",
            token(HS256, &claims(|c| c["token_type"] = serde_json::Value::Null), SECRET),
        ),
        ("of nobody", token(HS256, &claims(|c| c["user_id"] = serde_json::Value::Null), SECRET)),
        ("of an unknown user", token(HS256, &claims(|c| c["user_id"] = 4711.into()), SECRET)),
        ("of a user that is a key", token(HS256, &claims(|c| c["user_id"] = "1:x".into()), SECRET)),
        ("of a fraction", token(HS256, &claims(|c| c["user_id"] = 1.5.into()), SECRET)),
        ("of several", token(HS256, &claims(|c| c["user_id"] = serde_json::json!([1])), SECRET)),
        (
            "critical extensions",
            token(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &good(), SECRET),
        ),
        ("huge", format!("{}.{signature}", "x".repeat(9_000))),
        ("dots", "..".to_owned()),
        ("five parts", format!("{genuine}.{signature}.{signature}")),
    ] {
        assert_eq!(status(&site, &forged).await, 401, "{what}");
    }
    let text = token(HS256, &claims(|c| c["user_id"] = "1".into()), SECRET);
    assert_eq!(status(&site, &text).await, 200, "a number as a text is a number");
}

#[tokio::test]
async fn a_public_key_is_no_secret_and_keys_are_rotated_by_name() {
    let mut site = Site::new().await;
    let jwt = crate::support::root().join("tests/api/jwt");
    let (rsa, rsa_token) = (jwt.join("rs256_public.pem"), jwt.join("rs256_token.txt"));
    let rsa_token = std::fs::read_to_string(rsa_token).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let ec = site.world.folder.path().join("ec.pem");
    std::fs::write(&ec, pair.public_key_pem()).unwrap();
    let secret = site.world.folder.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    site.world.settings.retain(|setting| !setting.starts_with("api.jwt"));
    site.world.set("api.jwt.algorithm=RS256");
    site.world.set(&format!("api.jwt.public_key_file={}", rsa.display()));
    site.world.set(&format!(
        "api.jwt.keys=[{{ kid = \"new\", algorithm = \"ES256\", public_key_file = {:?} }}, {{ kid = \"old\", secret_file = {:?} }}]",
        ec, secret
    ));
    let _daemon = site.daemon().await;
    assert_eq!(status(&site, rsa_token.trim()).await, 200);

    let random = SystemRandom::new();
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
            .unwrap();
    let es256 = |header: &str| {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(good()));
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let pem = std::fs::read_to_string(&rsa).unwrap();
    let ec_pem = pair.public_key_pem();
    let old = |header: &str| token(header, &good(), SECRET);
    for (what, token, expected) in [
        ("the new key", es256(r#"{"alg":"ES256","kid":"new"}"#), 200),
        ("the new key for an unknown name", es256(r#"{"alg":"ES256","kid":"x"}"#), 401),
        ("the new key without its name", es256(r#"{"alg":"ES256"}"#), 401),
        ("the old secret", old(r#"{"alg":"HS256","kid":"old"}"#), 200),
        ("the old secret without its name", old(r#"{"alg":"HS256"}"#), 401),
        ("the old secret as the new key", old(r#"{"alg":"HS256","kid":"new"}"#), 401),
        ("HMAC by the public key", token(r#"{"alg":"HS256"}"#, &good(), &pem), 401),
        ("HMAC by the trimmed public key", token(r#"{"alg":"HS256"}"#, &good(), pem.trim()), 401),
        ("HMAC by it under its algorithm", token(r#"{"alg":"RS256"}"#, &good(), &pem), 401),
        (
            "HMAC by the other public key",
            token(r#"{"alg":"HS256","kid":"new"}"#, &good(), &ec_pem),
            401,
        ),
        (
            "ES256 by none",
            format!(
                "{}.{}.{}",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"new"}"#),
                URL_SAFE_NO_PAD.encode(good()),
                URL_SAFE_NO_PAD.encode([0; 64])
            ),
            401,
        ),
    ] {
        assert_eq!(status(&site, &token).await, expected, "{what}");
    }
    let (signed, signature) = rsa_token.trim().rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    assert_eq!(status(&site, &format!("{signed}.{flipped}{}", &signature[1..])).await, 401);
}

#[tokio::test]
async fn nobody_can_be_reached_by_others_without_knowing_who_they_are() {
    let mut site = Site::new().await;
    let refused = async |site: &Site, part: &str| {
        let output = site.world.command("run").output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(part), "{said}");
    };
    site.world.set("api.jwt.secret=");
    site.world.set(&format!("api.listen=0.0.0.0:{}", site.port));
    refused(&site, "others can reach 0.0.0.0").await;
    site.world.set("api.jwt.secret=short");
    refused(&site, "less than 32 bytes").await;
    site.world.set(&format!("api.jwt.secret={SECRET}"));
    site.world.set("api.jwt.secret_file=/nowhere");
    refused(&site, "one secret").await;
    site.world.set("api.jwt.secret=");
    refused(&site, "/nowhere cannot be read").await;
    let pem = crate::support::root().join("tests/api/jwt/rs256_public.pem");
    site.world.set(&format!("api.jwt.secret_file={}", pem.display()));
    refused(&site, "PEM").await;
    site.world.settings.retain(|setting| !setting.starts_with("api.jwt"));
    site.world.set(&format!("api.listen=127.0.0.1:{}", site.port));
    let _daemon = site.daemon().await;
    assert_eq!(
        status(&site, &token(HS256, &good(), "")).await,
        401,
        "without a key nobody is known"
    );
}
