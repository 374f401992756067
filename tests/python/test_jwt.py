"""JSON Web Tokens of an issuer that is not ours: its library makes them, its key set is served over TLS (IDENTITY.md)."""

from __future__ import annotations

import asyncio
import base64
import hmac
import http.server
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import pytest
from joserfc import jwk, jws, jwt

from certificates import Authority
from myelin_client import Message, Refused, open_session
from myelin_quic import Close, ConnectionEnded, Credentials
from myelin_wire import Code
from routers import Router, output, run

ROUTER_URI = "spiffe://acme.example/site/hamburg/router/r1"
ALICE = "spiffe://acme.example/jwt/corp/alice_40acme.example"
POLICY = (f'permit(principal == Service::"{ALICE}", action, resource);'
          'permit(principal, action, resource) when { principal.groups.contains("night-shift") };')
LEEWAY_S = 60


class Issuer:
    """An issuer of tokens: keys that it can change, and an HTTPS server that shows the public ones."""

    def __init__(self, authority: Authority) -> None:
        self.ca = authority.certificate
        self.keys = [jwk.RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})]
        self.asked = 0
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body = json.dumps({"keys": [key.as_dict(private=False) for key in issuer.keys]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/jwk-set+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        own = authority.issue("issuer", [], dns=["localhost"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.certificate, own.key)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def claims(self, subject: str, **more: Any) -> dict[str, Any]:
        return {"iss": self.url, "aud": ["myelin"], "sub": subject, "exp": int(time.time()) + 600} | more

    def token(self, subject: str, **more: Any) -> str:
        key = self.keys[-1]
        algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[key.key_type]
        header = {"alg": algorithm, "kid": key.kid}
        return jwt.encode(header, self.claims(subject, **more), key, algorithms=[algorithm])

    def configuration(self) -> str:
        """As the value of one variable of the environment."""
        return (f'{{ corp = {{ issuer = "{self.url}", audience = ["myelin"], trust_domain = "acme.example", '
                f'jwks_url = "{self.url}/keys", ca = "{self.ca}", roles_claim = "groups", groups_claim = "groups", '
                'roles = { devs = ["developer"], guards = ["security"] } } }')

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issuer(authority: Authority) -> Iterator[Issuer]:
    issuer = Issuer(authority)
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def router(authority: Authority, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """A router that denies whatever no policy permits, and believes the issuer."""
    own = authority.issue("router", [ROUTER_URI], dns=["localhost"], ips=["127.0.0.1"])
    variables = {"MYELIN_JWT__ISSUERS": issuer.configuration(), "MYELIN_POLICY__DEFAULT": "deny"}
    running = Router(tmp_path_factory.mktemp("router"), tls=own, variables=variables)
    guard = issuer.token("guard", groups=["guards"])
    status, _ = ask(running, authority, "PUT", "/v1/policies/alice", guard, json.dumps({"text": POLICY}).encode())
    assert status == 204
    yield running
    running.stop()


def ask(router: Router, authority: Authority, method: str, path: str, token: str,
        body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Asks the admin API over TLS, with a token and without a certificate."""
    context = ssl.create_default_context(cafile=authority.certificate)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"https://{router.admin}{path}", body, headers, method=method)
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def nobody(authority: Authority) -> Credentials:
    return Credentials(authority.certificate, None, None)


async def publishes(router: Router, authority: Authority, token: str) -> str | None:
    """A whole round trip; returns the source that a subscriber sees."""
    async with await open_session(router.address, nobody(authority), hello={"token": token}) as session:
        await session.subscribe(1, "orders/**")
        await session.send(Message("orders/new", b"{}"))
        return (await session.take()).source


async def refused(router: Router, authority: Authority, **hello: Any) -> Close:
    with pytest.raises(ConnectionEnded) as ended:
        await open_session(router.address, nobody(authority), hello=hello)
    close = ended.value.close
    assert close.application and close.code == Code.UNAUTHENTICATED, close
    return close


def test_a_client_with_a_token_has_the_rights_of_its_name(router: Router, authority: Authority, issuer: Issuer) -> None:
    assert run(publishes(router, authority, issuer.token("alice@acme.example"))) == ALICE

    async def bob() -> Refused | None:
        token = issuer.token("bob@acme.example")
        async with await open_session(router.address, nobody(authority), hello={"token": token}) as session:
            seqs = await session.publish(Message("orders/new", b"{}"))
            return (await session.settle(seqs)).get(seqs[0])

    denied = run(bob())
    assert denied is not None and denied.code == Code.FORBIDDEN


def test_policies_know_the_groups_of_a_token(router: Router, authority: Authority, issuer: Issuer) -> None:
    carol = "spiffe://acme.example/jwt/corp/carol"
    assert run(publishes(router, authority, issuer.token("carol", groups=["night-shift"]))) == carol

    async def by_day() -> Refused | None:
        token = issuer.token("carol", groups=["day-shift"])
        async with await open_session(router.address, nobody(authority), hello={"token": token}) as session:
            seqs = await session.publish(Message("orders/new", b"{}"))
            return (await session.settle(seqs)).get(seqs[0])

    denied = run(by_day())
    assert denied is not None and denied.code == Code.FORBIDDEN, "the same name, and other groups"


def test_without_a_token_that_is_believed_nothing_is_answered(router: Router, authority: Authority,
                                                              issuer: Issuer) -> None:
    assert "certificate" in run(refused(router, authority)).reason
    now, key = int(time.time()), issuer.keys[-1]
    forger = jwk.RSAKey.generate_key(2048, {"kid": key.kid})
    # A library that is good for something refuses to do this, so it is done by hand.
    header = encoded(json.dumps({"alg": "HS256", "kid": key.kid}).encode())
    message = f"{header}.{encoded(json.dumps(issuer.claims('alice@acme.example')).encode())}"
    tag = hmac.digest(key.as_pem(private=False), message.encode(), "sha256")
    confused = f"{message}.{encoded(tag)}"

    def signed(header: dict[str, Any], by: jwk.Key, **more: Any) -> str:
        header = {"kid": key.kid} | header
        return jws.serialize_compact(header, json.dumps(issuer.claims("alice@acme.example", **more)), by,
                                     algorithms=[header["alg"]])

    for token, code in [
        (signed({"alg": "none"}, key), "token-algorithm"),
        (confused, "token-algorithm"),
        (signed({"alg": "RS256"}, forger), "token-signature"),
        (signed({"alg": "RS256", "kid": "../../keys"}, forger), "token-key"),
        (issuer.token("alice@acme.example", aud="other"), "token-audience"),
        (issuer.token("alice@acme.example", iss="https://other.example"), "token-issuer"),
        (issuer.token("alice@acme.example", exp=now - LEEWAY_S - 1), "token-expired"),
        (issuer.token("alice@acme.example", nbf=now + LEEWAY_S + 60), "token-not-yet"),
        ("not.a.token", "token-malformed"),
        ("x" * 16_384, "token-too-large"),
    ]:
        assert f"{code}: " in run(refused(router, authority, token=token)).reason, code
    status, problem = ask(router, authority, "GET", "/v1/whoami", signed({"alg": "none"}, key))
    assert (status, problem["code"]) == (401, "token-algorithm")


def test_a_session_ends_with_its_token(router: Router, authority: Authority, issuer: Issuer) -> None:
    async def ends() -> Close:
        # Good for two more seconds: a token counts a minute longer than it says.
        token = issuer.token("alice@acme.example", exp=int(time.time()) - LEEWAY_S + 3)
        session = await open_session(router.address, nobody(authority), hello={"token": token})
        return await asyncio.wait_for(asyncio.shield(session.connection.ended), 8)

    close = run(ends())
    assert close.application and close.code == Code.TOKEN_EXPIRED, close


def test_claims_are_roles_of_the_admin_api(router: Router, authority: Authority, issuer: Issuer) -> None:
    developer = issuer.token("dora", groups=["devs", "staff"])
    status, me = ask(router, authority, "GET", "/v1/whoami", developer)
    assert (status, me["identity"], me["roles"]) == (200, "spiffe://acme.example/jwt/corp/dora", ["developer"])
    status, problem = ask(router, authority, "PUT", "/v1/bindings/x", developer, b"{}")
    assert (status, problem["code"]) == (400, "invalid-body"), "let in, and the body is looked at"
    status, problem = ask(router, authority, "POST", "/v1/rollouts/7/promote", developer, b"{}")
    assert (status, problem["code"]) == (403, "forbidden-role")
    status, problem = ask(router, authority, "GET", "/v1/status", issuer.token("eve"))
    assert (status, problem["code"]) == (403, "forbidden"), "a good token without a role opens nothing"


def test_a_new_key_is_read_once_when_a_token_names_it(authority: Authority, tmp_path: Path) -> None:
    issuer = Issuer(authority)
    own = authority.issue("rotating", [ROUTER_URI], dns=["localhost"], ips=["127.0.0.1"])
    router = Router(tmp_path, tls=own, variables={"MYELIN_JWT__ISSUERS": issuer.configuration()})
    try:
        assert run(publishes(router, authority, issuer.token("alice@acme.example"))) == ALICE
        asked = issuer.asked
        issuer.keys.append(jwk.ECKey.generate_key("P-256", {"kid": "ec-2", "use": "sig"}))
        assert run(publishes(router, authority, issuer.token("alice@acme.example"))) == ALICE
        issuer.keys.append(jwk.ECKey.generate_key("P-256", {"kid": "ec-3", "use": "sig"}))
        assert "token-key: " in run(refused(router, authority, token=issuer.token("alice@acme.example"))).reason
        assert issuer.asked == asked + 1, "the second unknown key within ten seconds is not asked for"
        issuer.stop()
        issuer.keys.pop()
        assert run(publishes(router, authority, issuer.token("alice@acme.example"))) == ALICE, "away, and believed"
        assert (tmp_path / "data" / "jwks-corp.json").stat().st_mode & 0o077 == 0
    finally:
        router.stop()


def test_the_commands_take_tokens_from_files(router: Router, authority: Authority, issuer: Issuer,
                                             tmp_path: Path) -> None:
    file = tmp_path / "token.jwt"
    file.write_text(issuer.token("alice@acme.example", groups=["devs"]) + "\n")
    address = "localhost:{}".format(router.address[1])
    trust = ["--ca", str(authority.certificate), "--token-file", str(file)]
    subscriber = router.command("sub", "cli/**", "--count", "1", "--addr", address, *trust)
    until = time.monotonic() + 30
    while subscriber.poll() is None and time.monotonic() < until:
        router.myelin("pub", "cli/a", "-m", "hello", "--addr", address, *trust)
        time.sleep(0.05)
    assert "hello" in output(subscriber)
    told = router.myelin("whoami", "--admin", f"https://{router.admin}", *trust)
    assert ALICE in told and "by jwt" in told and "developer" in told, told


def test_a_bad_certificate_is_no_better_with_a_token(router: Router, authority: Authority, issuer: Issuer,
                                                     tmp_path: Path) -> None:
    token = issuer.token("alice@acme.example")
    stranger = Authority(tmp_path, "another authority").issue("stranger", ["spiffe://acme.example/service/shop"])
    bearer = authority.issue("bearer", [ALICE])

    async def tls_refuses(credentials: Credentials) -> None:
        with pytest.raises(ConnectionEnded) as ended:
            await open_session(router.address, credentials, hello={"token": token})
        assert ended.value.close.tls_alert is not None, ended.value.close

    run(tls_refuses(replace(stranger, ca=authority.certificate)))
    run(tls_refuses(bearer))  # names of tokens are in no certificate


def test_a_certificate_counts_and_not_the_token_beside_it(router: Router, authority: Authority, issuer: Issuer) -> None:
    shop = authority.issue("shop", ["spiffe://acme.example/service/shop"])

    async def publishes_as_shop() -> Refused | None:
        hello = {"token": issuer.token("alice@acme.example")}
        async with await open_session(router.address, shop, hello=hello) as session:
            seqs = await session.publish(Message("orders/new", b"{}"))
            return (await session.settle(seqs)).get(seqs[0])

    denied = run(publishes_as_shop())
    assert denied is not None and denied.code == Code.FORBIDDEN


def test_a_client_goes_on_with_a_renewed_token(router: Router, authority: Authority, issuer: Issuer,
                                               tmp_path: Path) -> None:
    old, new = tmp_path / "old.jwt", tmp_path / "new.jwt"
    end = int(time.time()) + 3
    old.write_text(issuer.token("alice@acme.example", exp=end - LEEWAY_S))
    new.write_text(issuer.token("alice@acme.example"))
    trust = ["--addr", "localhost:{}".format(router.address[1]), "--ca", str(authority.certificate)]
    subscriber = router.command("sub", "renewed/**", "--count", "1", *trust, "--token-file", str(old))
    time.sleep(1.0)
    assert subscriber.poll() is None
    old.write_text(new.read_text())
    time.sleep(max(0.0, end + 1.0 - time.time()))
    until = time.monotonic() + 30
    while subscriber.poll() is None and time.monotonic() < until:
        router.myelin("pub", "renewed/a", "-m", "later", *trust, "--token-file", str(new))
        time.sleep(0.05)
    assert "later" in output(subscriber)
