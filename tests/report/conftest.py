"""A report's folder, and its page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from makers.browser import Visit, visit
from makers.page_made import make_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it, do not change it."""
    return make_folder(tmp_path_factory.mktemp("page"))


@pytest.fixture
def seen(browser: Any, folder: Path) -> Iterator[Visit]:
    with visit(browser, folder) as visited:
        yield visited
