"""Reads the test vectors and the tables of docs/PROTOCOL.md."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "PROTOCOL.md"


@dataclass(frozen=True)
class Vector:
    """Bytes of the page and, where it gives one, their meaning."""

    name: str
    data: bytes
    meaning: dict[str, Any] | None


def read_vectors() -> list[Vector]:
    """All vectors of the page, in its order."""
    blocks = re.finditer(r"^```vector (\S+)\n(.*?)^```\n(?:```json\n(.*?)^```$)?", PAGE.read_text(), re.M | re.S)
    return [Vector(name, _bytes(body), json.loads(meaning) if meaning else None)
            for name, body, meaning in (block.groups() for block in blocks)]


def read_topics() -> dict[str, Any]:
    """The block `json topics` of section 7."""
    return json.loads(re.search(r"^```json topics\n(.*?)^```$", PAGE.read_text(), re.M | re.S)[1])


def read_table(*headings: str) -> list[list[str]]:
    """The rows of the first table whose headings begin so; cells without back-quotes."""
    rows: list[list[str]] = []
    inside = False
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[:len(headings)] == list(headings):
            inside = True
        elif inside and line.startswith("|"):
            rows.append(cells)
        elif inside:
            break
    return rows[1:]


def _bytes(body: str) -> bytes:
    return bytes.fromhex("".join(line.split("#")[0] for line in body.splitlines()))
