"""Tables as CSV files that a spreadsheet opens and a script reads: numbers in full, intervals in two columns.

What is not known is empty; text that a spreadsheet would take for a formula stands behind an apostrophe
(`rewrite.display.escaping`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewrite.display.escaping import csv_cell

Row = dict[str, Any]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows that may not all have the same keys; the columns are all keys in the order of their first use."""
    flat = [_flatten(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([csv_cell(column) for column in columns])
        writer.writerows([csv_cell(row.get(column)) for column in columns] for row in flat)


def _flatten(row: Row) -> Row:
    """An interval becomes two columns, a structure its JSON."""
    flat: Row = {}
    for key, value in row.items():
        if key == "ci" or key.endswith("_ci"):
            low, high = value or (None, None)
            stem = key.removesuffix("ci")
            flat |= {f"{stem}low": low, f"{stem}high": high}
        else:
            flat[key] = json.dumps(value) if isinstance(value, list | dict) else value
    return flat
