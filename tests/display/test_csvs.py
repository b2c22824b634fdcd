"""Tables as CSV: what is written is read back, and nothing runs."""

from __future__ import annotations

import csv
from pathlib import Path

from rewrite.display.csvs import write_csv


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_intervals_take_two_columns_and_what_is_unknown_is_empty(tmp_path: Path) -> None:
    rows = [{"arm": "a", "loss": 0.1 + 0.2, "ci": [-1.5, 2.0]}, {"arm": "b", "loss": None, "ci": None, "more": 3}]
    write_csv(rows, tmp_path / "t.csv")
    assert read(tmp_path / "t.csv") == [
        {"arm": "a", "loss": "0.30000000000000004", "low": "-1.5", "high": "2.0", "more": ""},
        {"arm": "b", "loss": "", "low": "", "high": "", "more": "3"},
    ]


def test_named_intervals_keep_their_name(tmp_path: Path) -> None:
    write_csv([{"recovered_ci": [0.1, 0.2]}], tmp_path / "t.csv")
    assert read(tmp_path / "t.csv") == [{"recovered_low": "0.1", "recovered_high": "0.2"}]


def test_hostile_text_is_text(tmp_path: Path) -> None:
    texts = ['=HYPERLINK("http://x")', "+1", "-2", "@a", 'a "quote", and\na line', "\x00\ud800\u202e", "x" * 10_000]
    write_csv([{"text": text} for text in texts], tmp_path / "t.csv")
    found = [row["text"] for row in read(tmp_path / "t.csv")]
    assert found[:4] == ["'" + text for text in texts[:4]]
    assert found[4:] == ['a "quote", and⏎a line', "␀⟨U+D800⟩⟨U+202E⟩", texts[6]]


def test_structures_are_json(tmp_path: Path) -> None:
    write_csv([{"failed": {"timeout": 2}}], tmp_path / "t.csv")
    assert read(tmp_path / "t.csv") == [{"failed": '{"timeout": 2}'}]
