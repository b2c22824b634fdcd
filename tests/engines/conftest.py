"""The server that fails as told, and the key that it is asked with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from makers.asking import MARKER
from makers.faults import FaultServer, fault_server

from rewrite.engines.openai import pacing


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", MARKER)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as state:
        yield state
