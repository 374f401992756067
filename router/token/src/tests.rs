//! Tokens as an issuer makes them, and as somebody who is none would like them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;
const RSA_KEYS: &str = include_str!("../testdata/rsa.jwks.json");
const RSA_TOKEN: &str = include_str!("../testdata/rsa.token");
const RSA_PEM: &str = include_str!("../testdata/rsa-public.pem");

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rules() -> Rules {
    let (issuer, audiences) = ("https://issuer.example".to_owned(), vec!["myelin".to_owned(), "other".to_owned()]);
    Rules { issuer, audiences, algorithms: Algorithm::DEFAULT.to_vec(), leeway_s: 60 }
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "myelin", "sub": "alice", "exp": NOW + 600})
}

/// An issuer with one Ed25519 key.
struct Issuer(Ed25519KeyPair, &'static str);

impl Issuer {
    fn new(seed: u8, kid: &'static str) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), kid)
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.1, "x": text(self.0.public_key())})
    }

    fn keys(&self) -> Keys {
        set(&[self.jwk()])
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        format!("{message}.{}", text(self.0.sign(message.as_bytes())))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": self.1}), claims)
    }
}

fn set(keys: &[Value]) -> Keys {
    Keys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn changed(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

fn without(key: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(key);
    claims
}

fn code(token: &str, keys: &Keys) -> &'static str {
    verify(token.as_bytes(), keys, &rules(), NOW).map_or_else(|refusal| refusal.code(), |_| "believed")
}

#[test]
fn a_good_token_is_believed_whatever_key_of_a_known_sort_has_signed_it() {
    let issuer = Issuer::new(1, "ed-1");
    let believed = verify(issuer.token(&claims()).as_bytes(), &issuer.keys(), &rules(), NOW).unwrap();
    assert_eq!((&*believed.subject, believed.expires_unix_s), ("alice", NOW + 660));

    let believed = verify(RSA_TOKEN.trim().as_bytes(), &Keys::parse(RSA_KEYS.as_bytes()).unwrap(), &rules(), NOW);
    assert_eq!(believed.unwrap().texts("groups"), ["dev"]);

    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": text(&point[1..33]), "y": text(&point[33..])});
    let message = format!("{}.{}", text(r#"{"alg":"ES256","kid":"ec"}"#), text(claims().to_string()));
    let token = format!("{message}.{}", text(pair.sign(&random, message.as_bytes()).unwrap()));
    assert_eq!(code(&token, &set(&[jwk])), "believed");
}

#[test]
fn without_a_signature_nothing_is_believed() {
    let issuer = Issuer::new(1, "ed-1");
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        let message =
            format!("{}.{}", text(json!({"alg": algorithm, "kid": "ed-1"}).to_string()), text(claims().to_string()));
        assert_eq!(code(&format!("{message}."), &issuer.keys()), "token-algorithm", "{algorithm}");
    }
    let good = issuer.token(&claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    assert_eq!(code(&format!("{message}."), &issuer.keys()), "token-signature");
    assert_eq!(code(message, &issuer.keys()), "token-malformed");
}

#[test]
fn a_public_key_is_no_secret() {
    let keys = Keys::parse(RSA_KEYS.as_bytes()).unwrap();
    let modulus = serde_json::from_str::<Value>(RSA_KEYS).unwrap()["keys"][0]["n"].as_str().unwrap().to_owned();
    for secret in [RSA_PEM.as_bytes(), RSA_PEM.trim().as_bytes(), modulus.as_bytes()] {
        for (name, sort) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let message =
                format!("{}.{}", text(json!({"alg": name, "kid": "rsa-1"}).to_string()), text(claims().to_string()));
            let tag = hmac::sign(&hmac::Key::new(sort, secret), message.as_bytes());
            assert_eq!(code(&format!("{message}.{}", text(tag)), &keys), "token-algorithm");
        }
    }
    // A secret in a key set is no key of ours.
    let secret = json!({"keys": [{"kty": "oct", "kid": "x", "k": text("secret")}]}).to_string();
    assert_eq!(Keys::parse(secret.as_bytes()).unwrap_err(), KeysFault::NoneUsable { count: 1 });
}

#[test]
fn a_token_is_for_us_from_them_and_for_now() {
    let issuer = Issuer::new(1, "ed-1");
    let keys = issuer.keys();
    for (claims, expected) in [
        (changed("aud", json!(["a", "other"])), "believed"),
        (changed("aud", json!("myelin2")), "token-audience"),
        (changed("aud", json!([])), "token-audience"),
        (changed("aud", json!({"myelin": 1})), "token-audience"),
        (without("aud"), "token-audience"),
        (changed("iss", json!("https://issuer.example/")), "token-issuer"),
        (changed("iss", json!(7)), "token-issuer"),
        (without("iss"), "token-issuer"),
        (changed("exp", json!(NOW - 59)), "believed"),
        (changed("exp", json!(NOW - 60)), "token-expired"),
        (changed("exp", json!(NOW as f64 + 0.5)), "believed"),
        (changed("exp", json!(u64::MAX)), "believed"),
        (changed("exp", json!("never")), "token-claim"),
        (changed("exp", json!(-1)), "token-claim"),
        (changed("exp", json!(1e300)), "token-claim"),
        (changed("exp", json!(null)), "token-claim"),
        (without("exp"), "token-claim"),
        (changed("nbf", json!(NOW + 60)), "believed"),
        (changed("nbf", json!(NOW + 61)), "token-not-yet"),
        (changed("nbf", json!("soon")), "token-claim"),
        (changed("sub", json!("")), "token-subject"),
        (changed("sub", json!(["alice"])), "token-malformed"),
        (without("sub"), "token-subject"),
    ] {
        assert_eq!(code(&issuer.token(&claims), &keys), expected, "{claims}");
    }
}

#[test]
fn what_a_token_lacks_is_named() {
    let issuer = Issuer::new(1, "ed-1");
    let told = |claims: &Value| {
        let token = issuer.token(claims);
        let named = crate::issuer(token.as_bytes()).map(drop);
        named.and_then(|()| verify(token.as_bytes(), &issuer.keys(), &rules(), NOW).map(drop)).unwrap_err().to_string()
    };
    for (claim, claims) in [("exp", without("exp")), ("iss", without("iss")), ("nbf", changed("nbf", json!("soon")))] {
        assert!(told(&claims).contains(&format!("`{claim}` is missing")), "{claim}: {}", told(&claims));
    }
    assert_eq!(crate::issuer(b"a.b").unwrap_err(), Refusal::Malformed);
}

#[test]
fn a_key_is_looked_up_by_its_id_and_by_nothing_else() {
    let (one, two) = (Issuer::new(1, "one"), Issuer::new(2, "two"));
    let keys = set(&[one.jwk(), two.jwk()]);
    assert_eq!(code(&one.token(&claims()), &keys), "believed");
    for kid in ["", "three", "../../../../etc/passwd", "one\0", "ONE", "keys/one", "file:///dev/null", "' OR 1=1 --"] {
        let token = one.sign(&json!({"alg": "EdDSA", "kid": kid}), &claims());
        assert_eq!(code(&token, &keys), "token-key", "{kid:?}");
    }
    let swapped = one.sign(&json!({"alg": "EdDSA", "kid": "two"}), &claims());
    assert_eq!(code(&swapped, &keys), "token-signature");
    // Without an id there must be no choice.
    let nameless = one.sign(&json!({"alg": "EdDSA"}), &claims());
    assert_eq!((code(&nameless, &keys), code(&nameless, &one.keys())), ("token-key", "believed"));
    // A key that comes with the token is nobody's.
    let own = Issuer::new(9, "own");
    let header = json!({"alg": "EdDSA", "kid": "own", "jwk": own.jwk(), "jku": "https://evil.example/keys"});
    assert_eq!(code(&own.sign(&header, &claims()), &keys), "token-key");
}

#[test]
fn a_key_is_for_one_sort_of_signature() {
    let issuer = Issuer::new(1, "ed-1");
    for name in ["RS256", "ES256"] {
        let token = issuer.sign(&json!({"alg": name, "kid": "ed-1"}), &claims());
        assert_eq!(code(&token, &issuer.keys()), "token-algorithm", "{name}");
    }
    let narrow = Rules { algorithms: vec![Algorithm::Rs256], ..rules() };
    let token = issuer.token(&claims());
    assert_eq!(verify(token.as_bytes(), &issuer.keys(), &narrow, NOW), Err(Refusal::Algorithm));
    let mut jwk = issuer.jwk();
    jwk["use"] = json!("enc");
    let other = Issuer::new(2, "two").jwk();
    let keys = set(&[jwk, other]);
    assert_eq!((keys.count(), keys.unusable(), code(&token, &keys)), (1, 1, "token-key"));
}

#[test]
fn bounds_hold_before_anything_is_read() {
    let issuer = Issuer::new(1, "ed-1");
    let large = issuer.token(&changed("padding", json!("x".repeat(1 << 20))));
    assert!(large.len() > 1 << 20);
    assert_eq!(code(&large, &issuer.keys()), "token-too-large");
    assert_eq!(super::issuer(large.as_bytes()), Err(Refusal::TooLarge { bytes: large.len() }));
    let fits = issuer.token(&changed("padding", json!("x".repeat(4_000))));
    assert_eq!(code(&fits, &issuer.keys()), "believed");
    assert_eq!(super::issuer(fits.as_bytes()).unwrap(), "https://issuer.example");

    assert!(matches!(Keys::parse(&vec![b' '; KEYS_BYTES_MAX + 1]), Err(KeysFault::TooLarge { .. })));
    let many: Vec<_> = (0..=KEYS_MAX).map(|_| issuer.jwk()).collect();
    let fault = Keys::parse(json!({ "keys": many }).to_string().as_bytes()).unwrap_err();
    assert_eq!(fault, KeysFault::TooMany { count: KEYS_MAX + 1 });
    for text in ["", "{}", "[]", "{\"keys\":7}", "<html>"] {
        assert!(matches!(Keys::parse(text.as_bytes()), Err(KeysFault::Malformed { .. })), "{text}");
    }
    assert_eq!(Keys::parse(b"{\"keys\":[]}").unwrap_err(), KeysFault::NoneUsable { count: 0 });
}

#[test]
fn what_must_be_understood_is_refused_when_it_is_not() {
    let issuer = Issuer::new(1, "ed-1");
    for (key, value) in [("crit", json!(["b64"])), ("zip", json!("DEF")), ("enc", json!("A128GCM"))] {
        let mut header = json!({"alg": "EdDSA", "kid": "ed-1"});
        header[key] = value;
        assert_eq!(code(&issuer.sign(&header, &claims()), &issuer.keys()), "token-malformed", "{key}");
    }
}

#[test]
fn claims_are_read_as_issuers_write_them() {
    let issuer = Issuer::new(1, "ed-1");
    let mut all = changed("scope", json!("read  write"));
    all["groups"] = json!(["dev", 7, "ops"]);
    all["realm_access"] = json!({"roles": ["viewer"]});
    all["https://a.example/roles"] = json!(["x"]);
    all["many"] = json!(vec!["a"; TEXTS_MAX + 1]);
    let claims = verify(issuer.token(&all).as_bytes(), &issuer.keys(), &rules(), NOW).unwrap();
    assert_eq!(claims.texts("scope"), ["read", "write"]);
    assert_eq!(claims.texts("groups"), ["dev", "ops"]);
    assert_eq!(claims.texts("realm_access.roles"), ["viewer"]);
    assert_eq!(claims.texts("https://a.example/roles"), ["x"]);
    assert_eq!(claims.texts("many").len(), TEXTS_MAX);
    assert!(claims.texts("exp").is_empty() && claims.texts("none.at.all").is_empty() && claims.texts("").is_empty());
}

proptest! {
    #[test]
    fn bytes_that_nobody_signed_are_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let keys = Issuer::new(1, "ed-1").keys();
        prop_assert!(verify(&bytes, &keys, &rules(), NOW).is_err());
        let _ = super::issuer(&bytes);
        let _ = Keys::parse(&bytes);
    }

    #[test]
    fn one_other_character_anywhere_ends_belief(at in 0usize..400, to in proptest::char::range('!', '~')) {
        let issuer = Issuer::new(1, "ed-1");
        let token = issuer.token(&claims());
        let at = at % token.len();
        let mut other = token.clone();
        other.replace_range(at..=at, &to.to_string());
        prop_assume!(other != token);
        // The last character of the signature has bits that say nothing; the reader wants them to be 0.
        prop_assert!(verify(other.as_bytes(), &issuer.keys(), &rules(), NOW).is_err(), "{at} {to}");
    }

    #[test]
    fn time_alone_makes_it_good_and_over(now in 0u64..4_000_000_000, exp in 0u64..4_000_000_000, nbf in 0u64..4_000_000_000) {
        let issuer = Issuer::new(1, "ed-1");
        let mut claims = changed("exp", json!(exp));
        claims["nbf"] = json!(nbf);
        let verified = verify(issuer.token(&claims).as_bytes(), &issuer.keys(), &rules(), now);
        prop_assert_eq!(verified.is_ok(), now < exp + 60 && nbf <= now + 60);
    }
}
