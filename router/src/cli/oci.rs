//! Registries of artifacts: how they are reached, and as whom. The command line speaks to them, never a router.

use super::failure::{Exit, Failure, Result};
use super::values::read_text;
use anyhow::Context;
use clap::Args;
use myelin_catalog::{Digest, MinisignSignature, ModuleRef, ModuleStatement};
use myelin_oci::{
    Artifact, CREDENTIALS_FILE_BYTES_MAX, Client, Credentials, OciError, Pulled, Reference, Registry, SCHEME, Transport,
};
use myelin_transport::crypto_provider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wasmparser::{Parser, Payload};

/// Holds the password where none comes from stdin. There is no flag for it: other users see command lines.
const PASSWORD_VARIABLE: &str = "MYELIN_REGISTRY_PASSWORD";
/// Names the authorities where no flag does. Not clap's to read: what a machine has set once for all registries must not
/// keep anybody from one without TLS.
const CA_VARIABLE: &str = "MYELIN_REGISTRY_CA";
/// Bytes of a password that is read.
const PASSWORD_BYTES_MAX: u64 = 16 * 1024;
/// Where a file with credentials is: podman's variable, and Docker's, which names its folder.
const AUTH_FILE_VARIABLE: &str = "REGISTRY_AUTH_FILE";
const DOCKER_FOLDER_VARIABLE: &str = "DOCKER_CONFIG";

/// How a registry is reached, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "OCI registry")]
pub(super) struct Registries {
    /// Name at the registry; its password is in MYELIN_REGISTRY_PASSWORD, or comes with --password-stdin [default: what
    /// `docker login` wrote down]
    #[arg(long, value_name = "NAME", env = "MYELIN_REGISTRY_USERNAME")]
    username: Option<String>,
    /// Read the password from the standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// The authorities whose registries are trusted (PEM) [env: MYELIN_REGISTRY_CA] [default: the system's]
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// Without TLS, for a registry on this machine
    #[arg(long, conflicts_with = "registry_ca")]
    plain_http: bool,
}

/// Whether what is named is in a registry.
pub(super) fn is_reference(what: &Path) -> bool {
    what.to_str().is_some_and(|text| text.starts_with(SCHEME))
}

/// What is in a registry, by its name.
pub(super) fn reference(text: &str) -> Result<Reference> {
    text.parse().map_err(failure)
}

impl Registries {
    /// Takes a component out of a registry.
    pub(super) async fn pull(&self, reference: &Reference) -> Result<Pulled> {
        self.client(reference)?.pull().await.map_err(failure)
    }

    /// Puts a component into a registry; returns what it is there, by its digest.
    pub(super) async fn push(
        &self,
        reference: &Reference,
        module: &ModuleRef,
        component: &[u8],
        signature: Option<&str>,
    ) -> Result<Reference> {
        if let Some(signature) = signature {
            check_statement(signature, module, component)?;
        }
        let (imports, exports) = interface(component).context("the component")?;
        let (name, version) = (module.name.to_string(), module.version.to_string());
        let artifact = Artifact { component, name: &name, version: &version, imports, exports, signature };
        self.client(reference)?.push(&artifact).await.map_err(failure)
    }

    fn client(&self, reference: &Reference) -> Result<Client> {
        let transport = match self.plain_http {
            true => Transport::PlainOnLoopback,
            false => {
                let ca = self.registry_ca.clone().or_else(|| env::var_os(CA_VARIABLE).map(PathBuf::from));
                Transport::Tls(Arc::new(tls(ca.as_deref())?))
            }
        };
        Ok(Client::new(reference.clone(), transport, self.credentials(reference.registry())?))
    }

    fn credentials(&self, registry: &Registry) -> Result<Option<Credentials>> {
        let Some(username) = &self.username else { return written_down(registry) };
        let password = match (self.password_stdin, env::var(PASSWORD_VARIABLE)) {
            (true, _) => from_stdin()?,
            (false, Ok(password)) => password,
            (false, Err(_)) => {
                let what = format!("--username {username} needs a password");
                return Err(Failure::new(Exit::Usage, what)
                    .next(format!("give it with --password-stdin, or in the variable {PASSWORD_VARIABLE}")));
            }
        };
        Credentials::new(username, password).map(Some).map_err(failure)
    }
}

/// The password: what stdin has, without the end of its line.
fn from_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .context("the password on the standard input")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// What `docker login`, or `podman login`, wrote down.
fn written_down(registry: &Registry) -> Result<Option<Credentials>> {
    let named = env::var_os(AUTH_FILE_VARIABLE).map(PathBuf::from);
    let of_docker = || env::var_os(DOCKER_FOLDER_VARIABLE).map(|folder| Path::new(&folder).join("config.json"));
    let of_home = || env::var_os("HOME").map(|home| Path::new(&home).join(".docker/config.json"));
    let Some(file) = named.or_else(of_docker).or_else(of_home).filter(|file| file.exists()) else { return Ok(None) };
    let told = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", file.display()));
    let max = usize::try_from(CREDENTIALS_FILE_BYTES_MAX).unwrap_or(usize::MAX);
    let text = read_text(&file, max).map_err(told)?;
    Credentials::of_docker(&text, registry).map_err(|error| failure(error).doing(file.display()))
}

fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        Some(ca) => {
            let read = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            for certificate in read.map_err(|error| Failure::of_file(ca, error))? {
                roots.add(certificate).map_err(|error| Failure::of_file(ca, error))?;
            }
        }
        // Some of a system's certificates may be none: the rest is good.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err(Failure::new(Exit::Usage, "no authority is trusted to say which registry is which")
            .next("name those of the registry with --registry-ca FILE"));
    }
    let builder = rustls::ClientConfig::builder_with_provider(crypto_provider());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).context("TLS")?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Whether a signature is for this module and these bytes, as it says. Whose it is, routers check.
fn check_statement(signature: &str, module: &ModuleRef, component: &[u8]) -> Result<()> {
    let refuse = |why: String| {
        Failure::new(Exit::Usage, format!("the signature beside the component: {why}"))
            .next("sign what is pushed with `myelin filter sign`")
    };
    let signature: MinisignSignature = signature.parse().map_err(|error| refuse(format!("{error}")))?;
    let statement: ModuleStatement = signature.comment().parse().map_err(refuse)?;
    if statement.module != *module || statement.digest != Digest::of(component) {
        return Err(refuse(format!("it is for {} or for other bytes", statement.module)));
    }
    Ok(())
}

/// What a component imports and exports.
fn interface(component: &[u8]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0_usize);
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// What a registry, or an artifact, is refused with: the sentence, the code, and the exit code.
fn failure(error: OciError) -> Failure {
    let exit = match &error {
        OciError::Reference { .. } | OciError::Credentials { .. } | OciError::PlainHttp { .. } => Exit::Usage,
        OciError::NotFound { .. } => Exit::NotFound,
        OciError::Unauthorized { .. } | OciError::Denied { .. } => Exit::Denied,
        OciError::Digest { .. } | OciError::Size { .. } => Exit::GateFailed,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("{error} ({})", error.code())).coded(error.code())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        registries: Registries,
    }

    #[test]
    fn only_the_flag_for_authorities_contradicts_a_registry_without_tls() {
        let parsed = |words: &[&str]| <Line as clap::Parser>::try_parse_from([&["pull"], words].concat());
        assert!(parsed(&["--plain-http", "--registry-ca", "ca.pem"]).is_err());
        assert!(parsed(&["--plain-http"]).unwrap().registries.plain_http);
        let command = <Line as clap::CommandFactory>::command();
        let ca = command.get_arguments().find(|argument| argument.get_id() == "registry_ca").unwrap();
        assert!(ca.get_env().is_none(), "else the variable would contradict it as well");
    }

    #[test]
    fn only_what_says_so_is_in_a_registry() {
        assert!(is_reference(Path::new("oci://r.example/a:1")));
        for file in ["oci", "./oci://r.example/a:1", "OCI://r.example/a:1", "a.wasm"] {
            assert!(!is_reference(Path::new(file)), "{file}");
        }
        assert_eq!(reference("oci://r.example/a").unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_components_own_imports_and_exports_are_told_and_no_nested_ones() {
        let text = r#"(component
            (import "a:b/c@0.1.0" (instance))
            (component (import "x:y/z@0.1.0" (instance)) (export "n:n/n@0.1.0" (instance 0)))
            (export "d:e/f@0.1.0" (instance 0)))"#;
        let (imports, exports) = interface(&wat::parse_str(text).unwrap()).unwrap();
        assert_eq!((imports, exports), (vec!["a:b/c@0.1.0".to_owned()], vec!["d:e/f@0.1.0".to_owned()]));
        assert!(interface(b"\0asm\x0d\0\x01\0\xff").is_err());
    }

    #[test]
    fn a_signature_of_another_module_is_not_pushed_beside_this_one() {
        let refused = check_statement("nothing", &"a@1.0.0".parse().unwrap(), b"x").unwrap_err();
        assert!(refused.exit == Exit::Usage && refused.what.contains("four lines"), "{refused}");
    }
}
