"""Documents that `myelin asyncapi` writes, judged by AsyncAPI's own parser, and documents in YAML that it reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from routers import Router, binary

PARSER = Path(__file__).parent.parent / "asyncapi" / "parse.mjs"

AVRO = json.dumps({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}]})
PROTOBUF = 'syntax = "proto3";\nmessage Payment { string id = 1; }\n'
JSON = json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
                   "properties": {"level": {"type": "integer"}}})

YAML = """
asyncapi: 3.0.0
info: {title: Accounts, version: 1.0.0}
channels:
  userSignedUp:
    address: user/{id}/signedup
    messages:
      signedUp: {$ref: '#/components/messages/SignedUp'}
operations:
  onSignedUp: {action: receive, channel: {$ref: '#/channels/userSignedUp'}}
components:
  messages:
    SignedUp:
      payload: &payload
        type: object
        required: [at]
        properties: {at: {$ref: '#/components/schemas/Time'}}
  schemas:
    Time: {type: string, format: date-time}
"""


def myelin(router: Router, *arguments: str) -> str:
    done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60,
                          env={"MYELIN_ADMIN": f"http://{router.admin}", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def parsed(document: Path) -> dict[str, Any]:
    done = subprocess.run(["node", str(PARSER), str(document)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == [], found["faults"]
    return {channel["id"]: channel for channel in found["channels"]}


def test_what_is_exported_is_a_document_for_others_and_for_ourselves(router: Router, tmp_path: Path) -> None:
    folder = tmp_path / "declared"
    files = {
        "schemas/asyncapi-orders.avsc": AVRO,
        "schemas/asyncapi-payments.proto": PROTOBUF,
        "schemas/asyncapi-levels.json": JSON,
        "schemas/asyncapi-levels.toml": 'compatibility = "FULL"\n',
        "topics/asyncapi-orders.toml": 'pattern = "asyncapi/orders/*/of/**"\n[schema]\nsubject = "asyncapi-orders"\n',
        "topics/asyncapi-payments.toml": 'pattern = "asyncapi/payments"\n[schema]\nsubject = "asyncapi-payments"\n'
                                         'on_invalid = "dead-letter"\n',
        "topics/asyncapi-levels.toml": 'pattern = "asyncapi/levels/**"\n[schema]\nsubject = "asyncapi-levels"\n',
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    myelin(router, "apply", "-f", str(folder))

    document = tmp_path / "asyncapi.json"
    myelin(router, "asyncapi", "export", "-o", str(document), "--server", "eu=eu1.example.org:7443")
    channels = parsed(document)
    assert channels["asyncapi-orders"]["address"] == "asyncapi/orders/{level1}/of/{rest}"
    # The parsers of Avro and Protobuf have read the schemas, and made JSON schemas of them.
    for channel, field in [("asyncapi-orders", "id"), ("asyncapi-payments", "id"), ("asyncapi-levels", "level")]:
        [message] = channels[channel]["messages"]
        assert message["id"] == channel
        assert field in message["payload"]["schema"]["properties"], message

    again = tmp_path / "again"
    myelin(router, "asyncapi", "import", str(document), str(again))
    plan = json.loads(myelin(router, "apply", "-f", str(again), "--dry-run", "-o", "json"))
    ours = [change for change in plan["changes"] if change["name"].startswith("asyncapi-")]
    assert ours == [], "what was exported is what is there"


def test_a_document_in_yaml_is_applied(router: Router, tmp_path: Path) -> None:
    document = tmp_path / "accounts.yaml"
    document.write_text(YAML)
    assert "userSignedUp" in parsed(document)
    folder = tmp_path / "accounts"
    told = myelin(router, "asyncapi", "import", str(document), str(folder))
    assert "operations are not taken" in told and "1 schema, 1 topic" in told
    plan = json.loads(myelin(router, "apply", "-f", str(folder), "-o", "json"))
    assert [(change["kind"], change["name"]) for change in plan["changes"]] == [
        ("schema", "SignedUp"), ("topic", "usersignedup")]
    rule = json.loads(myelin(router, "topic", "describe", "usersignedup"))
    assert rule["pattern"] == "user/*/signedup" and rule["screening"]["by"].startswith("SignedUp:1")
