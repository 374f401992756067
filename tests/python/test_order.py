"""Order and completeness over many events (section 9)."""

from __future__ import annotations

import asyncio
import struct

from myelin_client import Message, Session, key, open_session
from routers import Router, run

EVENTS = 20_000
BATCH = 250
KEYS = 16


async def publish_all(publisher: Session, keyed: bool) -> None:
    last = range(0)
    for start in range(0, EVENTS, BATCH):
        last = await publisher.publish(*[
            Message(f"order/{n % 3}", struct.pack("<Q", n), (key(b"%d" % (n % KEYS)),) if keyed else ())
            for n in range(start, start + BATCH)])
    assert await publisher.settle(range(1, last[-1] + 1), timeout_s=9) == {}
    assert publisher.acknowledged == EVENTS


async def exchange(router: Router, keyed: bool) -> list[int]:
    """Publishes all events from one session and returns their numbers as another one got them."""
    async with (await open_session(router.address, router.credentials) as publisher,
                await open_session(router.address, router.credentials, hello={"overflow": "pause"}) as subscriber):
        await subscriber.subscribe(1, "order/*")
        publishing = asyncio.create_task(publish_all(publisher, keyed))
        arrived = await subscriber.take_all(EVENTS)
        await publishing
        await subscriber.nothing_more()
        assert len({delivery.id for delivery in arrived}) == EVENTS
        assert all(delivery.topic == f"order/{n % 3}" for delivery in arrived
                   for n in struct.unpack("<Q", delivery.payload))
        assert EVENTS // 1000 <= subscriber.receipts
        return [struct.unpack("<Q", delivery.payload)[0] for delivery in arrived]


def test_events_of_one_publisher_arrive_in_order_and_complete(router: Router) -> None:
    assert run(exchange(router, keyed=False)) == list(range(EVENTS))


def test_events_with_keys_arrive_in_order_for_each_key(router: Router) -> None:
    numbers = run(exchange(router, keyed=True))
    for k in range(KEYS):
        assert [n for n in numbers if n % KEYS == k] == list(range(k, EVENTS, KEYS))
