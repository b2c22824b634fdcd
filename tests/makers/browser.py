"""A real browser for the tests: Chromium without a window, offline, which tells what a page should not have done."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
INSTALL = "install Chromium (`apt install chromium`) or name one in $CHROMIUM, and `pip install playwright`"
PATIENCE = 60.0
"""Seconds that a page may take for anything."""
DESKTOP, PHONE = (1280, 900), (360, 780)
Scheme = Literal["light", "dark"]


def find_chromium() -> str | None:
    """Where a Chromium is: what the environment names, else what is on the path."""
    return os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium, closed at the end; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason=f"no playwright: {INSTALL}")
    path = find_chromium()
    if path is None:
        pytest.skip(f"no Chromium: {INSTALL}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page that was opened, and what it did that a page from disk has no reason to do."""

    page: Page
    folder: Path
    faults: list[str] = field(default_factory=list)
    """Messages on the console, errors, dialogs, and requests for anything but files of the folder."""

    def go(self, address: str = "") -> None:
        """Open the page, anew if only what follows the `#` differs."""
        self.page.goto("about:blank")
        self.page.goto(f"{(self.folder / 'index.html').as_uri()}{address}")

    def text(self, selector: str) -> str:
        """All text of the first element, seen or not."""
        return self.page.locator(selector).first.text_content() or ""

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(script)

    def until(self, script: str) -> None:
        """Wait until an expression holds. (Playwright's own way is an `eval` that the page's policy forbids.)"""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < end, f"it never was so: {script}"
            self.page.wait_for_timeout(20)


@contextmanager
def visit(browser: Browser, folder: Path, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light") -> Iterator[Visit]:
    """A fresh visitor, offline, on the page of a folder; fails at the end if the page did what it should not."""
    context = browser.new_context(
        offline=True, color_scheme=scheme, viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    visited = Visit(page, folder)
    home = folder.as_uri() + "/"

    def tell(what: str, text: str) -> None:
        visited.faults.append(f"{what}: {text}")

    page.on("console", lambda message: tell("console", message.text))
    page.on("pageerror", lambda error: tell("error", str(error)))
    page.on("dialog", lambda dialog: (tell("dialog", dialog.message), dialog.dismiss()))
    page.on("popup", lambda other: tell("popup", other.url))
    page.on(
        "request",
        lambda request: request.url.startswith((home, "data:", "about:")) or tell("request", request.url),
    )
    visited.go()
    yield visited
    context.close()
    assert visited.faults == []
