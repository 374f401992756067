//! Servers for tests: real ones, started here and ended with the test's process.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};

use super::JetstreamOptions;

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
pub enum Sync {
    /// What is acknowledged is on the disk.
    Always,
    /// As servers come.
    Lazy,
}

/// A running server. Killed and cleaned up when dropped.
pub struct Server {
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
    pub fn alone(sync: Sync) -> Self {
        let [port] = free_ports();
        // Before anything is made that only the server's keeper removes.
        program();
        Self::start("alone", port, sync, "", &new_folder())
    }

    /// One that speaks TLS and wants certificates. `certificates` has `ca.pem`, `server.pem` and `server.key`.
    pub fn with_tls(certificates: &Path) -> Self {
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

    /// Where it is, for the user of that name: `app`, or `sys` of the system account.
    pub fn url(&self, user: &str) -> String {
        format!("nats://{user}:{user}@127.0.0.1:{}", self.port)
    }

    /// Sends it a signal, such as `KILL`.
    pub fn signal(&self, signal: &str) {
        // The shell's own: a small machine has no program of that name.
        let sent = Command::new("sh").args(["-c", "kill -s $0 $1", signal, &self.pid.to_string()]).status().unwrap();
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
pub struct Cluster {
    /// Those that run.
    pub servers: Vec<Option<Server>>,
    ports: [u16; 6],
    folder: PathBuf,
}

impl Cluster {
    /// Starts them.
    pub fn start() -> Self {
        program();
        let mut cluster = Self { servers: Vec::new(), ports: free_ports(), folder: new_folder() };
        for n in 0..3 {
            let server = cluster.server(n);
            cluster.servers.push(Some(server));
        }
        cluster
    }

    /// Ends a server as a crash does. What it wrote stays.
    pub fn kill(&mut self, n: usize) {
        let mut server = self.servers[n].take().unwrap();
        server.signal("KILL");
        // The keeper first, which would remove what the server wrote.
        server.keeper.kill().unwrap();
        server.keeper.wait().unwrap();
    }

    /// What one that was killed had written is gone.
    pub fn lose_disk(&self, n: usize) {
        assert!(self.servers[n].is_none());
        std::fs::remove_dir_all(self.folder.join(n.to_string())).unwrap();
    }

    /// Starts one that was killed, on what it had written.
    pub fn revive(&mut self, n: usize) {
        assert!(self.servers[n].is_none());
        self.servers[n] = Some(self.server(n));
    }

    /// Where they are.
    pub fn urls(&self) -> Vec<String> {
        self.ports[..3].iter().map(|port| format!("nats://app:app@127.0.0.1:{port}")).collect()
    }

    /// The same for the user of the system account.
    pub fn system_urls(&self) -> Vec<String> {
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

/// Does something with a client of its own.
pub(super) fn with_client<T>(options: &JetstreamOptions, work: impl AsyncFnOnce(Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = super::connect::connect(options, &options.urls, None).await.unwrap();
        work(jetstream::new(client)).await
    })
}

/// Which server of a cluster leads the stream of records, as soon as one does.
///
/// # Panics
/// When none does in time.
pub fn leader(options: &JetstreamOptions) -> usize {
    let began = Instant::now();
    while began.elapsed() < options.patience() {
        let name = with_client(options, async |context| {
            let stream = context.get_stream(&options.stream).await.ok()?;
            stream.cached_info().cluster.as_ref()?.leader.clone()
        });
        if let Some(n) = name.and_then(|name| name.strip_prefix('n')?.parse().ok()) {
            return n;
        }
    }
    panic!("the stream has no leader");
}
