//! Where the admin API is, and its answers as Rust types.

use super::connect::{dialable, read_token, running};
use super::development;
use super::failure::{Exit, Failure, Result};
use super::http::{Answer, Body, Line, Server};
use super::serve::Ready;
use super::values::duration;
use anyhow::Context;
use clap::Args;
use hyper::{Method, Uri};
use myelin_client::TlsFiles;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the admin API is when nothing else is known.
const DEFAULT_URL: &str = "http://127.0.0.1:7480";

/// Which router's admin API, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Admin API")]
pub(super) struct Admin {
    /// URL of the admin API [default: the --dev router here, else http://127.0.0.1:7480]
    #[arg(long, value_name = "URL", env = "MYELIN_ADMIN")]
    admin: Option<Uri>,
    /// Bearer token; others on this machine see arguments: rather give it in the environment, or --token-file
    #[arg(long, env = "MYELIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the bearer token: the router's own, or a JSON Web Token
    #[arg(long, value_name = "FILE", env = "MYELIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Client certificate for HTTPS (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// The authorities whose routers are trusted, for HTTPS (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_CA")]
    ca: Option<PathBuf>,
    /// How long a call may take; one that makes filters active waits longer for all routers
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    timeout: Duration,
    /// Data directory of the --dev router that is asked where no URL is given
    #[arg(long, value_name = "DIR", env = "MYELIN_NODE__DATA_DIR", default_value = ".myelin")]
    data_dir: PathBuf,
}

impl Admin {
    /// Of a command whose own options say who asks, and where the development router's files are.
    pub(super) fn of(
        (admin, token, token_file): (Option<Uri>, Option<String>, Option<PathBuf>),
        (cert, key, ca): (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
        timeout: Duration,
        data_dir: PathBuf,
    ) -> Self {
        Self { admin, token, token_file, cert, key, ca, timeout, data_dir }
    }

    /// The admin API.
    pub(super) fn api(&self) -> Result<Api> {
        let found = if self.admin.is_none() { running(&self.data_dir) } else { None };
        let mut server = match found {
            Some(ready) => development_server(&ready, &self.data_dir, self.timeout)?,
            None => {
                let default = || DEFAULT_URL.parse().context("the URL of the admin API");
                let url = self.admin.clone().map_or_else(default, Ok)?;
                Server {
                    url,
                    token: None,
                    client: None,
                    ca: None,
                    server_name: None,
                    timeout: self.timeout,
                    line: Line::default(),
                }
            }
        };
        let url = &server.url;
        if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(Failure::new(Exit::Usage, format!("--admin `{url}` is no URL of an admin API"))
                .next("write it as http://127.0.0.1:7480"));
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            server.client = Some((cert.clone(), key.clone()));
        }
        if let Some(ca) = &self.ca {
            server.ca = Some(ca.clone());
        }
        server.token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, file) => file.as_deref().map(read_token).transpose()?,
        };
        Ok(Api(server))
    }
}

/// The admin API of a running development router, which trusts the client that it made.
pub(super) fn development_server(ready: &Ready, data_dir: &Path, timeout: Duration) -> Result<Server> {
    let scheme = ready.admin_url.split("://").next().unwrap_or("http");
    let url = format!("{scheme}://{}", dialable(ready.admin_addr)).parse().context("the router's admin URL")?;
    let TlsFiles { cert, key, ca } = development::client_files(data_dir);
    let line = Line::default();
    Ok(Server { url, token: None, client: Some((cert, key)), ca: Some(ca), server_name: None, timeout, line })
}

/// The admin API of a running development router.
pub(super) fn development_api(ready: &Ready, data_dir: &Path, timeout: Duration) -> Result<Api> {
    development_server(ready, data_dir, timeout).map(Api)
}

/// The admin API of a router.
#[derive(Clone, Debug)]
pub(super) struct Api(Server);

impl Api {
    /// The same, for calls that wait for other routers: they may take `least` even where less is usual.
    pub(super) fn patient(&self, least: Duration) -> Self {
        let mut server = self.0.clone();
        server.timeout = server.timeout.max(least);
        Self(server)
    }

    /// Asks and reads the answer as `T`.
    pub(super) async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T> {
        read(path, &self.0.call(method, path, None, body).await?.body)
    }

    /// Like [`ask`](Self::ask), when the catalog's revision is still `if_match`.
    pub(super) async fn ask_if<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        if_match: Option<u64>,
        body: Body,
    ) -> Result<T> {
        read(path, &self.0.call(method, path, if_match, body).await?.body)
    }

    /// Like [`ask`](Self::ask); gives the revision that the catalog has then, too, where that is said.
    pub(super) async fn ask_revised<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(T, Option<u64>)> {
        let answer = self.0.call(method, path, None, body).await?;
        Ok((read(path, &answer.body)?, answer.revision))
    }

    /// What is at `path`.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, Body::None).await
    }

    /// The text at `path`.
    pub(super) async fn text(&self, path: &str) -> Result<String> {
        let answer = self.0.call(Method::GET, path, None, Body::None).await?;
        Ok(String::from_utf8(answer.body.to_vec()).with_context(|| format!("the answer of {path} is no text"))?)
    }

    /// Asks for something that has no answer; gives the revision that the catalog has then, where that is said.
    pub(super) async fn tell(&self, method: Method, path: &str, body: Body) -> Result<Option<u64>> {
        self.tell_if(method, path, None, body).await
    }

    /// Like [`tell`](Self::tell); gives what the router warns of, too.
    pub(super) async fn tell_warned(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(Option<u64>, Vec<String>)> {
        let Answer { revision, warnings, .. } = self.0.call(method, path, None, body).await?;
        Ok((revision, warnings))
    }

    /// Like [`tell`](Self::tell), when the catalog's revision is still `if_match`.
    pub(super) async fn tell_if(
        &self,
        method: Method,
        path: &str,
        if_match: Option<u64>,
        body: Body,
    ) -> Result<Option<u64>> {
        Ok(self.0.call(method, path, if_match, body).await?.revision)
    }
}

fn read<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<T> {
    let told = || format!("the answer of {path} is not as this version of the command line expects it");
    Ok(serde_json::from_slice(answer).with_context(told)?)
}

/// A module as `NAME@VERSION`, as a path of the API.
pub(super) fn module_path(module: &str) -> Result<String> {
    let module: myelin_catalog::ModuleRef = module.parse().map_err(|error: myelin_catalog::CatalogError| {
        Failure::new(Exit::Usage, error.to_string()).next("`myelin filter ls` shows the modules that there are")
    })?;
    Ok(format!("/v1/modules/{}/versions/{}", module.name, module.version))
}

/// A binding as a list of the API shows it, without what that tells beside the binding itself.
pub(super) fn binding_alone(listed: &Value) -> Value {
    let mut binding = listed.clone();
    if let Some(fields) = binding.as_object_mut() {
        ["revision", "digest", "state"].iter().for_each(|told| drop(fields.remove(*told)));
    }
    binding
}

/// A binding's path of the API.
pub(super) fn binding_path(name: &str) -> Result<String> {
    let name: myelin_catalog::Name =
        name.parse().map_err(|error: myelin_catalog::CatalogError| Failure::new(Exit::Usage, error.to_string()))?;
    Ok(format!("/v1/bindings/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_they_become_paths() {
        assert_eq!(module_path("redact@1.0.0").ok().as_deref(), Some("/v1/modules/redact/versions/1.0.0"));
        for bad in ["redact", "a/../b@1.0.0", "redact@1", "@1.0.0"] {
            assert!(module_path(bad).is_err_and(|failure| failure.exit == Exit::Usage), "{bad}");
        }
        assert!(binding_path("../x").is_err());
    }
}
