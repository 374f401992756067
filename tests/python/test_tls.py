"""Strangers at the door: every bad certificate, ALPN or name fails before a frame is answered (section 1).

QUIC has TLS 1.3 only (RFC 9001 section 4.2): there is no TLS 1.2 handshake that a client could try here. The refusal of
TLS 1.2 is a matter of the HTTPS admin listener and tested there.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Iterator

import pytest

from certificates import DAY, Authority
from myelin_client import Message, open_session
from myelin_quic import CONTROL_STREAM, Close, Credentials, connect
from raw import HELLO
from routers import Router, run

CLIENT_URI = "spiffe://acme.example/service/shop"
ROUTER_URI = "spiffe://acme.example/site/hamburg/router/r1"

ALERT_BAD_CERTIFICATE = 42
ALERT_CERTIFICATE_EXPIRED = 45
ALERT_CERTIFICATE_REQUIRED = 116
ALERT_NO_APPLICATION_PROTOCOL = 120


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def router(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """A router whose certificates are ours, so that we can sign bad ones of the same authority."""
    own = authority.issue("router", [ROUTER_URI], dns=["localhost"], ips=["127.0.0.1", "::1"])
    running = Router(tmp_path_factory.mktemp("router"), tls=own)
    yield running
    running.stop()


async def handshake_fails(router: Router, credentials: Credentials, **options: str | None) -> Close:
    """Tries with a HELLO right behind the handshake; asserts a TLS alert, and that no byte came on any stream."""
    connection = await connect(router.address, credentials, **options)
    connection.handshake.add_done_callback(
        lambda done: done.exception() or connection.write(CONTROL_STREAM, HELLO))
    close = await asyncio.wait_for(asyncio.shield(connection.ended), 8)
    await connection.finish()
    assert close.tls_alert is not None, f"not refused by TLS: {close}"
    assert connection.received == {}, "the router answered a stranger"
    return close


async def publishes(router: Router, credentials: Credentials, **options: str) -> str | None:
    """A whole round trip; returns the source that a subscriber sees."""
    async with await open_session(router.address, credentials, **options) as session:
        await session.subscribe(1, "tls/a")
        await session.send(Message("tls/a", b"hi"))
        return (await session.take()).source


def test_a_good_certificate_is_let_in_and_is_the_source(router: Router, authority: Authority) -> None:
    good = authority.issue("good", [CLIENT_URI], dns=["shop.acme.example"])
    assert run(publishes(router, good)) == CLIENT_URI
    assert run(publishes(router, good, server_name="127.0.0.1")) == CLIENT_URI


def test_a_certificate_of_another_authority(router: Router, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "another authority").issue("stranger", [CLIENT_URI])
    run(handshake_fails(router, replace(stranger, ca=authority.certificate)))


def test_a_certificate_of_an_authority_with_the_same_name(router: Router, authority: Authority, tmp_path: Path) -> None:
    impostor = Authority(tmp_path).issue("impostor", [CLIENT_URI])
    run(handshake_fails(router, replace(impostor, ca=authority.certificate)))


def test_an_expired_certificate(router: Router, authority: Authority) -> None:
    expired = authority.issue("expired", [CLIENT_URI], begins=-3 * DAY, ends=-DAY)
    assert run(handshake_fails(router, expired)).tls_alert == ALERT_CERTIFICATE_EXPIRED


def test_a_certificate_that_is_not_valid_yet(router: Router, authority: Authority) -> None:
    run(handshake_fails(router, authority.issue("early", [CLIENT_URI], begins=DAY, ends=2 * DAY)))


def test_no_certificate(router: Router, authority: Authority) -> None:
    close = run(handshake_fails(router, Credentials(authority.certificate, None, None)))
    assert close.tls_alert == ALERT_CERTIFICATE_REQUIRED


@pytest.mark.parametrize("uris, dns", [
    ([], []),
    ([], ["shop.acme.example"]),
    ([CLIENT_URI, "spiffe://acme.example/service/other"], []),
    ([CLIENT_URI, "https://acme.example/"], []),
    ([CLIENT_URI, CLIENT_URI], []),
], ids=["no SAN", "only a DNS SAN", "two identities", "a second URI", "the same twice"])
def test_a_certificate_without_exactly_one_uri_san(router: Router, authority: Authority, uris: list[str],
                                                   dns: list[str]) -> None:
    run(handshake_fails(router, authority.issue("sans", uris, dns=dns)))


@pytest.mark.parametrize("alpn", ["myelin-client/2", "myelin-client", "h3", None])
def test_another_alpn(router: Router, authority: Authority, alpn: str | None) -> None:
    close = run(handshake_fails(router, authority.issue("alpn", [CLIENT_URI]), alpn=alpn))
    assert close.tls_alert == ALERT_NO_APPLICATION_PROTOCOL


@pytest.mark.parametrize("name", ["wrong.example", "127.0.0.2"])
def test_the_client_refuses_another_server_name(router: Router, authority: Authority, name: str) -> None:
    good = authority.issue("good", [CLIENT_URI])
    assert run(handshake_fails(router, good, server_name=name)).tls_alert == ALERT_BAD_CERTIFICATE


def test_the_client_refuses_a_router_of_another_authority(router: Router, authority: Authority, tmp_path: Path) -> None:
    elsewhere = Authority(tmp_path, "another authority")
    good = authority.issue("good", [CLIENT_URI])
    assert run(handshake_fails(router, replace(good, ca=elsewhere.certificate))).tls_alert is not None


def test_the_router_serves_after_all_strangers(router: Router, authority: Authority) -> None:
    assert run(publishes(router, authority.issue("good", [CLIENT_URI]))) == CLIENT_URI
