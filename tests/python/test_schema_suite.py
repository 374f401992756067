"""The official JSON-Schema-Test-Suite through the router's own validator.

The suite comes with the source package of PyPI's `jsonschema`. What does not pass is listed, with the reason, in
`json_schema_suite_known.json`: nothing else may fail, and what is listed must.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Iterator

import pytest
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


def cases(suite: Path, remotes: dict[str, str]) -> Iterator[tuple[str, dict[str, Any], list[tuple[str, bool]]]]:
    for draft, uri in DRAFTS.items():
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
