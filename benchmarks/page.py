"""The report of 32,768 latents and 1,000 documents: writing it, and waiting for it in a browser.

A run of that size is drawn (tests/makers/big_run.py). The report stage writes its report in a process of its own, whose
peak memory is the kernel's figure. Then Chromium opens the page from disk, and clicks the first latent of the table.
Beside it stand the naive ways: a loop over latents that looks for the windows, and one page with all data in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csc_array, vstack

from benchmarks import seconds

if TYPE_CHECKING:
    from playwright.sync_api import Page

TESTS = str(Path(__file__).parents[1] / "tests")
REPORT = """
import sys
from pathlib import Path
from makers.big_run import big_config
from rewrite.stages import report
from rewrite.run.store import Run
from rewrite.text.corpus import SPLITS
with Run(Path(sys.argv[1])) as run:
    run.begin("k", ())
    report.run(big_config(), run)
"""
SAMPLE = 200
"""Latents that the naive loop looks at."""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def bench() -> Iterator[str]:
    """Seconds and memory of writing, sizes, the naive loop, and the browser's waits."""
    sys.path.insert(0, TESTS)
    from makers.big_run import make_big_run

    with tempfile.TemporaryDirectory(prefix="rewrite-bench-") as temporary:
        folder = make_big_run(Path(temporary) / "run")
        took, peak = write_report(folder)
        yield f"report written in {took:.1f} s, at most {peak / 2**20:.2f} GiB resident"
        report = folder / "7_report"
        files = [path for path in report.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        side = sum(path.stat().st_size for path in files if path.parent.name == "data")
        yield f"{size / 1e6:.0f} MB in {len(files)} files, {side / 1e6:.0f} MB of them loaded when asked for"
        yield from compare_search(folder)
        yield from compare_pages(report)


def write_report(folder: Path) -> tuple[float, int]:
    """Seconds and peak resident memory [KiB] of the report stage, imports included."""
    began = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([TESTS, *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", REPORT, str(folder)], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the report failed")
    return time.perf_counter() - began, usage.ru_maxrss


# --- the search for windows -------------------------------------------------------------------------------------------


def compare_search(folder: Path) -> Iterator[str]:
    """All latents at once beside a loop over them, in which the whole split is held by column."""
    from rewrite.coder.activations import ActivationStore
    from rewrite.report.latents.excerpts import find_sights
    from rewrite.simulators.strengths import Simulations
    from rewrite.statistics.curves import load_curves

    store = ActivationStore(folder / "2_activations", SPLITS)
    simulations = Simulations(folder / "4_simulations", store.latents)
    curves = load_curves(folder / "5_calibration.safetensors")
    ours = seconds(partial(find_sights, store, simulations, curves), repeats=1)
    shards = [store.test.load(name) for name in store.test.shards]
    truth = csc_array(vstack([shard.activations for shard in shards]))
    said = csc_array(
        vstack([simulations.strengths(n, len(s.text.ids)) for n, s in zip(store.test.shards, shards, strict=True)])
    )
    windows = np.repeat(
        np.arange(sum(len(s.documents) for s in shards)), np.concatenate([np.diff(s.text.starts) for s in shards])
    )

    def loop() -> None:
        for latent in range(0, store.latents, store.latents // SAMPLE):
            own = np.full(truth.shape[0], latent)
            a, predicted = truth[:, [latent]].toarray()[:, 0], said[:, [latent]].toarray()[:, 0]
            predicted = curves.calibrator.apply(predicted, own)
            fired = (predicted > curves.threshold.rest[latent]) & (predicted >= curves.threshold.least[latent])
            kinds = (
                predicted * (fired & (a == 0)),
                a * (~fired & ~np.isnan(predicted)),
                np.minimum(a, predicted) * fired,
            )
            for value in kinds:
                chosen = np.flatnonzero(value > 0)
                order = chosen[np.lexsort((chosen, -value[chosen]))]
                order[np.sort(np.unique(windows[order], return_index=True)[1])[:3]]

    naive = seconds(loop, repeats=1) * store.latents / SAMPLE
    yield f"windows of all latents found in {ours:.1f} s; a loop over latents takes {naive / ours:.0f} times as long"


# --- the browser ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waits:
    """What a reader waits for [s], from the opening of the page: paint, and the first latent clicked on."""

    paint: float
    answer: float


def compare_pages(report: Path) -> Iterator[str]:
    """Our page, and the least that a page with all data in it must do: to parse it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield "no browser: pip install playwright"
        return
    from makers.browser import QUIET, find_chromium

    whole = report / "whole.html"
    data = sorted((report / "data").glob("*.js"))
    with whole.open("w", encoding="ascii") as page:
        page.write("<!doctype html><p>All in one</p><script>rewrite = {receive() {}}</script>\n")
        for file in data:
            page.write(f"<script>{file.read_text(encoding='ascii')}</script>\n")
    asked = [report / "index.html", *(report / "data" / f"{name}.js" for name in ("table", "texts", "tokens"))]
    own, inlined = sum(p.stat().st_size for p in asked) + data[0].stat().st_size, whole.stat().st_size
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=list(QUIET))
        waits = [watch(browser.new_page(), report / "index.html") for _ in range(3)]
        began = time.perf_counter()
        browser.new_page().goto(whole.as_uri())
        parsed = time.perf_counter() - began
        browser.close()
    whole.unlink()
    first, paint, answer = waits[0], min(wait.paint for wait in waits), min(wait.answer for wait in waits)
    yield f"first paint after {first.paint:.2f} s, again {paint:.2f} s"
    yield f"first latent clicked on and shown after {first.answer:.2f} s, again {answer:.2f} s"
    times, bytes_ = parsed / first.answer, inlined / own
    yield f"one page with all data in it: {times:.1f} times as long to parse, {bytes_:.0f} times the bytes"


def watch(page: Page, file: Path) -> Waits:
    """Open a page, go to its table, and click on the first latent."""
    began = time.perf_counter()
    page.goto(file.as_uri(), wait_until="commit")
    while (paint := page.evaluate(PAINT)) is None:
        page.wait_for_timeout(10)
    page.locator("#latents").scroll_into_view_if_needed()
    page.locator("#all tbody tr a").first.click()
    page.wait_for_selector("#latent .windows")
    return Waits(paint / 1000, time.perf_counter() - began)
