//! Just enough HTTP to put one filter on a router.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How long the router may take for an answer: compiling a module is the slowest.
const ANSWER: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Version that the bench uploads its filter as.
const VERSION: &str = "0.0.1";

/// The filter of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a> {
    /// The component.
    pub(crate) file: &'a Path,
    /// What it is configured with.
    pub(crate) config: &'a Value,
    /// The topics that it may send to.
    pub(crate) grant: &'a [String],
    /// The topics it judges.
    pub(crate) pattern: &'a str,
}

/// Uploads the filter, binds it at ingress, and activates it.
pub(crate) fn bind(admin: SocketAddr, filter: Filter<'_>) -> anyhow::Result<()> {
    let bytes = std::fs::read(filter.file).with_context(|| format!("cannot read {}", filter.file.display()))?;
    let stem = filter.file.file_stem().and_then(|stem| stem.to_str()).context("the filter's file has no name")?;
    let name: String = stem.chars().take_while(|sign| sign.is_ascii_alphanumeric() || *sign == '-').collect();
    let name = name.trim_end_matches('-').to_ascii_lowercase();
    request(admin, "PUT", &format!("/v1/modules/{name}/versions/{VERSION}"), "application/wasm", &bytes)?;
    let binding = json!({
        "module": format!("{name}@{VERSION}"), "pattern": filter.pattern, "stage": "ingress", "config": filter.config,
        "grant": { "topics": filter.grant },
    });
    send_json(admin, "PUT", "/v1/bindings/bench", &binding)?;
    send_json(admin, "POST", "/v1/rollouts", &json!({ "note": "bench" }))
}

fn send_json(admin: SocketAddr, method: &str, path: &str, body: &Value) -> anyhow::Result<()> {
    request(admin, method, path, "application/json", body.to_string().as_bytes())
}

fn request(admin: SocketAddr, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(admin).with_context(|| format!("no admin API at {admin}"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).with_context(|| format!("no answer to {method} {path}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let status = status(&answer).with_context(|| format!("{method} {path}: not an HTTP answer"))?;
    ensure!(status != 404, "{method} {path}: this router does not have it");
    if !(200..300).contains(&status) {
        let problem = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        bail!("{method} {path}: {status} {problem}");
    }
    Ok(())
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_refusal_is_an_error_with_its_problem() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let admin = listener.local_addr().expect("it is bound");
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 201 Created\r\n\r\n{}", "HTTP/1.1 409 Conflict\r\n\r\n{\"code\":\"stale\"}"] {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut head = [0; 4096];
                let read = stream.read(&mut head).expect("a request");
                assert!(head[..read].starts_with(b"PUT /x HTTP/1.1\r\nHost: 127.0.0.1:"));
                stream.write_all(answer.as_bytes()).expect("it is read");
            }
        });
        request(admin, "PUT", "/x", "application/json", b"").expect("201 is fine");
        let refused = request(admin, "PUT", "/x", "application/json", b"").expect_err("409 is not").to_string();
        assert_eq!(refused, "PUT /x: 409 {\"code\":\"stale\"}");
        server.join().expect("the server saw what it should");
    }
}
