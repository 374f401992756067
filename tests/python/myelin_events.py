"""Attribute blocks (section 6.1) and topics and patterns (section 7) of docs/PROTOCOL.md."""

from __future__ import annotations

import struct
import unicodedata
from dataclasses import dataclass
from enum import IntEnum
from typing import Iterable

from myelin_wire import KEY_BYTES_MAX, OWN_VALUE_BYTES_MAX, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX

class Tag(IntEnum):
    """Tags of attributes."""

    HEADER = 0
    ID = 1
    SOURCE = 2
    TYPE = 3
    TIME = 4
    KEY = 5
    CONTENT_TYPE = 6
    SCHEMA = 7
    TRACEPARENT = 8
    TTL = 9
    REPLY_TO = 10
    CORRELATION = 11


BINARY_TAGS = {Tag.TIME, Tag.KEY, Tag.TTL, Tag.CORRELATION}
FIXED_LENGTHS = {Tag.TIME: 8, Tag.TTL: 4}


class AttributeFault(Exception):
    """A block that breaks a rule; `fault` is the page's word for it."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; `name` is that of a header (tag 0), otherwise empty."""

    tag: Tag
    value: bytes
    name: str = ""

    def encode(self) -> bytes:
        name = self.name.encode()
        prefix = bytes((0, len(name))) + name if self.tag == Tag.HEADER else bytes((self.tag,))
        return prefix + struct.pack("<H", len(self.value)) + self.value


def encode_attributes(attributes: Iterable[Attribute]) -> bytes:
    return b"".join(attribute.encode() for attribute in attributes)


def decode_attributes(block: bytes) -> list[Attribute]:
    """All attributes of a block, in order; raises AttributeFault."""
    attributes = []
    seen = set()
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        if at + count > len(block):
            raise AttributeFault("truncated")
        at += count
        return block[at - count:at]

    while at < len(block):
        number = take(1)[0]
        if number > Tag.CORRELATION:
            raise AttributeFault("unknown-tag")
        tag = Tag(number)
        name = b""
        if tag == Tag.HEADER:
            name = take(take(1)[0])
            if not name:
                raise AttributeFault("empty-name")
        elif tag in seen:
            raise AttributeFault("repeated")
        seen.add(tag)
        length = struct.unpack("<H", take(2))[0]
        _check_length(tag, length)
        value = take(length)
        try:
            attributes.append(Attribute(tag, value, name.decode()))
            if tag not in BINARY_TAGS:
                value.decode()
        except UnicodeDecodeError as error:
            raise AttributeFault("not-utf8") from error
    return attributes


def _check_length(tag: Tag, length: int) -> None:
    if tag == Tag.HEADER:
        return
    longest = KEY_BYTES_MAX if tag == Tag.KEY else OWN_VALUE_BYTES_MAX
    if length > longest or length != FIXED_LENGTHS.get(tag, length):
        raise AttributeFault("bad-length")


# --- topics and patterns, section 7 ----------------------------------------------------------------------------------

def _valid_levels(text: str) -> bool:
    levels = text.split("/")
    return (all(levels) and len(levels) <= TOPIC_LEVELS_MAX and len(text.encode()) <= TOPIC_BYTES_MAX
            and not any(unicodedata.category(character) == "Cc" for character in text))


def valid_topic(text: str) -> bool:
    return _valid_levels(text) and "*" not in text


def valid_pattern(text: str) -> bool:
    levels = text.split("/")
    return (_valid_levels(text) and "**" not in levels[:-1]
            and all("*" not in level or level in ("*", "**") for level in levels))


def matches(pattern: str, topic: str) -> bool:
    """Whether a valid pattern matches a valid topic."""
    wanted, levels = pattern.split("/"), topic.split("/")
    if wanted[0] in ("*", "**") and topic.startswith("$"):
        return False
    if wanted[-1] == "**":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
        levels = levels[:len(wanted)]
    return len(wanted) == len(levels) and all(a in ("*", b) for a, b in zip(wanted, levels))
