"""Compatibility of Avro schemas, ours against the implementation of the Avro project, over pairs that a seed makes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from schema_judge import compare

SEED = 20_26
PAIRS = 2_000
PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
DEFAULTS: dict[str, Any] = {
    "null": None, "boolean": True, "int": 1, "long": 2, "float": 0.5, "double": 1.5, "bytes": "b", "string": "s",
}


class Maker:
    """Makes schemas, each named type once."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.names = 0

    def name(self) -> str:
        self.names += 1
        return f"N{self.names}"

    def make(self, depth: int = 0) -> Any:
        kinds = ["primitive"] * 3 + (["array", "map", "union", "record", "enum", "fixed"] if depth < 3 else [])
        kind = "record" if depth == 0 and self.dice.random() < 0.5 else self.dice.choice(kinds)
        if kind == "primitive":
            return self.dice.choice(PRIMITIVES)
        if kind == "array":
            return {"type": "array", "items": self.make(depth + 1)}
        if kind == "map":
            return {"type": "map", "values": self.make(depth + 1)}
        if kind == "union":
            return self.dice.sample(PRIMITIVES, self.dice.randint(1, 4))
        if kind == "enum":
            symbols = self.dice.sample(["A", "B", "C", "D"], self.dice.randint(1, 4))
            return {"type": "enum", "name": self.name(), "symbols": symbols}
        if kind == "fixed":
            return {"type": "fixed", "name": self.name(), "size": self.dice.randint(1, 3)}
        fields = [self.field(name, depth) for name in self.dice.sample(["a", "b", "c", "d"], self.dice.randint(0, 3))]
        return {"type": "record", "name": self.name(), "fields": fields}

    def field(self, name: str, depth: int) -> dict[str, Any]:
        field: dict[str, Any] = {"name": name, "type": self.make(depth + 1)}
        if isinstance(field["type"], str) and self.dice.random() < 0.5:
            field["default"] = DEFAULTS[field["type"]]
        return field

    def change(self, schema: Any) -> Any:
        """Another schema, near to the one that is given."""
        if isinstance(schema, str):
            return self.dice.choice(PRIMITIVES)
        if isinstance(schema, list):
            if self.dice.random() < 0.3:
                return self.dice.choice(schema)
            return self.dice.sample(PRIMITIVES, self.dice.randint(1, 5))
        match schema["type"]:
            case "array":
                schema["items"] = self.change(schema["items"])
            case "map":
                schema["values"] = self.change(schema["values"])
            case "enum":
                schema.pop("default", None)
                schema["symbols"] = self.dice.sample(["A", "B", "C", "D"], self.dice.randint(1, 4))
                if self.dice.random() < 0.3:
                    schema["default"] = schema["symbols"][0]
            case "fixed":
                schema["size"] = self.dice.randint(1, 3)
            case "record":
                self.change_record(schema)
        return schema

    def change_record(self, schema: dict[str, Any]) -> None:
        fields = schema["fields"]
        used = {name for field in fields for name in [field["name"], *field.get("aliases", [])]}
        free = [name for name in "abcdefghi" if name not in used]
        match self.dice.choice(["add", "remove", "change", "rename", "reorder", "name"]):
            case "add":
                fields.append(self.field(self.dice.choice(free), 2))
            case "remove" if fields:
                fields.remove(self.dice.choice(fields))
            case "change" if fields:
                field = self.dice.choice(fields)
                field.pop("default", None)
                field["type"] = self.change(field["type"])
            case "rename" if fields:
                field = self.dice.choice(fields)
                if self.dice.random() < 0.5:
                    field["aliases"] = [field["name"]]
                field["name"] = self.dice.choice(free)
            case "name":
                if self.dice.random() < 0.5:
                    schema["aliases"] = [schema["name"]]
                schema["name"] = self.name()
            case _:
                self.dice.shuffle(fields)


def pairs() -> list[tuple[str, str]]:
    dice = random.Random(SEED)
    made = []
    while len(made) < PAIRS:
        maker = Maker(dice)
        older = maker.make()
        newer = copy.deepcopy(older)
        for _ in range(dice.randint(0, 3)):
            newer = maker.change(newer)
        made.append((json.dumps(newer), json.dumps(older)))
    return made


def test_the_avro_project_says_the_same() -> None:
    made = pairs()
    different, counts = [], {True: 0, False: 0}
    for (newer, older), answer in zip(made, compare("AVRO", made)):
        assert "error" not in answer, (newer, older, answer)
        checker = ReaderWriterCompatibilityChecker()
        result = checker.get_compatibility(avro.schema.parse(newer), avro.schema.parse(older))
        theirs = result.compatibility == SchemaCompatibilityType.compatible
        ours = not answer["reasons"]
        counts[theirs] += 1
        if ours != theirs:
            different.append({"newer": newer, "older": older, "ours": answer["reasons"], "theirs": str(result.messages)})
    # A corpus of one kind would prove nothing.
    assert min(counts.values()) > PAIRS // 10, counts
    assert not different, f"{len(different)} of {PAIRS}: {json.dumps(different[:5], indent=1)}"
