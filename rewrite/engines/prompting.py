"""Prompts: templates in `prompts/`, filled in strictly, in which no text under study can pass for the prompt itself.

A template is a jinja2 file whose blocks are the messages, in order; a block's name begins with its role (`system`,
`user`, `assistant`) and may go on with an underscore and anything else, as in `user_example`. Blocks are rendered one
by one, so that nothing in a text can end a message or begin another. An undefined variable is an error.

Text under study is shown in one of two ways, both of which can be read back without doubt:

- `show_token`: one token in a line of its own; tabs, newlines, backslashes, other control characters and marks that
  turn the direction of writing are escaped as in JSON, so a token can never hold the tab or newline that ends it;
- `mark`: running text with some tokens between << and >>; every <, > and backslash of the text itself is escaped with a
  backslash, so the marks are only ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from rewrite.engines.fingerprints import prompts_folder

Role = Literal["system", "user", "assistant"]

# Control characters, separators of lines and paragraphs, directional marks, lone surrogates, the byte-order mark.
UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
SHORT = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(prompts_folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Prompts are plain text; tokens are escaped by the functions below.
    )
    return environment.get_template(f"{name}.jinja")


def fill(name: str, **values: object) -> tuple[Message, ...]:
    """The messages of `prompts/<name>.jinja`; a message that stays empty is left out."""
    template = _template(name)
    context = template.new_context(values)
    messages = []
    for block, render in template.blocks.items():
        content = make_text("".join(render(context)).strip("\n"))
        if content:
            messages.append(Message(_role(block), content))
    return tuple(messages)


def make_text(value: str) -> str:
    """The same as text that can be encoded: lone surrogates become U+FFFD."""
    return value.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def _role(block: str) -> Role:
    match block.split("_")[0]:
        case "system":
            return "system"
        case "assistant":
            return "assistant"
    return "user"


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return SHORT.get(character) or f"\\u{ord(character):04x}"


def show_token(token: str) -> str:
    """A token as it stands in a line of its own; reversible, and free of tabs and newlines."""
    return UNSAFE.sub(_escape, token)


def mark(tokens: Sequence[str], marked: Sequence[bool]) -> str:
    """Running text with runs of marked tokens between << and >>; newlines and tabs stay as they are."""
    parts = []
    before = False
    for token, is_marked in zip(tokens, marked, strict=True):
        if is_marked != before:
            parts.append("<<" if is_marked else ">>")
        parts.append(re.sub(r"[\\<>]", r"\\\g<0>", token))
        before = is_marked
    return "".join(parts) + (">>" if before else "")


def show_line(marked: str) -> str:
    """A marked text in one line: control characters as in JSON, and what `mark` escaped left as it is."""
    return "\\".join(show_token(part) for part in marked.split("\\"))
