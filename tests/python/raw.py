"""Sessions by hand: for bytes that the client would never send."""

from __future__ import annotations

import asyncio
from typing import Any

import myelin_wire as wire
from myelin_client import Message, open_session
from myelin_quic import CONTROL_STREAM, PUBLISH_STREAM, Close, Connection, connect
from myelin_wire import Code, Frame, Reader
from routers import Router

CLOSE_TIMEOUT_S = 3.0

HELLO = wire.encode_control(Frame.HELLO, {"min": 1, "max": 1})
BYE = wire.encode_control(Frame.BYE)


async def handshaken(router: Router) -> Connection:
    """A connection on which nothing has been sent."""
    connection = await connect(router.address, router.credentials)
    await asyncio.wait_for(connection.handshake, CLOSE_TIMEOUT_S)
    return connection


async def welcomed(router: Router, overflow: str = "drop-oldest") -> Connection:
    """A connection after WELCOME."""
    connection = await handshaken(router)
    connection.write(CONTROL_STREAM, wire.encode_control(Frame.HELLO, {"min": 1, "max": 1, "overflow": overflow}))
    async with asyncio.timeout(CLOSE_TIMEOUT_S):
        while not control_frames(connection):
            await asyncio.sleep(0.002)
    return connection


def control_frames(connection: Connection) -> list[tuple[Frame, dict[str, Any]]]:
    """What the router has said on the control stream so far."""
    return list(Reader("control", sender="router").feed(bytes(connection.received.get(CONTROL_STREAM, b""))))


async def closed_by_router(connection: Connection, timeout_s: float = CLOSE_TIMEOUT_S) -> Close:
    """How the router closes; fails when it does not."""
    try:
        return await asyncio.wait_for(asyncio.shield(connection.ended), timeout_s)
    finally:
        await connection.finish()


def assert_close(close: Close, code: Code) -> None:
    """Section 8.8: the refusal's number, and the reason `<code-name>: <sentence>`."""
    assert (close.code, close.application) == (code, True), close
    name, _, sentence = close.reason.partition(": ")
    assert name == code.label and len(sentence) > 5, close


async def refused_on_control(router: Router, data: bytes, code: Code, *, hello: bool = True, fin: bool = False) -> None:
    """Asserts that the router closes with `code` because of these bytes on the control stream."""
    connection = await (welcomed if hello else handshaken)(router)
    connection.write(CONTROL_STREAM, data, fin)
    assert_close(await closed_by_router(connection), code)


async def refused_on_publish(router: Router, data: bytes, code: Code, *, fin: bool = False) -> None:
    """Asserts that the router closes with `code` because of these bytes on the publish stream."""
    connection = await welcomed(router)
    connection.write(PUBLISH_STREAM, data, fin)
    assert_close(await closed_by_router(connection), code)


async def assert_serves(router: Router) -> None:
    """Asserts that the router still takes and delivers."""
    async with await open_session(router.address, router.credentials) as session:
        await session.subscribe(1, "still/here")
        await session.send(Message("still/here", b"yes"))
        assert (await session.take()).payload == b"yes"
