"""The official JSON-Schema-Test-Suite: all of it through the router's own validator, and one draft through a whole router,
as an operator registers schemas and a client publishes instances.

The suite comes with the source package of PyPI's `jsonschema`. What does not pass is listed, with the reason, in
`json_schema_suite_known.json`: nothing else may fail, and what is listed must.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, Iterator

import pytest

from myelin_client import Message, open_session
from myelin_wire import Code
from routers import Router, run
from schema_judge import judge

PACKAGE = "jsonschema==4.26.0"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
# Where the suite wants its remote documents to be.
REMOTE = "http://localhost:1234/"
# Fewer would mean that the suite was not found whole.
CASES_MIN = 4_500
# What goes through a router, in so many groups and instances at least: as many groups as there may be rules for topics.
ROUTER_DRAFT = "draft7"
ROUTER_GROUPS = (200, 256)
ROUTER_CASES_MIN = 700
ROUTER_TIMEOUT_S = 60.0
# Instances that are published in one frame.
FRAME_MESSAGES = 64
# The first is about documents elsewhere, the second about what no validator has to check.
ROUTER_LEAVES_OUT = {"refRemote", "format"}


@pytest.fixture(scope="session")
def suite() -> Path:
    """The suite's folder, downloaded once."""
    folder = Path(os.environ["MYELIN_BIN"]).resolve().parents[1] / "json-schema-suite"
    found = list(folder.glob("jsonschema-*/json"))
    if not found:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--no-binary", "jsonschema"]
        subprocess.run([*command, "-d", str(folder), PACKAGE], check=True, timeout=300)
        # Debian 12's Python is older than the filter.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with tarfile.open(next(folder.glob("jsonschema-*.tar.gz"))) as archive:
            archive.extractall(folder, **safely)
        found = list(folder.glob("jsonschema-*/json"))
    return found[0]


def references(text: str, remotes: dict[str, str]) -> dict[str, str]:
    """The remote documents that a text mentions, and those that these mention."""
    wanted: dict[str, str] = {}
    open_texts = [text]
    while open_texts:
        mentioning = open_texts.pop()
        for name, remote in remotes.items():
            if name not in wanted and Path(name).name in mentioning:
                wanted[name] = remote
                open_texts.append(remote)
    return {REMOTE + name: remote for name, remote in wanted.items()}


def cases(suite: Path, remotes: dict[str, str],
          *drafts: str) -> Iterator[tuple[str, dict[str, Any], list[tuple[str, bool]]]]:
    for draft in drafts or DRAFTS:
        uri = DRAFTS[draft]
        for file in sorted((suite / "tests" / draft).glob("*.json")):
            for group in json.loads(file.read_text()):
                schema = group["schema"]
                if isinstance(schema, dict) and "$schema" not in schema:
                    schema = {"$schema": uri, **schema}
                text = json.dumps(schema)
                request = {
                    "format": "JSON",
                    "schema": text,
                    "references": references(text, remotes),
                    "payloads": [json.dumps(test["data"]) for test in group["tests"]],
                }
                name = f"{draft}/{file.stem}/{group['description']}"
                yield name, request, [(test["description"], test["valid"]) for test in group["tests"]]


def test_all_but_what_is_known_passes(suite: Path) -> None:
    folder = suite / "remotes"
    files = [file for file in sorted(folder.rglob("*.json")) if "draft-next" not in file.parts]
    remotes = {str(file.relative_to(folder)): file.read_text() for file in files}
    known: dict[str, str] = json.loads((Path(__file__).parent / "json_schema_suite_known.json").read_text())
    made = list(cases(suite, remotes))
    assert sum(len(expected) for _, _, expected in made) >= CASES_MIN
    failed: dict[str, str] = {}
    for (name, _, expected), answer in zip(made, judge([request for _, request, _ in made])):
        if "error" in answer:
            failed[name] = f"{answer['error']}: {answer['message']}"
            continue
        for (test, valid), judged in zip(expected, answer["valid"]):
            if valid != judged:
                failed[f"{name}/{test}"] = f"says {judged}"
    unexpected = {name: why for name, why in failed.items() if name not in known}
    assert not unexpected, json.dumps(unexpected, indent=1)
    assert not known.keys() - failed.keys(), "these pass now: take them out of the list"


def ask(router: Router, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{router.admin}{path}", method=method, data=json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=ROUTER_TIMEOUT_S) as answer:
        return json.loads(answer.read() or b"{}")


def test_a_router_refuses_what_the_suite_calls_invalid_and_nothing_else(suite: Path, router: Router) -> None:
    chosen = [case for case in cases(suite, {}, ROUTER_DRAFT)
              if case[0].split("/")[1] not in ROUTER_LEAVES_OUT and REMOTE not in case[1]["schema"]]
    assert ROUTER_GROUPS[0] <= len(chosen) <= ROUTER_GROUPS[1], len(chosen)
    messages: list[Message] = []
    expected: list[tuple[str, bool]] = []
    for number, (name, request, tests) in enumerate(chosen):
        subject, topic = f"suite-{number}-value", f"suite/{number}"
        schema = {"schemaType": "JSON", "schema": request["schema"]}
        assert ask(router, "POST", f"/registry/subjects/{subject}/versions", schema)["id"] > 0, name
        rule = {"pattern": topic, "schema": {"subject": subject, "on_invalid": "refuse"}}
        ask(router, "PUT", f"/v1/topics/suite-{number}", rule)
        messages += [Message(topic, payload.encode()) for payload in request["payloads"]]
        expected += [(f"{name}/{test}", valid) for test, valid in tests]
    assert len(expected) >= ROUTER_CASES_MIN

    async def publish() -> dict[int, Code]:
        refused: dict[int, Code] = {}
        async with await open_session(router.address, router.credentials) as session:
            for start in range(0, len(messages), FRAME_MESSAGES):
                seqs = await session.publish(*messages[start:start + FRAME_MESSAGES])
                refused |= {start + seq - seqs[0]: why.code for seq, why in (await session.settle(seqs)).items()}
        return refused

    refused = run(publish(), ROUTER_TIMEOUT_S)
    assert set(refused.values()) == {Code.SCHEMA_VIOLATION}
    wrong = {name: refused.get(place) for place, (name, valid) in enumerate(expected) if valid == (place in refused)}
    assert not wrong, json.dumps(wrong, indent=1, default=str)
    total = json.loads(router.get("/v1/ledger"))
    assert total["balances"] and total["total"]["rejected"] == len(refused), total
