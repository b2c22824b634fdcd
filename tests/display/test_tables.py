"""A page at a terminal, in a pipe, as Markdown and as JSON: the same words, and nothing of them is obeyed or cut."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rewrite.display.escaping import NONE, one_line
from rewrite.display.tables import Page, Table, show_on, size

HEADS = ("run", "state", "loss [nats]")
ROWS = (
    ("plain", "better", "1.5000"),
    ("[red]bold[/red] :smile: \x1b[31m\u202e", "stale: [link=https://e.x]here[/link]", "12.2500"),
    ("日本 " + "x" * 60, "not there yet", NONE),
)
PAGE = Page(
    "A [b]title[/b]", (Table("Some [i]runs[/i]", HEADS, ROWS),), ("A note of [7] words.",), {"a": 1}, "do 'a  b' " * 20
)
SAY = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    "from test_tables import PAGE; from rewrite.display.tables import show; show(PAGE)"
)
ESCAPES = re.compile(r"\x1b\[([\d;]*)m")


def at_terminal(columns: int, **variables: str) -> str:
    """What a real process prints at a terminal of some width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-c", SAY], stdout=follower, stderr=follower, env=kept | {"TERM": "xterm-256color"} | variables
    ):
        os.close(follower)
        said = b""
        while True:
            try:
                part = os.read(leader, 10_000)
            except OSError:
                break
            if not part:
                break
            said += part
    os.close(leader)
    return said.decode().replace("\r\n", "\n")


def packed(text: str) -> str:
    """Without colours, spaces and line breaks, which wrapping moves."""
    return re.sub(r"\s", "", ESCAPES.sub("", text))


@pytest.mark.parametrize("columns", [200, 100, 60, 20])
def test_at_a_terminal_it_has_colours_and_fits(columns: int) -> None:
    said = at_terminal(columns)
    assert "\x1b[1m" in said and "\x1b[32mbetter" in said, "bold heads, green for better"
    lines = ESCAPES.sub("", said).rstrip("\n").splitlines()
    assert all(len(line) <= columns for line in lines[:-1])
    assert lines[-1] == f"    {PAGE.command}", "a command is not broken, so that it can be copied"
    for text in (PAGE.title, PAGE.tables[0].heading, *HEADS, *PAGE.notes):
        assert packed(text) in packed(said)
    assert ":smile:" in packed(said) and "😄" not in said
    assert "\x1b[31m" not in said and "\x1b]8" not in said and "\u202e" not in said


def test_no_color_is_honoured() -> None:
    said = at_terminal(100, NO_COLOR="1")
    codes = {int(code) for found in ESCAPES.findall(said) for code in found.split(";") if code}
    assert codes and not codes & set(range(30, 50)), "bold stays, colours go"
    assert packed(said) == packed(at_terminal(100))


def test_in_a_pipe_it_is_plain() -> None:
    said = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    assert said.stdout == PAGE.write("table") + "\n"
    assert not re.search(r"[\x00-\x09\x0b-\x1f]|[─│┃]", said.stdout)


words = st.text(alphabet=st.characters(codec="utf-8"), max_size=200) | st.sampled_from(
    ["[/]", "[bold]", "a " * 90, "0.5"]
)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(words, words, words), min_size=1, max_size=3), width=st.integers(12, 150))
def test_any_text_is_there_in_full_at_any_width(rows: list[tuple[str, str, str]], width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, markup=False, highlight=False, emoji=False)
    show_on(console, Page("t", (Table("h", ("a", "b", "c"), tuple(rows)),), (), {}))
    said = ESCAPES.sub("", console.file.getvalue())  # type: ignore[attr-defined]
    assert "\x1b" not in said
    letters = Counter(letter for row in rows for cell in row for letter in packed(one_line(cell)))
    assert letters <= Counter(packed(said)), "something was cut"


@settings(deadline=None)
@given(text=words)
def test_json_and_markdown_of_any_text(text: str) -> None:
    page = Page(text, (Table(text, ("a", "b"), ((text, text),)),), (text,), {"text": text}, "")
    assert json.loads(page.write("json")) == {"text": text}
    rows = [line for line in page.write("markdown").splitlines() if line.startswith("| ")]
    assert len(rows) == 2
    assert len(re.findall(r"(?<!\\)\|", rows[1])) == 3, "a cell holds no bar of its own"


def test_bytes_are_told_in_the_unit_they_fill() -> None:
    shown = [size(count) for count in (None, 0, 999, 1000, 132_800, 2_500_000, 10**13)]
    assert shown == [NONE, "0 B", "999 B", "1.0 KB", "132.8 KB", "2.5 MB", "10.0 TB"]
    assert [size(10**power) for power in range(3, 13, 3)] == ["1.0 KB", "1.0 MB", "1.0 GB", "1.0 TB"]
