#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

fn gate(token: Option<&str>, is_open: bool, is_tls: bool) -> Gate {
    let token = token.map(|text| Token::new(text).unwrap());
    let addr = ([127, 0, 0, 1], 7480).into();
    Gate { addr, is_tls, is_open, token, identities: Vec::new(), roles: RoleMap::default(), tokens: None }
}

fn asks(gate: &Gate, identity: Option<&str>, headers: &[(&'static str, &str)]) -> Result<String, &'static str> {
    asks_for(false, gate, identity, headers)
}

fn asks_for(
    is_registry: bool,
    gate: &Gate,
    identity: Option<&str>,
    headers: &[(&'static str, &str)],
) -> Result<String, &'static str> {
    asks_until(None, is_registry, gate, identity, headers)
}

fn asks_until(
    not_after_unix_s: Option<i64>,
    is_registry: bool,
    gate: &Gate,
    identity: Option<&str>,
    headers: &[(&'static str, &str)],
) -> Result<String, &'static str> {
    let identity = identity.map(|text| Identity::parse(text).unwrap());
    let peer = Peer { identity, not_after_unix_s, addr: ([127, 0, 0, 1], 50_000).into() };
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let admitted = runtime.block_on(gate.admit(&peer, &headers, is_registry));
    admitted.map(|caller| caller.actor.to_string()).map_err(|problem| problem.code())
}

#[test]
fn an_open_gate_knows_its_own_names_only() {
    let open = gate(None, true, false);
    for good in ["localhost:7480", "LOCALHOST:7480", "127.0.0.1:7480", "[::1]:7480"] {
        assert_eq!(asks(&open, None, &[("host", good)]), Ok("local".into()), "{good}");
    }
    for bad in [
        "",
        "localhost",
        "localhost:80",
        "evil.example:7480",
        "localhost.evil.example:7480",
        "127.0.0.1:74801",
        "[::1]",
    ] {
        assert_eq!(asks(&open, None, &[("host", bad)]), Err("forbidden-host"), "{bad}");
    }
    assert_eq!(asks(&open, None, &[]), Err("forbidden-host"));
}

#[test]
fn a_page_of_another_origin_is_refused_whatever_it_carries() {
    let token = "0123456789abcdef";
    let open = gate(Some(token), true, false);
    let bearer = format!("Bearer {token}");
    for origin in ["http://evil.example", "null", "https://127.0.0.1:7480", "http://127.0.0.1:7481"] {
        let headers = [("host", "127.0.0.1:7480"), ("origin", origin), ("authorization", &bearer)];
        assert_eq!(asks(&open, None, &headers), Err("forbidden-origin"), "{origin}");
    }
    let own = [("host", "127.0.0.1:7480"), ("origin", "http://127.0.0.1:7480")];
    assert_eq!(asks(&open, None, &own), Ok("local".into()));
}

#[test]
fn a_closed_gate_wants_the_token_or_a_certificate() {
    let token = "0123456789abcdef";
    let closed = gate(Some(token), false, true);
    let service = "spiffe://test.example/service/ops";
    assert_eq!(asks(&closed, None, &[("host", "127.0.0.1:7480")]), Err("unauthorized"));
    assert_eq!(asks(&closed, None, &[("authorization", "bearer 0123456789abcdef")]), Ok("token".into()));
    for bad in ["Bearer 0123456789abcdeF", "Bearer", "Bearer ", "Basic 0123456789abcdef", "Bearer 0123456789abcdef0"] {
        assert_eq!(asks(&closed, None, &[("authorization", bad)]), Err("unauthorized"), "{bad}");
        assert_eq!(asks(&closed, Some(service), &[("authorization", bad)]), Err("unauthorized"), "{bad}");
    }
    assert_eq!(asks(&closed, Some(service), &[]), Err("forbidden"), "none named is none let in");
    let named = |text: &str| vec![Identity::parse(text).unwrap()];
    let other = Gate { identities: named("spiffe://test.example/service/other"), ..closed };
    assert_eq!(asks(&other, Some(service), &[]), Err("forbidden"));
    let ours = Gate { identities: named(service), ..other };
    assert_eq!(asks(&ours, Some(service), &[]), Ok(service.into()));
}

#[test]
fn a_certificate_that_is_over_lets_nobody_in_and_a_token_beside_it_does() {
    let (token, service) = ("0123456789abcdef", "spiffe://test.example/service/ops");
    let gate = Gate { identities: vec![Identity::parse(service).unwrap()], ..gate(Some(token), true, true) };
    let now = i64::try_from(unix_s()).unwrap();
    let asks =
        |not_after, headers: &[(&'static str, &str)]| asks_until(Some(not_after), false, &gate, Some(service), headers);
    // A minute longer, as for sessions: clocks differ.
    for good in [now + 3_600, now - 30] {
        assert_eq!(asks(good, &[]), Ok(service.into()));
    }
    for bad in [now - 61, 0, -1] {
        assert_eq!(asks(bad, &[]), Err("certificate-expired"));
        assert_eq!(asks(bad, &[("host", "127.0.0.1:7480")]), Err("certificate-expired"), "an open gate is no way in");
        assert_eq!(asks(bad, &[("authorization", "Bearer 0123456789abcdef")]), Ok("token".into()));
    }
}

#[test]
fn who_sends_no_token_is_told_what_this_router_takes() {
    let code = |gate: &Gate, given: &[u8]| gate.no_token(given).code();
    let (of_issuers, with_file) = (gate(None, false, true), gate(Some("0123456789abcdef"), false, true));
    assert_eq!((code(&of_issuers, b"abc"), code(&of_issuers, b"")), ("token-malformed", "unauthorized"));
    assert_eq!(code(&with_file, b"abc"), "unauthorized");
}

#[test]
fn the_registry_takes_the_token_as_a_password() {
    let closed = gate(Some("0123456789abcdef"), false, true);
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for good in ["user:0123456789abcdef", ":0123456789abcdef"] {
        let headers = [("authorization", &*basic(good))];
        assert_eq!(asks_for(true, &closed, None, &headers), Ok("token".into()), "{good}");
        assert_eq!(asks_for(false, &closed, None, &headers), Err("unauthorized"), "elsewhere it is no password");
    }
    for bad in [basic("user:0123456789abcdeF"), basic("0123456789abcdef"), basic("0123456789abcdef:"), "Basic !".into()]
    {
        assert_eq!(asks_for(true, &closed, None, &[("authorization", &bad)]), Err("unauthorized"), "{bad}");
    }
    let bearer = [("authorization", "Bearer 0123456789abcdef")];
    assert_eq!(asks_for(true, &closed, None, &bearer), Ok("token".into()));
}
