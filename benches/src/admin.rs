//! Just enough HTTP to put filters on a router.

use anyhow::{Context, bail, ensure};
use myelin_load::Form;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How long the router may take for an answer: compiling a module is the slowest.
const ANSWER: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Versions that the bench uploads its filter as: the same bytes, so that a swap costs the swap alone.
const VERSIONS: [&str; 2] = ["0.0.1", "0.0.2"];
/// Policies beside the one that permits everything.
const POLICIES: usize = 50;

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

/// What a rollout says about itself.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Rollout {
    /// How long it took, preparing included.
    pub(crate) took_ms: u64,
    /// The longest that a worker paused.
    pub(crate) swap_us_max: u64,
    /// The most CPU time that a worker used for it.
    pub(crate) swap_cpu_us_max: u64,
}

/// A filter on a router: bindings of it at ingress.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    admin: SocketAddr,
    module: String,
    binding: Value,
    swaps: usize,
}

impl Bound {
    /// Uploads the filter, binds it `count` times at ingress, and activates it.
    pub(crate) fn new(admin: SocketAddr, filter: Filter<'_>, count: usize) -> anyhow::Result<Self> {
        let bytes = std::fs::read(filter.file).with_context(|| format!("cannot read {}", filter.file.display()))?;
        let stem = filter.file.file_stem().and_then(|stem| stem.to_str()).context("the filter's file has no name")?;
        let name: String = stem.chars().take_while(|sign| sign.is_ascii_alphanumeric() || *sign == '-').collect();
        let module = name.trim_end_matches('-').to_ascii_lowercase();
        for version in VERSIONS {
            request(admin, "PUT", &format!("/v1/modules/{module}/versions/{version}"), "application/wasm", &bytes)?;
        }
        let binding = json!({
            "module": null, "pattern": filter.pattern, "stage": "ingress", "config": filter.config,
            "grant": { "topics": filter.grant },
        });
        let bound = Self { admin, module, binding, swaps: 0 };
        for number in 0..count {
            bound.stage(number)?;
        }
        bound.roll_out()?;
        Ok(bound)
    }

    /// Swaps the first binding to the other version.
    pub(crate) fn swap(&mut self) -> anyhow::Result<Rollout> {
        self.swaps += 1;
        self.stage(0)?;
        self.roll_out()
    }

    /// Stages binding `number` with the version that is due.
    fn stage(&self, number: usize) -> anyhow::Result<()> {
        let mut binding = self.binding.clone();
        binding["module"] = format!("{}@{}", self.module, VERSIONS[self.swaps % VERSIONS.len()]).into();
        send_json(self.admin, "PUT", &format!("/v1/bindings/bench-{number}"), &binding).map(drop)
    }

    fn roll_out(&self) -> anyhow::Result<Rollout> {
        let answer = send_json(self.admin, "POST", "/v1/rollouts", &json!({ "note": "bench" }))?;
        serde_json::from_str(&answer).context("the answer to a rollout is not as known")
    }
}

/// Puts policies, a tenant and a rule with a schema on a router: for `pattern`, where the events have a form with a schema,
/// else for other topics.
pub(crate) fn govern(admin: SocketAddr, pattern: &str, form: Form) -> anyhow::Result<()> {
    let root = pattern.trim_end_matches("/**");
    // More than any router takes, so that everything is metered and nobody waits.
    let quota = json!({"events_per_s": 1_000_000_000_000_u64, "bytes_per_s": 1_000_000_000_000_000_u64});
    let tenant = json!({"services": ["spiffe://myelin.dev/*"], "root": root, "quota": quota});
    send_json(admin, "PUT", "/v1/tenants/bench", &tenant)?;
    for number in 0..POLICIES {
        let text =
            format!("forbid (principal, action, resource) when {{ resource.name like \"{root}/closed-{number}/*\" }};");
        send_json(admin, "PUT", &format!("/v1/policies/closed-{number}"), &json!({"text": text}))?;
    }
    let all = json!({"text": "permit (principal, action, resource);"});
    send_json(admin, "PUT", "/v1/policies/all", &all)?;
    let (kind, schema) = form.schema().or(Form::Json.schema()).context("JSON has a schema")?;
    let schema = json!({"schemaType": kind, "schema": schema});
    send_json(admin, "POST", "/registry/subjects/bench/versions", &schema)?;
    let elsewhere = format!("{root}/closed-0/**");
    let pattern = if form == Form::Raw { &elsewhere } else { pattern };
    send_json(admin, "PUT", "/v1/topics/bench", &json!({"pattern": pattern, "schema": {"subject": "bench"}})).map(drop)
}

/// How many links a router has to others.
pub(crate) fn links(admin: SocketAddr) -> anyhow::Result<usize> {
    #[derive(Deserialize)]
    struct Mesh {
        links: Vec<serde::de::IgnoredAny>,
    }
    let answer = request(admin, "GET", "/v1/mesh", "application/json", b"")?;
    Ok(serde_json::from_str::<Mesh>(&answer).context("the answer about the mesh is not as known")?.links.len())
}

fn send_json(admin: SocketAddr, method: &str, path: &str, body: &Value) -> anyhow::Result<String> {
    request(admin, method, path, "application/json", body.to_string().as_bytes())
}

/// The body of a good answer.
fn request(admin: SocketAddr, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<String> {
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
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if !(200..300).contains(&status) {
        bail!("{method} {path}: {status} {body}");
    }
    Ok(body.to_owned())
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
        assert_eq!(request(admin, "PUT", "/x", "application/json", b"").expect("201 is fine"), "{}");
        let refused = request(admin, "PUT", "/x", "application/json", b"").expect_err("409 is not").to_string();
        assert_eq!(refused, "PUT /x: 409 {\"code\":\"stale\"}");
        server.join().expect("the server saw what it should");
    }
}
