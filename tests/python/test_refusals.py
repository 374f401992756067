"""What is refused while the session goes on: exceptions in ACKs and REFUSED (section 11)."""

from __future__ import annotations

import asyncio

import pytest

import myelin_wire as wire
from myelin_client import Message, Refused, Session, header, key, open_session, ttl
from myelin_events import Attribute, Tag
from myelin_wire import Code, Event, Frame, Name
from raw import assert_serves
from routers import Router, run
from vectors import Vector, read_topics, read_vectors

BAD_BLOCKS = [vector for vector in read_vectors() if (vector.meaning or {}).get("on") == "attrs"]
TOPICS = read_topics()


async def settled(session: Session, *events: Event, topic: str = "refusals/a") -> dict[int, Code]:
    """Publishes events under ref 0 = `topic`; the codes of the refused by their place, from 0."""
    frames = Name(0, topic).encode() + wire.frame(Frame.EVENTS, b"".join(event.encode() for event in events))
    seqs = session.publish_bytes(frames, len(events))
    return {seq - seqs[0]: refused.code for seq, refused in (await session.settle(seqs)).items()}


def check(router: Router, expected: Code, *events: Event, topic: str = "refusals/a") -> None:
    """Asserts that each of the events is refused and that a good one behind them is not."""

    async def go() -> None:
        async with await open_session(router.address, router.credentials) as session:
            assert await settled(session, *events, topic=topic) == {place: expected for place in range(len(events))}
            await session.subscribe(1, "refusals/good")
            assert await settled(session, Event(0, b"good"), topic="refusals/good") == {}
            assert (await session.take()).payload == b"good"
            await session.nothing_more(0.05)

    run(go())


@pytest.mark.parametrize("topic", [
    *[topic for topic in TOPICS["invalid"] if topic], "x" * 251, "/".join("x" * 33), "a/\u0085", "**", "a b*"], ids=ascii)
def test_invalid_topics(router: Router, topic: str) -> None:
    check(router, Code.INVALID_TOPIC, Event(0, b"x"), Event(0, b"y"), topic=topic)


@pytest.mark.parametrize("topic", TOPICS["valid"] + ["x" * 250, "/".join("x" * 32), "\u00fc" * 125], ids=ascii)
def test_valid_topics(router: Router, topic: str) -> None:
    async def go() -> None:
        async with await open_session(router.address, router.credentials) as session:
            if not topic.startswith("$"):
                await session.subscribe(1, topic)
            await session.send(Message(topic, b"x"))
            if not topic.startswith("$"):
                assert (await session.take()).topic == topic

    run(go())


@pytest.mark.parametrize("topic", ["$dead/binding/orders", "$sys/load", "$", "$inbox", "$other/a"])
def test_reserved_topics(router: Router, topic: str) -> None:
    check(router, Code.RESERVED_TOPIC, Event(0, b"x"), topic=topic)


def test_unknown_topic_refs(router: Router) -> None:
    check(router, Code.UNKNOWN_TOPIC_REF, Event(77, b"x"), Event(70000, b"x"), Event(0xFFFFFFFF, b"x"))


def test_payloads_over_the_limit(router: Router) -> None:
    check(router, Code.PAYLOAD_TOO_LARGE, Event(0, b"x" * (1048576 + 1)))


def test_an_event_longer_than_any_can_be_is_skipped(router: Router) -> None:
    check(router, Code.PAYLOAD_TOO_LARGE, Event(0, b"x" * (1048576 + 16384 + 1)))


def test_a_block_over_its_limit_in_an_event_longer_than_any_can_be(router: Router) -> None:
    block = b"".join(header(f"h{n}", "x" * 8000).encode() for n in range(3))
    check(router, Code.INVALID_ATTRIBUTES, Event(0, b"x" * 1048576, block))


@pytest.mark.parametrize("vector", BAD_BLOCKS, ids=lambda vector: vector.name)
def test_malformed_attribute_blocks_of_the_page(router: Router, vector: Vector) -> None:
    for flags in (0, wire.FLAG_TTL):
        check(router, Code.INVALID_ATTRIBUTES, Event(0, b"x", vector.data, flags))


@pytest.mark.parametrize("event", [
    Event(0, b"x", b"", wire.FLAG_TTL),
    Event(0, b"x", ttl(1000).encode(), 0),
    Event(0, b"x", b"".join(header("h", str(n)).encode() for n in range(65))),
    Event(0, b"x", header("h", "x" * (16384 - 4)).encode()),
    Event(0, b"x", Attribute(Tag.TYPE, b"x" * 1025).encode()),
    Event(0, b"x", Attribute(Tag.TIME, b"1234567").encode()),
    Event(0, b"x", header("h", "").encode()[:-2] + b"\x01\x00\xff"),
], ids=["ttl flag alone", "ttl tag alone", "65 headers", "block too long", "type too long", "time of 7 bytes",
        "header not utf-8"])
def test_attributes_that_break_a_rule(router: Router, event: Event) -> None:
    check(router, Code.INVALID_ATTRIBUTES, event)


def test_attributes_at_their_limits_are_taken(router: Router) -> None:
    async def go() -> None:
        blocks = [(key(b"k" * 255),), (header("h" * 255, ""),), (header("h", "x" * (16384 - 5)),),
                  tuple(header("h", str(n)) for n in range(64)), (Attribute(Tag.TYPE, b"x" * 1024),)]
        async with await open_session(router.address, router.credentials) as session:
            await session.subscribe(1, "limits/a")
            await session.send(*[Message("limits/a", b"x", block) for block in blocks])
            arrived = await session.take_all(len(blocks))
            assert [tuple(delivery.attributes) for delivery in arrived] == blocks

    run(go())


def test_good_and_bad_events_in_one_batch_are_told_apart(router: Router) -> None:
    async def go() -> None:
        async with await open_session(router.address, router.credentials) as session:
            await session.subscribe(1, "mixed/**")
            topics = ["mixed/a", "mixed//b", "$sys/x", "mixed/c"]
            codes = {1: Code.INVALID_TOPIC, 2: Code.RESERVED_TOPIC}
            seqs = await session.publish(*[Message(topics[n % 4], b"%d" % n) for n in range(1200)])
            refused = await session.settle(seqs)
            assert {seq: error.code for seq, error in refused.items()} == {
                seq: codes[n % 4] for n, seq in enumerate(seqs) if n % 4 in codes}
            assert session.acks >= 3, "600 exceptions need three ACKs of 256"
            arrived = await session.take_all(600)
            assert [int(delivery.payload) for delivery in arrived] == [n for n in range(1200) if n % 4 not in codes]

    run(go())


async def refused_subscription(session: Session, id: int, pattern: str, group: str | None = None) -> Code:
    with pytest.raises(Refused) as refused:
        await session.subscribe(id, pattern, group)
    assert refused.value.detail, "a refusal says what, where and how to mend it"
    return refused.value.code


def test_subscriptions_that_are_refused(router: Router) -> None:
    async def go() -> None:
        async with (await open_session(router.address, router.credentials) as other,
                    await open_session(router.address, router.credentials) as session):
            for pattern in TOPICS["invalid_patterns"] + ["x" * 251, "/".join("x" * 33), "a/**/b", "/**"]:
                assert await refused_subscription(session, 1, pattern) is Code.INVALID_PATTERN, pattern
            for pattern in ["$sys/**", "$", "$inbox/**", "$inbox/*/x", f"{other.inbox}/**", f"{other.inbox}/a"]:
                assert await refused_subscription(session, 1, pattern) is Code.RESERVED_TOPIC, pattern
            for group in ["", "g" * 65, "a\nb", "\u00fc" * 33]:
                assert await refused_subscription(session, 1, "a/b", group) is Code.INVALID_GROUP, group
            assert await refused_subscription(session, 0, "a/b") is Code.SUBSCRIPTION_ID
            await session.subscribe(1, "refused/a")
            assert await refused_subscription(session, 1, "refused/b") is Code.SUBSCRIPTION_ID
            with pytest.raises(Refused) as refused:
                await session.unsubscribe(2)
            assert refused.value.code is Code.SUBSCRIPTION_ID
            await other.send(Message("refused/b", b"no"), Message("refused/a", b"yes"))
            assert (await session.take()).payload == b"yes"
            await session.nothing_more()

    run(go())


def test_patterns_of_the_page_are_taken(router: Router) -> None:
    async def go() -> None:
        async with await open_session(router.address, router.credentials) as session:
            patterns = TOPICS["valid_patterns"] + [f"{session.inbox}/**", f"{session.inbox}/a", "x" * 250]
            for id, pattern in enumerate(patterns, 1):
                await session.subscribe(id, pattern)
            await session.subscribe(0xFFFFFFFF, "last/id", "g" * 64)

    run(go())


def test_more_subscriptions_than_announced(router: Router) -> None:
    async def go() -> None:
        async with await open_session(router.address, router.credentials) as session:
            limit = session.limits["subscriptions"]
            await asyncio.gather(*[session.subscribe(id, f"many/{id}") for id in range(1, limit + 1)])
            assert await refused_subscription(session, limit + 1, "many/more") is Code.TOO_MANY_SUBSCRIPTIONS
            await session.unsubscribe(5)
            await session.subscribe(limit + 1, "many/more")
            await session.send(Message("many/5", b"1"), Message("many/more", b"2"), Message(f"many/{limit}", b"3"))
            assert [delivery.payload for delivery in await session.take_all(2)] == [b"2", b"3"]

    run(go())


def test_the_router_serves_after_all_refusals(router: Router) -> None:
    run(assert_serves(router))
