"""`7_report/data/*.js`: what a page loads when it is asked for, each one statement `rewrite.receive("NAME",JSON);`.

A page opened from disk may fetch nothing, but it may add a script tag; so large data stands in scripts.

table          {"latents": latents in a file, "documents": [names], "columns": {name: [numbers]}}, a row a latent
texts          [explanation, or null where there is none], by row of the table
tokens         [token strings], which windows name by their index
latents-<n>    [all else of a latent], for the rows n · `PER_FILE` to (n + 1) · `PER_FILE`: a click needs one such file

Activations in windows are whole thousandths of the latent's unit "top", 1 for all that is above 0 and less than 1.5 of
them. Of simulated ones null is a prediction that is missing, and `NOT_SIMULATED` a position that nobody asked about.

A file is plain ASCII, has no `<` that could end a script, and gives every string back as it was, halves of surrogate
pairs too. Numbers of the table have `DIGITS` significant digits; what is not known is null, never NaN and never 0.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

PER_FILE = 64
"""Latents in one file: a few hundred kilobytes, so that a click is answered at once."""
DIGITS = 5
NOT_SIMULATED = -1
"""Stands for a simulated activation where nothing was simulated: no prediction is missing there."""

Number = int | float | None
Row = dict[str, Any]


def write_side_files(
    folder: Path,
    columns: Mapping[str, Sequence[float | int | None]],
    documents: Sequence[str],
    texts: Sequence[str | None],
    tokens: Sequence[str],
    latents: Iterable[Row],
) -> None:
    """Write all side files into a folder that is not there yet.

    `columns`, `texts` and `latents` have one entry for each row of the table, in its order. `latents` is read as it is
    written, so that a generator need never hold more than the `PER_FILE` latents of one file.
    """
    folder.mkdir(parents=True)
    table = {name: [round_number(value) for value in values] for name, values in columns.items()}
    _write(folder, "table", encode({"latents": PER_FILE, "documents": documents, "columns": table}))
    _write(folder, "texts", encode(texts))
    _write(folder, "tokens", encode(tokens))
    rows = iter(latents)
    with _uncollected():
        for file in count():
            own = list(islice(rows, PER_FILE))
            if not own:
                return
            _write(folder, f"latents-{file}", encode(own))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for circles: millions of lists have none, and looking takes longer than writing them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def round_number(value: float | int | None) -> float | int | None:
    """A number with `DIGITS` significant digits; whole numbers stay as they are, and what is not finite is unknown."""
    if value is None or isinstance(value, int):
        return value
    # Adding 0 takes the minus from a zero; the largest numbers of all round to infinity.
    found = float(f"{value + 0.0:.{DIGITS}g}")
    return found if math.isfinite(found) else None


def encode(value: object) -> str:
    """JSON in ASCII that a script may hold. Raises ValueError for NaN and infinities, which are no JSON."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Outside of strings JSON has no such sign.
    return text.replace("<", "\\u003c")


def _write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.js").write_text(f'rewrite.receive("{name}",{text});\n', encoding="ascii")
