"""Compatibility of JSON schemas that are put together - `allOf`, `anyOf`, `oneOf`, `$ref`, `const`, `pattern` - by values.

Ours looks at keywords and may call incompatible what is harmless. What it calls compatible must be so: every value that the
older schema allows, by another implementation, the newer one allows. And steps that every author takes for harmless must be
called so.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any, Callable

from jsonschema import Draft7Validator
from schema_judge import compare_at

SEED = 20_28
PAIRS = 250
PATTERNS = ["^a", "^ab", "b$", "^[a-c]*$", "^$", "c"]
TEXTS = ["", "a", "b", "c", "ab", "abc", "cab", "x"]
NUMBERS = [-2, 0, 1, 2, 1.5, 7]
NAMES = ["a", "b"]
SCALARS: list[Any] = [None, True, False, *NUMBERS, *TEXTS]
LEVELS = ["BACKWARD", "FORWARD", "FULL"]

Schema = dict[str, Any]


class Maker:
    """Makes schemas whose alternatives of a `oneOf` exclude each other: elsewhere ours follows Confluent's registry, which
    lets an overlap pass."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def scalar(self) -> Schema:
        match self.dice.choice(["pattern", "text", "const", "number", "enum", "boolean"]):
            case "pattern":
                return {"type": "string", "pattern": self.dice.choice(PATTERNS)}
            case "text":
                return {"type": "string", "maxLength": self.dice.randint(0, 3)}
            case "const":
                return {"const": self.dice.choice(SCALARS)}
            case "number":
                return {"type": self.dice.choice(["number", "integer"]), "minimum": self.dice.choice([-1, 0, 1])}
            case "enum":
                return {"enum": self.dice.sample(TEXTS, self.dice.randint(1, 4))}
            case _:
                return {"type": "boolean"}

    def make(self, depth: int = 0) -> Schema:
        kinds = ["scalar"] * 3 + (["object", "array", "allOf", "anyOf", "oneOf"] * 2 if depth < 2 else [])
        match self.dice.choice(kinds):
            case "object":
                names = self.dice.sample(NAMES, self.dice.randint(1, 2))
                schema: Schema = {"type": "object", "properties": {name: self.make(depth + 1) for name in names}}
                if self.dice.random() < 0.5:
                    schema["required"] = self.dice.sample(names, 1)
                if self.dice.random() < 0.5:
                    schema["additionalProperties"] = False
                return schema
            case "array":
                return {"type": "array", "items": self.make(depth + 1)}
            case "allOf":
                return {"allOf": [self.make(depth + 1) for _ in range(self.dice.randint(1, 2))]}
            case "anyOf":
                return {"anyOf": [self.make(depth + 1) for _ in range(self.dice.randint(1, 3))]}
            case "oneOf":
                apart = [{"type": "string", "pattern": self.dice.choice(PATTERNS)}, {"type": "boolean"},
                         {"type": "integer", "minimum": 0}, {"type": "object", "properties": {"a": self.scalar()}}]
                return {"oneOf": self.dice.sample(apart, self.dice.randint(1, 4))}
            case _:
                return self.scalar()

    def change(self, schema: Schema) -> Schema:
        """Another schema, near to the one that is given."""
        for word in ("allOf", "anyOf", "oneOf"):
            if word in schema:
                return self.change_parts(word, schema[word])
        if "pattern" in schema:
            return self.dice.choice([{"type": "string"}, {**schema, "pattern": self.dice.choice(PATTERNS)},
                                     {"enum": self.dice.sample(TEXTS, 3)}])
        if "const" in schema:
            more = self.dice.sample(SCALARS, 2)
            return self.dice.choice([{"enum": [schema["const"], *more]}, {"const": more[0]}, {}])
        if "enum" in schema:
            return self.dice.choice([{"enum": self.dice.sample(TEXTS, 4)}, {"const": schema["enum"][0]},
                                     {"type": "string"}, {"enum": [*schema["enum"], "xx"]}])
        if schema.get("properties"):
            name = self.dice.choice(list(schema["properties"]))
            schema["properties"][name] = self.change(schema["properties"][name])
            if self.dice.random() < 0.3:
                schema.pop("required", None)
            return schema
        if "items" in schema:
            schema["items"] = self.change(schema["items"])
            return schema
        return self.dice.choice([self.scalar(), schema, {}])

    def change_parts(self, word: str, parts: list[Schema]) -> Schema:
        place = self.dice.randrange(len(parts))
        match self.dice.choice(["change", "remove", "add", "unwrap", "swap"]):
            case "change" if word != "oneOf":
                parts[place] = self.change(parts[place])
            case "remove" if len(parts) > 1:
                del parts[place]
            case "add" if word != "oneOf":
                parts.append(self.make(2))
            case "add":
                parts.append({"type": "null"}) if {"type": "null"} not in parts else None
            case "unwrap":
                return parts[place]
            case "swap":
                self.dice.shuffle(parts)
        return {word: parts}

    def refer(self, schema: Schema) -> Schema:
        """The same, with some of its parts behind a reference."""
        definitions: Schema = {}

        def behind(part: Schema) -> Schema:
            part = {**part}
            for word in ("allOf", "anyOf", "oneOf"):
                if word in part:
                    part[word] = [behind(one) for one in part[word]]
            if "properties" in part:
                part["properties"] = {name: behind(one) for name, one in part["properties"].items()}
            if "items" in part:
                part["items"] = behind(part["items"])
            if self.dice.random() < 0.4:
                name = f"d{len(definitions)}"
                definitions[name] = part
                return {"$ref": f"#/definitions/{name}"}
            return part

        whole = behind(schema)
        if "$ref" in whole:
            # Beside a reference nothing else counts in this draft, but a place for definitions is none of what counts.
            whole = {"allOf": [whole]}
        return {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": definitions, **whole}


def values() -> list[Any]:
    """Values enough to tell the schemas above apart."""
    dice = random.Random(SEED)
    made: list[Any] = [*SCALARS, [], {}]
    for scalar in SCALARS:
        made += [[scalar], {"a": scalar}, {"b": scalar}, {"a": scalar, "z": 1}, {"a": {"a": scalar}}, [{"a": scalar}]]
    for _ in range(40):
        made.append({"a": dice.choice(made[:len(SCALARS) * 4]), "b": dice.choice(made[:len(SCALARS) * 4])})
    return made


VALUES = values()


def allowed(schema: Schema) -> list[bool]:
    """Which of the values a schema allows."""
    is_valid = Draft7Validator(schema).is_valid
    return [is_valid(value) for value in VALUES]


def without(reads: list[bool], writes: list[bool]) -> list[Any]:
    """Values that may be written and cannot be read."""
    return [value for value, written, read in zip(VALUES, writes, reads) if written and not read]


def lost(reader: Schema, writer: Schema) -> list[Any]:
    """Values that the writer's schema allows and the reader's does not."""
    return without(allowed(reader), allowed(writer))


def judge_all(level: str, made: list[tuple[Schema, Schema]]) -> list[bool]:
    answers = compare_at(level, "JSON", [[json.dumps(newer), json.dumps(older)] for newer, older in made])
    for pair, answer in zip(made, answers):
        assert "error" not in answer, (pair, answer)
    return [not answer["reasons"] for answer in answers]


def test_what_is_called_compatible_loses_no_value() -> None:
    dice = random.Random(SEED)
    made, allowing = [], []
    for _ in range(PAIRS):
        maker = Maker(dice)
        older = maker.make()
        newer = copy.deepcopy(older)
        for _ in range(dice.randint(0, 2)):
            newer = maker.change(newer)
        made.append((maker.refer(newer), maker.refer(older)))
        # References change nothing, and cost the other implementation most of its time.
        allowing.append((allowed(newer), allowed(older)))
    backward = [without(newer, older) for newer, older in allowing]
    forward = [without(older, newer) for newer, older in allowing]
    found: Callable[[str, int], list[Any]] = lambda level, place: (
        (backward[place] if level != "FORWARD" else []) + (forward[place] if level != "BACKWARD" else []))
    for level in LEVELS:
        verdicts = judge_all(level, made)
        wrong = [{"newer": made[place][0], "older": made[place][1], "lost": found(level, place)[:3]}
                 for place, is_good in enumerate(verdicts) if is_good and found(level, place)]
        assert not wrong, f"{level}: {len(wrong)}: {json.dumps(wrong[:3], indent=1)}"
        # A judge that says no to everything would lose nothing either: most of what is harmless must pass.
        harmless = [is_good for place, is_good in enumerate(verdicts) if not found(level, place)]
        assert PAIRS // 10 < len(harmless) < PAIRS * 9 // 10, (level, len(harmless))
        assert sum(harmless) > len(harmless) * 2 // 3, (level, sum(harmless), len(harmless))


def test_what_every_author_takes_for_harmless_is_called_so() -> None:
    text, number = {"type": "string", "pattern": "^a"}, {"type": "integer", "minimum": 0}
    closed = {"type": "object", "properties": {"a": text}, "required": ["a"], "additionalProperties": False}
    pairs: dict[str, tuple[Schema, Schema]] = {
        "nothing": (closed, closed),
        "a pattern less": ({"type": "string"}, text),
        "one more alternative of an anyOf": ({"anyOf": [text, number, closed]}, {"anyOf": [text, number]}),
        "one more alternative of a oneOf": ({"oneOf": [text, number]}, {"oneOf": [text]}),
        "alternatives in another order": ({"anyOf": [number, text]}, {"anyOf": [text, number]}),
        "one demand of an allOf less": ({"allOf": [text]}, {"allOf": [text, {"type": "string", "maxLength": 3}]}),
        "alternatives where there was none": ({"anyOf": [text, number]}, text),
        "an enum with what was the const": ({"enum": ["a", "b"]}, {"const": "a"}),
        "a const of what was the only one": ({"const": "a"}, {"enum": ["a"]}),
        "a reference to the same": ({"allOf": [{"$ref": "#/definitions/t"}], "definitions": {"t": text}},
                                    {"allOf": [text]}),
        "the same behind a reference": ({"allOf": [text]},
                                        {"allOf": [{"$ref": "#/definitions/t"}], "definitions": {"t": text}}),
    }
    for name, (newer, older) in pairs.items():
        assert not lost(newer, older), name
    verdicts = dict(zip(pairs, judge_all("BACKWARD", list(pairs.values()))))
    assert all(verdicts.values()), verdicts


def test_what_breaks_is_called_so() -> None:
    text, number = {"type": "string", "pattern": "^a"}, {"type": "integer", "minimum": 0}
    pairs: dict[str, tuple[Schema, Schema]] = {
        "a pattern more": (text, {"type": "string"}),
        "another pattern": (text, {"type": "string", "pattern": "^b"}),
        "one alternative of an anyOf less": ({"anyOf": [text]}, {"anyOf": [text, number]}),
        "one alternative of a oneOf less": ({"oneOf": [text]}, {"oneOf": [text, number]}),
        "one demand of an allOf more": ({"allOf": [text, {"type": "string", "maxLength": 1}]}, {"allOf": [text]}),
        "another const": ({"const": "b"}, {"const": "a"}),
        "a const of what was an enum": ({"const": "a"}, {"enum": ["a", "b"]}),
        "one of a oneOf that overlaps": ({"oneOf": [{"const": "a"}, {"const": "b"}]}, {"oneOf": [text]}),
        "a narrower thing behind the reference": (
            {"allOf": [{"$ref": "#/definitions/t"}], "definitions": {"t": {**text, "maxLength": 1}}},
            {"allOf": [{"$ref": "#/definitions/t"}], "definitions": {"t": text}}),
    }
    for name, (newer, older) in pairs.items():
        assert lost(newer, older), name
    verdicts = dict(zip(pairs, judge_all("BACKWARD", list(pairs.values()))))
    assert not any(verdicts.values()), verdicts
