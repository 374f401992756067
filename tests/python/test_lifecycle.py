"""SIGTERM: GOAWAY, in-flight events finished, exit code 0 (section 8.8)."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from myelin_client import Message, open_session
from myelin_quic import Close
from myelin_wire import Code
from routers import Router, run

IN_FLIGHT = 3000
EXIT_TIMEOUT_S = 5.0


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path) -> None:
    """What was published before stays acknowledged and delivered, and the router still takes more until BYE."""
    router = Router(tmp_path)

    async def go() -> None:
        publisher = await open_session(router.address, router.credentials)
        subscriber = await open_session(router.address, router.credentials, hello={"overflow": "pause"})
        await subscriber.subscribe(1, "drain/**")
        # The subscriber takes none of these before the end: without its receipts they are in flight all the while.
        await publisher.send(*[Message("drain/a", b"%d" % n) for n in range(IN_FLIGHT)])
        seqs = await publisher.publish(*[Message("drain/a", b"%d" % n) for n in range(IN_FLIGHT, 2 * IN_FLIGHT)])
        router.terminate()
        for session in (publisher, subscriber):
            goaway = await asyncio.wait_for(session.goaway, 3)
            assert goaway["code"] == Code.DRAINING and goaway["message"] and 0 < goaway["drain_ms"], goaway
        assert await publisher.settle(seqs) == {}
        assert await publisher.settle(await publisher.publish(Message("drain/late", b"late"))) == {}
        assert_clean(await publisher.bye())
        arrived = await subscriber.take_all(2 * IN_FLIGHT + 1)
        assert [delivery.payload for delivery in arrived] == [b"%d" % n for n in range(2 * IN_FLIGHT)] + [b"late"]
        # With the last receipt nothing is in flight, and the router's close may overtake the BYE.
        close = await subscriber.bye()
        assert close.application and close.code in (0, Code.DRAINING), close

    with ending(router):
        run(go())


def test_sigterm_leaves_idle_sessions_their_time(tmp_path: Path) -> None:
    """Section 8.8: for two seconds at least it goes on taking and delivering."""
    router = Router(tmp_path)

    async def go() -> None:
        session = await open_session(router.address, router.credentials)
        await session.subscribe(1, "drain/**")
        router.terminate()
        await asyncio.sleep(0.6)
        assert not session.connection.ended.done(), session.connection.ended.result()
        assert session.goaway.result()["code"] == Code.DRAINING
        await session.send(Message("drain/a", b"late"))
        assert (await session.take()).payload == b"late"
        assert_clean(await session.bye())

    with ending(router):
        run(go())


def assert_clean(close: Close) -> None:
    assert (close.code, close.application) == (0, True), close


@contextmanager
def ending(router: Router) -> Iterator[None]:
    """A router that was told to end, and must have ended well soon after."""
    try:
        yield
        assert router.process.wait(EXIT_TIMEOUT_S) == 0, router.log()
    finally:
        router.process.kill()
        router.process.wait()


def test_sigterm_without_sessions_ends_at_once(tmp_path: Path) -> None:
    Router(tmp_path).stop()


def test_a_router_keeps_its_certificates_and_counts_its_starts(tmp_path: Path) -> None:
    """The epoch of the stamp is how often the router had started: ids never repeat (section 6.3)."""

    async def one_event(router: Router) -> tuple[int, str]:
        async with await open_session(router.address, router.credentials) as session:
            await session.subscribe(1, "epoch/a")
            await session.send(Message("epoch/a"))
            delivery = await session.take()
            return delivery.stamp.epoch, delivery.id

    told = []
    authority = set()
    for _ in range(2):
        (tmp_path / "ready.json").unlink(missing_ok=True)
        router = Router(tmp_path)
        try:
            told.append(run(one_event(router)))
            authority.add(router.credentials.ca.read_bytes())
        finally:
            router.stop()
    assert told[0][0] < told[1][0] and told[0][1] != told[1][1]
    assert len(authority) == 1
