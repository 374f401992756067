"""The bytes of `myelin-client/1`: encoders and incremental decoders without any I/O.

Written from docs/PROTOCOL.md alone; the section numbers below are that page's. Decoders work in both directions (what a
router sends and what a client sends), so that every vector of the page can be checked here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Iterable, Iterator

import msgpack

ALPN = "myelin-client/1"
VERSION = 1

# Section 10.
CONTROL_FRAME_BYTES_MAX = 65536
CONTROL_DEPTH_MAX = 32
DATA_FRAME_BYTES_MAX = 67108864
TOPIC_BYTES_MAX = 250
TOPIC_LEVELS_MAX = 32
GROUP_BYTES_MAX = 64
NAME_BYTES_MAX = 2048
TOPIC_REFS_MAX = 65536
PAYLOAD_BYTES_CEILING = 16777216
ACK_EXCEPTIONS_MAX = 256
DETAIL_BYTES_MAX = 120
CLIENT_NAME_BYTES_MAX = 128
HELLO_TIMEOUT_MS = 5000
UNRECEIPTED_EVENTS_MAX = 131072
UNRECEIPTED_BYTES_MAX = 16777216
RECEIPT_EVENTS = 1000
RECEIPT_BYTES = 65536
RECEIPT_DELAY_MS = 50
OWN_VALUE_BYTES_MAX = 1024
KEY_BYTES_MAX = 255

SKIPPABLE = 1
FLAG_TTL = 1
FLAG_REQUEST = 2

HEADER = struct.Struct("<IBBH")
EVENT_HEAD = struct.Struct("<IBIH")
# origin, epoch, shard, 3 ignored bytes, source-ref, subscription, count, seq, time, generation
STAMP = struct.Struct("<IIB3xIIIQQQ")


class Frame(IntEnum):
    """Types of frames, section 3."""

    HELLO = 0x01
    SUBSCRIBE = 0x02
    UNSUBSCRIBE = 0x03
    RECEIPT = 0x04
    BYE = 0x05
    NAME = 0x10
    EVENTS = 0x11
    DELIVER = 0x12
    WELCOME = 0x41
    SUBSCRIBED = 0x42
    UNSUBSCRIBED = 0x43
    ACK = 0x44
    REFUSED = 0x45
    GOAWAY = 0x46


class Code(IntEnum):
    """Refusals, section 11. A number that is not here counts as INTERNAL."""

    MALFORMED = 1
    UNKNOWN_FRAME = 2
    FRAME_TOO_LARGE = 3
    OUT_OF_ORDER = 4
    VERSION = 5
    INVALID_TOPIC = 6
    INVALID_PATTERN = 7
    PAYLOAD_TOO_LARGE = 8
    INVALID_ATTRIBUTES = 9
    UNKNOWN_TOPIC_REF = 10
    RESERVED_TOPIC = 11
    TOO_MANY_SUBSCRIPTIONS = 12
    SUBSCRIPTION_ID = 13
    INVALID_GROUP = 14
    FORBIDDEN = 15
    UNAUTHENTICATED = 16
    TOKEN_EXPIRED = 17
    CERTIFICATE_EXPIRED = 18
    DENIED = 20
    DEAD_LETTERED = 21
    FILTER_FAULT = 22
    EXPIRED = 23
    NO_RESPONDER = 24
    RESIDENCY = 25
    SCHEMA_VIOLATION = 26
    SLOW_CONSUMER = 30
    HELLO_TIMEOUT = 31
    DRAINING = 32
    TOO_MANY_SESSIONS = 33
    INTERNAL = 40

    @property
    def label(self) -> str:
        """The name on the wire and in close reasons: `out-of-order`."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def _missing_(cls, value: object) -> Code:
        return cls.INTERNAL


class ProtocolError(Exception):
    """The other side broke the protocol; `code` is what the connection is closed with."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code.label}: {message}")
        self.code = code


def malformed(message: str) -> ProtocolError:
    return ProtocolError(Code.MALFORMED, message)


def frame(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """A whole frame."""
    return HEADER.pack(len(body), kind, flags, 0) + body


# --- control messages, section 4 -------------------------------------------------------------------------------------

REQUIRED = object()
INTEGER_BITS = {"u16": 16, "u32": 32, "u64": 64}

LIMITS = (("payload_bytes", "u32", 1048576), ("headers", "u16", 64), ("attributes_bytes", "u16", 16384),
          ("subscriptions", "u32", 1024))

MESSAGES: dict[Frame, tuple[tuple[str, str, Any], ...]] = {
    Frame.HELLO: (("min", "u16", REQUIRED), ("max", "u16", REQUIRED), ("client", "text", ""),
                  ("overflow", "overflow", "drop-oldest"), ("token", "text", None)),
    Frame.WELCOME: (("version", "u16", REQUIRED), ("site", "text", REQUIRED), ("router", "text", REQUIRED),
                    ("inbox", "text", REQUIRED), ("limits", "limits", REQUIRED)),
    Frame.SUBSCRIBE: (("id", "u32", REQUIRED), ("pattern", "text", REQUIRED), ("group", "text", None)),
    Frame.SUBSCRIBED: (("id", "u32", REQUIRED),),
    Frame.UNSUBSCRIBE: (("id", "u32", REQUIRED),),
    Frame.UNSUBSCRIBED: (("id", "u32", REQUIRED),),
    Frame.REFUSED: (("id", "u32", REQUIRED), ("code", "u16", REQUIRED), ("message", "text", REQUIRED)),
    Frame.RECEIPT: (("events", "u64", REQUIRED),),
    Frame.ACK: (("seq", "u64", REQUIRED), ("exceptions", "exceptions", ())),
    Frame.GOAWAY: (("code", "u16", REQUIRED), ("message", "text", REQUIRED), ("drain_ms", "u32", REQUIRED)),
}


class _Pairs(list):
    """A MessagePack map as it came: duplicates and order kept."""


def encode_control(kind: Frame, body: dict[str, Any] | None = None) -> bytes:
    """A control frame; keys in the order of the page's tables."""
    if kind == Frame.BYE:
        return frame(kind)
    order = [key for key, _, _ in MESSAGES[kind]]
    return frame(kind, msgpack.packb({key: body[key] for key in sorted(body or {}, key=order.index)}))


def decode_control(kind: Frame, body: bytes) -> dict[str, Any]:
    """The known keys of a control frame's body, defaults filled in."""
    if kind == Frame.BYE:
        if body:
            raise malformed("BYE has a body")
        return {}
    try:
        # surrogateescape: values of unknown keys are ignored whatever they are; known texts are checked below.
        value = msgpack.unpackb(body, raw=False, strict_map_key=False, object_pairs_hook=_Pairs,
                                unicode_errors="surrogateescape", timestamp=0)
    except (ValueError, OverflowError) as error:
        raise malformed(f"{kind.name}: not one MessagePack value: {error}") from error
    _check_depth(value)
    return _known_keys(kind.name, value, MESSAGES[kind])


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(CONTROL_DEPTH_MAX + 1):
        containers = [item for item in level if isinstance(item, list)]
        if not containers:
            return
        level = [leaf for item in containers for entry in item
                 for leaf in (entry if isinstance(item, _Pairs) else (entry,))]
    raise malformed(f"more than {CONTROL_DEPTH_MAX} levels of maps and arrays")


def _known_keys(where: str, value: Any, table: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    if not isinstance(value, _Pairs):
        raise malformed(f"{where}: not a map")
    keys = [key for key, _ in value]
    for key in keys:
        if not isinstance(key, str):
            raise malformed(f"{where}: a key is not text")
    if len(set(keys)) != len(keys):
        raise malformed(f"{where}: a key stands twice")
    found = dict(value)
    body = {}
    for key, kind, default in table:
        if found.get(key) is not None:  # nil says the same as leaving the key out
            body[key] = _value(f"{where}.{key}", kind, found[key])
        elif default is REQUIRED:
            raise malformed(f"{where}: {key} is missing")
        elif default is not None:
            body[key] = list(default) if default == () else default
    return body


def _value(where: str, kind: str, value: Any) -> Any:
    if kind in INTEGER_BITS:
        if type(value) is not int or not 0 <= value < 1 << INTEGER_BITS[kind]:
            raise malformed(f"{where}: not a {kind}")
        return value
    if kind == "limits":
        return _known_keys(where, value, LIMITS)
    if kind == "exceptions":
        return _exceptions(where, value)
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise malformed(f"{where}: not text in UTF-8")
    if kind == "overflow" and value not in ("drop-oldest", "disconnect", "pause"):
        raise malformed(f"{where}: no such overflow policy")
    return value


def _exceptions(where: str, value: Any) -> list[list[Any]]:
    if not isinstance(value, list) or isinstance(value, _Pairs) or len(value) > ACK_EXCEPTIONS_MAX:
        raise malformed(f"{where}: not an array of at most {ACK_EXCEPTIONS_MAX}")
    for entry in value:
        if not isinstance(entry, list) or isinstance(entry, _Pairs) or len(entry) != 3:
            raise malformed(f"{where}: an exception is [seq, code, detail]")
        for part, kind in zip(entry, ("u64", "u16", "text")):
            _value(where, kind, part)
        if len(entry[2].encode()) > DETAIL_BYTES_MAX:
            raise malformed(f"{where}: a detail of more than {DETAIL_BYTES_MAX} bytes")
    return value


# --- data frames, sections 5 and 6 -----------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Name:
    """NAME: from here on `ref` means `text` on this stream."""

    ref: int
    text: str

    def encode(self) -> bytes:
        return frame(Frame.NAME, struct.pack("<I", self.ref) + self.text.encode())


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all events of one DELIVER have in common, section 5.3; `time_ns` is Unix time."""

    origin: int
    epoch: int
    shard: int
    source_ref: int
    subscription: int
    count: int
    seq: int
    time_ns: int
    generation: int

    def encode(self) -> bytes:
        return STAMP.pack(self.origin, self.epoch, self.shard, self.source_ref, self.subscription, self.count, self.seq,
                          self.time_ns, self.generation)

    def derived_id(self, index: int) -> str:
        """The id of the frame's event number `index`, from 0 (section 6.3)."""
        return f"{self.origin:08x}-{self.epoch:08x}-{self.shard:02x}-{self.seq + index:016x}"


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it stands on a stream; `attributes` is the raw block."""

    topic_ref: int
    payload: bytes
    attributes: bytes = b""
    flags: int = 0

    def encode(self) -> bytes:
        length = 7 + len(self.attributes) + len(self.payload)
        return EVENT_HEAD.pack(length, self.flags, self.topic_ref, len(self.attributes)) + self.attributes + self.payload


@dataclass(frozen=True, slots=True)
class Oversized:
    """An event that was skipped because its `length` is over the receiver's limit."""

    length: int


@dataclass(slots=True)
class _Open:
    """The frame that is being read: its type and how many of its bytes have not been used up."""

    kind: int
    left: int
    stamped: bool = False


class Reader:
    """Decodes one stream as its bytes arrive.

    `stream` is `control` (yields `(Frame, body)`), `events` (a client's publish stream: Name, Event, Oversized) or
    `deliver` (a router's: Name, Stamp, Event). `sender` limits a control stream to the frames of `client` or `router`.
    """

    CONTROL = {"client": {kind for kind in Frame if kind < 0x10}, "router": {kind for kind in Frame if kind > 0x40}}
    DATA = {"events": {Frame.NAME, Frame.EVENTS}, "deliver": {Frame.NAME, Frame.DELIVER}}

    def __init__(self, stream: str, *, sender: str | None = None, length_max: int | None = None) -> None:
        control = self.CONTROL[sender] if sender else self.CONTROL["client"] | self.CONTROL["router"]
        self._allowed = self.DATA.get(stream, control)
        self._control = stream == "control"
        self._body_bytes_max = CONTROL_FRAME_BYTES_MAX if self._control else DATA_FRAME_BYTES_MAX
        self._length_max = length_max
        self._buffer = bytearray()
        self._at = 0
        self._open: _Open | None = None
        self._skip = 0

    @property
    def between_frames(self) -> bool:
        """Whether the stream may end here."""
        return self._open is None and not self._buffer and not self._skip

    def feed(self, data: bytes) -> Iterator[Any]:
        """Takes bytes and yields what is complete; raises ProtocolError as soon as the bytes tell."""
        self._buffer += data
        try:
            while (item := self._step()) is not None:
                if item is not _NOTHING_YET:
                    yield item
        finally:
            del self._buffer[:self._at]
            self._at = 0

    def _available(self) -> int:
        return len(self._buffer) - self._at

    def _take(self, count: int) -> bytes:
        self._at += count
        return bytes(self._buffer[self._at - count:self._at])

    def _step(self) -> Any:
        """One step: None when more bytes are needed, `_NOTHING_YET` when it only moved on."""
        if self._skip:
            count = min(self._skip, self._available())
            self._at += count
            self._skip -= count
            return None if self._skip else _NOTHING_YET
        if self._open is None:
            return self._step_header()
        if self._open.kind in (Frame.EVENTS, Frame.DELIVER):
            return self._step_events(self._open)
        if self._available() < self._open.left:
            return None
        kind, body = self._open.kind, self._take(self._open.left)
        self._open = None
        if kind == Frame.NAME:
            try:
                return Name(struct.unpack_from("<I", body)[0], body[4:].decode())
            except UnicodeDecodeError as error:
                raise malformed("a NAME is not UTF-8") from error
        return Frame(kind), decode_control(Frame(kind), body)

    def _step_header(self) -> Any:
        if self._available() < HEADER.size:
            return None
        length, kind, flags, zero = HEADER.unpack(self._take(HEADER.size))
        if flags & ~SKIPPABLE or zero:
            raise malformed("a reserved bit of a frame's header is set")
        if length > self._body_bytes_max:
            raise ProtocolError(Code.FRAME_TOO_LARGE, f"{length} bytes")
        if kind not in Frame.__members__.values():
            if not flags & SKIPPABLE:
                raise ProtocolError(Code.UNKNOWN_FRAME, f"{kind:#04x}")
            self._skip = length
            return _NOTHING_YET
        if kind not in self._allowed:
            raise ProtocolError(Code.OUT_OF_ORDER, f"{Frame(kind).name} does not belong here")
        if kind == Frame.NAME and not 5 <= length <= 4 + NAME_BYTES_MAX:
            raise malformed(f"a NAME of {length} bytes")
        if kind == Frame.DELIVER and length < STAMP.size + EVENT_HEAD.size:
            raise malformed(f"a DELIVER of {length} bytes")
        self._open = _Open(kind, length)
        return _NOTHING_YET

    def _step_events(self, open_frame: _Open) -> Any:
        if open_frame.kind == Frame.DELIVER and not open_frame.stamped:
            if self._available() < STAMP.size:
                return None
            open_frame.stamped = True
            open_frame.left -= STAMP.size
            return Stamp(*STAMP.unpack(self._take(STAMP.size)))
        if open_frame.left == 0:
            self._open = None
            return _NOTHING_YET
        if open_frame.left < EVENT_HEAD.size:
            raise malformed("a frame ends within the head of an event")
        return self._step_event(open_frame)

    def _step_event(self, open_frame: _Open) -> Any:
        have = self._available()
        if have < 4:
            return None
        length = int.from_bytes(self._buffer[self._at:self._at + 4], "little")
        if length < 7 or 4 + length > open_frame.left:
            raise malformed(f"an event's len is {length}")
        if have > 4 and self._buffer[self._at + 4] & ~(FLAG_TTL | FLAG_REQUEST):
            raise malformed("a reserved flag of an event is set")
        if have < EVENT_HEAD.size:
            return None
        _, flags, topic_ref, attributes_length = EVENT_HEAD.unpack_from(self._buffer, self._at)
        if 7 + attributes_length > length:
            raise malformed("an attribute block is longer than its event")
        if self._length_max is not None and length > self._length_max:
            open_frame.left -= 4 + length
            self._skip = 4 + length
            return Oversized(length)
        if have < 4 + length:
            return None
        open_frame.left -= 4 + length
        body = self._take(4 + length)
        split = EVENT_HEAD.size + attributes_length
        return Event(topic_ref, body[split:], body[EVENT_HEAD.size:split], flags)


_NOTHING_YET = object()
