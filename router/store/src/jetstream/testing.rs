//! Servers for tests: real ones, started here and ended with the test's process.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use myelin_catalog::Digest;

use super::{JetstreamOptions, JetstreamStore};
use crate::conformance::{Damage, Disk};
use crate::error::StoreError;
use crate::store::Recovered;

/// How long a server may take to start.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server and ends it, and what it wrote, when nobody holds the other end of its input any more: also when the
/// test's process is killed. `$1` the program, `$2` its configuration, `$3` its folder.
const KEEPER: &str =
    r#""$1" -c "$2" >"$3/log" 2>&1 & pid=$!; echo "$pid"; read -r _; kill -9 "$pid" 2>/dev/null; wait; rm -rf "$3""#;

/// The `nats-server` under test: `MYELIN_NATS_SERVER`, or the one that `cargo xtask setup` has installed.
///
/// # Panics
/// When there is none: a test that cannot run has failed.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("MYELIN_NATS_SERVER") {
        return named.into();
    }
    let own = std::env::current_exe().unwrap();
    let installed = own.ancestors().map(|folder| folder.join("python/bin/nats-server")).find(|path| path.is_file());
    installed.expect("no `nats-server`: run `cargo xtask setup`, or name one in MYELIN_NATS_SERVER")
}

/// What is said of a server beside its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Always,
    /// As servers come.
    Lazy,
}

/// A running server. Killed and cleaned up when dropped.
pub(crate) struct Server {
    keeper: Child,
    pid: u32,
    port: u16,
}

impl Server {
    /// `more` is the rest of its configuration.
    fn start(name: &str, port: u16, sync: Sync, more: &str, folder: &Path) -> Self {
        let program = program();
        std::fs::create_dir_all(folder).unwrap();
        let sync = if sync == Sync::Always { "sync_interval: always" } else { "" };
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\nserver_name: {name}\n\
             jetstream {{ store_dir: \"{}\", max_mem: 64M, max_file: 1G, {sync} }}\n{more}\n\
             accounts {{\n SYS {{ users: [{{ user: sys, password: sys }}] }}\n \
             APP {{ jetstream: enabled, users: [{{ user: app, password: app }}] }}\n}}\nsystem_account: SYS\n",
            folder.join("data").display()
        );
        let config_file = folder.join("server.conf");
        std::fs::write(&config_file, config).unwrap();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .args([&program, &config_file, &folder.to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let server = Self { keeper, pid: pid.trim().parse().unwrap(), port };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(began.elapsed() < START_PATIENCE, "the server does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// A server by itself.
    pub(crate) fn alone(sync: Sync) -> Self {
        let [port] = free_ports();
        // Before anything is made that only the server's keeper removes.
        program();
        Self::start("alone", port, sync, "", &new_folder())
    }

    /// One that speaks TLS and wants certificates. `certificates` has `ca.pem`, `server.pem` and `server.key`.
    pub(crate) fn with_tls(certificates: &Path) -> Self {
        let [port] = free_ports();
        program();
        let file = |name: &str| certificates.join(name).display().to_string();
        let tls = format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
            file("server.pem"),
            file("server.key"),
            file("ca.pem")
        );
        Self::start("tls", port, Sync::Always, &tls, &new_folder())
    }

    pub(crate) fn url(&self, user: &str) -> String {
        format!("nats://{user}:{user}@127.0.0.1:{}", self.port)
    }

    /// Sends it a signal, such as `KILL`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.pid.to_string()]).status().unwrap();
        assert!(sent.success(), "kill -s {signal} {}", self.pid);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The keeper kills the server and removes its folder, which takes as long as it takes.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Three servers that are one.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Option<Server>>,
    ports: [u16; 6],
    folder: PathBuf,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        program();
        let mut cluster = Self { servers: Vec::new(), ports: free_ports(), folder: new_folder() };
        for n in 0..3 {
            let server = cluster.server(n);
            cluster.servers.push(Some(server));
        }
        cluster
    }

    /// Ends a server as a crash does. What it wrote stays.
    pub(crate) fn kill(&mut self, n: usize) {
        let mut server = self.servers[n].take().unwrap();
        server.signal("KILL");
        // The keeper first, which would remove what the server wrote.
        server.keeper.kill().unwrap();
        server.keeper.wait().unwrap();
    }

    /// Starts one that was killed, on what it had written.
    pub(crate) fn revive(&mut self, n: usize) {
        assert!(self.servers[n].is_none());
        self.servers[n] = Some(self.server(n));
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.ports[..3].iter().map(|port| format!("nats://app:app@127.0.0.1:{port}")).collect()
    }

    pub(crate) fn system_urls(&self) -> Vec<String> {
        self.ports[..3].iter().map(|port| format!("nats://sys:sys@127.0.0.1:{port}")).collect()
    }

    fn server(&self, n: usize) -> Server {
        let routes: Vec<String> = self.ports[3..].iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let own = self.ports[3 + n];
        let cluster =
            format!("cluster {{ name: test, listen: \"127.0.0.1:{own}\", routes: [\"{}\"] }}", routes.join("\", \""));
        Server::start(&format!("n{n}"), self.ports[n], Sync::Always, &cluster, &self.folder.join(n.to_string()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.servers.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Ports that nobody had a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn new_folder() -> PathBuf {
    tempfile::Builder::new().prefix("myelin-nats-").tempdir().unwrap().keep()
}

/// One server for all tests of a process; each has a stream of its own there.
pub(crate) fn common_server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::alone(Sync::Always))
}

/// Options for one server.
pub(crate) fn options(url: String) -> JetstreamOptions {
    static STREAMS: AtomicUsize = AtomicUsize::new(0);
    JetstreamOptions {
        urls: vec![url],
        stream: format!("T{}", STREAMS.fetch_add(1, Ordering::Relaxed)),
        replicas: 1,
        allow_single_replica: true,
        servers_sync_always: true,
        orphan_age_min_s: 0,
        ..JetstreamOptions::default()
    }
}

/// Does something with a client of its own.
pub(crate) fn with_client<T>(options: &JetstreamOptions, work: impl AsyncFnOnce(Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = super::connect::connect(options, &options.urls, None).await.unwrap();
        work(jetstream::new(client)).await
    })
}

/// Writes an authority and what it signed into a folder: `ca.pem`, and `.pem` and `.key` of `server` and `router`.
pub(crate) fn write_certificates(folder: &Path) {
    let write = |name: String, text: String| std::fs::write(folder.join(name), text).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    write("ca.pem".into(), authority.self_signed(&key).unwrap().pem());
    let issuer = rcgen::Issuer::new(authority, key);
    for name in ["server", "router"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        write(format!("{name}.pem"), leaf.signed_by(&key, &issuer).unwrap().pem());
        write(format!("{name}.key"), key.serialize_pem());
    }
}

/// A log on the common server, for the conformance suite.
pub(crate) struct Log {
    pub(crate) options: JetstreamOptions,
    /// Which revisions the messages were written with, where some were tampered with.
    revs: Mutex<Option<Vec<u64>>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { options: options(common_server().url("app")), revs: Mutex::new(None) }
    }
}

impl Disk for Log {
    type Store = JetstreamStore;

    fn open(&self) -> Result<(JetstreamStore, Recovered), StoreError> {
        JetstreamStore::open(&self.options)
    }

    /// Nothing can be changed in such a stream: it is made anew.
    fn tamper_record(&self, rev: u64, change: Damage) {
        let mut revs = self.revs.lock().unwrap();
        with_client(&self.options, async |context| {
            let stream = context.get_stream(&self.options.stream).await.unwrap();
            let info = stream.cached_info();
            let mut messages = Vec::new();
            for sequence in 1..=info.state.last_sequence {
                let message = stream.get_raw_message(sequence).await.unwrap();
                messages.push((message.subject, message.payload.to_vec()));
            }
            let is_record = |subject: &str| subject.ends_with(".record");
            let records = messages.iter().filter(|(subject, _)| is_record(subject)).count() as u64;
            let revs = revs.get_or_insert_with(|| (1..=records).collect());
            let nth = revs.iter().position(|written| *written == rev).unwrap();
            let places: Vec<usize> = (0..messages.len()).filter(|n| is_record(&messages[*n].0)).collect();
            match change(messages[places[nth]].1.clone()) {
                Some(bytes) => messages[places[nth]].1 = bytes,
                None => {
                    messages.remove(places[nth]);
                    revs.remove(nth);
                }
            }
            context.delete_stream(&self.options.stream).await.unwrap();
            context.create_stream(info.config.clone()).await.unwrap();
            for (subject, payload) in messages {
                let sent = context.publish_with_headers(subject, HeaderMap::new(), payload.into()).await;
                sent.unwrap().await.unwrap();
            }
        });
    }

    fn tamper_blob(&self, digest: &Digest, change: Damage) {
        let name = digest.to_string();
        with_client(&self.options, async |context| {
            let bucket = context.get_object_store(self.options.blob_bucket()).await.unwrap();
            let mut bytes = Vec::new();
            let mut object = bucket.get(&name).await.unwrap();
            tokio::io::AsyncReadExt::read_to_end(&mut object, &mut bytes).await.unwrap();
            match change(bytes) {
                Some(bytes) => drop(bucket.put(name.as_str(), &mut bytes.as_slice()).await.unwrap()),
                None => bucket.delete(&name).await.unwrap(),
            }
        });
    }
}
