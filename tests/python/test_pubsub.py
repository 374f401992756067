"""Publishing, subscribing, and what arrives (sections 5 to 9)."""

from __future__ import annotations

import asyncio
import re
import struct
import time

import pytest

import myelin_wire as wire
from myelin_client import Message, Refused, Session, header, key, open_session, ttl
from myelin_events import Attribute, Tag
from myelin_quic import CONTROL_STREAM, DELIVERY_STREAM, Connection
from myelin_wire import Code, Frame
from raw import welcomed
from routers import Router, run
from vectors import read_table

QUIET_S = 0.5
"""No event for so long means that no more come."""


async def session(router: Router, **hello: object) -> Session:
    return await open_session(router.address, router.credentials, hello=hello)


def test_welcome_names_the_router_and_the_limits_of_the_page(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            assert client.welcome["version"] == 1
            assert client.welcome["site"] and client.welcome["router"]
            assert re.fullmatch(r"\$inbox/[^/]+(/[^/]+)*", client.inbox)
            assert client.limits == {row[0]: int(row[1]) for row in read_table("key", "default")}
            async with await session(router) as other:
                assert other.inbox != client.inbox

    run(go())


def test_a_range_of_versions_is_met_at_1(router: Router) -> None:
    async def go() -> None:
        async with await session(router, min=0, max=9) as client:
            assert client.welcome["version"] == 1

    run(go())


def test_an_event_is_acknowledged_also_when_nobody_listens(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            assert await client.settle(await client.publish(Message("nobody/here", b"hi"))) == {}
            assert client.acknowledged == 1
            seqs = await client.publish(*[Message(f"nobody/{n % 7}", b"x" * n) for n in range(500)])
            assert await client.settle(seqs) == {}
            assert client.acknowledged == 501
            assert (await client.bye()).code == 0

    run(go())


@pytest.mark.parametrize("pattern, hits, misses", [
    ("plain/eu", ["plain/eu"], ["plain", "plain/eu/42", "plain/us"]),
    ("one/*/state", ["one/a/state", "one/ü b/state"], ["one/state", "one/a/b/state", "one/a"]),
    ("many/**", ["many", "many/a", "many/a/b/c"], ["man", "manya", "other/many"]),
    ("mixed/*/**", ["mixed/a", "mixed/a/b"], ["mixed"]),
])
def test_a_subscription_gets_what_its_pattern_matches(router: Router, pattern: str, hits: list[str],
                                                      misses: list[str]) -> None:
    async def go() -> None:
        async with await session(router) as publisher, await session(router) as subscriber:
            await subscriber.subscribe(1, pattern)
            topics = [topic for pair in zip(hits, misses) for topic in pair] + hits + misses
            await publisher.send(*[Message(topic, topic.encode()) for topic in topics])
            expected = [topic for topic in topics if topic in hits]
            arrived = await subscriber.take_all(len(expected))
            assert [delivery.topic for delivery in arrived] == expected
            assert [delivery.payload.decode() for delivery in arrived] == expected
            assert all(subscriber.matching(delivery) == [1] for delivery in arrived)
            await subscriber.nothing_more()

    run(go())


def test_wildcards_do_not_reach_the_topics_of_the_router(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as publisher, await session(router) as subscriber:
            await subscriber.subscribe(1, "**")
            await subscriber.subscribe(2, "*/*/*")
            await publisher.send(Message(f"{subscriber.inbox}/1", b"to nobody"), Message("dollar/free", b"1"))
            assert (await subscriber.take()).topic == "dollar/free"
            await subscriber.nothing_more()

    run(go())


def test_overlapping_subscriptions_get_one_copy(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as publisher, await session(router) as subscriber:
            for id, pattern in enumerate(["twice/**", "twice/*", "twice/b"], 1):
                await subscriber.subscribe(id, pattern)
            await publisher.send(Message("twice/a", b"1"), Message("twice/b", b"2"), Message("twice/b/c", b"3"))
            arrived = await subscriber.take_all(3)
            assert [delivery.payload for delivery in arrived] == [b"1", b"2", b"3"]
            assert [subscriber.matching(delivery) for delivery in arrived] == [[1, 2], [1, 2, 3], [1]]
            assert {delivery.subscription for delivery in arrived} == {0}
            await subscriber.nothing_more()

    run(go())


def test_unsubscribing_ends_deliveries_and_frees_the_id(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            await client.subscribe(7, "leave/a")
            await client.send(Message("leave/a", b"1"))
            assert (await client.take()).payload == b"1"
            await client.unsubscribe(7)
            await client.send(Message("leave/a", b"2"))
            await client.nothing_more()
            await client.subscribe(7, "leave/b")
            await client.send(Message("leave/a", b"3"), Message("leave/b", b"4"))
            assert (await client.take()).payload == b"4"

    run(go())


def test_every_attribute_comes_back_as_it_was_sent(router: Router) -> None:
    async def go() -> None:
        sent = (Attribute(Tag.ID, b"order-17"), Attribute(Tag.SOURCE, b"urn:shop:7"), Attribute(Tag.TYPE, b"order.placed"),
                Attribute(Tag.TIME, struct.pack("<Q", 1767225600000000000)), key(b"\x00\xff"),
                Attribute(Tag.CONTENT_TYPE, b"application/json"), Attribute(Tag.SCHEMA, b"order:3"),
                Attribute(Tag.TRACEPARENT, b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                Attribute(Tag.CORRELATION, b"\x00*"), header("x-tenant", "acme"), header("x-tenant", ""),
                header("X-Tenant", "\u00fc" * 200))
        async with await session(router) as publisher, await session(router) as subscriber:
            await subscriber.subscribe(1, "attributes/all")
            await publisher.send(Message("attributes/all", bytes(range(256)), sent))
            delivery = await subscriber.take()
            assert sorted(delivery.attributes, key=repr) == sorted(sent, key=repr)
            assert delivery.headers == [("x-tenant", "acme"), ("x-tenant", ""), ("X-Tenant", "\u00fc" * 200)]
            assert (delivery.payload, delivery.flags) == (bytes(range(256)), 0)
            assert (delivery.id, delivery.time_ns) == ("order-17", 1767225600000000000)

    run(go())


def test_a_bare_event_has_id_time_and_source_derived(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as publisher, await session(router) as one, await session(router) as two:
            for subscriber in (one, two):
                await subscriber.subscribe(1, "derived/**")
            before = time.time_ns()
            await publisher.send(*[Message("derived/a") for _ in range(100)])
            first, second = await one.take_all(100), await two.take_all(100)
            ids = [delivery.id for delivery in first]
            assert ids == [delivery.id for delivery in second] and len(set(ids)) == 100
            assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{2}-[0-9a-f]{16}", id) for id in ids)
            assert all(re.fullmatch(r"spiffe://[^/]+/service/[^/]+", delivery.source) for delivery in first)
            assert all(before - 10**9 <= delivery.time_ns <= time.time_ns() + 10**9 for delivery in first)
            assert all(delivery.attributes == [] and delivery.payload == b"" for delivery in first)

    run(go())


def test_a_time_to_live_travels(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            await client.subscribe(1, "ttl/**")
            await client.send(Message("ttl/long", b"lives", (ttl(60000),)))
            delivery = await client.take()
            assert 50000 < struct.unpack("<I", delivery.value(Tag.TTL))[0] <= 60000
            assert delivery.flags == wire.FLAG_TTL

    run(go())


def test_a_time_to_live_of_0_has_run_out(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            await client.subscribe(1, "ttl/**")
            with pytest.raises(Refused) as refused:
                await client.send(Message("ttl/zero", b"dead", (ttl(0),)))
            assert refused.value.code is Code.EXPIRED

    run(go())


def test_an_event_that_expired_is_not_delivered(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            await client.subscribe(1, "ttl/**")
            await client.settle(await client.publish(Message("ttl/zero", b"dead", (ttl(0),)), Message("ttl/none", b"1")))
            assert (await client.take()).payload == b"1"
            await client.nothing_more()

    run(go())


def test_a_payload_of_the_announced_limit_arrives_whole(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            await client.subscribe(1, "large")
            payload = bytes(n * n % 251 for n in range(client.limits["payload_bytes"]))
            await client.send(Message("large", payload))
            assert (await client.take()).payload == payload

    run(go())


def test_names_can_be_given_new_meanings(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            await client.subscribe(1, "again/**")
            frames = b"".join(wire.Name(65535, f"again/{n}").encode() +
                              wire.frame(Frame.EVENTS, wire.Event(65535, b"%d" % n).encode()) for n in range(50))
            assert await client.settle(client.publish_bytes(frames, 50)) == {}
            arrived = await client.take_all(50)
            assert [(delivery.topic, delivery.payload) for delivery in arrived] == [
                (f"again/{n}", b"%d" % n) for n in range(50)]

    run(go())


def test_frames_may_arrive_in_single_bytes_and_skippable_ones_are_skipped(router: Router) -> None:
    async def go() -> None:
        async with await session(router) as client:
            await client.subscribe(1, "slow/a")
            frames = (wire.frame(0x3F, b"\xff" * 5, wire.SKIPPABLE) + wire.Name(3, "slow/a").encode()
                      + wire.frame(Frame.EVENTS) + wire.frame(Frame.EVENTS, wire.Event(3, b"hi").encode()))
            for at in range(len(frames)):
                seqs = client.publish_bytes(frames[at:at + 1], int(at == len(frames) - 1))
                await asyncio.sleep(0)
            assert await client.settle(seqs) == {}
            assert (await client.take()).payload == b"hi"

    run(go())


def test_the_router_stops_at_the_window_of_receipts_and_goes_on(router: Router) -> None:
    """Section 8.4: the write that reaches the window goes above it by at most 64 KiB of events."""
    batch, batches = 1000, wire.UNRECEIPTED_EVENTS_MAX // 1000 + 20
    overshoot = 65536 // wire.EVENT_HEAD.size

    async def go() -> None:
        subscriber = await welcomed(router, overflow="pause")
        subscriber.write(CONTROL_STREAM, wire.encode_control(Frame.SUBSCRIBE, {"id": 1, "pattern": "window"}))
        async with await session(router) as publisher:
            await asyncio.sleep(0.1)
            frames = wire.frame(Frame.EVENTS, wire.Event(1, b"").encode() * batch)
            publisher.publish_bytes(wire.Name(1, "window").encode(), 0)
            for _ in range(batches):
                publisher.publish_bytes(frames, batch)
            stalled = await quiet(subscriber)
            assert 0 <= stalled - wire.UNRECEIPTED_EVENTS_MAX <= overshoot, stalled
            subscriber.write(CONTROL_STREAM, wire.encode_control(Frame.RECEIPT, {"events": stalled}))
            assert await quiet(subscriber) == batch * batches
            assert await publisher.settle(range(1, batch * batches + 1)) == {}
        await subscriber.finish()

    async def quiet(subscriber: Connection) -> int:
        """How many events have arrived when no more come."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_S:
            if last != (arrived := len(subscriber.received.get(DELIVERY_STREAM, b""))):
                last, since = arrived, time.monotonic()
            await asyncio.sleep(0.02)
        return counted(subscriber.received[DELIVERY_STREAM])

    run(go())


def counted(stream: bytes) -> int:
    """The events of a delivery stream, by the counts in its stamps."""
    count, at = 0, 0
    while at < len(stream):
        length, kind, _, _ = wire.HEADER.unpack_from(stream, at)
        at += wire.HEADER.size
        if kind == Frame.DELIVER:
            count += wire.STAMP.unpack_from(stream, at)[5]
        at += length
    assert at == len(stream), "the stream stops within a frame"
    return count
