"""Every level of compatibility against the Avro project's own checker, over histories of three versions."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from schema_judge import compare_at
from test_schema_avro import Maker

SEED = 20_27
HISTORIES = 400
LEVELS = ["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]


def histories() -> list[list[str]]:
    """Versions of schemas, newest first."""
    dice = random.Random(SEED)
    made = []
    for _ in range(HISTORIES):
        maker = Maker(dice)
        versions: list[Any] = [maker.make()]
        for _ in range(2):
            # Some come back to what they were: what is good towards the last version may not be so towards an older one.
            newer = copy.deepcopy(dice.choice(versions))
            for _ in range(dice.randint(0, 2)):
                newer = maker.change(newer)
            versions.insert(0, newer)
        made.append([json.dumps(version) for version in versions])
    return made


def reads(reader: str, writer: str) -> bool:
    result = ReaderWriterCompatibilityChecker().get_compatibility(avro.schema.parse(reader), avro.schema.parse(writer))
    return result.compatibility == SchemaCompatibilityType.compatible


def allowed(level: str, newer: str, older: list[str]) -> bool:
    """What Confluent's registry means by a level, in terms of who reads what."""
    kind, _, transitive = level.partition("_")
    looked_at = older if transitive else older[:1]
    backward = kind not in ("BACKWARD", "FULL") or all(reads(newer, one) for one in looked_at)
    forward = kind not in ("FORWARD", "FULL") or all(reads(one, newer) for one in looked_at)
    return backward and forward


def test_every_level_means_what_it_says() -> None:
    made = histories()
    theirs = {level: [allowed(level, newer, older) for newer, *older in made] for level in LEVELS}
    ours = {level: [not answer["reasons"] for answer in compare_at(level, "AVRO", made)] for level in LEVELS}
    different = [{"level": level, "history": made[place], "theirs": theirs[level][place]}
                 for level in LEVELS for place in range(HISTORIES) if ours[level][place] != theirs[level][place]]
    assert not different, f"{len(different)}: {json.dumps(different[:4], indent=1)}"
    # Histories by which two levels cannot be told apart would prove nothing.
    for level, other in zip(LEVELS[1:], LEVELS[2:]):
        told_apart = sum(one != another for one, another in zip(theirs[level], theirs[other]))
        assert told_apart > HISTORIES // 20, (level, other, told_apart)
    assert all(ours["NONE"])
