"""Queue groups, requests and replies (sections 8.3 and 8.6)."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from myelin_client import Message, Refused, Session, key, open_session
from myelin_events import Tag
from myelin_wire import Code, FLAG_REQUEST, FLAG_TTL
from routers import Router, run

MEMBERS = 3


async def members(stack: AsyncExitStack, router: Router, pattern: str, group: str) -> list[Session]:
    """Members of one group, each a session with a subscription id of its own."""
    sessions = []
    for number in range(MEMBERS):
        session = await stack.enter_async_context(await open_session(router.address, router.credentials))
        await session.subscribe(10 + number, pattern, group)
        sessions.append(session)
    return sessions


async def gather(sessions: list[Session], count: int) -> list[list[bytes]]:
    """The payloads at each session, when `count` have arrived altogether; fails if more follow."""
    async with asyncio.timeout(5):
        while sum(session.waiting for session in sessions) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.15)
    taken = []
    for number, session in enumerate(sessions):
        deliveries = await session.take_all(session.waiting)
        assert {delivery.subscription for delivery in deliveries} <= {10 + number}
        taken.append([delivery.payload for delivery in deliveries])
    assert sum(map(len, taken)) == count
    return taken


def test_a_group_gets_each_event_once_and_shares_the_work(router: Router) -> None:
    async def go() -> None:
        async with AsyncExitStack() as stack:
            sessions = await members(stack, router, "jobs/*", "workers")
            publisher = await stack.enter_async_context(await open_session(router.address, router.credentials))
            payloads = [b"%d" % n for n in range(600)]
            for at in range(0, 600, 20):
                await publisher.send(*[Message(f"jobs/{n % 5}", payloads[n]) for n in range(at, at + 20)])
            taken = await gather(sessions, 600)
            assert Counter(payload for share in taken for payload in share) == Counter(payloads)
            assert all(len(share) >= 600 // MEMBERS // 2 for share in taken), [len(share) for share in taken]

    run(go())


def test_events_with_a_key_stick_to_a_member(router: Router) -> None:
    async def go() -> None:
        async with AsyncExitStack() as stack:
            sessions = await members(stack, router, "keyed/**", "workers")
            publisher = await stack.enter_async_context(await open_session(router.address, router.credentials))
            for turn in range(10):
                await publisher.send(*[Message("keyed/a", b"%d:%d" % (k, turn), (key(b"k%d" % k),)) for k in range(60)])
            taken = await gather(sessions, 600)
            homes = [{payload.split(b":")[0] for payload in share} for share in taken]
            assert sum(map(len, homes)) == 60, "a key went to two members"
            assert all(homes), "a member got no key of 60"
            for share in taken:
                for k in {payload.split(b":")[0] for payload in share}:
                    turns = [int(payload.split(b":")[1]) for payload in share if payload.split(b":")[0] == k]
                    assert turns == list(range(10)), "events with one key must keep their order"

    run(go())


def test_a_membership_is_a_delivery_beside_the_plain_copy(router: Router) -> None:
    async def go() -> None:
        async with await open_session(router.address, router.credentials) as session:
            await session.subscribe(1, "beside/**")
            await session.subscribe(2, "beside/*", "g")
            await session.subscribe(3, "beside/**", "g")  # another pattern: another group
            await session.send(Message("beside/a", b"x"))
            arrived = await session.take_all(3)
            assert sorted(delivery.subscription for delivery in arrived) == [0, 2, 3]
            assert len({delivery.id for delivery in arrived}) == 1
            await session.nothing_more()

    run(go())


def test_a_member_that_leaves_leaves_its_work_to_the_others(router: Router) -> None:
    async def go() -> None:
        async with AsyncExitStack() as stack:
            sessions = await members(stack, router, "leaving/*", "g")
            await sessions[0].unsubscribe(10)
            await sessions[1].connection.finish()
            await asyncio.sleep(0.1)
            await sessions[2].send(*[Message("leaving/a", b"%d" % n) for n in range(30)])
            arrived = await sessions[2].take_all(30)
            assert [delivery.payload for delivery in arrived] == [b"%d" % n for n in range(30)]
            assert sessions[0].waiting == 0

    run(go())


def test_requests_are_answered_through_the_inbox(router: Router) -> None:
    async def respond(session: Session, count: int) -> None:
        for _ in range(count):
            asked = await session.take()
            assert asked.flags == FLAG_REQUEST | FLAG_TTL
            await session.reply(asked, asked.payload.upper())

    async def go() -> None:
        async with AsyncExitStack() as stack:
            requester, responder = [
                await stack.enter_async_context(await open_session(router.address, router.credentials)) for _ in range(2)]
            await requester.subscribe(1, f"{requester.inbox}/**")
            await responder.subscribe(1, "ask/*", "responders")
            responding = asyncio.create_task(respond(responder, 20))
            answers = await asyncio.gather(*[requester.request(f"ask/{n}", b"question %d" % n) for n in range(20)])
            assert [answer.payload for answer in answers] == [b"QUESTION %d" % n for n in range(20)]
            assert all(answer.value(Tag.CORRELATION) for answer in answers)
            await responding
            await responder.nothing_more()

    run(go())


def test_a_request_to_nobody_is_refused_at_once(router: Router) -> None:
    async def go() -> None:
        async with await open_session(router.address, router.credentials) as session:
            await session.subscribe(1, f"{session.inbox}/**")
            with pytest.raises(Refused) as refused:
                await session.request("ask/nobody", b"?")
            assert refused.value.code is Code.NO_RESPONDER
            await session.nothing_more()

    run(go())
