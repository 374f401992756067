"""Fixtures: a router for each module of tests."""

from __future__ import annotations

from typing import Iterator

import pytest

from routers import Router


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """One router for a whole module; it must end by SIGTERM with exit code 0."""
    running = Router(tmp_path_factory.mktemp("router"))
    yield running
    running.stop()
