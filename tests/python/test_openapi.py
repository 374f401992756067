"""The description of the admin API, by somebody else's idea of what OpenAPI is."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from routers import Router


def ask(router: Router, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{router.admin}{path}", data, {"Content-Type": "application/json"},
                                     method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def document(router: Router) -> Any:
    return ask(router, "GET", "/openapi.json")


def test_the_description_is_openapi(document: Any) -> None:
    validate(document, cls=OpenAPIV31SpecValidator)


def test_captures_are_as_their_schema_says(router: Router, document: Any) -> None:
    begun = ask(router, "POST", "/v1/captures", {"pattern": "a/**", "redact": ["x"]})
    answers = [
        ("/v1/captures", "post", "201", begun),
        ("/v1/captures", "get", "200", ask(router, "GET", "/v1/captures")),
        ("/v1/captures/{id}", "get", "200", ask(router, "GET", f"/v1/captures/{begun['id']}")),
        ("/v1/captures/{id}/stop", "post", "200", ask(router, "POST", f"/v1/captures/{begun['id']}/stop")),
    ]
    for path, method, status, answer in answers:
        response = document["paths"][path][method]["responses"][status]
        schema = response["content"]["application/json"]["schema"] | {"components": document["components"]}
        faults = [fault.message for fault in Draft202012Validator(schema).iter_errors(answer)]
        assert not faults, f"{method} {path}: {faults}"
