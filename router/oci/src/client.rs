//! The client of a registry: bounded answers, a bounded number of them, and nothing believed without its digest.
//!
//! Every call is a connection of its own. A challenge is answered once; the token that it brings is kept for the calls
//! that follow.

use crate::challenge::Challenge;
use crate::credentials::Credentials;
use crate::error::{OciError, cut};
use crate::manifest::{
    Artifact, Descriptor, Encoded, INDEX_TYPES, MANIFEST_BYTES_MAX, MANIFEST_TYPE, Manifest, check_component,
    check_config,
};
use crate::reference::Reference;
use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use myelin_catalog::Digest;
use serde::Deserialize;

mod exchange;
#[cfg(test)]
mod tests;

pub use exchange::Transport;
use exchange::{Answer, Asked, Exchange};

/// Bytes of an answer that is neither manifest nor blob: an error, or a token.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Places that we are sent on to, one after the other: from a registry to the storage behind it, and once within that.
const REDIRECTS_MAX: usize = 3;
/// Bytes of a token that is sent back.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Who we are to whoever gives tokens and does not ask for a name.
const CLIENT_ID: &str = "myelin";
/// What a manifest may be for us to say why it is not taken: a registry that has none of these says that there is nothing.
const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A registry, seen from one of its repositories.
#[derive(Debug)]
pub struct Client {
    exchange: Exchange,
    reference: Reference,
    credentials: Option<Credentials>,
    /// What was granted after a challenge.
    authorization: Option<String>,
}

/// A component that was in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The artifact, by its digest.
    pub reference: Reference,
    /// The component.
    pub component: Vec<u8>,
    /// The text of its signature, which nobody has checked.
    pub signature: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Client {
    /// Of the repository of `reference`.
    pub fn new(reference: Reference, transport: Transport, credentials: Option<Credentials>) -> Self {
        let exchange = Exchange::new(reference.registry().api(), transport);
        Self { exchange, reference, credentials, authorization: None }
    }

    fn registry(&self) -> String {
        self.reference.registry().to_string()
    }

    /// The component of the artifact. A tag is resolved once, to the digest of the bytes that came for it.
    ///
    /// # Errors
    /// Any [`OciError`].
    pub async fn pull(&mut self) -> Result<Pulled, OciError> {
        let (digest, manifest) = self.manifest().await?;
        let manifest = Manifest::read(&manifest)?;
        let config = self.blob("the config", &manifest.config).await?;
        check_config(&config, &manifest.component)?;
        let component = self.blob("the component", &manifest.component).await?;
        check_component(&component)?;
        let reference = self.reference.pinned(digest);
        Ok(Pulled { reference, component, signature: manifest.signature })
    }

    /// The bytes of the manifest, and their digest: the one that was named, where one was.
    async fn manifest(&mut self) -> Result<(Digest, Vec<u8>), OciError> {
        let named = self.reference.digest();
        let by = match (named, self.reference.tag()) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => {
                return Err(OciError::Reference { text: cut(&self.reference.to_string()), why: "it names nothing" });
            }
        };
        let accept = [MANIFEST_TYPE, DOCKER_MANIFEST_TYPE, INDEX_TYPES[0], INDEX_TYPES[1]].join(", ");
        let path = format!("/v2/{}/manifests/{by}", self.reference.repository());
        let asked = Asked::new(Method::GET, path).header(ACCEPT, accept).up_to(MANIFEST_BYTES_MAX, "the manifest");
        let answer = self.ask(asked).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal("for the manifest", &self.reference.to_string(), &answer));
        }
        let (found, said) = (Digest::of(&answer.body), answer.digest());
        // A registry that says one thing and gives another is not to be used, tag or not.
        for wanted in [named, said].into_iter().flatten() {
            if wanted != found {
                return Err(OciError::Digest { what: "the manifest", wanted, found });
            }
        }
        if let Some(foreign) = answer.content_type().filter(|said| {
            *said != MANIFEST_TYPE && !INDEX_TYPES.contains(said) && !matches!(*said, "application/json" | "text/plain")
        }) {
            return Err(OciError::manifest_type(foreign));
        }
        Ok((found, answer.body))
    }

    /// The bytes that are described, and no others.
    async fn blob(&mut self, what: &'static str, described: &Descriptor) -> Result<Vec<u8>, OciError> {
        let path = format!("/v2/{}/blobs/{}", self.reference.repository(), described.digest_text());
        let answer = match self.ask(Asked::new(Method::GET, path).up_to(described.size, what).elsewhere()).await {
            Err(OciError::TooLarge { what, bytes, max: wanted }) if wanted == described.size => {
                return Err(OciError::Size { what, wanted, found: bytes });
            }
            answer => answer?,
        };
        if answer.status != StatusCode::OK {
            return Err(self.refusal("for a blob", &described.digest_text(), &answer));
        }
        described.check(what, &answer.body)?;
        Ok(answer.body)
    }

    /// Makes the component an artifact under the reference's tag; returns what that is now, by its digest.
    ///
    /// # Errors
    /// Any [`OciError`].
    pub async fn push(&mut self, artifact: &Artifact<'_>) -> Result<Reference, OciError> {
        let Some(tag) = self.reference.tag().map(str::to_owned).filter(|_| self.reference.digest().is_none()) else {
            let why = "what is pushed gets its digest by what it is: name a tag alone";
            return Err(OciError::Reference { text: cut(&self.reference.to_string()), why });
        };
        let Encoded { config, manifest } = artifact.encode();
        // What we would not take back is not sent.
        let read = Manifest::read(&manifest)?;
        check_component(artifact.component)?;
        self.send_blob(&read.component, Bytes::copy_from_slice(artifact.component)).await?;
        self.send_blob(&read.config, config.into()).await?;
        let (digest, path) = (Digest::of(&manifest), format!("/v2/{}/manifests/{tag}", self.reference.repository()));
        let asked = Asked::new(Method::PUT, path).header(CONTENT_TYPE, MANIFEST_TYPE.to_owned()).body(manifest.into());
        let answer = self.ask(asked).await?;
        if answer.status != StatusCode::CREATED {
            return Err(self.refusal("the manifest", &self.reference.to_string(), &answer));
        }
        match answer.digest() {
            Some(said) if said != digest => {
                Err(OciError::Digest { what: "what the registry has kept", wanted: digest, found: said })
            }
            _ => Ok(self.reference.pinned(digest)),
        }
    }

    /// Uploads a blob, unless it is there.
    async fn send_blob(&mut self, described: &Descriptor, bytes: Bytes) -> Result<(), OciError> {
        let (repository, digest) = (self.reference.repository(), described.digest_text());
        let there = self.ask(Asked::new(Method::HEAD, format!("/v2/{repository}/blobs/{digest}")).elsewhere()).await?;
        if there.status == StatusCode::OK {
            return Ok(());
        }
        if there.status != StatusCode::NOT_FOUND {
            return Err(self.refusal("whether a blob is there", &digest, &there));
        }
        let begun = self.ask(Asked::new(Method::POST, format!("/v2/{repository}/blobs/uploads/"))).await?;
        let location = begun.header(LOCATION);
        let (StatusCode::ACCEPTED, Some(location)) = (begun.status, location) else {
            return Err(self.refusal("the beginning of an upload", &digest, &begun));
        };
        let uri = self.exchange.follow(&begun.uri, location)?;
        let joined = if uri.query().is_some() { '&' } else { '?' };
        let uri = self.exchange.follow(&uri, &format!("{uri}{joined}digest={digest}"))?;
        let asked = Asked::at(Method::PUT, uri).header(CONTENT_TYPE, "application/octet-stream".to_owned()).body(bytes);
        let sent = self.ask(asked).await?;
        match sent.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.refusal("an upload", &digest, &sent)),
        }
    }

    /// Asks; answers a challenge once, and goes where it is sent.
    async fn ask(&mut self, asked: Asked) -> Result<Answer, OciError> {
        let mut answer = self.send(&asked).await?;
        if answer.status == StatusCode::UNAUTHORIZED && self.exchange.is_registry(&answer.uri) {
            self.authorization = Some(self.answer_challenge(&answer).await?);
            answer = self.send(&asked).await?;
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(self.refusal("us", "it", &answer));
        }
        Ok(answer)
    }

    async fn send(&self, asked: &Asked) -> Result<Answer, OciError> {
        let mut uri = match &asked.uri {
            Some(uri) => uri.clone(),
            None => self.exchange.uri(&asked.path)?,
        };
        for _ in 0..=REDIRECTS_MAX {
            // Who we are is for the registry, and for nobody whom it sends us to.
            let authorization = self.authorization.as_deref().filter(|_| self.exchange.is_registry(&uri));
            let answer = self.exchange.send(asked, &uri, authorization).await?;
            let is_sent_on = matches!(asked.method, Method::GET | Method::HEAD) && answer.status.is_redirection();
            match answer.header(LOCATION).filter(|_| is_sent_on) {
                Some(location) => uri = self.exchange.redirect(asked, &uri, location)?,
                None => return Ok(answer),
            }
        }
        let (registry, location) = (self.registry(), cut(&uri.to_string()));
        Err(OciError::Redirect { registry, location, why: "it has sent us on too often" })
    }

    /// What to send so that we are let in.
    async fn answer_challenge(&self, answer: &Answer) -> Result<String, OciError> {
        let registry = self.registry();
        let mut challenges = Vec::new();
        for text in answer.headers.get_all(WWW_AUTHENTICATE) {
            challenges.extend(text.to_str().ok().map(|text| Challenge::read(text, &registry)).transpose()?.flatten());
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service.as_deref(), scope.as_deref())),
            Challenge::Basic => None,
        });
        match (bearer, &self.credentials) {
            (Some((realm, service, scope)), _) => self.token(realm, service, scope).await,
            (None, Some(credentials)) if challenges.contains(&Challenge::Basic) => Ok(credentials.basic()),
            _ => Err(self.refusal("us", "it", answer)),
        }
    }

    /// The token that the realm of a challenge gives.
    async fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String, OciError> {
        let realm_uri = self.exchange.follow(&self.exchange.uri("/")?, realm)?;
        let mut pairs = String::new();
        for (key, value) in [("service", service), ("scope", scope), ("client_id", Some(CLIENT_ID))] {
            if let Some(value) = value {
                let joined = if pairs.is_empty() && realm_uri.query().is_none() { '?' } else { '&' };
                pairs.push_str(&format!("{joined}{key}={}", escaped(value)));
            }
        }
        let uri = self.exchange.follow(&realm_uri, &format!("{realm_uri}{pairs}"))?;
        let asked = Asked::at(Method::GET, uri.clone()).up_to(ANSWER_BYTES_MAX, "the token");
        let basic = self.credentials.as_ref().map(Credentials::basic);
        let answer = self.exchange.send(&asked, &uri, basic.as_deref()).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal("for a token", "a token", &answer));
        }
        let token =
            serde_json::from_slice::<Token>(&answer.body).ok().and_then(|said| said.token.or(said.access_token));
        let is_good = |token: &String| {
            (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let token = token.filter(is_good).ok_or_else(|| OciError::Registry {
            registry: self.registry(),
            doing: "for a token".to_owned(),
            said: "something that is none".to_owned(),
        })?;
        Ok(format!("Bearer {token}"))
    }

    /// What the registry said, as a refusal.
    fn refusal(&self, doing: &str, what: &str, answer: &Answer) -> OciError {
        let registry = self.registry();
        let told = serde_json::from_slice::<Errors>(&answer.body).ok().and_then(|said| said.errors.into_iter().next());
        let said = match told {
            Some(Told { code, message }) => cut(&format!("{}: {code} {message}", answer.status.as_u16())),
            None => format!("HTTP status {}", answer.status.as_u16()),
        };
        match answer.status {
            StatusCode::UNAUTHORIZED => {
                let who = match &self.credentials {
                    Some(credentials) => format!("`{}`", cut(credentials.username())),
                    None => "somebody without a name".to_owned(),
                };
                OciError::Unauthorized { registry, who, said }
            }
            StatusCode::FORBIDDEN => OciError::Denied { registry, said },
            StatusCode::NOT_FOUND => OciError::NotFound { what: what.to_owned(), registry, said },
            _ => OciError::Registry { registry, doing: doing.to_owned(), said },
        }
    }
}

/// A value of a query.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}
