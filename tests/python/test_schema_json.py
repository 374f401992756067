"""Compatibility of JSON schemas, ours against `jsonsubschema`, which looks at the sets of values that schemas describe.

Ours follows the rules of Confluent's registry, which look at keywords: what they call incompatible may be harmless. So what
is compared is exact in one direction - what ours lets through must be a subschema - and where the corpus stays within what
both decide exactly, in the other direction too.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from jsonsubschema import isSubschema
from schema_judge import compare

SEED = 20_26
PAIRS = 800
NAMES = ["a", "b", "c"]


class Maker:
    """Makes schemas out of what both implementations decide exactly."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    def make(self, depth: int = 0) -> dict[str, Any]:
        kinds = ["integer", "number", "string", "boolean", "null", "enum"]
        kinds += ["object", "array"] * 2 if depth < 2 else []
        match self.dice.choice(["object", *kinds] if depth == 0 else kinds):
            case "integer" | "number" as kind:
                low = self.dice.randint(-3, 3)
                schema: dict[str, Any] = {"type": kind}
                if self.dice.random() < 0.5:
                    schema["minimum"] = low
                if self.dice.random() < 0.5:
                    schema["maximum"] = low + self.dice.randint(1, 5)
                return schema
            case "string":
                schema = {"type": "string"}
                if self.dice.random() < 0.5:
                    schema["minLength"] = self.dice.randint(1, 3)
                if self.dice.random() < 0.5:
                    schema["maxLength"] = self.dice.randint(3, 6)
                return schema
            case "enum":
                return {"type": "string", "enum": self.dice.sample(["x", "y", "z", "w"], self.dice.randint(1, 3))}
            case "object":
                return self.object(depth)
            case "array":
                schema = {"type": "array", "items": self.make(depth + 1)}
                if self.dice.random() < 0.4:
                    schema["minItems"] = self.dice.randint(1, 2)
                if self.dice.random() < 0.4:
                    schema["maxItems"] = self.dice.randint(2, 4)
                return schema
            case kind:
                return {"type": kind}

    def object(self, depth: int) -> dict[str, Any]:
        names = self.dice.sample(NAMES, self.dice.randint(0, 3))
        schema = {"type": "object", "properties": {name: self.make(depth + 1) for name in names}}
        if self.dice.random() < 0.5:
            schema["additionalProperties"] = False
        required = [name for name in names if self.dice.random() < 0.4]
        if required:
            schema["required"] = required
        return schema

    def change(self, schema: dict[str, Any]) -> dict[str, Any]:
        match schema.get("type"):
            case "object" if schema.get("properties") and self.dice.random() < 0.7:
                members = schema["properties"]
                name = self.dice.choice(list(members))
                match self.dice.choice(["change", "change", "remove", "require"]):
                    case "change":
                        members[name] = self.change(members[name])
                    case "remove":
                        del members[name]
                        schema["required"] = [known for known in schema.get("required", []) if known != name]
                        if not schema["required"]:
                            del schema["required"]
                    case "require":
                        schema["required"] = sorted({*schema.get("required", []), name})
            case "object":
                match self.dice.choice(["add", "open", "close", "free"]):
                    case "add":
                        schema["properties"][self.dice.choice(NAMES)] = self.make(2)
                    case "open":
                        schema.pop("additionalProperties", None)
                    case "close":
                        schema["additionalProperties"] = False
                    case "free":
                        schema.pop("required", None)
            case "array" if self.dice.random() < 0.6:
                schema["items"] = self.change(schema["items"])
            case "integer" | "number":
                match self.dice.choice(["kind", "minimum", "maximum", "free"]):
                    case "kind":
                        schema["type"] = "number" if schema["type"] == "integer" else "integer"
                    case "minimum":
                        schema["minimum"] = schema.get("minimum", 0) - self.dice.randint(0, 2)
                    case "maximum":
                        schema["maximum"] = schema.get("maximum", 9) + self.dice.randint(-1, 2)
                    case "free":
                        schema = {"type": schema["type"]}
            case "string" if "enum" in schema:
                schema["enum"] = self.dice.sample(["x", "y", "z", "w"], self.dice.randint(1, 4))
            case "string":
                schema["maxLength"] = max(self.dice.randint(3, 8), schema.get("minLength", 0))
            case _:
                return self.make(2)
        return schema


def pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    dice = random.Random(SEED)
    made = []
    while len(made) < PAIRS:
        maker = Maker(dice)
        older = maker.make()
        newer = copy.deepcopy(older)
        for _ in range(dice.randint(1, 3)):
            newer = maker.change(newer)
        made.append((newer, older))
    return made


def is_void(schema: dict[str, Any]) -> bool:
    """Whether no value is allowed at some place: keywords are compared there all the same, sets are not."""
    if schema.get("minimum", 0) > schema.get("maximum", schema.get("minimum", 0)):
        return True
    if schema.get("minItems", 0) > schema.get("maxItems", schema.get("minItems", 0)):
        return True
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return any(is_void(one) for one in inner)



def test_what_ours_lets_through_is_a_subschema_and_the_rest_is_none() -> None:
    made = [(newer, older) for newer, older in pairs() if not is_void(newer) and not is_void(older)]
    assert len(made) >= 500
    counts, different = {True: 0, False: 0}, []
    answers = compare("JSON", [(json.dumps(newer), json.dumps(older)) for newer, older in made])
    for (newer, older), answer in zip(made, answers):
        assert "error" not in answer, (newer, older, answer)
        theirs = bool(isSubschema(copy.deepcopy(older), copy.deepcopy(newer)))
        ours = not answer["reasons"]
        counts[theirs] += 1
        if ours != theirs:
            different.append({"newer": newer, "older": older, "ours": answer["reasons"], "theirs": theirs})
    assert min(counts.values()) > len(made) // 10, counts
    assert not different, f"{len(different)} of {len(made)}: {json.dumps(different[:6], indent=1)}"
