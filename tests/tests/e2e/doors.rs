//! Strangers at every door: each listener of one router, knocked at with each certificate that will not do. Nobody gets a
//! byte of the application; the router goes on serving those who may come in.

use anyhow::{Context, Result, ensure};
use myelin_client::{Client, ClientConfig, Event, Outcome, TlsFiles};
use myelin_tests::sites::PATIENCE;
use myelin_transport::ALPN_CLIENT;
use myelin_transport::ca::{CertificateAuthority, CertificateRequest, IssuedCertificate, Validity};
use quinn::crypto::rustls::QuicClientConfig;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

const ALPN_MESH: &[u8] = b"myelin-mesh/1";
/// Whom the admin listener knows.
const OPERATOR: &str = "ops";
/// First of the QUIC error codes that carry a TLS alert (RFC 9001, section 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;
const DAY_S: i64 = 24 * 60 * 60;

/// A listener of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Client,
    Mesh,
    Admin,
}

/// What came of knocking.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// TLS has refused it: not a byte of the application came.
    Refused,
    /// The application has ended it without a byte, for this reason.
    Closed(String),
    /// The application has answered, with this status where it is HTTP.
    Answered(u16),
}

/// A router that is no development one, with all its listeners.
struct House {
    folder: tempfile::TempDir,
    authority: CertificateAuthority,
    process: Child,
    client: SocketAddr,
    mesh: SocketAddr,
    admin: SocketAddr,
}

impl House {
    async fn build() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = CertificateAuthority::create("test", 2)?;
        authority.save(folder.path())?;
        authority.issue_router("site", "r1", &["localhost".into()], 1)?.save(folder.path(), "router")?;
        let mesh = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let ready = folder.path().join("ready.json");
        let mut command = Command::new(myelin_tests::program());
        command
            // HTTPS is what an address beyond loopback is served by; nobody connects from there.
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0", "--workers", "1", "--data-dir"])
            .arg(folder.path().join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .env("MYELIN_NODE__SITE", "site")
            .env("MYELIN_TLS__CERT", folder.path().join("router.pem"))
            .env("MYELIN_TLS__KEY", folder.path().join("router-key.pem"))
            .env("MYELIN_TLS__CA", folder.path().join("ca.pem"))
            .env("MYELIN_MESH__LISTEN", mesh.to_string())
            .env("MYELIN_MESH__MEMBERS", "site/r1,other/r1")
            .env("MYELIN_CATALOG__JOIN_SECONDS", "1")
            .env("MYELIN_POLICY__DEFAULT", "allow")
            .env("MYELIN_ADMIN__IDENTITIES", format!("spiffe://test/service/{OPERATOR}"));
        let process = command.spawn()?;
        let mut house = Self { folder, authority, process, client: mesh, mesh, admin: mesh };
        crate::attacks::eventually("the router", || Ok(ready.exists())).await?;
        let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready)?)?;
        let addr = |key: &str| told[key].as_str().context("an address")?.parse::<SocketAddr>().context("an address");
        (house.client, house.admin) = (addr("client_addr")?, (Ipv4Addr::LOCALHOST, addr("admin_addr")?.port()).into());
        Ok(house)
    }

    /// Knocks with a certificate, or with none, and says the first words of the application behind the handshake.
    async fn knock(&self, door: Door, certificate: Option<&IssuedCertificate>, alpn: Option<&[u8]>) -> Result<Heard> {
        let tls = tls(&self.authority, certificate, alpn)?;
        match door {
            Door::Client => knock_quic(self.client, tls).await,
            Door::Mesh => knock_quic(self.mesh, tls).await,
            Door::Admin => {
                let admin = self.admin;
                tokio::task::spawn_blocking(move || knock_https(admin, tls)).await?
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Trusts only these authorities from now on, and has a certificate of the last.
    fn trust(&self, authorities: &[&CertificateAuthority]) -> Result<()> {
        let last = authorities.last().context("an authority")?;
        last.issue_router("site", "r1", &["localhost".into()], 1)?.save(self.folder.path(), "router")?;
        let bundle: String = authorities.iter().map(|authority| authority.cert_pem()).collect();
        std::fs::write(self.path("ca.pem.new"), bundle)?;
        std::fs::rename(self.path("ca.pem.new"), self.path("ca.pem"))?;
        let pid = Pid::from_raw(i32::try_from(self.process.id())?).context("a process")?;
        Ok(kill_process(pid, Signal::HUP)?)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tls(
    trusted: &CertificateAuthority,
    certificate: Option<&IssuedCertificate>,
    alpn: Option<&[u8]>,
) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.cert_pem().as_bytes())?)?;
    let builder = rustls::ClientConfig::builder_with_provider(myelin_transport::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut tls = match certificate {
        Some(issued) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(issued.cert_pem.as_bytes())?],
            PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?,
        )?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    Ok(tls)
}

async fn knock_quic(addr: SocketAddr, tls: rustls::ClientConfig) -> Result<Heard> {
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let ended = match endpoint.connect_with(config, addr, "localhost")?.await {
        Err(error) => error,
        Ok(connection) => {
            // In TLS 1.3 the client has finished before the server has looked at its certificate.
            if let Ok((mut send, mut recv)) = connection.open_bi().await {
                let _ = send.write_all(b"first words").await;
                let mut answer = [0; 1];
                if let Ok(Ok(Some(_))) = timeout(PATIENCE, recv.read(&mut answer)).await {
                    return Ok(Heard::Answered(0));
                }
            }
            timeout(PATIENCE, connection.closed()).await.context("it was neither refused nor answered")?
        }
    };
    match ended {
        quinn::ConnectionError::ConnectionClosed(close) if CRYPTO_ERRORS.contains(&close.error_code.into()) => {
            Ok(Heard::Refused)
        }
        quinn::ConnectionError::ApplicationClosed(close) => {
            Ok(Heard::Closed(String::from_utf8_lossy(&close.reason).into_owned()))
        }
        other => Err(other).context("neither refused by TLS nor by the application"),
    }
}

fn knock_https(addr: SocketAddr, tls: rustls::ClientConfig) -> Result<Heard> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = rustls::ClientConnection::new(Arc::new(tls), ServerName::try_from("localhost")?)?;
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let request = format!("GET /v1/whoami HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", addr.port());
    let mut answer = Vec::new();
    let written = stream.write_all(request.as_bytes());
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        ensure!(written.is_err() || read.is_err(), "it closed without a word");
        return Ok(Heard::Refused);
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Heard::Answered(status.with_context(|| format!("no status: {answer}"))?))
}

/// A certificate that is good at a door, as the beginning of one that is not.
fn good(door: Door) -> CertificateRequest {
    let uri = match door {
        Door::Client => "spiffe://test/service/shop".to_owned(),
        Door::Mesh => "spiffe://test/site/other/router/r1".to_owned(),
        Door::Admin => format!("spiffe://test/service/{OPERATOR}"),
    };
    let is_router = door == Door::Mesh;
    let hosts = if is_router { vec!["localhost".to_owned()] } else { Vec::new() };
    CertificateRequest {
        uris: vec![uri],
        hosts,
        validity: around(-DAY_S, DAY_S),
        for_server: is_router,
        for_client: true,
    }
}

/// Good from so long ago, or not yet, for so long, or no more.
fn around(from_s: i64, to_s: i64) -> Validity {
    let at = |offset_s: i64| {
        let (now, offset) = (SystemTime::now(), Duration::from_secs(offset_s.unsigned_abs()));
        if offset_s < 0 { now - offset } else { now + offset }
    };
    Validity { not_before: at(from_s), not_after: at(to_s) }
}

fn alpn(door: Door) -> Option<&'static [u8]> {
    match door {
        Door::Client => Some(ALPN_CLIENT.as_bytes()),
        Door::Mesh => Some(ALPN_MESH),
        Door::Admin => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_come_in_hears_nothing_at_any_door() -> Result<()> {
    let house = House::build().await?;
    let (own, other) = (&house.authority, CertificateAuthority::create("test", 2)?);
    for door in [Door::Client, Door::Mesh, Door::Admin] {
        let issued = |change: &dyn Fn(&mut CertificateRequest)| -> Result<IssuedCertificate> {
            let mut request = good(door);
            change(&mut request);
            Ok(own.issue_unchecked(&request)?)
        };
        let strangers = [
            ("another authority of the same name", other.issue_unchecked(&good(door))?),
            ("expired", issued(&|request| request.validity = around(-2 * DAY_S, -60))?),
            ("not valid yet", issued(&|request| request.validity = around(DAY_S, 2 * DAY_S))?),
            ("two names", issued(&|request| request.uris.push("spiffe://test/service/second".into()))?),
            ("no name", issued(&|request| request.uris.clear())?),
            ("a name of no form", issued(&|request| request.uris = vec!["https://test/service/shop".into()])?),
            (
                "another trust domain",
                issued(&|request| {
                    request.uris = request.uris.iter().map(|uri| uri.replace("//test/", "//elsewhere/")).collect();
                })?,
            ),
            ("for servers only", issued(&|request| (request.for_server, request.for_client) = (true, false))?),
        ];
        for (what, certificate) in &strangers {
            let heard = house.knock(door, Some(certificate), alpn(door)).await;
            let heard = heard.with_context(|| format!("{door:?}: {what}"))?;
            ensure!(heard == Heard::Refused, "{door:?}: {what}: {heard:?}");
        }
        // Tokens may stand in for certificates at the admin API: who shows neither is told so, and no more.
        let nobody = house.knock(door, None, alpn(door)).await?;
        ensure!(
            nobody == if door == Door::Admin { Heard::Answered(401) } else { Heard::Refused },
            "{door:?}: {nobody:?}"
        );
        let certificate = issued(&|_| {})?;
        for protocol in [Some(&b"h3"[..]), Some(b"myelin-client/2"), None] {
            if door == Door::Admin && protocol.is_none() {
                continue;
            }
            let heard = house.knock(door, Some(&certificate), protocol).await?;
            ensure!(heard == Heard::Refused, "{door:?}: protocol {protocol:?}: {heard:?}");
        }
    }
    // A name that is good at one door is none at another.
    let service = own.issue_unchecked(&good(Door::Client))?;
    let mesh = house.knock(Door::Mesh, Some(&service), alpn(Door::Mesh)).await?;
    ensure!(
        matches!(&mesh, Heard::Closed(why) if why.contains("identity")),
        "a service at the routers' door: {mesh:?}"
    );
    let admin = house.knock(Door::Admin, Some(&service), None).await?;
    ensure!(admin == Heard::Answered(403), "somebody whom the admin API does not know: {admin:?}");
    house.lets_in(own).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_taken_out_of_the_bundle_opens_no_door_any_more() -> Result<()> {
    let mut house = House::build().await?;
    house.lets_in(&house.authority).await?;
    let next = CertificateAuthority::create("test", 2)?;
    house.trust(&[&house.authority, &next])?;
    let old = std::mem::replace(&mut house.authority, next);
    // Knocking trusts the new one only: it is refused until the router has the new certificate.
    let admin = old.issue_unchecked(&good(Door::Admin))?;
    for _ in 0..200 {
        match house.knock(Door::Admin, Some(&admin), None).await {
            Ok(Heard::Answered(200)) => break,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    ensure!(house.knock(Door::Admin, Some(&admin), None).await? == Heard::Answered(200), "both are trusted");
    house.trust(&[&house.authority])?;
    for door in [Door::Client, Door::Mesh, Door::Admin] {
        let certificate = old.issue_unchecked(&good(door))?;
        let mut heard = Heard::Answered(0);
        for _ in 0..200 {
            heard = house.knock(door, Some(&certificate), alpn(door)).await?;
            if heard == Heard::Refused {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure!(heard == Heard::Refused, "{door:?}: the old authority still opens it: {heard:?}");
    }
    house.lets_in(&house.authority).await
}

impl House {
    /// Whoever may come in does: a client's event, a question of the operator, a handshake of the other router.
    async fn lets_in(&self, authority: &CertificateAuthority) -> Result<()> {
        let (cert, key) = authority.issue_unchecked(&good(Door::Client))?.save(self.folder.path(), "shop")?;
        let ca = save(&self.path("trusted.pem"), self.authority.cert_pem())?;
        let config =
            ClientConfig::new(self.client.to_string(), TlsFiles { cert, key, ca }).with_server_name("localhost");
        let client = timeout(PATIENCE, Client::connect(config)).await??;
        let outcome = timeout(PATIENCE, client.publish(Event::new("open", b"x")).await?).await?;
        ensure!(matches!(outcome, Outcome::Acked), "{outcome:?}");
        let operator = authority.issue_unchecked(&good(Door::Admin))?;
        ensure!(self.knock(Door::Admin, Some(&operator), None).await? == Heard::Answered(200));
        // Whoever is let in there is listened to: these are no words of a router.
        let router = authority.issue_unchecked(&good(Door::Mesh))?;
        let mesh = self.knock(Door::Mesh, Some(&router), alpn(Door::Mesh)).await?;
        ensure!(matches!(&mesh, Heard::Closed(why) if why.contains("frame")), "{mesh:?}");
        Ok(())
    }
}

fn save(path: &Path, text: &str) -> Result<PathBuf> {
    std::fs::write(path, text)?;
    Ok(path.to_owned())
}
