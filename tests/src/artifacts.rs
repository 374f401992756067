//! Debian's `docker-registry` on loopback, with TLS and a password or without either.

use anyhow::{Context, Result, ensure};
use myelin_transport::ca::{CA_CERT_FILE, CertificateAuthority};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who may use it, as `htpasswd -B` writes it: the password is [`PASSWORD`], and the cost the least that bcrypt has.
const USERS: &str = "alice:$2y$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";
/// The user.
pub const USERNAME: &str = "alice";
/// The user's password.
pub const PASSWORD: &str = "sesame";
/// What it says once it serves.
const LISTENING: &str = "listening on ";

/// A running registry. Ends with the test.
#[derive(Debug)]
pub struct ArtifactRegistry {
    folder: tempfile::TempDir,
    process: Child,
    addr: SocketAddr,
}

impl ArtifactRegistry {
    /// One with TLS and a password; its files are in `storage`.
    ///
    /// # Errors
    /// When it does not come up: the package `docker-registry` is missing.
    pub fn start(storage: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = CertificateAuthority::create("registry.test", 30)?;
        authority.save(folder.path())?;
        let issued = authority.issue_router("site", "registry", &["127.0.0.1".to_owned()], 30)?;
        let (cert, key) = issued.save(folder.path(), "registry")?;
        let users = folder.path().join("users");
        std::fs::write(&users, USERS)?;
        let tls = format!("\n  tls:\n    certificate: {}\n    key: {}", cert.display(), key.display());
        let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", users.display());
        Self::launch(folder, storage, &tls, &auth)
    }

    /// One without TLS, open to everybody on this machine.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_open(storage: &Path) -> Result<Self> {
        Self::launch(tempfile::tempdir()?, storage, "", "")
    }

    fn launch(folder: tempfile::TempDir, storage: &Path, tls: &str, auth: &str) -> Result<Self> {
        let (config, log) = (folder.path().join("config.yml"), folder.path().join("log"));
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n{auth}http:\n  \
             addr: 127.0.0.1:0\n  secret: of the tests{tls}\n",
            storage.display()
        );
        std::fs::write(&config, text)?;
        let file = std::fs::File::create(&log)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        let process = command.spawn().context("docker-registry: `cargo xtask setup` installs it")?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut registry = Self { folder, process, addr: nowhere };
        let begin = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log)?;
            if let Some((_, rest)) = said.split_once(LISTENING) {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
                registry.addr = rest[..end].parse().with_context(|| said.clone())?;
                return Ok(registry);
            }
            let has_ended = registry.process.try_wait()?.is_some();
            ensure!(!has_ended && begin.elapsed() < PATIENCE, "docker-registry does not come up: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The authority that says who it is.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join(CA_CERT_FILE)
    }
}

impl Drop for ArtifactRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
