"""The client's encoders and decoders against every vector and every table of docs/PROTOCOL.md."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

import myelin_events as events
import myelin_wire as wire
from myelin_arena import Entry, OutputFault, Verdict, decode_arena, decode_verdict, encode_arena, encode_verdict
from myelin_events import Attribute, Tag
from myelin_wire import Event, Frame, Name, Oversized, ProtocolError, Reader, Stamp
from vectors import Vector, read_table, read_topics, read_vectors

VECTORS = read_vectors()
GOOD = [vector for vector in VECTORS if "refusal" not in vector.meaning]
BAD = [vector for vector in VECTORS if "refusal" in vector.meaning]


def name_of(vector: Vector) -> str:
    return vector.name


def test_the_page_has_vectors_of_every_kind() -> None:
    assert len(GOOD) >= 25 and len(BAD) >= 40
    assert len({vector.name for vector in VECTORS}) == len(VECTORS)
    frames = {vector.meaning.get("frame") for vector in GOOD}
    assert frames >= {kind.name for kind in Frame} - {"NAME", "EVENTS", "DELIVER"}


@pytest.mark.parametrize("vector", GOOD, ids=name_of)
def test_vector(vector: Vector) -> None:
    meaning = vector.meaning
    if "frame" in meaning:
        check_control(vector, Frame[meaning["frame"]], meaning.get("body", {}))
    elif "stream" in meaning:
        check_stream(vector, meaning)
    elif "attrs" in meaning:
        attributes = [attribute_of(entry) for entry in meaning["attrs"]]
        assert events.decode_attributes(vector.data) == attributes
        assert events.encode_attributes(attributes) == vector.data
    elif "arena" in meaning:
        entries = [entry_of(entry) for entry in meaning["arena"]]
        assert decode_arena(vector.data) == entries
        assert encode_arena(entries) == vector.data
    else:
        verdict = Verdict(**meaning["verdict"])
        assert decode_verdict(vector.data, **meaning["declared"]) == verdict
        assert encode_verdict(verdict) == vector.data


@pytest.mark.parametrize("vector", BAD, ids=name_of)
def test_malformed_vector(vector: Vector) -> None:
    meaning = vector.meaning
    where = meaning["on"]
    if where in ("control", "events", "deliver"):
        with pytest.raises(ProtocolError) as refused:
            list(Reader(where, sender="client").feed(vector.data))
        assert refused.value.code.label == meaning["refusal"]
    elif where == "attrs":
        with pytest.raises(events.AttributeFault) as refused:
            events.decode_attributes(vector.data)
        assert (meaning["refusal"], refused.value.fault) == ("invalid-attributes", meaning["fault"])
    else:
        with pytest.raises(OutputFault) as refused:
            decode_arena(vector.data) if where == "arena" else decode_verdict(vector.data, **meaning["declared"])
        assert (meaning["refusal"], refused.value.fault) == ("malformed-output", meaning["fault"])


def check_control(vector: Vector, kind: Frame, body: dict[str, Any]) -> None:
    # Once more through the codec: what the page leaves to defaults is then filled in on both sides.
    expected = [(kind, wire.decode_control(kind, wire.encode_control(kind, body)[wire.HEADER.size:]))]
    for chunk in (len(vector.data), 1):
        reader = Reader("control")
        assert [item for piece in pieces(vector.data, chunk) for item in reader.feed(piece)] == expected
        assert reader.between_frames
    for key, value in body.items():
        assert expected[0][1][key] == value
    if not vector.meaning.get("decode_only"):
        assert wire.encode_control(kind, body) == vector.data


def check_stream(vector: Vector, meaning: dict[str, Any]) -> None:
    expected = [item_of(item) for item in meaning["items"]]
    for chunk in (len(vector.data), 7, 1):
        reader = Reader(meaning["stream"], length_max=meaning.get("len_max"))
        assert [item for piece in pieces(vector.data, chunk) for item in reader.feed(piece)] == expected
        assert reader.between_frames
    if not meaning.get("decode_only"):
        assert encode_stream(expected) == vector.data
    if "ids" in meaning:
        stamp = next(item for item in expected if isinstance(item, Stamp))
        assert [stamp.derived_id(index) for index in range(stamp.count)] == meaning["ids"]


def encode_stream(items: list[Any]) -> bytes:
    """NAMEs as they stand, the events between them in one frame, behind their stamp if they have one."""
    data, body, kind = b"", b"", Frame.EVENTS
    for item in [*items, None]:
        if isinstance(item, Event):
            body += item.encode()
            continue
        if body:
            data += wire.frame(kind, body)
            body, kind = b"", Frame.EVENTS
        if isinstance(item, Stamp):
            body, kind = item.encode(), Frame.DELIVER
        elif isinstance(item, Name):
            data += item.encode()
    return data


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at:at + size] for at in range(0, len(data), size)]


def item_of(item: dict[str, Any]) -> Any:
    (kind, value), = item.items()
    if kind == "name":
        return Name(**value)
    if kind == "stamp":
        return Stamp(**value)
    if kind == "oversized":
        return Oversized(value)
    block = events.encode_attributes(attribute_of(entry) for entry in value["attrs"])
    return Event(value["topic_ref"], value["payload"].encode(), block, value["flags"])


def attribute_of(entry: dict[str, Any]) -> Attribute:
    if "header" in entry:
        return Attribute(Tag.HEADER, entry["value"].encode(), entry["header"])
    tag = Tag(entry["tag"])
    if "u32" in entry:
        return Attribute(tag, struct.pack("<I", entry["u32"]))
    if "u64" in entry:
        return Attribute(tag, struct.pack("<Q", entry["u64"]))
    return Attribute(tag, bytes.fromhex(entry["hex"]) if "hex" in entry else entry["value"].encode())


def entry_of(entry: dict[str, Any]) -> Entry:
    block = events.encode_attributes(attribute_of(attribute) for attribute in entry["attrs"])
    return Entry(entry["topic"], block, entry["payload"].encode(), entry["payload_total"], entry["identity"])


def test_topics_and_patterns() -> None:
    topics = read_topics()
    assert [text for text in topics["valid"] if not events.valid_topic(text)] == []
    assert [text for text in topics["invalid"] if events.valid_topic(text)] == []
    assert [text for text in topics["valid_patterns"] if not events.valid_pattern(text)] == []
    assert [text for text in topics["invalid_patterns"] if events.valid_pattern(text)] == []
    assert [pair for pair in topics["matches"] if not events.matches(*pair)] == []
    assert [pair for pair in topics["does_not_match"] if events.matches(*pair)] == []


def test_the_client_has_the_numbers_of_the_page() -> None:
    assert {row[0]: int(row[1], 16) for row in read_table("type")} == {kind.name: int(kind) for kind in Frame}
    assert {int(row[0]): row[1] for row in read_table("number")} == {int(code): code.label for code in wire.Code}
    assert {row[0]: int(row[1]) for row in read_table("constant")} == {
        row[0]: getattr(wire, row[0]) for row in read_table("constant")}
    assert {int(row[0]): row[1].replace("-", "_").upper() for row in read_table("tag")} == {
        int(tag): tag.name for tag in Tag}


def test_unknown_refusals_count_as_internal() -> None:
    assert wire.Code(999) is wire.Code.INTERNAL


def test_depth_is_counted_with_the_own_map() -> None:
    def nested(levels: int) -> bytes:
        arrays = levels - 1
        return b"\x82\xa6events\x01\xa1x" + b"\x91" * (arrays - 1) + b"\x90"

    assert wire.decode_control(Frame.RECEIPT, nested(32)) == {"events": 1}
    with pytest.raises(ProtocolError, match="malformed"):
        wire.decode_control(Frame.RECEIPT, nested(33))


def test_a_key_that_stands_twice_is_malformed() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        wire.decode_control(Frame.RECEIPT, b"\x82\xa6events\x01\xa6events\x01")


@pytest.mark.parametrize("stream", ["control", "events", "deliver"])
def test_garbage_is_refused_and_never_breaks_the_reader(stream: str) -> None:
    dice = random.Random(7)
    good = [vector.data for vector in GOOD if ("frame" if stream == "control" else "stream") in vector.meaning]
    refused = 0
    for _ in range(3000):
        data = bytearray(dice.choice(good))
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            for _ in Reader(stream).feed(bytes(data)):
                pass
        except ProtocolError:
            refused += 1
    assert refused > 1000
