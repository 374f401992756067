"""Random bytes on control and publish streams: each closes its own connection, and the router serves on."""

from __future__ import annotations

import asyncio
import random

import pytest

import myelin_wire as wire
from myelin_events import Attribute, Tag, encode_attributes
from myelin_quic import CONTROL_STREAM, PUBLISH_STREAM
from myelin_wire import Code, Event, Frame, Name
from raw import HELLO, assert_serves, closed_by_router, handshaken
from routers import Router, run

SEEDS = range(20)
STREAMS_PER_SEED = 25
CONCURRENT = 5
ALLOWED = {0, Code.MALFORMED, Code.UNKNOWN_FRAME, Code.FRAME_TOO_LARGE, Code.OUT_OF_ORDER, Code.VERSION,
           Code.UNKNOWN_TOPIC_REF}
"""0 = the garbage was well-formed by chance, so that the end of the control stream was a BYE. `unknown-topic-ref` only as
long as a NAME above 65,535 is marked in test_fatal."""
QUIC_APPLICATION_ERROR = 0x0C
"""What is left of an application's close when it happens before the handshake is confirmed (RFC 9000, 10.2.3)."""

VALID_CONTROL = [
    HELLO, wire.encode_control(Frame.SUBSCRIBE, {"id": 1, "pattern": "garbage/**", "group": "g"}),
    wire.encode_control(Frame.UNSUBSCRIBE, {"id": 1}), wire.encode_control(Frame.RECEIPT, {"events": 0}),
]
BLOCK = encode_attributes([Attribute(Tag.KEY, b"k7"), Attribute(Tag.HEADER, b"acme", "x-tenant")])
VALID_EVENTS = [
    Name(1, "garbage/a").encode(),
    wire.frame(Frame.EVENTS, Event(1, b"payload").encode() * 3 + Event(1, b"payload", BLOCK).encode()),
]


def garbage(dice: random.Random, valid: list[bytes]) -> bytes:
    """Noise, a header in front of noise, or valid frames with a few bytes changed, cut, or put in twice."""
    kind = dice.randrange(3)
    if kind == 0:
        return dice.randbytes(dice.randrange(1, 400))
    if kind == 1:
        return wire.frame(dice.choice([*Frame, 0x7E]), dice.randbytes(dice.randrange(0, 200)), dice.choice([0, 0, 0, 1]))
    data = bytearray(b"".join(dice.choices(valid, k=dice.randrange(1, 6))))
    for _ in range(dice.randrange(1, 8)):
        at = dice.randrange(len(data))
        change = dice.randrange(3)
        if change == 0:
            data[at] = dice.randrange(256)
        elif change == 1 and len(data) > 1:
            del data[at:at + dice.randrange(1, 9)]
        else:
            data[at:at] = data[at:at + dice.randrange(1, 30)]
        if not data:
            return b"\xff"
    return bytes(data)


async def one_stream(router: Router, seed: str) -> None:
    dice = random.Random(seed)
    connection = await handshaken(router)
    target = dice.choice(["first", "control", "publish"])
    try:
        if target == "first":
            connection.write(CONTROL_STREAM, garbage(dice, VALID_CONTROL), fin=True)
        elif target == "control":
            connection.write(CONTROL_STREAM, HELLO + garbage(dice, VALID_CONTROL), fin=True)
        else:
            connection.write(CONTROL_STREAM, HELLO)
            async with asyncio.timeout(3):
                while not connection.received and not connection.ended.done():
                    await asyncio.sleep(0.002)
            connection.write(PUBLISH_STREAM, garbage(dice, VALID_EVENTS), fin=True)
            await asyncio.sleep(0.02)
            connection.write(CONTROL_STREAM, b"", fin=True)
        close = await closed_by_router(connection)
    finally:
        await connection.finish()
    early = not close.application and close.code == QUIC_APPLICATION_ERROR
    assert early or close.application and close.code in ALLOWED, f"seed {seed!r}, {target}: {close}"


@pytest.mark.parametrize("seed", SEEDS)
def test_garbage_closes_only_its_own_connection(router: Router, seed: int) -> None:
    async def go() -> None:
        for start in range(0, STREAMS_PER_SEED, CONCURRENT):
            async with asyncio.TaskGroup() as group:
                for number in range(start, start + CONCURRENT):
                    group.create_task(one_stream(router, f"{seed}/{number}"))

    run(go())


def test_the_router_serves_after_500_streams_of_garbage(router: Router) -> None:
    assert len(SEEDS) * STREAMS_PER_SEED == 500
    run(assert_serves(router))
