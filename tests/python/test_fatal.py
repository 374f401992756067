"""What the router closes a connection for (sections 3, 8.1, 8.4, 11 and 14)."""

from __future__ import annotations

import asyncio
import time

import pytest

import myelin_wire as wire
from myelin_client import Message, open_session
from myelin_quic import CONTROL_STREAM, DELIVERY_STREAM, PUBLISH_STREAM
from myelin_wire import Code, Event, Frame, Name
from raw import HELLO, assert_close, assert_serves, closed_by_router, control_frames, handshaken
from raw import refused_on_control, refused_on_publish, welcomed
from routers import Router, run
from vectors import Vector, read_vectors

BAD = [vector for vector in read_vectors() if "refusal" in (vector.meaning or {})]
BAD_CONTROL = [vector for vector in BAD if vector.meaning["on"] == "control"]
BAD_EVENTS = [vector for vector in BAD if vector.meaning["on"] == "events"]

EVENT = Event(1, b"hi").encode()
SUBSCRIBE = wire.encode_control(Frame.SUBSCRIBE, {"id": 1, "pattern": "a/**"})


def code_of(vector: Vector) -> Code:
    return Code[vector.meaning["refusal"].upper().replace("-", "_")]


@pytest.mark.parametrize("vector", BAD_CONTROL, ids=lambda vector: vector.name)
def test_malformed_control_vectors(router: Router, vector: Vector) -> None:
    first = vector.name.startswith("bad-hello")
    run(refused_on_control(router, vector.data, code_of(vector), hello=not first))


@pytest.mark.parametrize("vector", BAD_EVENTS, ids=lambda vector: vector.name)
def test_malformed_vectors_on_the_publish_stream(router: Router, vector: Vector) -> None:
    run(refused_on_publish(router, vector.data, code_of(vector)))


@pytest.mark.parametrize("data, code", [
    (HELLO, Code.OUT_OF_ORDER),
    (wire.frame(Frame.BYE, b"\x80"), Code.MALFORMED),
    (wire.frame(Frame.SUBSCRIBE), Code.MALFORMED),
    (HELLO[:8], Code.OUT_OF_ORDER),
    (wire.frame(Frame.WELCOME, b"\x80"), Code.OUT_OF_ORDER),
    (wire.frame(Frame.ACK)[:8], Code.OUT_OF_ORDER),
    (wire.frame(Frame.SUBSCRIBED, b"\x81\xa2id\x01"), Code.OUT_OF_ORDER),
    (wire.frame(Frame.NAME, b"\x01\0\0\0a"), Code.OUT_OF_ORDER),
    (wire.frame(Frame.RECEIPT, b"\x82\xa6events\x00\xa6events\x00"), Code.MALFORMED),
    (wire.frame(Frame.RECEIPT, b"\x82\xa6events\x00\xa1x" + b"\x91" * 31 + b"\x90"), Code.MALFORMED),
    (wire.frame(Frame.RECEIPT, b"\x81\xa6events\xff"), Code.MALFORMED),
    (wire.frame(Frame.RECEIPT, b"\x81\xa6events\xc0"), Code.MALFORMED),
    (wire.encode_control(Frame.RECEIPT, {"events": 1}), Code.MALFORMED),
    (wire.frame(Frame.SUBSCRIBE, b"\x82\xa2id\xcf\0\0\0\1\0\0\0\0\xa7pattern\xa1a"), Code.MALFORMED),
], ids=["second HELLO", "BYE with a body", "empty body", "header of a second HELLO", "WELCOME", "header of an ACK",
        "SUBSCRIBED", "NAME", "key twice", "33 levels", "negative", "nil", "receipt of what was not sent", "id over 32 bits"])
def test_control_frames_that_close(router: Router, data: bytes, code: Code) -> None:
    run(refused_on_control(router, data, code))


@pytest.mark.parametrize("data", [
    SUBSCRIBE, wire.encode_control(Frame.BYE), wire.encode_control(Frame.RECEIPT, {"events": 0}),
    wire.encode_control(Frame.UNSUBSCRIBE, {"id": 1}), wire.frame(Frame.SUBSCRIBE, b"\x80")],
    ids=["SUBSCRIBE", "BYE", "RECEIPT", "UNSUBSCRIBE", "SUBSCRIBE with a bad body"])
def test_any_other_first_frame_than_hello(router: Router, data: bytes) -> None:
    run(refused_on_control(router, data, Code.OUT_OF_ORDER, hello=False))


@pytest.mark.parametrize("data, code", [
    (Name(65536, "a").encode(), Code.MALFORMED),
    (wire.frame(Frame.NAME, b"\x01\0\0"), Code.MALFORMED),
    (wire.frame(Frame.EVENTS, EVENT[:-1]), Code.MALFORMED),
    (wire.frame(Frame.EVENTS, EVENT + b"\0"), Code.MALFORMED),
    (wire.frame(0x7E), Code.UNKNOWN_FRAME),
    (wire.frame(Frame.BYE), Code.OUT_OF_ORDER),
    (HELLO, Code.OUT_OF_ORDER),
    (wire.HEADER.pack(1, Frame.EVENTS, 2, 0), Code.MALFORMED),
    (wire.HEADER.pack(1, Frame.EVENTS, 0, 256), Code.MALFORMED),
    (wire.HEADER.pack((64 << 20) + 1, 0x7E, 1, 0), Code.FRAME_TOO_LARGE),
], ids=["ref of 65536", "short NAME", "event longer than its frame", "a byte too many", "unknown frame", "BYE", "HELLO",
        "reserved flag", "zero that is not", "oversized skippable frame"])
def test_publish_frames_that_close(router: Router, data: bytes, code: Code) -> None:
    run(refused_on_publish(router, data, code))


def test_publish_streams_that_end_within_a_frame(router: Router) -> None:
    async def go() -> None:
        await refused_on_publish(router, wire.frame(Frame.EVENTS, EVENT)[:-1], Code.MALFORMED, fin=True)
        await refused_on_publish(router, b"\0", Code.MALFORMED, fin=True)

    run(go())


def test_control_streams_that_end_within_a_frame(router: Router) -> None:
    async def go() -> None:
        for data in (SUBSCRIBE[:-1], b"\0\0\0"):
            await refused_on_control(router, data, Code.MALFORMED, fin=True)

    run(go())


def test_answers_come_in_the_order_of_the_requests(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        asked = [(Frame.SUBSCRIBE, {"id": 1, "pattern": "a/**"}), (Frame.SUBSCRIBE, {"id": 1, "pattern": "b/**"}),
                 (Frame.UNSUBSCRIBE, {"id": 1}), (Frame.UNSUBSCRIBE, {"id": 1}),
                 (Frame.SUBSCRIBE, {"id": 2, "pattern": "**/b"}), (Frame.SUBSCRIBE, {"id": 1, "pattern": "b/**"})]
        connection.write(CONTROL_STREAM, b"".join(wire.encode_control(kind, body) for kind, body in asked))
        async with asyncio.timeout(3):
            while len(control_frames(connection)) <= len(asked):
                await asyncio.sleep(0.01)
        told = [(kind, body["id"], body.get("code")) for kind, body in control_frames(connection)[1:]]
        assert told == [(Frame.SUBSCRIBED, 1, None), (Frame.REFUSED, 1, Code.SUBSCRIPTION_ID),
                        (Frame.UNSUBSCRIBED, 1, None), (Frame.REFUSED, 1, Code.SUBSCRIPTION_ID),
                        (Frame.REFUSED, 2, Code.INVALID_PATTERN), (Frame.SUBSCRIBED, 1, None)]
        await connection.finish()

    run(go())


def test_a_second_publish_stream(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        data = Name(1, "second/stream").encode() + wire.frame(Frame.EVENTS, EVENT)
        connection.write(PUBLISH_STREAM, data)
        await asyncio.sleep(0.05)
        connection.write(PUBLISH_STREAM + 4, data)
        assert_close(await closed_by_router(connection), Code.OUT_OF_ORDER)

    run(go())


def test_a_stopped_delivery_stream(router: Router) -> None:
    """With `pause`, a session that can get nothing any more must not hold its publishers up for ever."""
    async def go() -> None:
        connection = await welcomed(router, overflow="pause")
        connection.write(CONTROL_STREAM, wire.encode_control(Frame.SUBSCRIBE, {"id": 1, "pattern": "stopped/**"}))
        publish = Name(1, "stopped/stream").encode() + wire.frame(Frame.EVENTS, EVENT)
        async with asyncio.timeout(3):
            while len(control_frames(connection)) < 2:
                await asyncio.sleep(0.01)
            connection.write(PUBLISH_STREAM, publish)
            while not connection.received.get(DELIVERY_STREAM):
                await asyncio.sleep(0.01)
        connection.stop(DELIVERY_STREAM)
        await asyncio.sleep(0.05)
        connection.write(PUBLISH_STREAM, wire.frame(Frame.EVENTS, EVENT))
        assert_close(await closed_by_router(connection), Code.OUT_OF_ORDER)

    run(go())


def test_a_stopped_control_stream(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        connection.stop(CONTROL_STREAM)
        await asyncio.sleep(0.05)
        connection.write(CONTROL_STREAM, wire.encode_control(Frame.SUBSCRIBE, {"id": 1, "pattern": "a/**"}))
        assert_close(await closed_by_router(connection), Code.OUT_OF_ORDER)

    run(go())


def test_a_second_publish_stream_after_the_first_was_finished(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        connection.write(PUBLISH_STREAM, Name(1, "second/stream").encode(), fin=True)
        await asyncio.sleep(0.05)
        connection.write(PUBLISH_STREAM + 4, Name(1, "second/stream").encode())
        assert_close(await closed_by_router(connection), Code.OUT_OF_ORDER)

    run(go())


@pytest.mark.parametrize("low, high", [(2, 3), (0, 0), (65535, 65535)])
def test_no_version_in_common(router: Router, low: int, high: int) -> None:
    async def go() -> None:
        connection = await handshaken(router)
        connection.write(CONTROL_STREAM, wire.encode_control(Frame.HELLO, {"min": low, "max": high}))
        close = await closed_by_router(connection)
        assert_close(close, Code.VERSION)
        assert "1" in close.reason, "it names its versions"
        assert not connection.received

    run(go())


def test_hello_that_does_not_come(router: Router) -> None:
    async def wait(first: bytes) -> None:
        connection = await handshaken(router)
        begun = time.monotonic()
        if first:
            connection.write(CONTROL_STREAM, first)
        close = await closed_by_router(connection, timeout_s=8)
        assert_close(close, Code.HELLO_TIMEOUT)
        assert 4 < time.monotonic() - begun < 7.5

    async def go() -> None:
        await asyncio.gather(wait(b""), wait(HELLO[:-1]), wait(wire.frame(0x7E, b"", wire.SKIPPABLE)))

    run(go())


def test_receipts_never_fall(router: Router) -> None:
    async def go() -> None:
        session = await open_session(router.address, router.credentials)
        await session.subscribe(1, "receipts/a")
        await session.send(Message("receipts/a", b"1"), Message("receipts/a", b"2"))
        await session.take_all(2)
        await asyncio.sleep(0.1)
        assert session.receipts >= 1
        session.connection.write(CONTROL_STREAM, wire.encode_control(Frame.RECEIPT, {"events": 1}))
        assert_close(await closed_by_router(session.connection), Code.MALFORMED)

    run(go())


def test_skippable_frames_are_skipped_on_the_control_stream(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        skipped = wire.frame(0x7E, b"\x01\x02\x03", wire.SKIPPABLE) + wire.frame(0xFF, b"\xaa" * 65536, wire.SKIPPABLE)
        connection.write(CONTROL_STREAM, skipped + wire.frame(0x00, b"", wire.SKIPPABLE) + SUBSCRIBE)
        async with asyncio.timeout(3):
            while len(control_frames(connection)) < 2:
                await asyncio.sleep(0.01)
        assert control_frames(connection)[1] == (Frame.SUBSCRIBED, {"id": 1})
        assert (await connection.finish()).code == 0

    run(go())


def test_a_known_frame_marked_skippable_is_not_skipped(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        connection.write(CONTROL_STREAM, wire.frame(Frame.SUBSCRIBE, SUBSCRIBE[8:], wire.SKIPPABLE))
        async with asyncio.timeout(3):
            while len(control_frames(connection)) < 2:
                await asyncio.sleep(0.01)
        assert control_frames(connection)[1] == (Frame.SUBSCRIBED, {"id": 1})
        await connection.finish()

    run(go())


def test_a_control_frame_of_the_largest_size_is_taken(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        body = b"\x83" + SUBSCRIBE[9:] + b"\xa1x\xc6"
        body += (wire.CONTROL_FRAME_BYTES_MAX - len(body) - 4).to_bytes(4, "big")
        connection.write(CONTROL_STREAM, wire.frame(Frame.SUBSCRIBE, body.ljust(wire.CONTROL_FRAME_BYTES_MAX, b"\xff")))
        async with asyncio.timeout(3):
            while len(control_frames(connection)) < 2:
                await asyncio.sleep(0.01)
        assert control_frames(connection)[1] == (Frame.SUBSCRIBED, {"id": 1})
        await connection.finish()

    run(go())


def test_bye_and_a_finished_control_stream_end_cleanly(router: Router) -> None:
    async def go() -> None:
        for data, fin in [(wire.encode_control(Frame.BYE), False), (wire.encode_control(Frame.BYE), True), (b"", True)]:
            connection = await welcomed(router)
            connection.write(CONTROL_STREAM, data, fin)
            close = await closed_by_router(connection)
            assert (close.code, close.application) == (0, True), close

    run(go())


def test_events_are_acknowledged_after_the_publish_stream_was_finished(router: Router) -> None:
    async def go() -> None:
        connection = await welcomed(router)
        data = Name(1, "finished/a").encode() + wire.frame(Frame.EVENTS, EVENT * 50)
        connection.write(PUBLISH_STREAM, data, fin=True)
        async with asyncio.timeout(3):
            while (Frame.ACK, {"seq": 50, "exceptions": []}) not in control_frames(connection):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not connection.ended.done()
        assert (await connection.finish()).code == 0

    run(go())


def test_the_router_serves_after_all_this(router: Router) -> None:
    run(assert_serves(router))
