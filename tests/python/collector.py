"""An OpenTelemetry collector as far as spans go: OTLP over HTTP, decoded by the classes of the OpenTelemetry project."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Callable, Iterable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (ExportTraceServiceRequest,
                                                                      ExportTraceServiceResponse)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message

PATIENCE_S = 60.0

Value = str | int | bool | list["Value"]


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


def _attributes(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    found = {one.key: _value(one.value) for one in attributes}
    assert len(found) == len(list(attributes)), f"a key twice: {attributes}"
    return found


@dataclass(frozen=True)
class Span:
    """A span, with the attributes of its resource."""

    trace: str
    span: str
    parent: str
    name: str
    kind: str
    begin: int
    end: int
    remote_parent: bool
    failed: bool
    attributes: dict[str, Value]
    resource: dict[str, Value]

    @classmethod
    def read(cls, span: Message, resource: dict[str, Value]) -> Span:
        assert len(span.trace_id) == 16 and len(span.span_id) == 8 and len(span.parent_span_id) == 8
        assert span.flags & 0x1FF == 0x101, "sampled, and says whether the parent is remote"
        return cls(span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name,
                   Message.SpanKind.Name(span.kind), span.start_time_unix_nano, span.end_time_unix_nano,
                   bool(span.flags & 0x200), span.status.code == 2, _attributes(span.attributes), resource)


class Collector:
    """Takes spans at `url` until it is left. `refuse` are statuses that it answers before it takes any."""

    def __init__(self, refuse: Iterable[int] = ()) -> None:
        refusals, spans, lock = list(refuse), [], threading.Lock()
        self._spans: list[Span] = spans
        self._lock = lock
        self.refused = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                request = ExportTraceServiceRequest()
                assert request.ParseFromString(body) == len(body)
                with lock:
                    status = refusals.pop() if refusals else 200
                    if status == 200:
                        for part in request.resource_spans:
                            resource = _attributes(part.resource.attributes)
                            for scope in part.scope_spans:
                                assert scope.scope.name == "myelin.trace"
                                spans.extend(Span.read(span, resource) for span in scope.spans)
                    else:
                        collector.refused += 1
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self, trace: str) -> list[Span]:
        """The spans of a trace that have come."""
        with self._lock:
            return [span for span in self._spans if span.trace == trace]

    def wait(self, trace: str, enough: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans of a trace, once they are enough."""
        until = time.monotonic() + PATIENCE_S
        while True:
            spans = self.spans(trace)
            if enough(spans):
                return spans
            assert time.monotonic() < until, f"in {PATIENCE_S} s only: {spans}"
            time.sleep(0.05)
