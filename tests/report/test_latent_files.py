"""The files that a page loads: any text comes back as it was, numbers are short, and nothing ends a script early."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewrite.report.latents.files import PER_FILE, write_side_files
from rewrite.report.scripts import encode, round_number

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\ud800",
    "\udc00 alone",
    "\x00\x01\x7f",
    "\u2028\u2029\u202e\ufeff",
    "\"'\\",
    "`${alert(1)}`",
    "javascript:alert(1)",
    "🙂",
    "\r\n\t",
    "x" * 10_000,
]
anything = st.text(st.characters(exclude_categories=())) | st.sampled_from(HOSTILE)


def read(folder: Path, name: str) -> Any:
    """What the page's `receive` is given."""
    text = (folder / f"{name}.js").read_bytes().decode("ascii")
    found = re.fullmatch(r'rewrite\.receive\("([a-z0-9-]+)",(.*)\);\n', text)
    assert found and found[1] == name
    return json.loads(found[2])


def as_script(text: str) -> str:
    """A string as JavaScript has it: two halves of a surrogate pair side by side are one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@given(st.lists(anything))
def test_any_text_comes_back_as_it_was(texts: list[str]) -> None:
    text = encode({"texts": texts})
    assert text.isascii() and "<" not in text and "\x00" not in text and "\n" not in text
    assert json.loads(text) == {"texts": [as_script(own) for own in texts]}


def test_each_file_is_one_call_that_gives_everything_back(tmp_path: Path) -> None:
    count = 2 * PER_FILE + 3
    columns = {"latent": list(range(count)), "r2": [i / 7 for i in range(count - 1)] + [None]}
    texts = [None, *HOSTILE, *["text"] * (count - 1 - len(HOSTILE))]
    latents = [{"latent": i, "windows": [], "answer": HOSTILE[i % len(HOSTILE)]} for i in range(count)]
    folder = tmp_path / "data"
    write_side_files(folder, columns, HOSTILE, texts, HOSTILE, iter(latents))
    names = ["latents-0", "latents-1", "latents-2", "table", "texts", "tokens"]
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}.js" for name in names]
    table = read(folder, "table")
    assert table["latents"] == PER_FILE and table["documents"] == HOSTILE
    assert table["columns"]["latent"] == list(range(count))
    assert table["columns"]["r2"][1:3] == [0.14286, 0.28571] and table["columns"]["r2"][-1] is None
    assert read(folder, "texts") == texts and read(folder, "tokens") == HOSTILE
    found = [read(folder, f"latents-{n}") for n in range(3)]
    assert [len(own) for own in found] == [PER_FILE, PER_FILE, 3]
    assert [own for file in found for own in file] == latents


def test_latents_are_read_as_they_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    def watch() -> Iterator[dict[str, int]]:
        for latent in range(2 * PER_FILE):
            if latent == PER_FILE:
                assert (folder / "latents-0.js").exists()
            yield {"latent": latent}

    write_side_files(folder, {"latent": list(range(2 * PER_FILE))}, [], [None] * 2 * PER_FILE, [], watch())
    assert read(folder, "latents-1")[-1] == {"latent": 2 * PER_FILE - 1}


def test_a_run_without_latents_has_an_empty_table(tmp_path: Path) -> None:
    write_side_files(tmp_path / "data", {"latent": []}, [], [], [], [])
    assert read(tmp_path / "data", "table")["columns"] == {"latent": []}
    assert not list((tmp_path / "data").glob("latents-*"))


@given(st.floats() | st.integers(-(10**9), 10**9) | st.none())
def test_numbers_are_right_to_five_digits_and_never_nan(value: float | None) -> None:
    found = round_number(value)
    json.loads(encode(found))
    if value is None or not abs(value) < 1.7976e308:  # what rounds to infinity is as unknown as infinity
        assert found is None
    elif isinstance(value, int):
        assert found == value
    else:
        assert found == pytest.approx(value, rel=0.5e-4, abs=0)
        assert str(found) != "-0.0"


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode([float("nan")])
