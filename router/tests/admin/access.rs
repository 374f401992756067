//! Who may ask: on loopback, with a token, with a certificate; and who may not.

use crate::http::{Answer, exchange, request};
use crate::world::{Router, files, open, state};
use myelin::admin::{Token, serve};
use myelin::config::{Role, RoleMap};
use myelin_transport::ca::CertificateAuthority;
use myelin_transport::{Identity, TlsFiles, crypto_provider};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const TOKEN: &str = "correct-horse-battery-staple";

#[tokio::test]
async fn strange_hosts_and_origins_are_refused_before_anything_else() {
    let router = Router::start().await;
    let port = router.addr().port();
    let good = format!("localhost:{port}");
    assert_eq!(router.ask("GET", "/v1/status", &[("Host", &good)], b"").await.status, 200);
    for host in ["evil.example", "localhost", "127.0.0.1:1", "127.0.0.1.evil.example"] {
        let answer = router.ask("GET", "/v1/status", &[("Host", host)], b"").await;
        assert_eq!(answer.problem(), (403, "forbidden-host".into()), "{host}");
    }
    for origin in ["https://evil.example", "null", "http://localhost"] {
        for (method, path) in [("POST", "/v1/rollouts"), ("GET", "/v1/status"), ("GET", "/nowhere")] {
            let answer = router.ask(method, path, &[("Origin", origin), ("Host", &good)], b"").await;
            assert_eq!(answer.problem(), (403, "forbidden-origin".into()), "{origin} {method} {path}");
        }
    }
    let own = format!("http://{good}");
    let same = router.ask("GET", "/v1/status", &[("Origin", &own), ("Host", &good)], b"").await;
    assert_eq!(same.status, 200);
    assert!(same.header("access-control-allow-origin").is_none());
    let preflight = router.ask("OPTIONS", "/v1/rollouts", &[("Host", &good)], b"").await;
    assert_eq!(preflight.problem(), (405, "method-not-allowed".into()));
    router.stop().await;
}

#[tokio::test]
async fn without_dev_loopback_wants_the_token_everywhere() {
    let router = Router::start_with(|listen| {
        listen.dev = false;
        listen.token = Some(Token::new(TOKEN).unwrap());
    })
    .await;
    assert!(router.admin.url().starts_with("http://"));
    // Probes of orchestrators and load balancers have no token; whatever else they send, they learn yes or no.
    for path in ["/livez", "/readyz"] {
        assert_eq!(router.get(path).await.status, 200, "{path}");
        let wrong = router.ask("GET", path, &[("Authorization", "Bearer correct-horse-battery-stapl")], b"").await;
        assert_eq!(wrong.status, 200, "{path}");
        let page = router.ask("GET", path, &[("Origin", "http://evil.example")], b"").await;
        assert_eq!(page.problem(), (403, "forbidden-origin".into()), "{path}");
        assert_eq!(router.ask("POST", path, &[], b"").await.problem(), (401, "unauthorized".into()), "{path}");
    }
    for path in ["/v1/status", "/metrics", "/openapi.json", "/nowhere"] {
        let answer = router.get(path).await;
        assert_eq!(answer.problem(), (401, "unauthorized".into()), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let wrong = router.ask("GET", path, &[("Authorization", "Bearer correct-horse-battery-stapl")], b"").await;
        assert_eq!(wrong.problem(), (401, "unauthorized".into()), "{path}");
    }
    let registry = router.get("/registry/subjects").await;
    assert_eq!(registry.status, 401);
    let offered: Vec<_> = registry.headers("www-authenticate").collect();
    assert_eq!(
        offered,
        ["Bearer", "Basic realm=\"myelin\", charset=\"UTF-8\""],
        "clients of registries know passwords"
    );
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(router.ask("GET", "/v1/status", &[("Authorization", &bearer)], b"").await.status, 200);
    assert_eq!(router.ask("GET", "/nowhere", &[("Authorization", &bearer)], b"").await.problem().0, 404);
    router.stop().await;
}

/// A certificate can be shown wherever one is named, also beside a token and on loopback; a name of tokens needs none.
#[tokio::test]
async fn where_certificates_are_known_loopback_speaks_tls_beside_a_token_too() {
    let ops = Identity::service("test.example", "ops").unwrap();
    let roles = |holder: &str| RoleMap([(Role::Viewer, vec![holder.to_owned().try_into().unwrap()])].into());
    for (identities, roles, scheme) in [
        (vec![ops.clone()], RoleMap::default(), "https://"),
        (Vec::new(), roles("spiffe://test.example/service/*"), "https://"),
        (Vec::new(), roles("spiffe://test.example/jwt/corp/*"), "http://"),
        (vec![Identity::bearer("test.example", "corp", "ann").unwrap()], RoleMap::default(), "http://"),
    ] {
        let router = Router::start_with(|listen| {
            (listen.dev, listen.token) = (false, Some(Token::new(TOKEN).unwrap()));
            (listen.identities, listen.roles) = (identities.clone(), roles.clone());
        })
        .await;
        assert!(router.admin.url().starts_with(scheme), "{} for {identities:?} and {roles:?}", router.admin.url());
        if scheme == "https://" {
            let shown = files(&router.dir, &router.ca, "ops", &router.ca.issue_service("ops", 1).unwrap());
            assert_eq!(ask(router.addr(), &router.ca, Some(&shown), &[]).await.unwrap().status, 200, "by certificate");
            let bearer = format!("Bearer {TOKEN}");
            let by_token = ask(router.addr(), &router.ca, None, &[("Authorization", &bearer)]).await;
            assert_eq!(by_token.unwrap().status, 200, "by token");
        }
        router.stop().await;
    }
    let dev = Router::start_with(|listen| listen.identities = vec![ops]).await;
    assert!(dev.admin.url().starts_with("http://"), "--dev is for whoever is on this machine");
    dev.stop().await;
}

#[tokio::test]
async fn beyond_loopback_there_is_no_plaintext_and_no_stranger() {
    let router = Router::start_with(|listen| {
        listen.addr = (Ipv4Addr::UNSPECIFIED, 0).into();
        listen.token = Some(Token::new(TOKEN).unwrap());
        listen.identities = vec![Identity::service("test.example", "ops").unwrap()];
    })
    .await;
    assert!(router.admin.url().starts_with("https://"), "although --dev was given");
    let addr: SocketAddr = (Ipv4Addr::LOCALHOST, router.addr().port()).into();
    let plain =
        exchange(TcpStream::connect(addr).await.unwrap(), &request("GET", "/livez", "localhost", &[], b"")).await;
    assert!(plain.is_err(), "plaintext is not answered: {plain:?}");

    let nobody = ask(addr, &router.ca, None, &[]).await.unwrap();
    assert_eq!(nobody.problem(), (401, "unauthorized".into()));
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(ask(addr, &router.ca, None, &[("Authorization", &bearer)]).await.unwrap().status, 200);

    let issued = router.ca.issue_service("ops", 1).unwrap();
    let ops = files(&router.dir, &router.ca, "ops", &issued);
    assert_eq!(ask(addr, &router.ca, Some(&ops), &[]).await.unwrap().status, 200);
    let page = ask(addr, &router.ca, Some(&ops), &[("Origin", "https://evil.example")]).await.unwrap();
    assert_eq!(page.problem(), (403, "forbidden-origin".into()), "a browser adds the certificate by itself");

    let foreign = CertificateAuthority::create("test.example", 1).unwrap();
    let stranger = files(&router.dir, &router.ca, "stranger", &foreign.issue_service("ops", 1).unwrap());
    let refused = ask(addr, &router.ca, Some(&stranger), &[("Authorization", &bearer)]).await;
    assert!(refused.is_err(), "a certificate of another authority ends the handshake: {refused:?}");
    router.stop().await;
}

#[tokio::test]
async fn only_named_certificates_are_let_in_and_none_named_is_nobody() {
    for named in [&["ops"][..], &[]] {
        let router = Router::start_with(|listen| {
            listen.dev = false;
            listen.identities = named.iter().map(|name| Identity::service("test.example", name).unwrap()).collect();
        })
        .await;
        assert!(router.admin.url().starts_with("https://"), "without a token only certificates are left");
        let addr = router.addr();
        for name in ["ops", "web"] {
            let shown = files(&router.dir, &router.ca, name, &router.ca.issue_service(name, 1).unwrap());
            let answer = ask(addr, &router.ca, Some(&shown), &[]).await.unwrap();
            if named.contains(&name) {
                assert_eq!(answer.status, 200, "{name} of {named:?}");
                continue;
            }
            assert_eq!(answer.problem(), (403, "forbidden".into()), "{name} of {named:?}");
            let detail = answer.json()["detail"].to_string();
            assert!(detail.contains("[admin] identities") && detail.contains(name), "{detail}");
        }
        assert_eq!(ask(addr, &router.ca, None, &[]).await.unwrap().problem(), (401, "unauthorized".into()));
        router.stop().await;
    }
}

#[tokio::test]
async fn no_listener_without_what_it_needs() {
    let router = Router::start().await;
    let state = state(&router.node);
    for dev in [true, false] {
        let tls = myelin_transport::TlsIdentity::load(&files(
            &router.dir,
            &router.ca,
            "again",
            &router.ca.issue_router("here", "r1", &["localhost".into()], 1).unwrap(),
        ));
        let mut listen = open(tls.unwrap());
        listen.addr = (Ipv4Addr::UNSPECIFIED, 0).into();
        (listen.tls, listen.dev, listen.token) = (None, dev, Some(Token::new(TOKEN).unwrap()));
        let error = serve(listen, state.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("TLS only"));
    }
    router.stop().await;
}

/// A ClientHello of TLS 1.2: no `supported_versions`, two suites of its time.
const HELLO_TLS12: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x47, // record: handshake, 71 bytes
    0x01, 0x00, 0x00, 0x43, // ClientHello, 67 bytes
    0x03, 0x03, // TLS 1.2
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    32, 0x00, // no session
    0x00, 0x04, 0xc0, 0x2b, 0xc0, 0x2f, // ECDHE-ECDSA and ECDHE-RSA with AES-128-GCM
    0x01, 0x00, // no compression
    0x00, 0x16, // 22 bytes of extensions
    0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // groups: P-256
    0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // points: uncompressed
    0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03, // signatures: ECDSA with SHA-256
];

#[tokio::test]
async fn tls_1_2_is_refused() {
    let router = Router::start_with(|listen| listen.dev = false).await;
    let mut stream = TcpStream::connect(router.addr()).await.unwrap();
    stream.write_all(HELLO_TLS12).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // A fatal alert of 2 bytes: protocol_version (70).
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:x?}");
    assert_eq!(&answer[3..7], &[0x00, 0x02, 0x02, 70], "{answer:x?}");
    router.stop().await;
}

/// GET /v1/status over TLS.
async fn ask(
    addr: SocketAddr,
    ca: &CertificateAuthority,
    certificate: Option<&TlsFiles>,
    headers: &[(&str, &str)],
) -> std::io::Result<Answer> {
    let bytes = request("GET", "/v1/status", &format!("localhost:{}", addr.port()), headers, b"");
    send(addr, ca, certificate, &bytes).await
}

/// Asks over TLS, with or without a certificate.
pub(crate) async fn ask_as(router: &Router, certificate: Option<&TlsFiles>, method: &str, path: &str) -> Answer {
    ask_with(router, certificate, method, path, "").await
}

/// The same with a body of JSON.
pub(crate) async fn ask_with(
    router: &Router,
    certificate: Option<&TlsFiles>,
    method: &str,
    path: &str,
    body: &str,
) -> Answer {
    let addr = router.addr();
    let headers: &[_] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    let bytes = request(method, path, &format!("localhost:{}", addr.port()), headers, body.as_bytes());
    send(addr, &router.ca, certificate, &bytes).await.unwrap()
}

/// Uploads a module.
pub(crate) async fn upload_as(router: &Router, certificate: &TlsFiles, module: (&str, &str), bytes: &[u8]) -> Answer {
    let path = format!("/v1/modules/{}/versions/{}", module.0, module.1);
    let host = format!("localhost:{}", router.addr().port());
    let bytes = request("PUT", &path, &host, &[("content-type", "application/wasm")], bytes);
    send(router.addr(), &router.ca, Some(certificate), &bytes).await.unwrap()
}

async fn send(
    addr: SocketAddr,
    ca: &CertificateAuthority,
    certificate: Option<&TlsFiles>,
    bytes: &[u8],
) -> std::io::Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(crypto_provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match certificate {
        None => config.with_no_client_auth(),
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(&files.cert).unwrap().collect::<Result<_, _>>().unwrap();
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    exchange(stream, bytes).await
}
