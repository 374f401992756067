//! The admin API asked by hand: a test sends exactly the bytes that it means.

use crate::Router;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The router compiles an uploaded module before it answers.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The stable code of a problem; empty where it is none.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and code.
    pub fn problem(&self) -> (u16, String) {
        (self.status, self.code())
    }
}

/// Sends a request whose body is announced with its own length unless a header says otherwise.
///
/// # Errors
/// When nothing that is HTTP comes back.
pub fn ask(admin: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    exchange(admin, &request(admin, method, path, headers, body))
}

/// The bytes of a request, after which the connection closes.
pub fn request(admin: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n");
    let announces = |(name, _): &&(&str, &str)| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    };
    if headers.iter().find(announces).is_none() && (!body.is_empty() || method != "GET") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Sends these bytes and reads to the end.
///
/// # Errors
/// When nothing that is HTTP comes back.
pub fn exchange(admin: SocketAddr, bytes: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A server that has answered early may not read the rest.
    let _ = stream.write_all(bytes);
    read_to_end(stream)
}

/// The answer that this connection ends with.
///
/// # Errors
/// When it is no HTTP.
pub fn read_to_end(stream: TcpStream) -> Result<Answer> {
    let mut read = Vec::new();
    // What came before a reset counts.
    let end = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut read);
    let answer = parse(&read);
    answer.with_context(|| format!("no answer: {end:?} {}", String::from_utf8_lossy(&read)))
}

fn parse(read: &[u8]) -> Option<Answer> {
    let end = read.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&read[..end]).ok()?;
    Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, body: read[end + 4..].to_vec() })
}

impl Router {
    /// Asks this router's admin API.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        self.inside(|| ask(self.admin_addr(), method, path, headers, body))?
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn send_json(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        self.ask(method, path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// Uploads a module.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn upload(&self, name: &str, version: &str, wasm: &[u8]) -> Result<Answer> {
        let path = format!("/v1/modules/{name}/versions/{version}");
        self.ask("PUT", &path, &[("Content-Type", "application/wasm")], wasm)
    }

    /// The sum of all series of the metric `name`, whatever their labels.
    ///
    /// # Errors
    /// When the metrics cannot be read.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let answer = self.ask("GET", "/metrics", &[], b"")?;
        let text = String::from_utf8(answer.body)?;
        let series = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next())?
        });
        Ok(series.filter_map(|value| value.parse::<u64>().ok()).sum())
    }
}
