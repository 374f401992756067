//! A router with its admin API, started as `myelin serve` starts it.

use crate::http::{Answer, exchange, request};
use myelin::admin::{AdminHandle, AdminListen, AdminState, serve};
use myelin::config::{Config, ModulesConfig, PolicyDefault, RoleMap};
use myelin::node::Node;
use myelin_transport::ca::{CertificateAuthority, IssuedCertificate};
use myelin_transport::{TlsFiles, TlsIdentity};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// The largest module that these routers take, in bytes.
pub(crate) const MODULE_BYTES_MAX: usize = 2 * 1024 * 1024;

pub(crate) struct Router {
    pub(crate) node: Node,
    pub(crate) admin: AdminHandle,
    pub(crate) ca: CertificateAuthority,
    pub(crate) dir: TempDir,
}

pub(crate) fn files(dir: &TempDir, ca: &CertificateAuthority, stem: &str, issued: &IssuedCertificate) -> TlsFiles {
    let (cert, key) = issued.save(dir.path(), stem).unwrap();
    let path = dir.path().join(format!("{stem}-ca.pem"));
    std::fs::write(&path, ca.cert_pem()).unwrap();
    TlsFiles { cert, key, ca: path }
}

/// Where a router listens that anybody on this machine may use.
pub(crate) fn open(tls: TlsIdentity) -> AdminListen {
    AdminListen {
        addr: (Ipv4Addr::LOCALHOST, 0).into(),
        dev: true,
        token: None,
        tls: Some(tls),
        identities: Vec::new(),
        roles: RoleMap::default(),
        two_person: false,
        module_bytes_max: MODULE_BYTES_MAX,
    }
}

impl Router {
    /// A router whose API anybody on this machine may use.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A router whose API listens as `change` says.
    pub(crate) async fn start_with(change: impl FnOnce(&mut AdminListen)) -> Self {
        let dir = TempDir::new().unwrap();
        let ca = CertificateAuthority::create("test.example", 1).unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let issued = ca.issue_router("here", "r1", &hosts, 1).unwrap();
        let tls = TlsIdentity::load(&files(&dir, &ca, "router", &issued)).unwrap();
        let mut config = Config::default();
        config.node.data_dir = dir.path().join("data");
        config.node.workers = 2;
        config.listen.client = (Ipv4Addr::LOCALHOST, 0).into();
        config.policy.default = PolicyDefault::Allow;
        config.modules = ModulesConfig::OPEN;
        config.wasm.instances = 32;
        config.wasm.compiler = Some(env!("CARGO_BIN_EXE_myelin").into());
        let mut listen = open(tls.clone());
        change(&mut listen);
        config.admin.two_person = listen.two_person;
        let node = Node::start(&config, &tls, 1).await.unwrap();
        let admin = serve(listen, state(&node)).unwrap();
        Self { node, admin, ca, dir }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Sends these bytes over plain HTTP.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        exchange(TcpStream::connect(self.addr()).await.unwrap(), bytes).await.unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.raw(&request(method, path, &self.addr().to_string(), headers, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    /// The JSON at `path`, which must be there.
    pub(crate) async fn show(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub(crate) async fn send_json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path, &[("Content-Type", "application/json")], body.to_string().as_bytes()).await
    }

    pub(crate) async fn upload(&self, name: &str, version: &str, bytes: &[u8]) -> Answer {
        let path = format!("/v1/modules/{name}/versions/{version}");
        self.ask("PUT", &path, &[("Content-Type", "application/wasm")], bytes).await
    }

    pub(crate) async fn revision(&self) -> u64 {
        self.show("/v1/status").await["revision"].as_u64().unwrap()
    }

    /// Ends the API, then the router.
    pub(crate) async fn stop(self) {
        self.admin.stop().await;
        self.node.drain().await;
    }
}

pub(crate) fn state(node: &Node) -> AdminState {
    let ledgers = node.ledgers();
    AdminState {
        world: node.world().clone(),
        shared: node.shared().clone(),
        listeners: node.listeners().to_vec(),
        ledger: Arc::new(move || {
            let ledgers = ledgers.clone();
            Box::pin(async move { ledgers.read().await })
        }),
        client_addr: node.client_addr(),
        mesh: node.mesh_status().clone(),
        reloader: None,
        exports: node.exports(),
        audit: node.audit().clone(),
    }
}
