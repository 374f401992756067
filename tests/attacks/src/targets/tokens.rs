//! Tokens and key sets, as a stranger sends them.

use super::REFUSAL_BYTES_MAX;
use myelin_token::{Algorithm, KEYS_MAX, Keys, Refusal, Rules, TOKEN_BYTES_MAX, issuer, verify};

/// The one token that an issuer has signed, and its keys.
const TOKEN: &str = include_str!("../../../../router/token/testdata/rsa.token");
const KEYS: &str = include_str!("../../../../router/token/testdata/rsa.jwks.json");
/// When it is good.
const NOW: u64 = 1_700_000_000;

/// The bytes are a token that nobody has signed, and a key set that nobody trusts.
pub(super) fn token(data: &[u8]) {
    let rules = Rules {
        issuer: "https://issuer.example".to_owned(),
        audiences: vec!["myelin".to_owned()],
        algorithms: Algorithm::ALL.to_vec(),
        leeway_s: 60,
    };
    let trusted = Keys::parse(KEYS.as_bytes()).expect("the keys of the repository");
    let genuine = TOKEN.trim().as_bytes();
    match verify(data, &trusted, &rules, NOW) {
        Ok(claims) => {
            assert_eq!(data, genuine, "a token that nobody has signed was believed");
            assert_eq!((&*claims.subject, claims.texts("groups")), ("alice", vec!["dev"]));
        }
        Err(refusal) => {
            assert!(data != genuine && refusal.code().starts_with("token-"));
            assert!(refusal.to_string().len() < REFUSAL_BYTES_MAX);
        }
    }
    let named = issuer(data);
    if data.len() > TOKEN_BYTES_MAX {
        assert_eq!(named, Err(Refusal::TooLarge { bytes: data.len() }));
    }
    match Keys::parse(data) {
        Ok(keys) => {
            assert!((1..=KEYS_MAX).contains(&keys.count()));
            let believed = verify(genuine, &keys, &rules, NOW);
            let is_the_set = believed.is_err()
                || data.windows(16).any(|part| KEYS.as_bytes().windows(16).any(|known| known == part));
            assert!(is_the_set, "keys of others have checked a signature");
        }
        Err(fault) => assert!(fault.to_string().len() < REFUSAL_BYTES_MAX),
    }
}
