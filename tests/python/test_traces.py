"""What three routers export of one event is one tree, by the classes of the OpenTelemetry project itself."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

from certificates import Authority
from collector import PATIENCE_S, Collector, Span
from routers import Router, output

ORDER = '{"region":"eu"}'
SHOP = "spiffe://python.test/service/shop"


def free_port() -> int:
    """A UDP port that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def eventually(what: str, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.05)


class Line:
    """Routers of sites s0, s1, .. in a line, which export to `collector`."""

    def __init__(self, folder: Path, count: int, collector: Collector) -> None:
        authority = Authority(folder / "authority")
        shop = authority.issue("shop", [SHOP])
        self.whom = ["--cert", str(shop.certificate), "--key", str(shop.key), "--ca", str(shop.ca),
                     "--server-name", "localhost"]
        members = ",".join(f"s{site}/r1" for site in range(count))
        ports = [free_port() for _ in range(count)]
        self.routers: list[Router] = []
        for site in range(count):
            own = authority.issue(f"router-{site}", [f"spiffe://python.test/site/s{site}/router/r1"],
                                  dns=["localhost"], ips=["127.0.0.1"])
            variables = {"NODE__SITE": f"s{site}", "NODE__REGION": f"region-{site}", "NODE__WORKERS": "1",
                         "TLS__CERT": str(own.certificate), "TLS__KEY": str(own.key), "TLS__CA": str(own.ca),
                         "CATALOG__JOIN_SECONDS": "1", "MESH__LISTEN": f"127.0.0.1:{ports[site]}",
                         "MESH__MEMBERS": members, "TELEMETRY__OTLP": collector.url}
            if site > 0:
                variables["MESH__SEEDS"] = f"127.0.0.1:{ports[site - 1]}"
            directory = folder / f"s{site}"
            directory.mkdir()
            keys = {f"MYELIN_{key}": value for key, value in variables.items()}
            self.routers.append(Router(directory, variables=keys))

    def interest(self, site: int) -> int:
        """Patterns that a router knows of elsewhere: one for the answers to each other router's sessions, and others."""
        return json.loads(self.routers[site].get("/v1/mesh"))["interest"]

    def metric(self, site: int, name: str) -> int:
        lines = self.routers[site].get("/metrics").splitlines()
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def parents(spans: list[Span]) -> dict[str, Span]:
    """The spans by number; asserts that they are one tree below one span that is not among them."""
    known = {span.span: span for span in spans}
    assert len(known) == len(spans), "a number twice"
    outside = {span.parent for span in spans} - known.keys()
    assert len(outside) == 1, f"one publisher, and nobody else is missing: {outside}"
    for span in spans:
        steps = 0
        while span.parent in known:
            span, steps = known[span.parent], steps + 1
            assert steps <= len(spans), "a ring"
    return known


def check_tree(spans: list[Span], records: list[dict[str, object]]) -> None:
    known = parents(spans)
    for span in spans:
        assert span.begin <= span.end
        assert span.resource["service.name"] == "myelin"
        assert span.resource["cloud.region"] == "region-" + str(span.resource["myelin.site"])[1:]
        assert span.attributes["messaging.system"] == "myelin"
        parent = known.get(span.parent)
        match span.kind:
            case "SPAN_KIND_CONSUMER":
                assert span.remote_parent and span.name == "route"
                if parent is not None:
                    assert parent.kind == "SPAN_KIND_PRODUCER"
                    assert parent.attributes["myelin.to"] == span.resource["service.instance.id"]
                    assert span.attributes["myelin.from"] == parent.resource["service.instance.id"]
                    assert span.attributes["messaging.message.id"] == parent.attributes["messaging.message.id"]
            case "SPAN_KIND_PRODUCER" | "SPAN_KIND_CLIENT" | "SPAN_KIND_INTERNAL":
                assert parent is not None and parent.kind == "SPAN_KIND_CONSUMER" and not span.remote_parent
                assert parent.resource == span.resource
            case other:
                raise AssertionError(other)
    # The spans are the records that the API shows.
    exported = {span.span: span for span in spans}
    for record in records:
        span = exported[record["span_id"]]
        assert (span.parent, span.begin, span.end - span.begin) == (
            record["parent_id"], record["begin_unix_ns"], record["took_ns"])
        assert span.resource["service.instance.id"] == record["router"]
        assert span.attributes.get("messaging.destination.name", "") == record["topic"]


def check_kinds(spans: list[Span]) -> None:
    """Three hops of the event and one of the copy that the filter made; two links; a copy for each subscriber."""
    kinds = Counter((span.kind.removeprefix("SPAN_KIND_"), span.resource["myelin.site"]) for span in spans)
    assert kinds == {("CONSUMER", "s0"): 2, ("CONSUMER", "s1"): 1, ("CONSUMER", "s2"): 1, ("INTERNAL", "s0"): 1,
                     ("PRODUCER", "s0"): 1, ("PRODUCER", "s1"): 1, ("CLIENT", "s1"): 1, ("CLIENT", "s2"): 1}, kinds
    [judged] = [span for span in spans if span.kind == "SPAN_KIND_INTERNAL"]
    assert judged.name == "judge by-region" and not judged.failed
    assert judged.attributes["myelin.module.name"] == "content-route"
    assert judged.attributes["myelin.module.version"] == "0.1.0"
    assert len(str(judged.attributes["myelin.module.digest"])) == 64
    assert judged.attributes["myelin.targets"] == ["topic:regions/eu"]


def test_one_event_over_three_routers_is_one_tree(tmp_path: Path) -> None:
    with ExitStack() as stack:
        # The first answer of all: come back later. Nothing is lost by that.
        collector = stack.enter_context(Collector(refuse=[503]))
        line = Line(tmp_path, 3, collector)
        for router in line.routers:
            stack.callback(router.process.kill)
        filters = Path(os.environ["MYELIN_FILTERS_DIR"])
        first = line.routers[0]
        first.myelin("filter", "push", str(filters / "content-route.wasm"), "--as", "content-route@0.1.0")
        config = json.dumps({"field": "region", "mode": "add", "routes": {"eu": "regions/eu"}})
        first.myelin("bind", "by-region", "--module", "content-route@0.1.0", "--pattern", "orders/new",
                     "--config", config, "--grant-topic", "regions/**")
        ears = [line.routers[site].command("sub", "orders/**", "-C", "2", *line.whom) for site in (1, 2)]
        for ear in ears:
            stack.callback(ear.kill)
        eventually("the first router knows of both subscribers", lambda: line.interest(0) == 2 + 2)
        eventually("the second knows of the third's", lambda: line.interest(1) == 2 + 1)

        trace = json.loads(first.myelin("pub", "orders/new", "-m", ORDER, "--trace", "--json", *line.whom))
        spans = collector.wait(trace["trace_id"], lambda spans: len(spans) >= 9)
        check_tree(spans, trace["records"])
        check_kinds(spans)
        assert collector.refused == 1

        eventually("the exports are counted", lambda: sum(
            line.metric(site, "myelin_trace_spans_exported_total") for site in range(3)) == 9)
        assert [line.metric(site, "myelin_trace_records_dropped_total") for site in range(3)] == [0, 0, 0]
        assert sum(line.metric(site, "myelin_trace_export_failures_total") for site in range(3)) == 1

        # What is recorded in the last moment is exported before a router ends.
        again = json.loads(first.myelin("pub", "orders/new", "-m", ORDER, "--trace", "--json", *line.whom))
        for router in line.routers:
            router.stop()
        spans = collector.spans(again["trace_id"])
        check_tree(spans, again["records"])
        check_kinds(spans)
        for ear in ears:
            assert output(ear).count("region") == 2
