//! Where the admin API is, and its answers as Rust types.

use super::connect::{dialable, running};
use super::development;
use super::failure::{Exit, Failure, Result};
use super::http::{Body, Server};
use super::values::duration;
use anyhow::Context;
use clap::Args;
use hyper::{Method, Uri};
use myelin_client::TlsFiles;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
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
    /// Bearer token
    #[arg(long, env = "MYELIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Client certificate for HTTPS (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// The authorities whose routers are trusted, for HTTPS (PEM)
    #[arg(long, value_name = "FILE", env = "MYELIN_CA")]
    ca: Option<PathBuf>,
    /// How long a call may take
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    timeout: Duration,
    /// Data directory of the --dev router that is asked where no URL is given
    #[arg(long, value_name = "DIR", env = "MYELIN_NODE__DATA_DIR", default_value = ".myelin")]
    data_dir: PathBuf,
}

impl Admin {
    /// The admin API.
    pub(super) fn api(&self) -> Result<Api> {
        let found = match &self.admin {
            Some(_) => None,
            None => running(&self.data_dir),
        };
        let url = match (&self.admin, &found) {
            (Some(url), _) => url.clone(),
            (None, Some(ready)) => {
                let scheme = ready.admin_url.split("://").next().unwrap_or("http");
                format!("{scheme}://{}", dialable(ready.admin_addr)).parse().context("the router's admin URL")?
            }
            (None, None) => DEFAULT_URL.parse().context("the URL of the admin API")?,
        };
        if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(Failure::new(Exit::Usage, format!("--admin `{url}` is no URL of an admin API"))
                .next("write it as http://127.0.0.1:7480"));
        }
        let own = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            _ => None,
        };
        let (client, ca) = match found {
            // The development router trusts the client that it made, and that client trusts it.
            Some(_) if own.is_none() && self.ca.is_none() => {
                let TlsFiles { cert, key, ca } = development::client_files(&self.data_dir);
                (Some((cert, key)), Some(ca))
            }
            _ => (own, self.ca.clone()),
        };
        let token = self.token.clone();
        Ok(Api(Server { url, token, client, ca, timeout: self.timeout }))
    }
}

/// The admin API of a router.
#[derive(Clone, Debug)]
pub(super) struct Api(Server);

impl Api {
    /// Asks and reads the answer as `T`.
    pub(super) async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T> {
        read(path, &self.0.call(method, path, None, body).await?)
    }

    /// Like [`ask`](Self::ask), when the catalog's revision is still `if_match`.
    pub(super) async fn ask_if<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        if_match: Option<u64>,
        body: Body,
    ) -> Result<T> {
        read(path, &self.0.call(method, path, if_match, body).await?)
    }

    /// What is at `path`.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, Body::None).await
    }

    /// Asks for something that has no answer.
    pub(super) async fn tell(&self, method: Method, path: &str, body: Body) -> Result<()> {
        self.0.call(method, path, None, body).await.map(drop)
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
