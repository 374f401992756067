//! The client against registries of all kinds, most of them hostile, on loopback.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0and so on";

/// What was asked: method, path, and the headers in lower case.
struct Request {
    method: String,
    path: String,
    headers: String,
}

/// What is answered: everything behind the status line.
struct Response(&'static str, Vec<(&'static str, String)>, Vec<u8>);

/// A registry of one artifact whose answers can be bent.
struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(answer: impl Fn(&Request, SocketAddr) -> Response + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read(&mut stream);
                let Response(status, headers, body) = answer(&request, addr);
                let mut head = format!("HTTP/1.1 {status}\r\n");
                for (name, value) in &headers {
                    head += &format!("{name}: {value}\r\n");
                }
                if !head.contains("transfer-encoding") {
                    head += &format!("content-length: {}\r\n", body.len());
                }
                let is_head = request.method == "HEAD";
                log.lock().unwrap().push(request);
                let _ = stream.write_all((head + "\r\n").as_bytes());
                // The client may have had enough.
                let _ = if is_head { Ok(()) } else { stream.write_all(&body) };
            }
        });
        Self { addr, asked }
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("oci://{}/team/redact{rest}", self.addr).parse().unwrap()
    }

    fn client(&self, rest: &str, credentials: Option<(&str, &str)>) -> Client {
        let credentials = credentials.map(|(name, password)| Credentials::new(name, password).unwrap());
        Client::new(self.reference(rest), Transport::PlainOnLoopback, credentials)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    fn authorizations(&self) -> Vec<bool> {
        self.asked.lock().unwrap().iter().map(|request| request.headers.contains("authorization:")).collect()
    }
}

fn read(stream: &mut TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line == "\r\n" {
            break;
        }
        headers += &line.to_ascii_lowercase();
    }
    let len = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; len.map_or(0, |len| len.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    Request { method, path, headers }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn artifact() -> Artifact<'static> {
    let (imports, exports) = (Vec::new(), vec!["myelin:filter/filter@0.1.0".to_owned()]);
    Artifact { component: COMPONENT, name: "redact", version: "1.2.0", imports, exports, signature: Some("signed") }
}

fn ok(body: impl Into<Vec<u8>>) -> Response {
    Response("200 OK", Vec::new(), body.into())
}

fn not_found() -> Response {
    let body = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
    Response("404 Not Found", Vec::new(), body.into())
}

/// What an honest registry answers.
fn honest(request: &Request) -> Response {
    let Encoded { config, manifest } = artifact().encode();
    match request.path.as_str() {
        path if path.contains("/manifests/") => {
            let digest = Descriptor::of(&manifest).digest_text();
            let headers = vec![("content-type", MANIFEST_TYPE.to_owned()), ("docker-content-digest", digest)];
            Response("200 OK", headers, manifest)
        }
        path if path.ends_with(&Descriptor::of(&config).digest_text()) => ok(config),
        path if path.ends_with(&Descriptor::of(COMPONENT).digest_text()) => ok(COMPONENT),
        _ => not_found(),
    }
}

fn is_component(request: &Request) -> bool {
    request.path.ends_with(&Descriptor::of(COMPONENT).digest_text())
}

fn is_manifest(request: &Request) -> bool {
    request.path.contains("/manifests/")
}

fn refusal(server: &Server, rest: &str) -> OciError {
    run(server.client(rest, None).pull()).unwrap_err()
}

#[test]
fn a_tag_is_resolved_once_and_everything_else_is_asked_for_by_digest() {
    let server = Server::new(|request, _| honest(request));
    let pulled = run(server.client(":1.2", None).pull()).unwrap();
    let digest = Digest::of(&artifact().encode().manifest);
    assert_eq!(pulled.reference, server.reference(":1.2").pinned(digest));
    assert_eq!((&pulled.component[..], pulled.signature.as_deref()), (COMPONENT, Some("signed")));
    let asked = server.asked();
    assert_eq!(asked[0], "GET /v2/team/redact/manifests/1.2");
    assert!(asked.len() == 3 && asked[1..].iter().all(|asked| asked.contains("/blobs/sha256:")), "{asked:?}");
    // By digest the tag says nothing.
    let pinned = run(server.client(&format!(":other@sha256:{digest}"), None).pull()).unwrap();
    assert_eq!(pinned.component, COMPONENT);
    assert_eq!(server.asked()[3], format!("GET /v2/team/redact/manifests/sha256:{digest}"));
}

#[test]
fn a_registry_that_lies_about_bytes_is_found_out() {
    let other = |request: &Request| {
        let mut bytes = COMPONENT.to_vec();
        bytes[10] ^= 1;
        if is_component(request) { ok(bytes) } else { honest(request) }
    };
    let server = Server::new(move |request, _| other(request));
    assert_eq!(refusal(&server, ":1").code(), "oci-digest-mismatch");
    let short = Server::new(|request, _| if is_component(request) { ok(&COMPONENT[1..]) } else { honest(request) });
    assert_eq!(refusal(&short, ":1").code(), "oci-size-mismatch");
    let long = Server::new(|request, _| if is_component(request) { ok(vec![0; 1 << 20]) } else { honest(request) });
    assert_eq!(refusal(&long, ":1").code(), "oci-size-mismatch");
    // A manifest that is good and not the one that was named.
    let named = format!("@sha256:{}", Digest::of(b"another"));
    let swapped = Server::new(|request, _| Response("200 OK", Vec::new(), honest(request).2));
    assert_eq!(refusal(&swapped, &named).code(), "oci-digest-mismatch");
    // Its header says one digest, its body another, though only a tag was named.
    let said = Server::new(|request, _| {
        let Response(status, mut headers, body) = honest(request);
        headers.retain(|(name, _)| *name != "docker-content-digest");
        headers.push(("docker-content-digest", format!("sha256:{}", Digest::of(b"another"))));
        Response(status, if is_manifest(request) { headers } else { Vec::new() }, body)
    });
    assert_eq!(refusal(&said, ":1").code(), "oci-digest-mismatch");
}

#[test]
fn what_is_too_long_is_not_read_to_its_end() {
    let manifest = Server::new(|_, _| ok(vec![b' '; 1 << 20]));
    assert_eq!(refusal(&manifest, ":1").code(), "oci-too-large");
    // Without an end, and without saying how long it is.
    let endless = Server::new(|request, _| {
        let chunks = "4000\r\n".to_owned() + &" ".repeat(0x4000) + "\r\n";
        let body = chunks.repeat(64).into_bytes();
        if is_manifest(request) {
            Response("200 OK", vec![("transfer-encoding", "chunked".into())], body)
        } else {
            not_found()
        }
    });
    assert_eq!(refusal(&endless, ":1").code(), "oci-too-large");
    let error = Server::new(|_, _| Response("500 Internal Server Error", Vec::new(), vec![b'x'; 1 << 20]));
    assert_eq!(refusal(&error, ":1").code(), "oci-too-large");
    // A layer over the limit is refused by what the manifest says; nobody asks for it.
    let huge = Server::new(|request, _| {
        let text = String::from_utf8(honest(request).2).unwrap();
        let size = format!("\"size\":{}", COMPONENT.len());
        assert!(text.contains(&size), "{text}");
        ok(text.replace(&size, "\"size\":16777217"))
    });
    assert_eq!(refusal(&huge, ":1").code(), "oci-too-large");
    assert_eq!(huge.asked().len(), 1);
}

#[test]
fn foreign_things_are_refused_by_what_they_are() {
    let typed = |content_type: &'static str| {
        Server::new(move |request, _| {
            Response("200 OK", vec![("content-type", content_type.into())], honest(request).2)
        })
    };
    assert_eq!(refusal(&typed("text/html"), ":1").code(), "oci-media-type");
    assert_eq!(
        refusal(&typed("application/vnd.docker.distribution.manifest.v1+prettyjws"), ":1").code(),
        "oci-media-type"
    );
    let nothing = Server::new(|_, _| not_found());
    let told = refusal(&nothing, ":1");
    assert_eq!(told.code(), "oci-not-found");
    assert!(told.to_string().contains("BLOB_UNKNOWN"), "{told}");
    let broken = Server::new(|_, _| Response("200 OK", Vec::new(), b"<html>".to_vec()));
    assert_eq!(refusal(&broken, ":1").code(), "oci-manifest");
    let closed = Client::new("oci://127.0.0.1:1/a:1".parse().unwrap(), Transport::PlainOnLoopback, None);
    let mut closed = closed;
    assert_eq!(run(closed.pull()).unwrap_err().code(), "oci-unreachable");
}

/// Answers Basic, and takes one name and password.
fn guarded(request: &Request) -> Response {
    let good = Credentials::new("alice", "sesame").unwrap().basic().to_ascii_lowercase();
    if request.headers.contains(&format!("authorization: {good}\r\n")) {
        return honest(request);
    }
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    Response("401 Unauthorized", vec![("www-authenticate", "Basic realm=\"r\"".into())], body.into())
}

#[test]
fn a_name_and_a_password_are_sent_when_they_are_asked_for() {
    let server = Server::new(|request, _| guarded(request));
    run(server.client(":1", Some(("alice", "sesame"))).pull()).unwrap();
    assert_eq!(server.authorizations(), [false, true, true, true], "asked for once");
    let wrong = run(server.client(":1", Some(("alice", "guess"))).pull()).unwrap_err();
    assert_eq!(wrong.code(), "oci-unauthorized");
    let told = wrong.to_string();
    assert!(told.contains("`alice`") && !told.contains("guess"), "{told}");
    assert_eq!(server.asked().len(), 4 + 2, "no second guess");
    assert_eq!(refusal(&server, ":1").code(), "oci-unauthorized");
}

#[test]
fn a_token_is_fetched_where_the_challenge_says() {
    let server = Server::new(|request, addr| match request.path.as_str() {
        path if path.starts_with("/token") => {
            assert!(path.contains("service=r.example&scope=repository%3Ateam%2Fredact%3Apull"), "{path}");
            assert!(request.headers.contains("authorization: basic"));
            ok(r#"{"token":"t0ken","expires_in":300}"#)
        }
        _ if request.headers.contains("authorization: bearer t0ken") => honest(request),
        _ => {
            let challenge = format!(
                "Bearer realm=\"http://{addr}/token\",service=\"r.example\",scope=\"repository:team/redact:pull\""
            );
            Response("401 Unauthorized", vec![("www-authenticate", challenge)], Vec::new())
        }
    });
    run(server.client(":1", Some(("alice", "sesame"))).pull()).unwrap();
    assert_eq!(server.asked().iter().filter(|asked| asked.starts_with("GET /token")).count(), 1);
    for realm in ["file:///etc/passwd", "https://elsewhere.example/token", "//elsewhere", "http://a@127.0.0.1/token"] {
        let sends = Server::new(move |_, _| {
            Response("401 Unauthorized", vec![("www-authenticate", format!("Bearer realm=\"{realm}\""))], Vec::new())
        });
        assert_eq!(refusal(&sends, ":1").code(), "oci-redirect", "{realm}");
    }
}

#[test]
fn who_is_sent_on_says_nothing_of_who_it_is_and_does_not_go_in_circles() {
    let storage = Server::new(|request, _| honest(request));
    let to = storage.addr;
    let server = Server::new(move |request, _| match guarded(request) {
        Response("200 OK", ..) if is_component(request) => {
            Response("307 Temporary Redirect", vec![("location", format!("http://{to}{}", request.path))], Vec::new())
        }
        other => other,
    });
    let pulled = run(server.client(":1", Some(("alice", "sesame"))).pull()).unwrap();
    assert_eq!(pulled.component, COMPONENT);
    assert_eq!(storage.authorizations(), [false]);
    let circle = Server::new(|request, _| Response("302 Found", vec![("location", request.path.clone())], Vec::new()));
    assert_eq!(refusal(&circle, ":1").code(), "oci-redirect");
    assert_eq!(circle.asked().len(), REDIRECTS_MAX + 1);
    for place in ["https://elsewhere.example/x", "ftp://x/", "http://u@127.0.0.1/x", "nowhere"] {
        let sends = Server::new(move |_, _| Response("302 Found", vec![("location", place.into())], Vec::new()));
        assert_eq!(refusal(&sends, ":1").code(), "oci-redirect", "{place}");
    }
    // Without TLS nobody leaves this machine.
    let out = Server::new(|request, _| match is_component(request) {
        true => Response("302 Found", vec![("location", "http://192.0.2.1/x".into())], Vec::new()),
        false => honest(request),
    });
    assert_eq!(refusal(&out, ":1").code(), "oci-plain-http");
}

#[test]
fn only_blobs_come_from_another_server_than_the_registry_s() {
    let other = Server::new(|request, _| guarded(request));
    let to = other.addr;
    let sends = move |request: &Request| {
        Response("307 Temporary Redirect", vec![("location", format!("http://{to}{}", request.path))], Vec::new())
    };
    let manifest = Server::new(move |request, _| if is_manifest(request) { sends(request) } else { honest(request) });
    let told = run(manifest.client(":1", Some(("alice", "sesame"))).pull()).unwrap_err();
    assert!(told.code() == "oci-redirect" && told.to_string().contains("only blobs"), "{told}");
    assert_eq!(other.asked(), [""; 0], "nobody has asked it for anything");
    // Storage that asks who we are is told nothing, and the name and password of the registry stay there.
    let blob = Server::new(move |request, _| match guarded(request) {
        Response("200 OK", ..) if is_component(request) => sends(request),
        answer => answer,
    });
    assert_eq!(run(blob.client(":1", Some(("alice", "sesame"))).pull()).unwrap_err().code(), "oci-unauthorized");
    assert_eq!(other.authorizations(), [false]);
    // On the registry itself anything may have moved.
    let moved = Server::new(|request, addr| match request.path.strip_prefix("/old") {
        Some(path) => honest(&Request { path: path.to_owned(), method: String::new(), headers: String::new() }),
        None if is_manifest(request) => {
            let location = format!("http://{addr}/old{}", request.path);
            Response("301 Moved Permanently", vec![("location", location)], Vec::new())
        }
        None => honest(request),
    });
    assert_eq!(run(moved.client(":1", None).pull()).unwrap().component, COMPONENT);
}

#[test]
fn from_tls_nobody_is_sent_on_without_it() {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let reference: Reference = "oci://r.example/team/redact:1".parse().unwrap();
    let client = Client::new(reference, Transport::Tls(Arc::new(config)), None);
    let own: hyper::Uri = "https://r.example/v2/x".parse().unwrap();
    let blob = Asked::new(Method::GET, String::new()).elsewhere();
    for place in ["http://r.example/x", "http://storage.example/x", "http://10.0.0.1/x", "http://[::1]/x"] {
        for asked in [&blob, &Asked::new(Method::GET, String::new())] {
            assert_eq!(client.exchange.redirect(asked, &own, place).unwrap_err().code(), "oci-redirect", "{place}");
        }
    }
    for place in
        ["https://10.0.0.1/x", "https://[::1]/x", "https://[::ffff:169.254.169.254]/x", "https://other.example/x"]
    {
        let refused = client.exchange.redirect(&Asked::new(Method::GET, String::new()), &own, place).unwrap_err();
        assert_eq!(refused.code(), "oci-redirect", "{place}");
        assert!(client.exchange.redirect(&blob, &own, place).is_ok(), "{place}");
    }
    for place in ["/x", "https://r.example/x", "https://R.example:443/x"] {
        assert!(client.exchange.redirect(&Asked::new(Method::GET, String::new()), &own, place).is_ok(), "{place}");
    }
}

#[test]
fn a_push_sends_what_is_not_there_and_checks_what_was_kept() {
    let server = Server::new(|request, _| match request.method.as_str() {
        "HEAD" => not_found(),
        "POST" => {
            let location = "/v2/team/redact/blobs/uploads/1?_state=x".to_owned();
            Response("202 Accepted", vec![("location", location)], Vec::new())
        }
        _ => Response("201 Created", Vec::new(), Vec::new()),
    });
    let pushed = run(server.client(":1.2", None).push(&artifact())).unwrap();
    let Encoded { config, manifest } = artifact().encode();
    assert_eq!(pushed, server.reference(":1.2").pinned(Digest::of(&manifest)));
    let upload = |bytes: &[u8]| {
        format!("PUT /v2/team/redact/blobs/uploads/1?_state=x&digest={}", Descriptor::of(bytes).digest_text())
    };
    let asked = server.asked();
    assert_eq!((&asked[2], &asked[5]), (&upload(COMPONENT), &upload(&config)));
    assert_eq!(asked[6], "PUT /v2/team/redact/manifests/1.2");

    let there = Server::new(|request, _| match request.method.as_str() {
        "HEAD" => ok(Vec::new()),
        _ => {
            Response("201 Created", vec![("docker-content-digest", format!("sha256:{}", Digest::of(b"x")))], Vec::new())
        }
    });
    assert_eq!(run(there.client(":1.2", None).push(&artifact())).unwrap_err().code(), "oci-digest-mismatch");
    assert_eq!(there.asked().len(), 3, "blobs that are there are not sent again");
    let denied = Server::new(|_, _| {
        Response("403 Forbidden", Vec::new(), br#"{"errors":[{"code":"DENIED","message":"read only"}]}"#.to_vec())
    });
    // HEAD has no body to say why.
    assert_eq!(run(denied.client(":1.2", None).push(&artifact())).unwrap_err().code(), "oci-denied");
    let pinned = format!(":1@sha256:{}", Digest::of(b"x"));
    assert_eq!(run(denied.client(&pinned, None).push(&artifact())).unwrap_err().code(), "oci-reference");
    let core = Artifact { component: b"\0asm\x01\0\0\0", ..artifact() };
    assert_eq!(run(denied.client(":1", None).push(&core)).unwrap_err().code(), "oci-architecture");
}
