//! Issuers that change their keys, go away, or never were any.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const ISSUER: &str = "https://login.example.org";
/// A test that waits longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Key(Ed25519KeyPair, &'static str);

impl Key {
    fn new(seed: u8, kid: &'static str) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), kid)
    }

    fn set(&self) -> String {
        let x = text(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.1, "x": x}]}).to_string()
    }

    fn token(&self, subject: &str, more: Value) -> String {
        let mut claims = json!({"iss": ISSUER, "aud": "myelin", "sub": subject, "exp": unix_s() + 600});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let header = json!({"alg": "EdDSA", "kid": self.1}).to_string();
        let message = format!("{}.{}", text(header), text(claims.to_string()));
        format!("{message}.{}", text(self.0.sign(message.as_bytes())))
    }
}

/// A server of one text, or of none.
struct Server {
    addr: SocketAddr,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start(body: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(body.map(ok))), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answers.lock().unwrap().clone();
                let _ = stream.read(&mut [0; 4096]).await;
                if let Some(answer) = answer {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        Self { addr, answer, asked }
    }

    fn say(&self, answer: Option<String>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn config(&self) -> JwtConfig {
        let config = format!(
            "refresh_seconds = 300\n[issuers.corp]\nissuer = '{ISSUER}'\naudience = ['myelin']\n\
             trust_domain = 'example.org'\njwks_url = 'http://{}/keys'\nroles_claim = 'groups'\ngroups_claim = 'groups'\n\
             roles = {{ dev = ['developer'] }}\n",
            self.addr
        );
        toml::from_str(&config).unwrap()
    }

    fn tokens(&self, folder: &Path, pace: Pace) -> Arc<Tokens> {
        Tokens::start_at(pace, &self.config(), folder).unwrap().unwrap()
    }
}

fn ok(body: String) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Looks that come only when they are wanted.
fn slow() -> Pace {
    let hour = Duration::from_secs(3_600);
    Pace { refresh: hour, retry: hour, unknown: hour, wait: PATIENCE, fetch: PATIENCE }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn looked(tokens: &Tokens, times: u64) {
    until("the keys were looked at", || *tokens.issuers[0].looked.borrow() >= times).await;
}

async fn code(tokens: &Tokens, token: &str) -> &'static str {
    tokens.verify(token.as_bytes()).await.map_or_else(|refusal| refusal.code(), |_| "believed")
}

#[tokio::test]
async fn a_token_says_who_somebody_is_and_what_they_may() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::new(1, "one"));
    let server = Server::start(Some(key.set())).await;
    let tokens = server.tokens(folder.path(), slow());
    let token = key.token("alice@example.org", json!({"groups": ["dev", "staff"]}));
    let bearer = tokens.verify(token.as_bytes()).await.unwrap();
    assert_eq!(bearer.identity.as_str(), "spiffe://example.org/jwt/corp/alice_40example.org");
    assert_eq!(bearer.roles.to_string(), "developer");
    assert_eq!(bearer.groups, ["dev", "staff"]);
    assert!(bearer.expires_unix_s > unix_s() + 600);
    let nobody = tokens.verify(key.token("bob", json!({})).as_bytes()).await.unwrap();
    assert!(nobody.roles.is_empty() && nobody.groups.is_empty());
    assert_eq!(code(&tokens, &key.token("x", json!({"iss": "https://other.example"}))).await, "token-issuer");
    assert_eq!(code(&tokens, &key.token(&"x".repeat(1_000), json!({}))).await, "token-subject");
}

#[tokio::test]
async fn names_of_services_are_given_by_issuers_that_may() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::new(1, "one"));
    let server = Server::start(Some(key.set())).await;
    let named = key.token("spiffe://example.org/service/web", json!({}));
    let tokens = server.tokens(folder.path(), slow());
    let escaped = "spiffe://example.org/jwt/corp/spiffe_3a_2f_2fexample.org_2fservice_2fweb";
    assert_eq!(tokens.verify(named.as_bytes()).await.unwrap().identity.as_str(), escaped);

    let mut config = server.config();
    config.issuers.get_mut("corp").unwrap().spiffe_subjects = true;
    let tokens = Tokens::start_at(slow(), &config, folder.path()).unwrap().unwrap();
    let bearer = tokens.verify(named.as_bytes()).await.unwrap();
    assert_eq!(bearer.identity.as_str(), "spiffe://example.org/service/web");
    for other in [
        "spiffe://other.example/service/web",
        "spiffe://example.org/site/here/router/r1",
        "spiffe://example.org/jwt/corp/web",
        "spiffe://example.org/web",
    ] {
        assert_eq!(code(&tokens, &key.token(other, json!({}))).await, "token-subject", "{other}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), Key::new(1, "old"), Key::new(2, "new"));
    let server = Server::start(Some(old.set())).await;
    let tokens = server.tokens(folder.path(), slow());
    looked(&tokens, 1).await;
    assert_eq!((code(&tokens, &old.token("a", json!({}))).await, server.asked()), ("believed", 1));
    server.say(Some(ok(new.set())));
    let renewed = new.token("a", json!({}));
    let both = tokio::join!(code(&tokens, &renewed), code(&tokens, &renewed));
    assert_eq!((both, server.asked()), (("believed", "believed"), 2), "two at once are one look");
    assert_eq!(code(&tokens, &old.token("a", json!({}))).await, "token-key", "what is gone is gone");
    for kid in ["../../jwks-corp", "/etc/passwd", "http://127.0.0.1/keys", "new\0"] {
        let forged = Key::new(3, Box::leak(kid.to_owned().into_boxed_str()));
        assert_eq!(code(&tokens, &forged.token("a", json!({}))).await, "token-key", "{kid}");
    }
    assert_eq!(server.asked(), 2, "whoever makes keys up does not make us ask");
}

#[tokio::test]
async fn what_was_good_last_counts_while_the_issuer_is_away_and_after_a_restart() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::new(1, "one"));
    let server = Server::start(Some(key.set())).await;
    let quick = Pace { refresh: Duration::from_millis(20), retry: Duration::from_millis(20), ..slow() };
    let tokens = server.tokens(folder.path(), quick);
    looked(&tokens, 1).await;
    let token = key.token("a", json!({}));
    let long = "x".repeat(KEYS_BYTES_MAX + 1);
    for answer in [
        None,
        Some("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned()),
        Some("HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".to_owned()),
        Some(ok("<html>".to_owned())),
        Some(ok("{\"keys\":[]}".to_owned())),
        Some(ok(long)),
    ] {
        server.say(answer);
        let before = *tokens.issuers[0].looked.borrow();
        looked(&tokens, before + 2).await;
        assert_eq!(code(&tokens, &token).await, "believed");
    }
    drop(tokens);
    let again = server.tokens(folder.path(), slow());
    assert_eq!(code(&again, &token).await, "believed", "the file of the start before counts");
}

#[tokio::test]
async fn without_keys_nobody_is_believed_until_they_come() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::new(1, "one"));
    let server = Server::start(None).await;
    std::fs::write(folder.path().join("jwks-corp.json"), "garbage").unwrap();
    let pace = Pace { retry: Duration::from_millis(20), wait: Duration::from_millis(1), ..slow() };
    let tokens = server.tokens(folder.path(), pace);
    let token = key.token("a", json!({}));
    assert_eq!(code(&tokens, &token).await, "token-no-keys");
    server.say(Some(ok(key.set())));
    until("the keys are there", || tokens.issuers[0].keys.load().is_some()).await;
    assert_eq!(code(&tokens, &token).await, "believed");
}

#[tokio::test]
async fn a_file_of_keys_is_followed_and_must_be_there_at_the_start() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), Key::new(1, "old"), Key::new(2, "new"));
    let file = folder.path().join("keys.json");
    let mut config = Server::start(None).await.config();
    let issuer = config.issuers.get_mut("corp").unwrap();
    (issuer.jwks_url, issuer.jwks_file) = (None, Some(file.clone()));
    let told = Tokens::start_at(slow(), &config, folder.path()).unwrap_err();
    assert!(format!("{told:#}").contains("keys.json"), "{told:#}");
    std::fs::write(&file, old.set()).unwrap();
    let tokens = Tokens::start_at(slow(), &config, folder.path()).unwrap().unwrap();
    assert_eq!(code(&tokens, &old.token("a", json!({}))).await, "believed");
    std::fs::write(&file, new.set()).unwrap();
    assert_eq!(code(&tokens, &new.token("a", json!({}))).await, "believed");
    assert!(Tokens::start(&JwtConfig::default(), folder.path()).unwrap().is_none());
}

#[tokio::test]
async fn kept_keys_count_for_their_issuer_and_place_and_not_for_ever() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::new(1, "one"));
    let server = Server::start(Some(key.set())).await;
    let tokens = server.tokens(folder.path(), slow());
    looked(&tokens, 1).await;
    drop(tokens);
    let file = folder.path().join("jwks-corp.json");
    let kept = std::fs::read_to_string(&file).unwrap();
    // From here on there is nothing but the file.
    server.say(None);
    let pace = Pace { wait: Duration::from_millis(1), ..slow() };
    let token = key.token("a", json!({}));
    let start = |change: &dyn Fn(&mut JwtConfig)| {
        let mut config = server.config();
        change(&mut config);
        Tokens::start_at(pace, &config, folder.path()).unwrap().unwrap()
    };
    assert_eq!(code(&start(&|_| ()), &token).await, "believed");
    let moved = start(&|config| {
        let issuer = config.issuers.get_mut("corp").unwrap();
        issuer.jwks_url = Some(format!("http://{}/others", server.addr));
    });
    assert_eq!(code(&moved, &token).await, "token-no-keys", "keys of another place");
    let renamed = start(&|config| config.issuers.get_mut("corp").unwrap().issuer = "https://new.example".to_owned());
    let of_new = key.token("a", json!({"iss": "https://new.example"}));
    assert_eq!(code(&renamed, &of_new).await, "token-no-keys", "keys of another issuer");
    let read_at = |unix_s: u64| {
        let mut kept: Value = serde_json::from_str(&kept).unwrap();
        kept["read_unix_s"] = unix_s.into();
        std::fs::write(&file, kept.to_string()).unwrap();
    };
    let day = JwtConfig::default().keys_max_age_seconds;
    for (at, told) in [
        (unix_s() - day + 60, "believed"),
        (unix_s() - day - 60, "token-no-keys"),
        (unix_s() + day, "token-no-keys"),
        (0, "token-no-keys"),
    ] {
        read_at(at);
        assert_eq!(code(&start(&|_| ()), &token).await, told, "{at}");
    }
    // As an older router kept them: nobody says whose they are.
    std::fs::write(&file, key.set()).unwrap();
    assert_eq!(code(&start(&|_| ()), &token).await, "token-no-keys");
}

#[tokio::test]
async fn keys_that_cannot_be_read_any_more_end_and_come_back() {
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::new(1, "one"));
    let server = Server::start(Some(key.set())).await;
    let quick = Duration::from_millis(20);
    let pace = Pace { refresh: quick, retry: quick, wait: Duration::from_millis(1), ..slow() };
    let tokens = server.tokens(folder.path(), pace);
    looked(&tokens, 1).await;
    let token = key.token("a", json!({}));
    server.say(None);
    // A borrow that is held would hold the looks up.
    let before = *tokens.issuers[0].looked.borrow();
    looked(&tokens, before + 2).await;
    assert_eq!((code(&tokens, &token).await, tokens.keys_too_old()), ("believed", 0));
    let old = Held { keys: Keys::parse(key.set().as_bytes()).unwrap(), read_unix_s: unix_s() - 86_400 - 60 };
    tokens.issuers[0].keys.store(Some(Arc::new(old)));
    assert_eq!(code(&tokens, &token).await, "token-no-keys");
    let before = *tokens.issuers[0].looked.borrow();
    looked(&tokens, before + 3).await;
    assert_eq!(tokens.keys_too_old(), 1, "told once");
    server.say(Some(ok(key.set())));
    until("they are read again", || !tokens.issuers[0].has_old_keys()).await;
    assert_eq!(code(&tokens, &token).await, "believed");
}
