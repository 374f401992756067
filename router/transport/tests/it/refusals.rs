//! Strangers are refused, before any frame, and both sides learn why.
//!
//! TLS 1.2 has no case here because it cannot be had: QUIC carries TLS 1.3 or later only (RFC 9001, section 4.2), its
//! packets are protected with TLS 1.3's keys, and rustls offers no way to build a QUIC session with anything else. The
//! refusal of TLS 1.2 over TCP is shown on the admin listener, which uses the same configuration.

use std::time::{Duration, SystemTime};

use myelin_transport::ca::{CertificateAuthority, CertificateRequest, IssuedCertificate};
use myelin_transport::{
    ALPN_CLIENT, CloseKind, DialError, Dialer, ListenError, Listener, ListenerConfig, QuicConfig, Refusal, TlsIdentity,
};

use crate::common::*;

/// A bare client knocks with `client`; the server must refuse it for `refusal`, the client must read `seen`, and no
/// connection may come out of the listener although the client sends data as early as it can.
async fn refused(client: BareClient, world: &World, refusal: Refusal, seen: Refusal) {
    let mut server = Server::start(listener_config(), &world.router());
    let endpoint = bare_endpoint();
    let connecting = endpoint.connect_with(client.config(&world.ca), server.addr, "localhost").unwrap();
    let error = in_time(async {
        // In TLS 1.3 the client may be through before the server has looked at its certificate.
        match connecting.await {
            Ok(connection) => {
                if let Ok(mut send) = connection.open_uni().await {
                    let _ = send.write_all(b"let me in").await;
                }
                connection.closed().await
            }
            Err(error) => error,
        }
    })
    .await;
    let quinn::ConnectionError::ConnectionClosed(close) = error else { panic!("not refused by a close: {error:?}") };
    let alert = u64::from(close.error_code);
    assert_eq!(alert_of(seen), alert, "another alert than for {seen:?}");

    let stats = server.control.stats().clone();
    eventually("the refusal is counted", || stats.refused_total() > 0).await;
    assert_eq!(stats.refused(refusal), 1, "counted under another reason");
    assert_eq!(stats.refused_total(), 1, "counted twice");
    assert_eq!(stats.accepted.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(server.accepted.try_recv().is_err(), "a stranger came through");
    // The listener is none the worse.
    let friend = dial(server.addr, &world.service("friend")).await.unwrap();
    echo_once(&friend, &server.next().await, b"hello").await;
}

fn alert_of(refusal: Refusal) -> u64 {
    0x100
        + match refusal {
            Refusal::NoCertificate => 116,
            Refusal::WrongAuthority => 48,
            Refusal::OutsideValidity => 45,
            Refusal::WrongIdentity => 49,
            Refusal::WrongPurpose => 43,
            Refusal::BadCertificate => 46,
            Refusal::WrongAlpn => 120,
            other => panic!("{other:?} has no alert of its own"),
        }
}

fn issue(world: &World, request: CertificateRequest) -> Option<IssuedCertificate> {
    Some(world.ca.issue_unchecked(&request).unwrap())
}

#[tokio::test]
async fn a_client_without_a_certificate() {
    refused(BareClient::with(None), &World::new(), Refusal::NoCertificate, Refusal::NoCertificate).await;
}

#[tokio::test]
async fn a_client_of_another_ca() {
    let world = World::new();
    // The other CA claims the very same trust domain.
    let other = CertificateAuthority::create(TRUST_DOMAIN, 1).unwrap();
    let client = BareClient::with(Some(other.issue_service("alice", 1).unwrap()));
    refused(client, &world, Refusal::WrongAuthority, Refusal::WrongAuthority).await;
}

#[tokio::test]
async fn a_client_that_plays_the_ca_with_an_honest_certificate() {
    let world = World::new();
    let honest = world.ca.issue_service("alice", 1).unwrap();
    let honest_key = rcgen::KeyPair::from_pem(&honest.key_pem).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&honest.cert_pem, honest_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let name = format!("spiffe://{TRUST_DOMAIN}/service/admin");
    params.subject_alt_names = vec![rcgen::SanType::URI(name.as_str().try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let forged = params.signed_by(&key, &issuer).unwrap();
    // The chain is whole and every signature in it is right; but a service's certificate may not sign others.
    let cert_pem = format!("{}{}", forged.pem(), honest.cert_pem);
    let client = BareClient::with(Some(IssuedCertificate { cert_pem, key_pem: key.serialize_pem() }));
    refused(client, &world, Refusal::BadCertificate, Refusal::BadCertificate).await;
}

#[tokio::test]
async fn an_expired_client() {
    let world = World::new();
    let client = BareClient::with(issue(&world, CertificateRequest { validity: expired(), ..service_request() }));
    refused(client, &world, Refusal::Expired, Refusal::OutsideValidity).await;
}

#[tokio::test]
async fn a_client_not_yet_valid() {
    let world = World::new();
    let client = BareClient::with(issue(&world, CertificateRequest { validity: not_yet_valid(), ..service_request() }));
    refused(client, &world, Refusal::NotYetValid, Refusal::OutsideValidity).await;
}

#[tokio::test]
async fn a_client_with_two_identities() {
    let world = World::new();
    let uris = ["alice", "bob"].map(|name| format!("spiffe://{TRUST_DOMAIN}/service/{name}")).to_vec();
    let client = BareClient::with(issue(&world, CertificateRequest { uris, ..service_request() }));
    refused(client, &world, Refusal::WrongIdentity, Refusal::WrongIdentity).await;
}

#[tokio::test]
async fn a_client_without_an_identity() {
    let world = World::new();
    for hosts in [Vec::new(), vec!["localhost".to_owned()]] {
        let request = CertificateRequest { uris: Vec::new(), hosts, ..service_request() };
        refused(BareClient::with(issue(&world, request)), &world, Refusal::WrongIdentity, Refusal::WrongIdentity).await;
    }
}

#[tokio::test]
async fn a_client_of_no_form_or_another_trust_domain() {
    let world = World::new();
    for uri in ["https://test.example/service/alice", "spiffe://other.example/service/alice", "spiffe://test.example/x"]
    {
        let request = CertificateRequest { uris: vec![uri.to_owned()], ..service_request() };
        refused(BareClient::with(issue(&world, request)), &world, Refusal::WrongIdentity, Refusal::WrongIdentity).await;
    }
}

#[tokio::test]
async fn a_client_with_a_certificate_for_servers_only() {
    let world = World::new();
    let request = CertificateRequest { for_server: true, for_client: false, ..service_request() };
    refused(BareClient::with(issue(&world, request)), &world, Refusal::WrongPurpose, Refusal::WrongPurpose).await;
}

#[tokio::test]
async fn a_client_of_another_protocol_or_of_none() {
    let world = World::new();
    for alpn in [vec![b"myelin-mesh/1".to_vec()], vec![b"h3".to_vec()], Vec::new()] {
        let good = BareClient::with(issue(&world, service_request()));
        refused(BareClient { alpn, ..good }, &world, Refusal::WrongAlpn, Refusal::WrongAlpn).await;
    }
}

#[tokio::test]
async fn the_client_is_told_why_it_was_refused() {
    let world = World::new();
    let server = Server::start(listener_config(), &world.router());
    let long_ago = SystemTime::now() - 5 * DAY;
    let old = world.ca.issue_unchecked(&CertificateRequest { validity: expired(), ..service_request() }).unwrap();
    let old = TlsIdentity::load_at(&world.files("old", &old), long_ago).unwrap();
    let error = dial(server.addr, &old).await.unwrap_err();
    assert_eq!(error, DialError::Refused { refusal: Refusal::OutsideValidity });
    assert!(error.to_string().contains("expired or not yet valid"), "{error}");

    let other = CertificateAuthority::create(TRUST_DOMAIN, 1).unwrap();
    let stranger = world.files("stranger", &other.issue_service("alice", 1).unwrap());
    let error = dial(server.addr, &TlsIdentity::load(&stranger).unwrap()).await.unwrap_err();
    assert_eq!(error, DialError::Refused { refusal: Refusal::WrongAuthority });
    assert!(!error.is_transient());

    let dialer = Dialer::new(QuicConfig::default()).unwrap();
    let mut config = dial_config(server.addr, &world.service("alice"));
    config.alpn = "myelin-client/99".into();
    let error = dialer.connect(&config).await.unwrap_err();
    assert_eq!(error, DialError::Refused { refusal: Refusal::WrongAlpn });
}

/// Dials a bare server that shows `certificate`, trusting the world's CA.
async fn untrusted(world: &World, certificate: &IssuedCertificate) -> DialError {
    let server = bare_server(certificate, false);
    dial(server.local_addr().unwrap(), &world.service("alice")).await.unwrap_err()
}

#[tokio::test]
async fn a_client_refuses_a_false_router() {
    let world = World::new();
    let other = CertificateAuthority::create(TRUST_DOMAIN, 1).unwrap();
    let issue = |request| world.ca.issue_unchecked(&request).unwrap();
    let two = ["a", "b"].map(|name| format!("spiffe://{TRUST_DOMAIN}/site/lab/router/{name}")).to_vec();
    let service = vec![format!("spiffe://{TRUST_DOMAIN}/service/alice")];
    let elsewhere = vec!["spiffe://other.example/site/lab/router/r1".to_owned()];
    let cases = [
        (issue_router(&other), Refusal::WrongAuthority, "router-wrong-authority"),
        (issue(CertificateRequest { validity: expired(), ..router_request() }), Refusal::Expired, "router-expired"),
        (
            issue(CertificateRequest { validity: not_yet_valid(), ..router_request() }),
            Refusal::NotYetValid,
            "router-not-yet-valid",
        ),
        (
            issue(CertificateRequest { hosts: vec!["elsewhere.example".into()], ..router_request() }),
            Refusal::WrongName,
            "router-wrong-name",
        ),
        (issue(CertificateRequest { uris: two, ..router_request() }), Refusal::WrongIdentity, "router-wrong-identity"),
        (
            issue(CertificateRequest { uris: Vec::new(), ..router_request() }),
            Refusal::WrongIdentity,
            "router-wrong-identity",
        ),
        // A service must not be able to play the router, whatever its certificate may be used for.
        (
            issue(CertificateRequest { uris: service, ..router_request() }),
            Refusal::WrongIdentity,
            "router-wrong-identity",
        ),
        (
            issue(CertificateRequest { uris: elsewhere, ..router_request() }),
            Refusal::WrongIdentity,
            "router-wrong-identity",
        ),
        (
            issue(CertificateRequest { for_server: false, ..router_request() }),
            Refusal::WrongPurpose,
            "router-bad-certificate",
        ),
    ];
    for (certificate, refusal, code) in cases {
        let error = untrusted(&world, &certificate).await;
        assert_eq!(error, DialError::Untrusted { refusal });
        assert_eq!(error.code(), code);
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn the_router_counts_clients_that_do_not_trust_it() {
    let world = World::new();
    let server = Server::start(listener_config(), &world.router());
    let dialer = Dialer::new(QuicConfig::default()).unwrap();
    let mut config = dial_config(server.addr, &world.service("alice"));
    config.server_name = "elsewhere.example".into();
    assert_eq!(dialer.connect(&config).await.unwrap_err(), DialError::Untrusted { refusal: Refusal::WrongName });
    let stats = server.control.stats().clone();
    let by_client = || stats.refused_by_client.load(std::sync::atomic::Ordering::Relaxed);
    eventually("counted", || by_client() == 1).await;
    assert_eq!(stats.refused_total(), 0);

    config.server_name = "not a name".into();
    assert_eq!(dialer.connect(&config).await.unwrap_err().code(), "dial-invalid-name");
    config.server_name = "127.0.0.1".into();
    dialer.connect(&config).await.expect("an IP address in the certificate is a name too");
}

#[tokio::test]
async fn nobody_there_is_a_timeout_with_a_hint() {
    let world = World::new();
    // Bound and mute, so that nobody else gets the port.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dialer = Dialer::new(QuicConfig { handshake_timeout_ms: 300, ..QuicConfig::default() }).unwrap();
    let config = dial_config(mute.local_addr().unwrap(), &world.service("alice"));
    let error = in_time(dialer.connect(&config)).await.unwrap_err();
    assert_eq!(error, DialError::Timeout { addr: config.addr, waited_ms: 300 });
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_service_cannot_listen() {
    let world = World::new();
    let error = Listener::bind(listener_config(), &world.service("alice")).err().unwrap();
    assert!(matches!(error, ListenError::NotARouter(_)));
    assert_eq!(error.code(), "tls-wrong-kind");
}

/// Dials twice with early data enabled and says whether the second time could send some.
async fn early_data_possible(
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    to: std::net::SocketAddr,
) -> bool {
    let first = in_time(endpoint.connect_with(config.clone(), to, "localhost").unwrap()).await.unwrap();
    // Tickets come after the handshake.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(first);
    endpoint.connect_with(config, to, "localhost").unwrap().into_0rtt().is_ok()
}

#[tokio::test]
async fn early_data_has_no_way_in() {
    let world = World::new();
    let client = BareClient { early_data: true, ..BareClient::with(issue(&world, service_request())) };
    let endpoint = bare_endpoint();

    let willing = bare_server(&issue_router(&world.ca), true);
    let config = client.config(&world.ca);
    let with_willing = early_data_possible(&endpoint, config, willing.local_addr().unwrap()).await;
    assert!(with_willing, "the client can do it, so what follows shows something");

    let server = Server::start(listener_config(), &world.router());
    let config = client.config(&world.ca);
    assert!(!early_data_possible(&endpoint, config, server.addr).await, "no ticket, no early data");
}

/// Sends the first packet of a good client to the server and nothing after it: a handshake that stalls.
async fn stall(world: &World, to: std::net::SocketAddr) -> tokio::net::UdpSocket {
    let tap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = bare_endpoint();
    let client = BareClient::with(issue(world, service_request()));
    let _connecting = endpoint.connect_with(client.config(&world.ca), tap.local_addr().unwrap(), "localhost").unwrap();
    let mut packet = vec![0; 2_000];
    let bytes = in_time(tap.recv(&mut packet)).await.unwrap();
    let stalled = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stalled.send_to(&packet[..bytes], to).await.unwrap();
    stalled
}

#[tokio::test]
async fn a_stalled_handshake_ends_in_time_and_a_crowded_listener_asks_for_proof() {
    use std::sync::atomic::Ordering::Relaxed;
    let world = World::new();
    let mut config = listener_config();
    config.quic.handshake_timeout_ms = 1_000;
    config.limiter.unvalidated_max = 0;
    let mut server = Server::start(config, &world.router());
    let stats = server.control.stats().clone();

    let _stalled = stall(&world, server.addr).await;
    eventually("the handshake is under way", || stats.unvalidated.load(Relaxed) == 1).await;
    let friend = dial(server.addr, &world.service("friend")).await.unwrap();
    assert_eq!(stats.retried.load(Relaxed), 1, "one stalled handshake is more than none, so the friend proved itself");
    echo_once(&friend, &server.next().await, b"hello").await;

    eventually("the handshake timed out", || stats.timed_out.load(Relaxed) == 1).await;
    eventually("nothing is left of it", || stats.handshaking.load(Relaxed) == 0).await;
    assert_eq!(stats.unvalidated.load(Relaxed), 0);
}

#[tokio::test]
async fn a_network_that_knocks_too_often_is_ignored() {
    use std::sync::atomic::Ordering::Relaxed;
    let world = World::new();
    let mut config = listener_config();
    config.limiter.network_burst = 2;
    config.limiter.network_per_second = 1;
    let server = Server::start(config, &world.router());
    let alice = world.service("alice");
    dial(server.addr, &alice).await.unwrap();
    dial(server.addr, &alice).await.unwrap();
    let dialer = Dialer::new(QuicConfig { handshake_timeout_ms: 300, ..QuicConfig::default() }).unwrap();
    let error = dialer.connect(&dial_config(server.addr, &alice)).await.unwrap_err();
    assert_eq!(error.code(), "dial-timeout");
    assert!(server.control.stats().ignored.load(Relaxed) > 0);
    // The client goes on trying, and so gets in when its network has a token again.
    dial(server.addr, &alice).await.unwrap();
}

#[tokio::test]
async fn a_full_listener_says_so() {
    let world = World::new();
    let mut config = listener_config();
    config.handshakes_max = 1;
    let server = Server::start(config, &world.router());
    let _stalled = stall(&world, server.addr).await;
    let stats = server.control.stats().clone();
    eventually("one is under way", || stats.handshaking.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    let error = dial(server.addr, &world.service("alice")).await.unwrap_err();
    assert_eq!(error, DialError::Refused { refusal: Refusal::Busy });
    assert!(error.is_transient());
    assert_eq!(stats.refused(Refusal::Busy), 1);
}

#[tokio::test]
async fn a_connection_without_a_sign_of_life_times_out() {
    let world = World::new();
    let mut config = ListenerConfig { alpn: vec![ALPN_CLIENT.into()], ..listener_config() };
    config.quic.idle_timeout_ms = 1_000;
    config.quic.keep_alive_ms = 0;
    let mut server = Server::start(config, &world.router());
    let endpoint = bare_endpoint();
    let client = BareClient::with(issue(&world, service_request()));
    let connecting = endpoint.connect_with(client.config(&world.ca), server.addr, "localhost").unwrap();
    let connection = in_time(connecting).await.unwrap();
    let accepted = server.next().await;
    assert_eq!(in_time(accepted.closed()).await.kind, CloseKind::TimedOut);
    drop(connection);
}

/// A bundle of two authorities, each naming its own trust domain, and what the second signs for the first's.
#[tokio::test]
async fn an_authority_speaks_for_the_trust_domain_that_it_names_and_for_no_other() {
    let world = World::new();
    let other = CertificateAuthority::create("other.example", 30).unwrap();
    let both = format!("{}\n{}", world.ca.cert_pem(), other.cert_pem());
    let router = TlsIdentity::load(&world.files_trusting("r", &issue_router(&world.ca), &both)).unwrap();
    let left_out = router.left_out_authorities();
    assert!(left_out.len() == 1 && left_out[0].contains("the trust domain other.example"), "{left_out:?}");
    let server = Server::start(listener_config(), &router);

    let forged = other.issue_unchecked(&service_request()).unwrap();
    let forger = TlsIdentity::load(&world.files("forger", &forged)).unwrap();
    let error = dial(server.addr, &forger).await.unwrap_err();
    assert_eq!(error, DialError::Refused { refusal: Refusal::WrongAuthority }, "a forged service");
    dial(server.addr, &world.service("genuine")).await.unwrap();

    // A router's name that the other authority has signed: neither a client with a certificate nor one without believes it.
    let forged = other.issue_unchecked(&router_request()).unwrap();
    let forged = TlsIdentity::load(&world.files("forged", &forged)).unwrap();
    let fake = Server::start(listener_config(), &forged);
    let client = world.files_trusting("c", &world.ca.issue_service("c", 1).unwrap(), &both);
    for client in [TlsIdentity::load(&client).unwrap(), TlsIdentity::trusting(&client.ca).unwrap()] {
        let error = dial(fake.addr, &client).await.unwrap_err();
        assert_eq!(error, DialError::Untrusted { refusal: Refusal::WrongAuthority }, "{client:?}");
    }
}

#[test]
fn a_file_without_an_authority_of_the_own_trust_domain_is_refused() {
    let world = World::new();
    let other = CertificateAuthority::create("other.example", 30).unwrap();
    let files = world.files_trusting("r", &issue_router(&world.ca), other.cert_pem());
    let error = TlsIdentity::load(&files).unwrap_err();
    assert_eq!((error.code(), &error.file), ("tls-foreign-authority", &files.ca));
    let text = error.to_string();
    assert!(text.contains("other.example") && text.contains(TRUST_DOMAIN), "{text}");
}
