//! `myelin config default|check`

use super::failure::{Exit, Failure, Result};
use super::secrets;
use super::serve;
use super::values::{print, say};
use crate::admin::{Token, TokenError};
use crate::config::{Config as Configuration, DEFAULT_TOML, Sources};
use crate::otlp;
use crate::tokens::Tokens;
use clap::Subcommand;
use myelin_transport::TlsIdentity;
use std::path::PathBuf;

/// Show or check configuration
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Print every key with its default and its explanation
    #[command(after_help = "Example:\n  myelin config default > myelin.toml")]
    Default,
    /// Tell everything that is wrong with a configuration, environment included
    #[command(after_help = "Example:\n  MYELIN_NODE__SITE=hamburg myelin config check -c myelin.toml")]
    Check {
        /// The file; ./myelin.toml where there is one
        #[arg(short, long = "config", value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

impl Config {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Default => {
                print(DEFAULT_TOML);
                Ok(())
            }
            Self::Check { config } => check(config),
        }
    }
}

fn check(file: Option<PathBuf>) -> Result<()> {
    let file = serve::config_file(file);
    let config = Sources::of_process(file.as_deref(), Vec::new()).and_then(|sources| Configuration::load(&sources))?;
    check_files(&config)?;
    for authority in left_out(&config) {
        eprintln!(
            "warning: [tls] ca: {authority}: it is not trusted\n  next: take it out, or give one of this trust domain"
        );
    }
    for exposed in secrets::exposed(&config) {
        eprintln!("warning: {exposed}\n  next: {}", exposed.step());
    }
    for (idle, step) in config.idle() {
        eprintln!("warning: {idle}\n  next: {step}");
    }
    match file {
        Some(file) => say!("{} is good", file.display()),
        None => say!("no file is given and ./myelin.toml does not exist; defaults and environment are good"),
    }
    Ok(())
}

/// The authorities that a router would not trust, since they name another trust domain than its own.
fn left_out(config: &Configuration) -> Vec<String> {
    let tls = serve::tls_files(config).and_then(|files| TlsIdentity::load(&files).ok());
    tls.map(|tls| tls.left_out_authorities()).unwrap_or_default()
}

/// What the files hold that a configuration names is as much a part of it as their names: what `myelin serve` would refuse
/// is refused here.
fn check_files(config: &Configuration) -> Result<()> {
    let mut faults = Vec::new();
    if let Some(files) = serve::tls_files(config) {
        faults.extend(serve::router_identity(&files).err());
        faults.extend(serve::check_site(config, &files).err());
    }
    if let Some(file) = &config.admin.token_file {
        let told = |error| match error {
            // That names the file and the setting.
            TokenError::File { .. } => Failure::new(Exit::Usage, error.to_string()),
            TokenError::Text => Failure::of_file(file, error).doing("[admin] token_file"),
        };
        faults.extend(Token::read(file).map_err(told).err());
    }
    let usage = |error: anyhow::Error| Failure { exit: Exit::Usage, ..error.into() };
    let data_dir = &config.node.data_dir;
    if data_dir.exists() && !data_dir.is_dir() {
        let what = format!("[node] data_dir: {} is a file, and no folder", data_dir.display());
        faults.push(Failure::new(Exit::Usage, what).next("give the folder where the router keeps its state"));
    } else {
        faults.extend(Tokens::check(&config.jwt, data_dir).map_err(usage).err());
    }
    faults.extend(otlp::Target::load(&config.telemetry).map_err(usage).err());
    if faults.len() <= 1 {
        return faults.pop().map_or(Ok(()), Err);
    }
    let told: Vec<_> =
        faults.iter().map(|fault| format!("  {}", fault.to_string().trim_start_matches("error: "))).collect();
    let what = format!("{} faults in what the configuration names\n{}", faults.len(), told.join("\n"));
    Err(Failure::new(Exit::Usage, what).next("mend these, then look again with `myelin config check`"))
}

impl From<crate::config::ConfigErrors> for Failure {
    fn from(errors: crate::config::ConfigErrors) -> Self {
        let count = errors.0.len();
        let what = match &errors.0[..] {
            [only] => format!("{}: {}", only.place, only.problem),
            _ => format!("{count} faults in the configuration\n{errors}"),
        };
        let next = match &errors.0[..] {
            [only] => only.remedy.clone(),
            _ => "mend these, then look again with `myelin config check`".into(),
        };
        Self::new(Exit::Usage, what).next(next)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use myelin_transport::ca::CertificateAuthority;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn told(config: &Configuration) -> String {
        check_files(config).err().map(|failure| failure.to_string()).unwrap_or_default()
    }

    fn certified(folder: &Path, is_router: bool) -> Configuration {
        let authority = CertificateAuthority::create("test", 2).unwrap();
        let issued = match is_router {
            true => authority.issue_router("site", "r1", &["localhost".to_owned()], 1),
            false => authority.issue_service("shop", 1),
        };
        let (cert, key) = issued.unwrap().save(folder, "own").unwrap();
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, authority.cert_pem()).unwrap();
        let mut config = Configuration::default();
        config.node.site = "site".to_owned();
        (config.tls.cert, config.tls.key, config.tls.ca) = (Some(cert), Some(key), Some(ca));
        config
    }

    #[test]
    fn an_authority_of_another_trust_domain_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = certified(folder.path(), true);
        assert_eq!(left_out(&config), Vec::<String>::new());
        let (file, other) = (config.tls.ca.clone().unwrap(), CertificateAuthority::create("other.example", 2).unwrap());
        let own = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{own}{}", other.cert_pem())).unwrap();
        assert_eq!(told(&config), "", "the router would run");
        let told_of = left_out(&config);
        let says = |part: &str| told_of.len() == 1 && told_of[0].contains(part);
        let parts = ["CN=Myelin CA other.example", "names the trust domain other.example", "not test", "ca.pem"];
        assert!(parts.into_iter().all(says), "{told_of:?}");
        std::fs::write(&file, other.cert_pem()).unwrap();
        assert!(told(&config).contains("no authority for this trust domain, test"), "{}", told(&config));
    }

    #[test]
    fn what_serve_would_refuse_is_told_before() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(told(&Configuration::default()), "");
        assert_eq!(told(&certified(folder.path(), true)), "");
        let refused = told(&certified(folder.path(), false));
        assert!(refused.contains("spiffe://test/service/shop") && refused.contains("cert issue router"), "{refused}");

        let mut config = certified(folder.path(), true);
        config.node.site = "berlin".to_owned();
        let other = told(&config);
        assert!(
            ["site: it is `berlin`", "spiffe://test/site/site/router/r1"].iter().all(|part| other.contains(part)),
            "{other}"
        );
        config.admin.token_file = Some(folder.path().join("nowhere"));
        config.node.data_dir = config.tls.cert.clone().unwrap();
        let all = told(&config);
        let parts = ["3 faults", "`berlin`", "[admin] token_file", "own.pem is a file"];
        assert!(parts.iter().all(|part| all.contains(part)), "{all}");

        let mut config = Configuration::default();
        let file = folder.path().join("token");
        config.admin.token_file = Some(file.clone());
        assert!(told(&config).contains("[admin] token_file"), "there is none: {}", told(&config));
        for (text, is_good) in [("", false), ("short", false), ("0123456789abcdef", true)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(told(&config).is_empty(), is_good, "{text}: {}", told(&config));
        }

        let keys = folder.path().join("jwks.json");
        let issuer = format!(
            "issuer = 'https://login.test'\naudience = ['myelin']\ntrust_domain = 'test'\njwks_file = '{}'",
            keys.display()
        );
        let mut config = Configuration::default();
        config.node.data_dir = folder.path().to_owned();
        config.jwt.issuers = BTreeMap::from([("corp".to_owned(), toml::from_str(&issuer).unwrap())]);
        assert!(told(&config).contains("[jwt.issuers.corp]"), "there are no keys: {}", told(&config));
        std::fs::write(&keys, r#"{"keys": []}"#).unwrap();
        assert!(!told(&config).is_empty(), "a set without keys");
        let key = r#"{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        std::fs::write(&keys, format!(r#"{{"keys": [{key}]}}"#)).unwrap();
        assert_eq!(told(&config), "");
    }
}
