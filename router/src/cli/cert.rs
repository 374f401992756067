//! `myelin cert ca|issue`

use super::failure::{Exit, Failure, Result};
use super::values::{say, unless_there, write_atomically};
use clap::{Args, Subcommand};
use myelin_transport::ca::{CA_CERT_FILE, CaError, CertificateAuthority, IssuedCertificate, holder};
use std::path::{Path, PathBuf};

const CA_HELP: &str = "\
Example:
  myelin cert ca --trust-domain example.org --out pki

Writes ca.pem, which every router and client needs, and ca-key.pem, which nobody but the issuer may have.";

const ISSUE_HELP: &str = "\
Examples:
  myelin cert issue router hamburg r1 --host r1.example.org --host 10.0.0.7 --ca pki --out certs
  myelin cert issue service billing --ca pki --out certs

A router's certificate has the URI name spiffe://DOMAIN/site/SITE/router/NAME and the names that clients dial; a
service's has spiffe://DOMAIN/service/NAME. --force renews what is there: running routers take up new files within
seconds. The files are NAME.pem and NAME-key.pem; where NAME.pem is somebody else's already, such as that of router r1 of
another site, they are SITE-NAME.pem and service-NAME.pem.";

/// Make certificates
#[derive(Debug, Subcommand)]
pub(super) enum Cert {
    /// Make a certificate authority
    #[command(after_help = CA_HELP)]
    Ca(Authority),
    /// Issue a certificate for a router or a service
    #[command(subcommand, after_help = ISSUE_HELP)]
    Issue(Issue),
}

/// Make a certificate authority
#[derive(Args, Debug)]
pub(super) struct Authority {
    /// What all identities below it begin with, such as example.org
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: String,
    /// The folder for ca.pem and ca-key.pem
    #[arg(long, value_name = "DIR", default_value = "pki")]
    out: PathBuf,
    /// For how many days it is good
    #[arg(long, default_value_t = 3_650)]
    days: u32,
}

/// Issue a certificate
#[derive(Debug, Subcommand)]
pub(super) enum Issue {
    /// For a router: it may serve and dial
    #[command(after_help = ISSUE_HELP)]
    Router {
        /// Name of its site
        site: String,
        /// Name of the router within its site
        name: String,
        /// A DNS name or IP address that clients dial it by; may be repeated
        #[arg(long, value_name = "HOST", required = true)]
        host: Vec<String>,
        #[command(flatten)]
        issuing: Issuing,
    },
    /// For a service: a program that publishes, subscribes or administers
    #[command(after_help = ISSUE_HELP)]
    Service {
        /// Name of the service
        name: String,
        #[command(flatten)]
        issuing: Issuing,
    },
}

/// From where to where, and for how long.
#[derive(Args, Debug)]
pub(super) struct Issuing {
    /// The folder of the authority
    #[arg(long, value_name = "DIR", default_value = "pki")]
    ca: PathBuf,
    /// The folder for the certificate, its key and ca.pem
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// For how many days it is good
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// Overwrite a certificate and its key of the same name, to renew them
    #[arg(long)]
    force: bool,
}

impl Cert {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Ca(Authority { trust_domain, out, days }) => {
                CertificateAuthority::create(&trust_domain, days)?.save(&out)?;
                say!("the authority of {trust_domain} is in {}, good for {days} days", out.display());
                say!("  next: myelin cert issue router SITE NAME --host HOST --ca {}", out.display());
                Ok(())
            }
            Self::Issue(Issue::Router { site, name, host, issuing }) => {
                let apart = format!("{site}-{name}");
                issuing.issue(&name, &apart, |ca, days| ca.issue_router(&site, &name, &host, days))
            }
            Self::Issue(Issue::Service { name, issuing }) => {
                issuing.issue(&name, &format!("service-{name}"), |ca, days| ca.issue_service(&name, days))
            }
        }
    }
}

impl Issuing {
    /// Issues into files that are called after `name`, or after `apart` where another identity has those.
    fn issue(
        &self,
        name: &str,
        apart: &str,
        issue: impl FnOnce(&CertificateAuthority, u32) -> Result<IssuedCertificate, CaError>,
    ) -> Result<()> {
        let authority = CertificateAuthority::load(&self.ca).map_err(|error| {
            Failure::from(error).doing("the authority").next("make one with `myelin cert ca --trust-domain DOMAIN`")
        })?;
        let issued = issue(&authority, self.days)?;
        let stem = if self.is_of_another(name, &issued) { apart } else { name };
        if self.is_of_another(stem, &issued) {
            let what = format!("{name}.pem and {stem}.pem in {} are of other identities", self.out.display());
            return Err(Failure::new(Exit::Conflict, what).next("give another --out"));
        }
        for name in [format!("{stem}.pem"), format!("{stem}-key.pem")] {
            unless_there(&self.out.join(name), self.force)?;
        }
        let (cert, key) = issued.save(&self.out, stem)?;
        let ca = self.out.join(CA_CERT_FILE);
        place_authority(&ca, authority.cert_pem())?;
        say!("{}\n{}\n{}", cert.display(), key.display(), ca.display());
        say!("  [tls] cert, key and ca of a router; --cert, --key and --ca of a client");
        Ok(())
    }
}

impl Issuing {
    /// Whether the file of that name holds a certificate of somebody else: `--force` renews, and takes nobody's key away.
    fn is_of_another(&self, stem: &str, issued: &IssuedCertificate) -> bool {
        let there = std::fs::read_to_string(self.out.join(format!("{stem}.pem")));
        there.is_ok_and(|there| {
            holder(&there).is_some_and(|holder_there| Some(holder_there) != holder(&issued.cert_pem))
        })
    }
}

/// Puts the authority's certificate beside what it issued. Another authority's is left alone.
fn place_authority(file: &Path, pem: &str) -> Result<()> {
    match std::fs::read_to_string(file) {
        // Several authorities may be trusted while one replaces another.
        Ok(there) if there.contains(pem.trim()) => Ok(()),
        Ok(_) => Err(Failure::new(Exit::Conflict, format!("{} is of another authority", file.display()))
            .next("give another --out, or add the new authority's certificate to that file")),
        Err(_) => write_atomically(file, pem).map_err(|error| Failure::of_file(file, error)),
    }
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Self {
        let exit = match &error {
            CaError::Identity(_) | CaError::Host(_) | CaError::Days(_) => Exit::Usage,
            CaError::Exists(_) => Exit::Conflict,
            CaError::Io { .. } | CaError::Malformed { .. } | CaError::Crypto(_) => Exit::Failed,
        };
        Self::new(exit, format!("{error} ({})", error.code())).coded(error.code())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use clap::Parser;
    use myelin_transport::{TlsFiles, TlsIdentity};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        cert: Cert,
    }

    fn run(folder: &Path, arguments: &str) -> Result<()> {
        let arguments = arguments.replace("DIR", folder.to_str().unwrap());
        Line::try_parse_from(std::iter::once("cert").chain(arguments.split(' '))).unwrap().cert.run()
    }

    #[test]
    fn an_authority_issues_what_loads() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        run(folder, "ca --trust-domain example.org --out DIR/pki").unwrap();
        run(folder, "issue router hamburg r1 --host r1.example.org --host 10.0.0.7 --ca DIR/pki --out DIR/certs")
            .unwrap();
        run(folder, "issue service billing --ca DIR/pki --out DIR/certs").unwrap();
        for (stem, identity) in
            [("r1", "spiffe://example.org/site/hamburg/router/r1"), ("billing", "spiffe://example.org/service/billing")]
        {
            let file = |name: String| folder.join("certs").join(name);
            let files = TlsFiles {
                cert: file(format!("{stem}.pem")),
                key: file(format!("{stem}-key.pem")),
                ca: file("ca.pem".into()),
            };
            assert_eq!(TlsIdentity::load(&files).unwrap().identity().as_str(), identity);
        }
    }

    #[test]
    fn nobodys_key_is_taken_by_a_router_of_the_same_name_at_another_site() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let read = |name: &str| std::fs::read_to_string(folder.join("certs").join(name)).unwrap();
        let holder = |name: &str| holder(&read(name)).unwrap().as_str().to_owned();
        let issue = |what: &str| run(folder, &format!("issue {what} --ca DIR/pki --out DIR/certs"));
        run(folder, "ca --trust-domain example.org --out DIR/pki").unwrap();
        issue("router hamburg r1 --host localhost").unwrap();
        let hamburg = read("r1-key.pem");
        issue("router ohio r1 --host localhost").unwrap();
        issue("service r1").unwrap();
        // Renewed under the names that they have.
        assert_eq!(issue("router ohio r1 --host localhost").unwrap_err().exit, Exit::Conflict);
        let ohio = read("ohio-r1-key.pem");
        issue("router ohio r1 --host localhost --force").unwrap();
        assert_ne!(read("ohio-r1-key.pem"), ohio);
        assert_eq!(read("r1-key.pem"), hamburg, "it is of another site");
        assert_eq!(holder("r1.pem"), "spiffe://example.org/site/hamburg/router/r1");
        assert_eq!(holder("ohio-r1.pem"), "spiffe://example.org/site/ohio/router/r1");
        assert_eq!(holder("service-r1.pem"), "spiffe://example.org/service/r1");
        issue("service ohio-r1").unwrap();
        assert_eq!(holder("service-ohio-r1.pem"), "spiffe://example.org/service/ohio-r1");
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_invalid_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let exit = |arguments: &str| run(folder.path(), arguments).unwrap_err().exit;
        run(folder.path(), "ca --trust-domain example.org --out DIR/pki").unwrap();
        assert_eq!(exit("ca --trust-domain example.org --out DIR/pki"), Exit::Conflict);
        assert_eq!(exit("ca --trust-domain example.org --out DIR/other --days 0"), Exit::Usage);
        assert_eq!(exit("issue service a/b --ca DIR/pki --out DIR/certs"), Exit::Usage);
        assert_eq!(exit("issue service a --ca DIR/nothing --out DIR/certs"), Exit::Failed);
        run(folder.path(), "ca --trust-domain example.com --out DIR/other").unwrap();
        run(folder.path(), "issue service a --ca DIR/pki --out DIR/certs").unwrap();
        let key = || std::fs::read(folder.path().join("certs/a-key.pem")).unwrap();
        let first = key();
        assert_eq!(exit("issue service a --ca DIR/pki --out DIR/certs"), Exit::Conflict);
        assert_eq!(key(), first);
        run(folder.path(), "issue service a --ca DIR/pki --out DIR/certs --force").unwrap();
        assert_ne!(key(), first);
        assert_eq!(exit("issue service b --ca DIR/other --out DIR/certs"), Exit::Conflict);
    }
}
