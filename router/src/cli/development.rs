//! What `--dev` makes for itself: a CA, a router certificate and a client certificate, in `<data_dir>/dev/`.

use super::failure::Result;
use super::values::write_atomically;
use crate::config::Config;
use anyhow::Context;
use myelin_transport::ca::{CA_CERT_FILE, CA_KEY_FILE, CertificateAuthority};
use myelin_transport::{Identity, TlsFiles, TlsIdentity};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The trust domain of every development CA. Each has a key of its own, so they do not trust each other.
const TRUST_DOMAIN: &str = "myelin.dev";
/// What the development client is called.
const CLIENT: &str = "dev";
const CA_DAYS: u32 = 3_650;
const LEAF_DAYS: u32 = 365;
/// Certificates that end sooner than this are made anew at start, in seconds: 30 days.
const RENEW_BEFORE_S: i64 = 30 * 86_400;
/// Which host names the router's certificate was made for.
const HOSTS_FILE: &str = "hosts";

/// Where `--dev` keeps its files, below the data directory.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("dev")
}

/// The files of the development client.
pub(super) fn client_files(data_dir: &Path) -> TlsFiles {
    files(&folder(data_dir), "client")
}

/// Who the development client is.
pub(super) fn client_identity() -> Result<Identity> {
    Ok(Identity::service(TRUST_DOMAIN, CLIENT).context("the development client's identity")?)
}

/// The files of the development router.
pub(super) fn router_files(data_dir: &Path) -> TlsFiles {
    files(&folder(data_dir), "router")
}

/// What a running development router says about itself, for the other commands on this machine.
pub(super) fn ready_file(data_dir: &Path) -> PathBuf {
    folder(data_dir).join("ready.json")
}

/// The router's files, made where they are missing, damaged, about to expire or for another name.
pub(super) fn prepare(config: &Config) -> Result<TlsFiles> {
    let folder = folder(&config.node.data_dir);
    let doing = || format!("development certificates in {}", folder.display());
    let router = Identity::router(TRUST_DOMAIN, &config.node.site, &config.node.name)
        .context("the router's identity ([node] site and name)")?;
    let client = client_identity()?;
    let authority = authority(&folder).with_context(doing)?;

    let hosts = hosts(config);
    let hosts_file = folder.join(HOSTS_FILE);
    let is_for_hosts = std::fs::read_to_string(&hosts_file).is_ok_and(|text| text == hosts.join("\n"));
    let router_files = files(&folder, "router");
    if !is_for_hosts || !is_usable(&router_files, &router) {
        authority
            .issue_router(&config.node.site, &config.node.name, &hosts, LEAF_DAYS)
            .and_then(|issued| issued.save(&folder, "router"))
            .with_context(doing)?;
        write_atomically(&hosts_file, &hosts.join("\n")).with_context(doing)?;
    }
    if !is_usable(&files(&folder, "client"), &client) {
        authority
            .issue_service(CLIENT, LEAF_DAYS)
            .and_then(|issued| issued.save(&folder, "client"))
            .with_context(doing)?;
    }
    Ok(router_files)
}

fn files(folder: &Path, stem: &str) -> TlsFiles {
    TlsFiles {
        cert: folder.join(format!("{stem}.pem")),
        key: folder.join(format!("{stem}-key.pem")),
        ca: folder.join(CA_CERT_FILE),
    }
}

/// Gives the routers of these data directories one CA, the first one's, so that they trust each other.
pub(super) fn share_authority(data_dirs: &[PathBuf]) -> Result<()> {
    let Some((first, others)) = data_dirs.split_first() else { return Ok(()) };
    let first = folder(first);
    authority(&first).with_context(|| format!("development certificates in {}", first.display()))?;
    for other in others.iter().map(|dir| folder(dir)) {
        std::fs::create_dir_all(&other).with_context(|| format!("making {}", other.display()))?;
        for name in [CA_CERT_FILE, CA_KEY_FILE] {
            let (from, to) = (first.join(name), other.join(name));
            let is_there = |file: &Path| std::fs::read(file).ok();
            // Left alone where it is the same: what is newer than a certificate makes it be issued anew.
            if is_there(&from) != is_there(&to) {
                std::fs::copy(&from, &to).with_context(|| format!("writing {}", to.display()))?;
            }
        }
    }
    Ok(())
}

/// The CA that is there, or a new one.
fn authority(folder: &Path) -> anyhow::Result<CertificateAuthority> {
    let (cert, key) = (folder.join(CA_CERT_FILE), folder.join(CA_KEY_FILE));
    if cert.exists() || key.exists() {
        match CertificateAuthority::load(folder) {
            Ok(authority) if authority.trust_domain() == TRUST_DOMAIN => return Ok(authority),
            Ok(other) => anyhow::bail!(
                "{} is the CA of `{}`, not one that --dev made; move it away",
                cert.display(),
                other.trust_domain()
            ),
            // An interrupted first start leaves the key alone behind; nobody can trust such a CA yet.
            Err(_) if !cert.exists() => std::fs::remove_file(&key).context("the rest of an interrupted start")?,
            Err(error) => anyhow::bail!("{error}; remove {} to have new certificates made", folder.display()),
        }
    }
    let authority = CertificateAuthority::create(TRUST_DOMAIN, CA_DAYS)?;
    authority.save(folder)?;
    Ok(authority)
}

/// Whether the files load, are `identity`'s, and stay good for a while.
fn is_usable(files: &TlsFiles, identity: &Identity) -> bool {
    let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let needed_until = i64::try_from(now_unix_s).unwrap_or(i64::MAX).saturating_add(RENEW_BEFORE_S);
    // Loading does not check that our own CA signed it: a CA made anew takes its leaves along.
    TlsIdentity::load(files).is_ok_and(|tls| tls.identity() == *identity && tls.not_after_unix_s() > needed_until)
        && is_newer(&files.cert, &files.ca)
}

/// Whether `file` was written after `than`.
fn is_newer(file: &Path, than: &Path) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    matches!((modified(file), modified(than)), (Some(file), Some(than)) if file >= than)
}

fn hosts(config: &Config) -> Vec<String> {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    let address = config.listen.client.ip();
    if !address.is_loopback() && !address.is_unspecified() {
        hosts.push(address.to_string());
    }
    hosts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn config(folder: &Path) -> Config {
        let mut config = Config::default();
        config.node.data_dir = folder.join("data");
        config
    }

    fn text(file: &Path) -> String {
        std::fs::read_to_string(file).unwrap()
    }

    #[test]
    fn certificates_are_made_once_and_then_reused() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let router = prepare(&config).unwrap();
        let client = client_files(&config.node.data_dir);
        assert_eq!(TlsIdentity::load(&router).unwrap().identity().as_str(), "spiffe://myelin.dev/site/local/router/r1");
        assert_eq!(TlsIdentity::load(&client).unwrap().identity().as_str(), "spiffe://myelin.dev/service/dev");
        let before = [&router.cert, &router.ca, &client.cert].map(|file| text(file));
        prepare(&config).unwrap();
        assert_eq!(before, [&router.cert, &router.ca, &client.cert].map(|file| text(file)));
    }

    #[test]
    fn another_name_or_a_lost_file_is_made_good_under_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        let router = prepare(&config).unwrap();
        let (ca, cert) = (text(&router.ca), text(&router.cert));
        config.node.name = "r2".into();
        std::fs::remove_file(client_files(&config.node.data_dir).key).unwrap();
        prepare(&config).unwrap();
        assert_eq!(text(&router.ca), ca);
        assert_ne!(text(&router.cert), cert);
        assert!(TlsIdentity::load(&client_files(&config.node.data_dir)).is_ok());
    }

    #[test]
    fn a_damaged_authority_is_told_and_an_interrupted_one_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let router = prepare(&config).unwrap();
        std::fs::write(&router.ca, "damaged").unwrap();
        assert!(prepare(&config).unwrap_err().what.contains("remove"));
        std::fs::remove_file(&router.ca).unwrap();
        prepare(&config).unwrap();
        assert!(TlsIdentity::load(&router).is_ok());
    }
}
