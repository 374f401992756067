//! What the types of a configuration do not say: bounds, and values that must go together.

use super::load::{ConfigError, Places};
use super::{Config, Engine, members};
use myelin_catalog::Name;
use myelin_catalog::limits::{
    DEADLINE_MAX_US, DEADLINE_MIN_US, MEMORY_MAX_BYTES, MEMORY_MIN_BYTES, MODULE_SIZE_MAX_BYTES,
};
use myelin_transport::{Identity, IdentityKind};
use myelin_wire::limits::PAYLOAD_BYTES_CEILING;

/// Most workers: a worker's number is one byte of a connection id.
const WORKERS_MAX: u64 = 255;
/// Longest graceful shutdown, in seconds: no supervisor waits longer.
const DRAIN_SECONDS_MAX: u64 = 3_600;
/// Least address space in which the compiler starts at all, in bytes.
const COMPILE_ADDRESS_SPACE_MIN_BYTES: u64 = 256 * 1024 * 1024;

/// Adds what is wrong with `config` to `errors`. With `dev`, certificates are made where none are named, and whoever
/// is on this machine may use the admin API.
pub(super) fn check(config: &Config, dev: bool, places: &Places, errors: &mut Vec<ConfigError>) {
    let mut range = |section, key, value: u64, min: u64, max: u64| {
        if !(min..=max).contains(&value) {
            let problem = format!("[{section}] {key} = {value}");
            errors.push(ConfigError::new(places.of(section, key), problem, format!("give {min} to {max}")));
        }
    };
    let Config { node, limits, outbox, wasm, .. } = config;
    range("node", "workers", node.workers as u64, 0, WORKERS_MAX);
    range("node", "sessions_per_worker", node.sessions_per_worker as u64, 1, u64::from(u32::MAX));
    range("node", "sessions_per_identity", node.sessions_per_identity as u64, 1, u64::from(u32::MAX));
    range("node", "subscriptions_per_identity", node.subscriptions_per_identity as u64, 1, u64::from(u32::MAX));
    range("node", "drain_seconds", node.drain_seconds, 0, DRAIN_SECONDS_MAX);
    range("limits", "payload_bytes", limits.payload_bytes.into(), 1, PAYLOAD_BYTES_CEILING.into());
    range("limits", "subscriptions", limits.subscriptions.into(), 1, u64::from(u32::MAX));
    range("outbox", "events", outbox.events as u64, 1, u64::from(u32::MAX));
    // Else the largest event that may be published could never be delivered. A payload limit that is told already
    // must not be told twice.
    if limits.payload_bytes <= PAYLOAD_BYTES_CEILING {
        let largest_event = u64::from(limits.delivered_len_max());
        range("outbox", "bytes", outbox.bytes as u64, largest_event, u64::from(u32::MAX));
    }
    range("wasm", "module_bytes", wasm.module_bytes as u64, 1, MODULE_SIZE_MAX_BYTES);
    range("wasm", "memory_bytes", wasm.memory_bytes as u64, MEMORY_MIN_BYTES, MEMORY_MAX_BYTES);
    range("wasm", "instances", wasm.instances.into(), 1, 1 << 20);
    range("wasm", "deadline_us", wasm.deadline_us, DEADLINE_MIN_US.into(), DEADLINE_MAX_US.into());
    range("wasm", "compile_cpu_seconds", wasm.compile_cpu_seconds, 1, 3_600);
    let address_space = wasm.compile_address_space_bytes;
    range("wasm", "compile_address_space_bytes", address_space, COMPILE_ADDRESS_SPACE_MIN_BYTES, u64::MAX);

    range("mesh", "queue_bytes", config.mesh.queue_bytes as u64, u64::from(limits.delivered_len_max()), 1 << 32);

    range("audit", "mebibytes", config.audit.mebibytes, 1, 1 << 20);
    range("catalog", "join_seconds", config.catalog.join_seconds, 0, DRAIN_SECONDS_MAX);

    check_names(config, places, errors);
    check_mesh(config, places, errors);
    check_engine(config, places, errors);
    check_tls(config, places, errors);
    check_admin(config, dev, places, errors);
    for (problem, remedy) in config.jwt.problems(dev) {
        errors.push(ConfigError::new(places.of("jwt", "issuers"), format!("[jwt] {problem}"), remedy));
    }
    for (key, problem, remedy) in config.telemetry.problems() {
        let problem = format!("[telemetry] {key}: {problem}");
        errors.push(ConfigError::new(places.of("telemetry", key), problem, remedy));
    }
}

fn check_names(config: &Config, places: &Places, errors: &mut Vec<ConfigError>) {
    for (key, name) in [("site", &config.node.site), ("name", &config.node.name)] {
        // Both become part of the router's identity, so what an identity refuses is refused here already.
        if let Err(error) = Identity::service("myelin.dev", name) {
            let remedy = "give a name of letters, digits, `-`, `.` and `_`";
            errors.push(ConfigError::new(places.of("node", key), format!("[node] {key}: {error}"), remedy));
        }
    }
    if config.node.data_dir.as_os_str().is_empty() {
        let remedy = "give the folder where the router keeps its state";
        errors.push(ConfigError::new(places.of("node", "data_dir"), "[node] data_dir is empty", remedy));
    }
}

/// Members and addresses have their form, and this router is one of the members.
fn check_mesh(config: &Config, places: &Places, errors: &mut Vec<ConfigError>) {
    let mesh = &config.mesh;
    let mut refuse = |key, problem: String, remedy: &str| {
        errors.push(ConfigError::new(places.of("mesh", key), format!("[mesh] {key}: {problem}"), remedy));
    };
    for (key, addresses) in [("seeds", &mesh.seeds), ("advertise", &mesh.advertise)] {
        let malformed =
            |address: &&String| address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err());
        if let Some(address) = addresses.iter().find(malformed) {
            refuse(key, format!("`{address}` is no address"), "give HOST:PORT, such as \"ohio.example.org:7401\"");
        }
    }
    let Some(listen) = mesh.listen else {
        let meant = [("members", &mesh.members), ("seeds", &mesh.seeds), ("advertise", &mesh.advertise)];
        if let Some((key, _)) = meant.into_iter().find(|(_, given)| !given.is_empty()) {
            let remedy = "give [mesh] listen, such as \"0.0.0.0:7401\"; or remove it, where this router is to be alone";
            refuse(key, "there is no [mesh] listen, and without one this router has no links".to_owned(), remedy);
        }
        return;
    };
    let client = config.listen.client;
    let is_shared = client.ip() == listen.ip() || client.ip().is_unspecified() || listen.ip().is_unspecified();
    if client.port() == listen.port() && client.port() != 0 && is_shared {
        let problem = format!("`{listen}` is the UDP port of [listen] client, `{client}`");
        refuse("listen", problem, "give each its own port: clients and routers do not share one");
    }
    if let Err(error) = members(mesh) {
        return refuse(
            "members",
            error,
            "give each router once, as \"SITE/ROUTER\", and a site without routers as \"SITE\"",
        );
    }
    let is_named = |part: &str| part.parse::<Name>().is_ok();
    if let Some(member) = mesh.members.iter().find(|member| !member.split('/').all(is_named)) {
        let remedy = "sites and routers of a mesh have names of a-z, 0-9 and `-`, such as \"ohio/r1\"";
        return refuse("members", format!("`{member}` cannot be in a catalog"), remedy);
    }
    // A site by itself only holds a number.
    let is_member = |router: &String| router.contains('/') && mesh.members.contains(router);
    let own = format!("{}/{}", config.node.site, config.node.name);
    if !is_member(&own) {
        refuse(
            "members",
            format!("`{own}`, this router, is missing"),
            "name every router of the mesh, in the same order everywhere: one that runs shows the line with `myelin site ls`",
        );
    }
    if let Some(writer) = config.catalog.writer.as_ref().filter(|writer| !is_member(writer)) {
        let problem = format!("[catalog] writer: `{writer}` is not one of [mesh] members");
        let remedy = "name the router that writes the catalog, the same at every router";
        errors.push(ConfigError::new(places.of("catalog", "writer"), problem, remedy));
    }
}

/// A shared log needs its servers, and routers to share it; and nobody writes it alone.
fn check_engine(config: &Config, places: &Places, errors: &mut Vec<ConfigError>) {
    if config.catalog.engine == Engine::Disk {
        return;
    }
    for problem in config.jetstream.problems() {
        let place = places.of("catalog", "engine");
        let remedy = "`myelin config default` explains the keys of [jetstream], docs/CATALOG.md the servers";
        errors.push(ConfigError::new(place, format!("[jetstream]: {problem}"), remedy));
    }
    if config.mesh.listen.is_none() {
        let problem = "[catalog] engine = \"jetstream\" is for routers of a mesh, and there is no [mesh] listen";
        let remedy = "give [mesh] listen and members, one member for a router by itself; or engine = \"disk\"";
        errors.push(ConfigError::new(places.of("catalog", "engine"), problem, remedy));
    }
    if config.catalog.writer.is_some() {
        let problem = "[catalog] writer: with engine = \"jetstream\" every router writes";
        errors.push(ConfigError::new(places.of("catalog", "writer"), problem, "remove it"));
    }
}

fn check_tls(config: &Config, places: &Places, errors: &mut Vec<ConfigError>) {
    let tls = &config.tls;
    let files = [("cert", &tls.cert), ("key", &tls.key), ("ca", &tls.ca)];
    let (given, missing): (Vec<_>, Vec<_>) = files.into_iter().partition(|(_, file)| file.is_some());
    if let (Some((first, _)), [_, ..]) = (given.first(), &missing[..]) {
        let missing = missing.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(" and ");
        let remedy = "give cert, key and ca together; `myelin cert issue` makes them";
        errors.push(ConfigError::new(places.of("tls", first), format!("[tls] lacks {missing}"), remedy));
    }
}

/// Settings of who may what that can have no effect at this router.
pub(super) fn idle(config: &Config) -> Vec<(String, String)> {
    let (admin, issuers) = (&config.admin, &config.jwt.issuers);
    let named = admin.identities.iter().map(|identity| ("identities", identity.to_string(), identity.clone()));
    let holders = admin.roles.holders();
    let holders = holders.filter_map(|holder| Some(("roles", String::from(holder.clone()), holder.example()?)));
    let mut idle = Vec::new();
    for (key, text, identity) in named.chain(holders) {
        if let IdentityKind::Bearer { issuer, .. } = identity.kind()
            && !issuers.contains_key(issuer)
        {
            let problem = format!("[admin] {key} names `{text}`, and there is no issuer `{issuer}` of such tokens");
            idle.push((problem, format!("add [jwt.issuers.{issuer}], or remove the name")));
        }
    }
    let knows_persons = admin.knows_certificates() || !issuers.is_empty();
    if admin.two_person && !knows_persons {
        let problem = "[admin] two_person = true, and this router knows nobody by a name of their own: nobody can start or \
                       approve a rollout here";
        let remedy = "name those who may in [admin] roles (releaser), by their certificates or the tokens of an issuer \
                      below [jwt]; or start rollouts at a router that knows them";
        idle.push((problem.to_owned(), remedy.to_owned()));
    }
    idle
}

/// A router that is meant for more than a try must let somebody ask for its health, its figures and its filters.
fn check_admin(config: &Config, dev: bool, places: &Places, errors: &mut Vec<ConfigError>) {
    let has_certificates = [&config.tls.cert, &config.tls.key, &config.tls.ca].iter().all(|file| file.is_some());
    let is_meant = has_certificates || !config.listen.admin.ip().is_loopback();
    let admin = &config.admin;
    let is_named = !admin.identities.is_empty() || !admin.roles.is_empty() || config.jwt.gives_roles();
    if is_meant && !dev && admin.token_file.is_none() && !is_named {
        let remedy = "name client certificates in [admin] identities, such as \"spiffe://example.org/service/ops\", or \
                      in [admin] roles, or a token in [admin] token_file";
        let problem = "nobody could use the admin API: no certificate is named, and no token_file is given";
        errors.push(ConfigError::new(places.of("admin", "identities"), problem, remedy));
    }
}
