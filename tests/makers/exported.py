"""Finished runs for the tests of exports: changed by hand, their manifests made to agree."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import save_explanations
from rewrite.run.files import hash_path

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><!--",
    "\"quotes\", 'others' and `ticks`",
    "javascript:alert(1)",
    "=HYPERLINK(0)",
    "\u202eright to left\u2066",
    "NUL \0 within",
    "a lone \ud800 half",
    "two lines\nand\r\nmore\u2028and more\x85",
    r"\u0000 written out, \\u0000 too",
    "---\nlicense: mit\n---",
    "{{ 7 * 7 }} {% raw %}",
    "x" * 10_000,
    " ",
    "",
)


def as_utf8(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return "".join("\ufffd" if 0xD800 <= ord(letter) <= 0xDFFF else letter for letter in text)


def with_explanations(run: Path, folder: Path, explanations: Sequence[Explanation]) -> Path:
    """A copy of a run whose explanations are these."""
    shutil.copytree(run, folder)
    file, manifest = folder / "3_explanations.jsonl", folder / "manifest.json"
    before = hash_path(file)
    save_explanations(file, explanations)
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(before, hash_path(file)), encoding="utf-8")
    return folder
