//! The same over the network, with certificates.

use myelin_client::{Client, ClientConfig, Code, Event, Limits, Outcome, TlsFiles};
use myelin_transport::ca::CertificateAuthority;
use myelin_transport::{Connection, Listener, ListenerConfig, TlsIdentity};
use myelin_wire::VERSION;
use myelin_wire::message::{Ack, Message, MessageDecoder, Welcome};
use tempfile::TempDir;

use crate::fake::in_time;

fn files(dir: &TempDir, ca: &CertificateAuthority, stem: &str, of_router: bool) -> TlsFiles {
    let issued = if of_router {
        ca.issue_router("lab", "r1", &["localhost".to_owned(), "127.0.0.1".to_owned()], 1).unwrap()
    } else {
        ca.issue_service(stem, 1).unwrap()
    };
    let (cert, key) = issued.save(dir.path(), stem).unwrap();
    let file = dir.path().join(format!("{stem}-ca.pem"));
    std::fs::write(&file, ca.cert_pem()).unwrap();
    TlsFiles { cert, key, ca: file }
}

/// Greets, acknowledges one event, and closes after BYE.
async fn serve_one_event(connection: Connection) {
    let (mut send, mut recv) = connection.accept_bi().await.unwrap();
    let mut decoder = MessageDecoder::new();
    let mut said = Vec::new();
    let (site, router, inbox) = ("lab".to_owned(), "r1".to_owned(), "$inbox/1".to_owned());
    let welcome = Welcome { version: VERSION, site, router, inbox, limits: Limits::default() };
    Message::Welcome(welcome).encode(&mut said).unwrap();
    send.write_all(&said).await.unwrap();
    let mut events = connection.accept_uni().await.unwrap();
    assert!(events.read_chunk().await.unwrap().is_some());
    let mut said = Vec::new();
    Message::Ack(Ack { seq: 1, exceptions: Vec::new() }).encode(&mut said).unwrap();
    send.write_all(&said).await.unwrap();
    let mut heard = Vec::new();
    while heard.last() != Some(&Message::Bye) {
        match decoder.poll().unwrap() {
            Some(message) => heard.push(message),
            None => decoder.push(&recv.read_chunk().await.unwrap().unwrap()),
        }
    }
    assert!(matches!(heard[..], [Message::Hello(_), Message::Bye]));
    connection.close(0, "");
}

#[tokio::test]
async fn a_client_publishes_over_quic_and_parts_cleanly() {
    let dir = TempDir::new().unwrap();
    let ca = CertificateAuthority::create("test.example", 30).unwrap();
    let identity = TlsIdentity::load(&files(&dir, &ca, "router", true)).unwrap();
    let mut listening = ListenerConfig::default();
    listening.addr.set_port(0);
    let mut listener = Listener::bind(listening, &identity).unwrap().start().unwrap();
    let addr = listener.local_addr();
    let served = tokio::spawn(async move {
        serve_one_event(listener.accept().await.unwrap()).await;
        listener.wait_idle().await;
    });

    // By name, so that the host is resolved and is what the certificate must hold.
    let config = ClientConfig::new(format!("localhost:{}", addr.port()), files(&dir, &ca, "shop", false));
    let client = in_time(Client::connect(config)).await.unwrap();
    assert_eq!(client.session().await.unwrap().router, "r1");
    let ticket = client.publish(Event::new("orders/eu", "hi")).await.unwrap();
    assert_eq!(in_time(ticket).await, Outcome::Acked);
    let summary = in_time(client.close()).await;
    assert_eq!((summary.published, summary.acked), (1, 1));
    in_time(served).await.unwrap();
}

/// Whoever renews the files in time keeps the client connected.
#[tokio::test]
async fn a_client_connects_again_with_the_certificate_that_was_renewed() {
    let dir = TempDir::new().unwrap();
    let ca = CertificateAuthority::create("test.example", 30).unwrap();
    let identity = TlsIdentity::load(&files(&dir, &ca, "router", true)).unwrap();
    let mut listening = ListenerConfig::default();
    listening.addr.set_port(0);
    let mut listener = Listener::bind(listening, &identity).unwrap().start().unwrap();
    let addr = format!("127.0.0.1:{}", listener.local_addr().port());
    let tls = files(&dir, &ca, "shop", false);
    let ends = async |listener: &mut Listener| {
        let connection = in_time(listener.accept()).await.unwrap();
        let (mut send, _) = connection.accept_bi().await.unwrap();
        let (site, router, inbox) = ("lab".to_owned(), "r1".to_owned(), "$inbox/1".to_owned());
        let mut said = Vec::new();
        let welcome = Welcome { version: VERSION, site, router, inbox, limits: Limits::default() };
        Message::Welcome(welcome).encode(&mut said).unwrap();
        send.write_all(&said).await.unwrap();
        (connection.certificate_not_after_unix_s().unwrap(), connection, send)
    };
    let connecting = Client::connect(ClientConfig::new(&addr, tls.clone()));
    let (client, (first, connection, _send)) = tokio::join!(connecting, ends(&mut listener));
    let client = client.unwrap();
    let (cert, key) = ca.issue_service("shop", 9).unwrap().save(dir.path(), "shop").unwrap();
    assert_eq!((cert, key), (tls.cert, tls.key));
    // Not before WELCOME has arrived.
    assert_eq!(in_time(client.session()).await.unwrap().number, 1);
    connection.close(Code::CertificateExpired.number().into(), "certificate-expired: over");
    let (second, _connection, _send) = ends(&mut listener).await;
    assert!(second > first + 7 * 86_400, "{first} {second}");
    assert_eq!(in_time(client.session()).await.unwrap().number, 2);
}

#[tokio::test]
async fn what_keeps_a_router_from_being_reached_has_a_name() {
    let dir = TempDir::new().unwrap();
    let (ca, stranger) = ("test.example", "other.example");
    let [ca, stranger] = [ca, stranger].map(|domain| CertificateAuthority::create(domain, 30).unwrap());
    let identity = TlsIdentity::load(&files(&dir, &ca, "router", true)).unwrap();
    let mut listening = ListenerConfig::default();
    listening.addr.set_port(0);
    let listener = Listener::bind(listening, &identity).unwrap().start().unwrap();
    let addr = format!("127.0.0.1:{}", listener.local_addr().port());

    let theirs = files(&dir, &stranger, "stranger", false);
    let error = in_time(Client::connect(ClientConfig::new(&addr, theirs.clone()))).await.unwrap_err();
    assert_eq!(error.code(), "router-wrong-authority", "{error}");
    let ours = files(&dir, &ca, "shop", false);
    let other_name = ClientConfig::new(&addr, ours.clone()).with_server_name("elsewhere.example");
    assert_eq!(in_time(Client::connect(other_name)).await.unwrap_err().code(), "router-wrong-name");
    let no_port = ClientConfig::new("localhost", ours);
    assert_eq!(in_time(Client::connect(no_port)).await.unwrap_err().code(), "unresolved-address");
    let missing = TlsFiles { key: dir.path().join("missing.pem"), ..theirs };
    let error = in_time(Client::connect(ClientConfig::new(&addr, missing))).await.unwrap_err();
    assert_eq!(error.code(), "tls-file-unreadable");
    let none = ClientConfig { tls: None, ..ClientConfig::default() };
    assert_eq!(in_time(Client::connect(none)).await.unwrap_err().code(), "invalid-setting");
}
