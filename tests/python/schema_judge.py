"""The schema crate's verdicts, by its example `judge`: a process that answers lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any


def program() -> Path:
    """Beside the router, where `cargo build --workspace --all-targets` puts it."""
    return Path(os.environ["MYELIN_BIN"]).resolve().parent / "examples" / "judge"


def judge(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = "\n".join(json.dumps(request) for request in requests) + "\n"
    done = subprocess.run([program()], input=text, capture_output=True, text=True, check=True, timeout=300)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests), done.stderr
    return answers


def compare(schema_format: str, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """For each pair of a newer and an older schema, what the newer one cannot read."""
    return judge([{"format": schema_format, "newer": newer, "older": older} for newer, older in pairs])


def compare_at(level: str, schema_format: str, histories: list[list[str]]) -> list[dict[str, Any]]:
    """For each history of schemas, newest first, what the newest one breaks at a level of compatibility."""
    return judge([{"format": schema_format, "level": level, "newer": newer, "older": older}
                  for newer, *older in histories])
