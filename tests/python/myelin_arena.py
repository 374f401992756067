"""Arenas and verdicts, section 13 of docs/PROTOCOL.md: what a filter is handed and what it answers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

ENTRY = struct.Struct("<IHHIIIIII")
KINDS = ("allow", "deny", "dead-letter", "drop", "redirect", "add")
FLAG_PARTIAL = 1


class OutputFault(Exception):
    """Malformed output; `fault` is the page's word for it."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True)
class Entry:
    """One entry of an arena; `identity` is None where it was not asked for."""

    topic: str
    attributes: bytes
    payload: bytes
    payload_total: int
    identity: str | None


def encode_arena(entries: list[Entry]) -> bytes:
    """An arena laid out as the page's vectors: texts shared, the heap in the order of the entries."""
    table, heap = b"", b""
    base = 8 + ENTRY.size * len(entries)
    places: dict[bytes, int] = {}

    def shared(data: bytes) -> int:
        nonlocal heap
        if data not in places:
            places[data] = base + len(heap)
            heap += data
        return places[data]

    for entry in entries:
        topic = entry.topic.encode()
        topic_at = shared(topic) if topic else 0
        identity_at = 0
        if entry.identity is not None:
            identity = entry.identity.encode()
            identity_at = shared(struct.pack("<H", len(identity)) + identity)
        attributes_at = base + len(heap)
        heap += entry.attributes
        payload_at = base + len(heap)
        heap += entry.payload
        flags = FLAG_PARTIAL if len(entry.payload) < entry.payload_total else 0
        table += ENTRY.pack(topic_at, len(topic), flags, attributes_at, len(entry.attributes), payload_at,
                            len(entry.payload), entry.payload_total, identity_at)
    return struct.pack("<II", len(entries), 0) + table + heap


def decode_arena(arena: bytes) -> list[Entry]:
    """All entries; raises OutputFault."""
    if len(arena) < 8:
        raise OutputFault("table")
    count, zero = struct.unpack_from("<II", arena)
    if zero or 8 + count * ENTRY.size > len(arena):
        raise OutputFault("table")
    return [_decode_entry(arena, 8 + index * ENTRY.size) for index in range(count)]


def _decode_entry(arena: bytes, at: int) -> Entry:
    (topic_at, topic_length, _, attributes_at, attributes_length, payload_at, payload_length, payload_total,
     identity_at) = ENTRY.unpack_from(arena, at)

    def part(offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        if offset + length > len(arena):
            raise OutputFault("out-of-bounds")
        return arena[offset:offset + length]

    identity = None
    try:
        if identity_at:
            length = struct.unpack("<H", part(identity_at, 2))[0]
            identity = part(identity_at + 2, length).decode()
        topic = part(topic_at, topic_length).decode()
    except UnicodeDecodeError as error:
        raise OutputFault("not-utf8") from error
    return Entry(topic, part(attributes_at, attributes_length), part(payload_at, payload_length), payload_total, identity)


@dataclass(frozen=True)
class Verdict:
    """A filter's decision about one event."""

    kind: str = "allow"
    payload: bool = False
    attrs: bool = False
    detail: bool = False
    emitted: int = 0
    reason: int = 0
    routes: list[int] = field(default_factory=list)


def encode_verdict(verdict: Verdict) -> bytes:
    bits = (KINDS.index(verdict.kind) | verdict.payload << 3 | verdict.attrs << 4 | verdict.detail << 5
            | verdict.emitted << 8 | verdict.reason << 16 | sum(1 << route for route in verdict.routes) << 32)
    return struct.pack("<Q", bits)


def decode_verdict(data: bytes, reasons: int, routes: int) -> Verdict:
    """The verdict of a filter that declared so many reasons and routes; raises OutputFault."""
    bits = struct.unpack("<Q", data)[0]
    if bits & 7 >= len(KINDS):
        raise OutputFault("kind")
    if bits >> 6 & 3:
        raise OutputFault("reserved")
    kind = KINDS[bits & 7]
    reason = bits >> 16 & 0xFFFF
    if reason and (kind not in ("deny", "dead-letter") or reason >= reasons):
        raise OutputFault("reason")
    chosen = [route for route in range(32) if bits >> 32 + route & 1]
    if bool(chosen) != (kind in ("redirect", "add")) or any(route >= routes for route in chosen):
        raise OutputFault("routes")
    if bits >> 3 & 3 and kind not in ("allow", "redirect", "add"):
        raise OutputFault("replacement")
    return Verdict(kind, bool(bits >> 3 & 1), bool(bits >> 4 & 1), bool(bits >> 5 & 1), bits >> 8 & 0xFF, reason, chosen)
