"""An asyncio client for `myelin-client/1`, written from docs/PROTOCOL.md alone.

    async with await open_session(address, credentials) as session:
        await session.subscribe(1, "orders/**")
        seqs = await session.publish(Message("orders/eu", b"hi"))
        assert await session.settle(seqs) == {}
        print(await session.take())
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Awaitable, TypeVar

import myelin_wire as wire
from myelin_events import Attribute, AttributeFault, Tag, decode_attributes, encode_attributes, matches
from myelin_quic import CONNECT_TIMEOUT_S, CONTROL_STREAM, DELIVERY_STREAM, Close, Connection, ConnectionEnded
from myelin_quic import Credentials, connect
from myelin_wire import Code, Event, Frame, Name, ProtocolError, Reader, Stamp

CLIENT = "myelin-python-test/1"
UNACKNOWLEDGED_BYTES_MAX = 4 << 20
"""What `publish` lets wait for an ACK: aioquic buffers without a bound, so the bound is here."""
ANSWER_TIMEOUT_S = 5.0

T = TypeVar("T")


class Refused(Exception):
    """The router refused an event or a subscription."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{Code(code).label}: {detail}")
        self.code = Code(code)
        self.detail = detail


@dataclass(frozen=True)
class Message:
    """An event to publish."""

    topic: str
    payload: bytes = b""
    attributes: tuple[Attribute, ...] = ()
    request: bool = False

    def flags(self) -> int:
        ttl = any(attribute.tag == Tag.TTL for attribute in self.attributes)
        return (wire.FLAG_TTL if ttl else 0) | (wire.FLAG_REQUEST if self.request else 0)


@dataclass(frozen=True)
class Delivery:
    """An event that arrived; `subscription` is a group's member, 0 = plain subscriptions; `source` None = router."""

    topic: str
    payload: bytes
    attributes: list[Attribute]
    flags: int
    id: str
    source: str | None
    subscription: int
    stamp: Stamp

    def value(self, tag: Tag) -> bytes | None:
        return next((attribute.value for attribute in self.attributes if attribute.tag == tag), None)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(attribute.name, attribute.value.decode()) for attribute in self.attributes if attribute.tag == Tag.HEADER]

    @property
    def time_ns(self) -> int:
        time = self.value(Tag.TIME)
        return struct.unpack("<Q", time)[0] if time is not None else self.stamp.time_ns


def header(name: str, value: str) -> Attribute:
    return Attribute(Tag.HEADER, value.encode(), name)


def key(value: bytes) -> Attribute:
    return Attribute(Tag.KEY, value)


def ttl(milliseconds: int) -> Attribute:
    return Attribute(Tag.TTL, struct.pack("<I", milliseconds))


class Deliveries:
    """Reads the delivery stream: names, stamps, events."""

    def __init__(self, length_max: int) -> None:
        self._reader = Reader("deliver", length_max=length_max)
        self._names: dict[int, str] = {}
        self._stamp: Stamp | None = None
        self._index = 0

    def feed(self, data: bytes) -> list[tuple[Delivery, int]]:
        """The events that are complete, each with its bytes on the stream."""
        complete = []
        for item in self._reader.feed(data):
            if isinstance(item, Event):
                size = wire.EVENT_HEAD.size + len(item.attributes) + len(item.payload)
                complete.append((self._delivery(item), size))
            elif isinstance(item, Name):
                self._names[item.ref] = item.text
            elif isinstance(item, Stamp):
                self._check_count()
                self._stamp, self._index = item, 0
            else:
                raise wire.malformed(f"an event of {item.length} bytes is longer than the router promised")
        return complete

    def _check_count(self) -> None:
        if self._stamp is not None and self._index != self._stamp.count:
            raise wire.malformed(f"{self._index} events in a DELIVER that counts {self._stamp.count}")

    def _delivery(self, event: Event) -> Delivery:
        stamp = self._stamp
        assert stamp is not None, "the reader yields a stamp before events"
        try:
            topic = self._names[event.topic_ref]
            source = self._names[stamp.source_ref] if stamp.source_ref else None
            attributes = decode_attributes(event.attributes)
        except KeyError as error:
            raise wire.malformed(f"ref {error} has no NAME") from error
        except AttributeFault as error:
            raise wire.malformed(f"the attributes of a delivered event: {error}") from error
        id = next((attribute.value.decode() for attribute in attributes if attribute.tag == Tag.ID),
                  stamp.derived_id(self._index))
        delivery = Delivery(topic, event.payload, attributes, event.flags, id, source, stamp.subscription, stamp)
        self._index += 1
        return delivery


class Session:
    """A session after WELCOME; made by `open_session`."""

    def __init__(self, connection: Connection, welcome: dict[str, Any], control: Reader) -> None:
        self.connection = connection
        self.welcome = welcome
        self.limits: dict[str, int] = welcome["limits"]
        self.inbox: str = welcome["inbox"]
        self.goaway: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.subscriptions: dict[int, str] = {}
        self.acknowledged = 0
        self.published = 0
        self.acks = 0
        self.receipts = 0
        self._control = control
        self._deliveries = Deliveries(7 + 65535 + self.limits["payload_bytes"])
        self._arrived: deque[tuple[Delivery, int]] = deque()  # bounded by UNRECEIPTED_EVENTS_MAX: receipts come later
        self._change = asyncio.Event()
        self._exceptions: dict[int, Refused] = {}
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._requests: dict[bytes, asyncio.Future[Delivery]] = {}
        self._correlations = 0
        self._refs: OrderedDict[str, int] = OrderedDict()
        self._publish_stream: int | None = None
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._unacknowledged_bytes = 0
        self._taken = 0
        self._receipted = 0
        self._taken_bytes = 0
        self._receipt_timer: asyncio.TimerHandle | None = None
        self.failure: ProtocolError | None = None
        connection.on_data = self._on_data
        connection.ended.add_done_callback(lambda _: self._change.set())

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            if not any(error) and not self.connection.ended.done():
                await self.bye()
        finally:
            await self.connection.finish()
        if self.failure is not None and not any(error):
            raise self.failure

    # --- publishing ---

    async def publish(self, *messages: Message) -> range:
        """Writes the events in one frame; returns their publish sequences. Waits while too much is without ACK."""
        await self._until(lambda: self._unacknowledged_bytes < UNACKNOWLEDGED_BYTES_MAX, timeout_s=None)
        names, body = [], []
        for message in messages:
            body.append(Event(self._ref(message.topic, names), message.payload, encode_attributes(message.attributes),
                              message.flags()).encode())
        return self.publish_bytes(b"".join(names) + wire.frame(Frame.EVENTS, b"".join(body)), len(messages))

    def publish_bytes(self, data: bytes, events: int) -> range:
        """Writes ready frames that hold so many events."""
        if self._publish_stream is None:
            self._publish_stream = self.connection.open_stream(unidirectional=True)
        self.connection.write(self._publish_stream, data)
        first, self.published = self.published + 1, self.published + events
        self._unacknowledged.append((self.published, len(data)))
        self._unacknowledged_bytes += len(data)
        return range(first, self.published + 1)

    async def settle(self, seqs: range, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[int, Refused]:
        """Waits for the ACK of events; returns those that were refused."""
        await self._until(lambda: self.acknowledged >= seqs[-1], timeout_s)
        return {seq: self._exceptions.pop(seq) for seq in seqs if seq in self._exceptions}

    async def send(self, *messages: Message) -> None:
        """Publishes and waits; raises the first Refused."""
        refused = await self.settle(await self.publish(*messages))
        if refused:
            raise refused[min(refused)]

    async def request(self, topic: str, payload: bytes, timeout_s: float = ANSWER_TIMEOUT_S) -> Delivery:
        """Publishes a request and waits for the answer (section 8.6); needs a subscription to `<inbox>/**`."""
        self._correlations += 1
        # Whoever was asked before must not know it.
        correlation = secrets.token_bytes(8)
        answer = asyncio.get_running_loop().create_future()
        self._requests[correlation] = answer
        reply_to = f"{self.inbox}/{self._correlations}".encode()
        attributes = (ttl(int(timeout_s * 1000)), Attribute(Tag.REPLY_TO, reply_to), Attribute(Tag.CORRELATION, correlation))
        try:
            await self.send(Message(topic, payload, attributes, request=True))
            return await asyncio.wait_for(answer, timeout_s)
        finally:
            del self._requests[correlation]

    async def reply(self, asked: Delivery, payload: bytes) -> None:
        """Answers a request."""
        attributes = ()
        if (correlation := asked.value(Tag.CORRELATION)) is not None:
            attributes = (Attribute(Tag.CORRELATION, correlation),)
        await self.send(Message(asked.value(Tag.REPLY_TO).decode(), payload, attributes))

    def _ref(self, topic: str, names: list[bytes]) -> int:
        if topic in self._refs:
            self._refs.move_to_end(topic)
        else:
            full = len(self._refs) == wire.TOPIC_REFS_MAX
            ref = self._refs.popitem(last=False)[1] if full else len(self._refs)
            self._refs[topic] = ref
            names.append(Name(ref, topic).encode())
        return self._refs[topic]

    # --- subscribing ---

    async def subscribe(self, id: int, pattern: str, group: str | None = None) -> None:
        """Returns when the subscription is live; raises Refused."""
        body = {"id": id, "pattern": pattern} | ({"group": group} if group is not None else {})
        await self._ask(Frame.SUBSCRIBE, body)
        if group is None:
            self.subscriptions[id] = pattern

    async def unsubscribe(self, id: int) -> None:
        await self._ask(Frame.UNSUBSCRIBE, {"id": id})
        self.subscriptions.pop(id, None)

    async def _ask(self, kind: Frame, body: dict[str, Any]) -> None:
        if body["id"] in self._answers:
            raise ValueError("an answer for this id is still under way")
        answer = self._answers[body["id"]] = asyncio.get_running_loop().create_future()
        self.connection.write(CONTROL_STREAM, wire.encode_control(kind, body))
        try:
            await self._or_end(answer, ANSWER_TIMEOUT_S)
        finally:
            self._answers.pop(body["id"], None)

    def matching(self, delivery: Delivery) -> list[int]:
        """The plain subscriptions that a delivery is for (section 8.3)."""
        return sorted(id for id, pattern in self.subscriptions.items() if matches(pattern, delivery.topic))

    async def take(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Delivery:
        """The next event; a receipt covers it from here on."""
        await self._until(lambda: self._arrived, timeout_s)
        delivery, size = self._arrived.popleft()
        self._took(size)
        return delivery

    async def take_all(self, count: int, timeout_s: float = ANSWER_TIMEOUT_S) -> list[Delivery]:
        return [await self.take(timeout_s) for _ in range(count)]

    @property
    def waiting(self) -> int:
        """How many events have arrived and were not taken."""
        return len(self._arrived)

    async def nothing_more(self, quiet_s: float = 0.15) -> None:
        """Asserts that no event arrives for a while."""
        await asyncio.sleep(quiet_s)
        assert not self._arrived, f"unexpected: {self._arrived[0][0]}"

    def _took(self, size: int) -> None:
        self._taken += 1
        self._taken_bytes += size
        if self._taken - self._receipted >= wire.RECEIPT_EVENTS or self._taken_bytes >= wire.RECEIPT_BYTES:
            self._send_receipt()
        elif self._receipt_timer is None:
            loop = asyncio.get_running_loop()
            self._receipt_timer = loop.call_later(wire.RECEIPT_DELAY_MS / 1000, self._send_receipt)

    def _send_receipt(self) -> None:
        if self._receipt_timer is not None:
            self._receipt_timer.cancel()
            self._receipt_timer = None
        self._receipted, self._taken_bytes = self._taken, 0
        self.receipts += 1
        self.connection.write(CONTROL_STREAM, wire.encode_control(Frame.RECEIPT, {"events": self._taken}))

    # --- the end ---

    async def bye(self) -> Close:
        """Says BYE and waits for the router's close."""
        if self._receipt_timer is not None:
            self._send_receipt()
        self.connection.write(CONTROL_STREAM, wire.encode_control(Frame.BYE))
        return await asyncio.wait_for(asyncio.shield(self.connection.ended), ANSWER_TIMEOUT_S)

    # --- reading ---

    def replay(self, early: list[tuple[int, bytes, bool]]) -> None:
        """Takes what arrived before the session was made."""
        for stream, data, fin in early:
            self._on_data(stream, data, fin)

    def _on_data(self, stream: int, data: bytes, fin: bool) -> None:
        if self.failure is not None:
            return
        try:
            if stream == CONTROL_STREAM:
                for kind, body in self._control.feed(data):
                    self._on_control(kind, body)
            elif stream == DELIVERY_STREAM:
                for delivery, size in self._deliveries.feed(data):
                    self._on_delivery(delivery, size)
            else:
                raise ProtocolError(Code.OUT_OF_ORDER, f"the router opened stream {stream}")
        except ProtocolError as error:
            self.failure = error
            self.connection.close(error.code, str(error))
        self._change.set()

    def _on_control(self, kind: Frame, body: dict[str, Any]) -> None:
        if kind == Frame.ACK:
            self._on_ack(body["seq"], body["exceptions"])
        elif kind in (Frame.SUBSCRIBED, Frame.UNSUBSCRIBED, Frame.REFUSED):
            answer = self._answers.pop(body["id"], None)
            if answer is None:
                raise wire.malformed(f"{kind.name} of {body['id']}, which nobody asked for")
            if kind == Frame.REFUSED:
                answer.set_exception(Refused(body["code"], body["message"]))
            else:
                answer.set_result(None)
        elif kind == Frame.GOAWAY:
            if not self.goaway.done():  # the page does not say that it comes once; the first has the whole time
                self.goaway.set_result(body)
        else:
            raise ProtocolError(Code.OUT_OF_ORDER, f"a second {kind.name}")

    def _on_ack(self, seq: int, exceptions: list[list[Any]]) -> None:
        if not self.acknowledged <= seq <= self.published:
            raise wire.malformed(f"ACK of {seq} after {self.acknowledged}, {self.published} published")
        before = self.acknowledged
        for number, code, detail in exceptions:
            if not before < number <= seq:
                raise wire.malformed(f"exception {number} does not stand between {before} and {seq}")
            before = number
            self._exceptions[number] = Refused(code, detail)
        self.acknowledged = seq
        self.acks += 1
        while self._unacknowledged and self._unacknowledged[0][0] <= seq:
            self._unacknowledged_bytes -= self._unacknowledged.popleft()[1]

    def _on_delivery(self, delivery: Delivery, size: int) -> None:
        correlation = delivery.value(Tag.CORRELATION)
        answer = self._requests.get(correlation) if delivery.topic.startswith(f"{self.inbox}/") else None
        if answer is None:
            self._arrived.append((delivery, size))
        else:
            self._took(size)
            if not answer.done():
                answer.set_result(delivery)

    async def _until(self, condition: Any, timeout_s: float | None) -> None:
        """Waits for a condition that arriving bytes can fulfil."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                if self.connection.ended.done():
                    raise self.failure or ConnectionEnded(self.connection.ended.result())
                self._change.clear()
                await self._change.wait()

    async def _or_end(self, waited: Awaitable[T], timeout_s: float) -> T:
        return await _or_end(self.connection, waited, timeout_s)


async def _or_end(connection: Connection, waited: Awaitable[T], timeout_s: float) -> T:
    """The result, or ConnectionEnded as soon as it cannot come any more."""
    task = asyncio.ensure_future(waited)
    done, _ = await asyncio.wait({task, connection.ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        return task.result()
    task.cancel()
    if connection.ended.done():
        raise ConnectionEnded(connection.ended.result())
    raise TimeoutError("no answer in time")


async def open_session(address: tuple[str, int], credentials: Credentials, *, server_name: str = "localhost",
                       hello: dict[str, Any] | None = None) -> Session:
    """Connects, says HELLO, waits for WELCOME. Raises ConnectionEnded when the router or TLS refuses."""
    connection = await connect(address, credentials, server_name=server_name)
    welcome = asyncio.get_running_loop().create_future()
    control = Reader("control", sender="router")
    early: list[tuple[int, bytes, bool]] = []

    def first_frame(stream: int, data: bytes, fin: bool) -> None:
        if stream != CONTROL_STREAM or welcome.done():
            early.append((stream, data, fin))
            return
        try:
            for kind, body in control.feed(data):
                if kind != Frame.WELCOME:
                    raise ProtocolError(Code.OUT_OF_ORDER, f"{kind.name} before WELCOME")
                welcome.set_result(body)
                break
        except ProtocolError as error:
            connection.close(error.code, str(error))

    connection.on_data = first_frame
    try:
        await _or_end(connection, asyncio.shield(connection.handshake), CONNECT_TIMEOUT_S)
        body = {"min": wire.VERSION, "max": wire.VERSION, "client": CLIENT} | (hello or {})
        connection.write(CONTROL_STREAM, wire.encode_control(Frame.HELLO, body))
        answer = await _or_end(connection, welcome, CONNECT_TIMEOUT_S)
        if not body["min"] <= answer["version"] <= body["max"]:
            raise ProtocolError(Code.VERSION, f"the router chose version {answer['version']}")
    except BaseException:
        await connection.finish()
        raise
    session = Session(connection, answer, control)
    session.replay([(CONTROL_STREAM, b"", False), *early])  # what stood behind WELCOME in the same write
    return session
