#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

fn file(text: &str) -> Sources {
    Sources { file: Some(("myelin.toml".into(), text.into())), ..Sources::default() }
}

fn with_variables(variables: &[(&str, &str)]) -> Sources {
    Sources {
        environment: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..Sources::default()
    }
}

fn faults(sources: &Sources) -> Vec<String> {
    Config::load(sources).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(Config::load(&Sources::default()).unwrap(), Config::default());
}

#[test]
fn the_printed_default_is_the_default_and_explains_every_key() {
    assert_eq!(Config::load(&file(DEFAULT_TOML)).unwrap(), Config::default());
    let mut section = "";
    let mut explained = Vec::new();
    let mut is_explained = false;
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) =
            line.trim_start_matches('#').split_once(" = ").filter(|_| !line.starts_with("# "))
        {
            assert!(is_explained, "{section}.{key} has no explanation above it");
            explained.push((section, key));
        }
        is_explained = line.starts_with("# ");
    }
    let keys: Vec<_> = keys().iter().map(|key| (key.section, key.name)).collect();
    assert_eq!(explained, keys, "default.toml and the structs name the same keys in the same order");
}

#[test]
fn flags_stand_above_variables_and_variables_above_the_file() {
    let mut sources = file("[node]\nsite = 'a'\nname = 'a'\nregion = 'a'\nworkers = 3");
    sources.environment = vec![
        ("MYELIN_NODE__SITE".into(), "b".into()),
        ("MYELIN_NODE__NAME".into(), "b".into()),
        ("MYELIN_LIMITS__PAYLOAD_BYTES".into(), "2_000".into()),
        ("MYELIN_ADDR".into(), "an option of the command line, not a key".into()),
        ("PATH".into(), "/bin".into()),
    ];
    sources.flags = vec![Setting { flag: "--name", section: "node", key: "name", value: "c".into() }];
    let config = Config::load(&sources).unwrap();
    assert_eq!((&*config.node.site, &*config.node.name, &*config.node.region), ("b", "c", "a"));
    assert_eq!((config.node.workers, config.limits.payload_bytes), (3, 2_000));
}

#[test]
fn a_name_that_looks_like_a_number_stays_a_name() {
    assert_eq!(Config::load(&with_variables(&[("MYELIN_NODE__SITE", "42")])).unwrap().node.site, "42");
}

#[test]
fn every_fault_is_told_at_once_with_its_place_and_a_hint() {
    let text =
        "[node]\nsite = 'x'\nwrokers = 4\n[listn]\nclient = '127.0.0.1:1'\n[listen]\nadmin = 'nowhere'\nsite = 'x'\n";
    let told = faults(&file(text));
    assert_eq!(told.len(), 4, "{told:#?}");
    let expect = |start: &str, part: &str| {
        assert!(told.iter().any(|fault| fault.starts_with(start) && fault.contains(part)), "{start} {part}: {told:#?}");
    };
    expect("myelin.toml:3:1: ", "there is no key `wrokers` in [node]; did you mean `workers`?");
    expect("myelin.toml:4:2: ", "there is no section `listn`; did you mean `[listen]`?");
    expect("myelin.toml:7:1: ", "[listen] admin: invalid socket address syntax");
    expect("myelin.toml:8:1: ", "`site` belongs below `[node]`");
}

#[test]
fn a_key_without_its_section_is_sent_there() {
    assert_eq!(
        faults(&file("workers = 4")),
        ["myelin.toml:1:1: there is no section `workers`; `workers` belongs below `[node]`"]
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    let told = faults(&file("[node]\nsite = \"unclosed\nname = 'b'"));
    assert!(told[0].starts_with("myelin.toml:2:"), "{told:?}");
}

#[test]
fn unknown_variables_are_refused_with_a_hint() {
    let told = faults(&with_variables(&[("MYELIN_NODE__SIET", "x"), ("MYELIN_NODE__WORKERS", "many")]));
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].contains("MYELIN_NODE__SIET") && told[0].contains("did you mean `MYELIN_NODE__SITE`?"),
        "{told:#?}"
    );
    assert!(told[1].contains("MYELIN_NODE__WORKERS") && told[1].contains("whole number"), "{told:#?}");
}

#[test]
fn hostile_names_reach_no_terminal() {
    let told = faults(&file(&format!("[node]\n\"\\u001b[2J{}\" = 1", "x".repeat(10_000))));
    assert!(told[0].len() < 400 && !told[0].contains('\u{1b}'), "{told:?}");
}

#[test]
fn values_out_of_bounds_are_refused_with_the_bounds() {
    for (text, part) in [
        ("[node]\nworkers = 256", "give 0 to 255"),
        ("[node]\nworkers = -1", "whole number"),
        ("[node]\nsessions_per_worker = 0", "give 1 to"),
        ("[node]\nsessions_per_identity = 0", "give 1 to"),
        ("[node]\nsubscriptions_per_identity = 0", "give 1 to"),
        ("[node]\nsite = 'a/b'", "[node] site"),
        ("[limits]\npayload_bytes = 16_777_217", "give 1 to 16777216"),
        ("[outbox]\nbytes = 1_000", "[outbox] bytes = 1000; give"),
        ("[wasm]\ndeadline_us = 60_000", "give 100 to 50000"),
        ("[tls]\ncert = 'a.pem'\nkey = 'b.pem'", "[tls] lacks ca"),
        ("[admin]\nidentities = ['ops']", "`ops` is not of the form spiffe://"),
        ("[admin]\nidentities = 'spiffe://a/service/ops'", "is a list of texts"),
        ("[mesh]\nmembers = ['local/r1']", "[mesh] members: there is no [mesh] listen"),
        ("[mesh]\nseeds = ['a.example:7401']", "[mesh] seeds: there is no [mesh] listen"),
        ("[mesh]\nlisten = '0.0.0.0:7400'\nmembers = ['local/r1']", "is the UDP port of [listen] client"),
    ] {
        let told = faults(&file(text));
        assert!(
            told.len() == 1 && told[0].contains(part) && told[0].starts_with("myelin.toml:2:1"),
            "{text}: {told:?}"
        );
    }
}

#[test]
fn what_can_have_no_effect_is_told() {
    let told = |admin: &str| {
        let config = Config::load(&file(admin)).unwrap();
        let idle: Vec<_> = config.idle().into_iter().map(|(problem, _)| problem).collect();
        (config.admin.knows_certificates(), idle)
    };
    let alone = told("[admin]\ntoken_file = 'token'\ntwo_person = true");
    assert!(!alone.0 && alone.1.len() == 1 && alone.1[0].contains("two_person = true"), "{alone:?}");
    let known = told(
        "[admin]\ntoken_file = 'token'\ntwo_person = true\nroles = { releaser = ['spiffe://example.org/service/ann'] }",
    );
    assert_eq!(known, (true, Vec::new()));
    let (by_certificate, idle) = told("[admin]\nidentities = ['spiffe://example.org/jwt/corp/ann']");
    assert!(!by_certificate && idle.len() == 1 && idle[0].contains("no issuer `corp`"), "{idle:?}");
    assert_eq!(told("[admin]\ntoken_file = 'token'"), (false, Vec::new()));
}

#[test]
fn a_router_that_nobody_could_administer_is_refused() {
    let outside = "[listen]\nadmin = '0.0.0.0:7480'\n";
    let with_certificates = "[tls]\ncert = 'a.pem'\nkey = 'b.pem'\nca = 'c.pem'\n";
    for text in [outside, with_certificates] {
        for empty in ["", "[admin]\nidentities = []"] {
            let told = faults(&file(&format!("{text}{empty}")));
            assert!(told.len() == 1 && told[0].contains("nobody could use the admin API"), "{text}: {told:?}");
            assert!(told[0].contains("[admin] identities") && told[0].contains("token_file"), "{text}: {told:?}");
        }
        for good in ["token_file = '/etc/token'", "identities = ['spiffe://a/service/ops']"] {
            assert!(Config::load(&file(&format!("{text}[admin]\n{good}"))).is_ok(), "{text} {good}");
        }
        assert!(Config::load(&Sources { dev: true, ..file(text) }).is_ok(), "--dev names its own client");
    }
}

#[test]
fn a_shared_catalog_wants_servers_and_a_mesh_and_no_writer() {
    let mesh = "[mesh]\nlisten = '127.0.0.1:7401'\nmembers = ['local/r1']\n";
    let servers = "[jetstream]\nurls = ['tls://nats-1']\nservers_sync_always = true\n";
    let good = format!("{mesh}{servers}[catalog]\nengine = 'jetstream'");
    let config = Config::load(&file(&good)).unwrap();
    assert_eq!((config.catalog.engine, config.jetstream.urls.len()), (Engine::Jetstream, 1));
    let told = faults(&file("[catalog]\nengine = 'jetstream'\nwriter = 'local/r1'"));
    for part in ["no `urls`", "sync_interval: always", "there is no [mesh] listen", "every router writes; remove it"] {
        assert!(told.iter().any(|fault| fault.contains(part)), "{part} is missing in {told:#?}");
    }
    // What is not used is not asked for.
    assert!(Config::load(&file("[jetstream]\nreplicas = 1")).is_ok());
    let told = faults(&file("[catalog]\nengine = 'raft'"));
    assert!(told.len() == 1 && told[0].contains("the engines are `disk` and `jetstream`"), "{told:?}");
    let told = faults(&file("[jetstream]\nreplica = 3"));
    assert!(told.len() == 1 && told[0].contains("did you mean `replicas`?"), "{told:?}");
}

#[test]
fn a_collector_has_a_url_and_headers_and_files_that_go_with_it() {
    let of = |text: &str| Config::load(&file(&format!("[telemetry]\n{text}")));
    let config = of("otlp = 'https://otel.example.org/tenant'\nheaders = ['x-tenant=edge', 'a = b=c']\nca = 'ca.pem'");
    assert_eq!(config.unwrap().telemetry.headers.len(), 2);
    // What is not used is not asked for.
    assert!(of("headers = ['nonsense']\ntimeout_ms = 0\nkey = 'key.pem'").is_ok());
    for (text, part) in [
        ("otlp = 'collector:4318'", "no http:// or https:// URL; give the collector's base URL"),
        ("otlp = 'grpc://collector:4317'", "no http:// or https:// URL"),
        ("otlp = 'http://'", "is no"),
        ("otlp = ''", "is no URL"),
        ("otlp = 'http://u:secret@c:4318'", "the URL holds a user; put credentials into `headers_file`"),
        ("otlp = 'http://c:4318/?a=b'", "has a query"),
        ("otlp = 'http://c:4318/v1/traces'", "leave /v1/traces out"),
        ("otlp = 'http://c'\nheaders = ['secret']", "[telemetry] headers: a header has no `=`; give each as"),
        ("otlp = 'http://c'\nheaders = ['a b=secret']", "`a b` is no name of a header"),
        ("otlp = 'http://c'\nheaders = ['Content-Type=secret']", "the router writes the header `content-type` itself"),
        ("otlp = 'http://c'\nheaders = [\"a=secret\\n\\u0001b\"]", "the value of `a` is none of a header"),
        ("otlp = 'http://c'\nca = 'ca.pem'", "[telemetry] ca: there is a file, and `http://c` has no TLS"),
        ("otlp = 'https://c'\nkey = 'key.pem'", "[telemetry] key: it has no certificate; give `certificate`"),
        ("otlp = 'https://c'\ncertificate = 'c.pem'", "[telemetry] certificate: it has no key"),
        ("otlp = 'https://c'\ntimeout_ms = 99", "[telemetry] timeout_ms: 99 is out of bounds; give 100 to 60000"),
    ] {
        let told: Vec<_> = of(text).unwrap_err().0.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].contains(part), "{text}: {told:?}");
        assert!(told[0].starts_with("myelin.toml:") && !told[0].contains("secret"), "{text}: {told:?}");
    }
    let told = faults(&with_variables(&[("MYELIN_TELEMETRY__OLTP", "http://c")]));
    assert!(told.len() == 1 && told[0].contains("did you mean `MYELIN_TELEMETRY__OTLP`?"), "{told:?}");
}

#[test]
fn a_list_in_a_variable_is_separated_by_commas() {
    let of = |value| Config::load(&with_variables(&[("MYELIN_ADMIN__IDENTITIES", value)]));
    let ops = Identity::service("a", "ops").unwrap();
    let two = of("spiffe://a/service/ops, spiffe://a/site/s/router/r1,").unwrap().admin.identities;
    assert_eq!(two, [ops, Identity::router("a", "s", "r1").unwrap()]);
    assert_eq!(of("").unwrap().admin.identities, []);
    let told = faults(&with_variables(&[("MYELIN_ADMIN__IDENTITIES", "spiffe://a/service/ops;b")]));
    assert!(told.len() == 1 && told[0].contains("a,b in a variable"), "{told:?}");
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let error = Sources::of_process(Some("/nonexistent/myelin.toml".as_ref()), Vec::new()).unwrap_err();
    assert!(error.to_string().contains("myelin config default"), "{error}");
}

#[test]
fn what_is_told_is_bounded_whatever_the_file_holds() {
    let keys: String = (0..20_000).map(|number| format!("k{number} = 1\n")).collect();
    assert_eq!(faults(&file(&format!("[node]\n{keys}"))).len(), 64);
    let told = faults(&file(&format!("[node]\nworkers = \"{}\"", "long ".repeat(20_000))));
    assert!(told.len() == 1 && told[0].len() < 600, "{} bytes", told[0].len());
}
