"""What a language model has learned, on disk: who may use it, and where it is.

It is a folder, or the same on the hub: the adapter as peft writes it, or another head, and beside it a file that says
(`Learned`) which model it belongs to and how what it reads is laid out. Where either is not what it would meet, it is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewrite.config import UserError
from rewrite.subject.loading import first_line

LEARNED = "learned.json"
"""The latents that were met, and the curve."""


@dataclass(frozen=True)
class Learned:
    """What a learner must have in common with who uses what it learned."""

    model: str
    """Its name, for the user."""
    base: str
    """A hash of what it holds."""
    layout: str
    """A hash of how what it reads is laid out, or of a head's shape."""


def check_learned(key: str, adapter: str, said: dict[str, Any], here: Learned) -> None:
    """Raise UserError where what was learned, by what it says of itself, belongs to another model or layout; `key` is
    the table of the config that names it."""
    if said.get("layout") != here.layout:
        raise UserError(
            f"{key}.adapter = {adapter}: learned another layout than this has with these settings and this version; "
            "let it learn again, or use the settings that it learned with"
        )
    if said.get("base") != here.base:
        raise UserError(
            f"{key}.adapter = {adapter}: belongs to the model {said.get('model')}, and {key}.model = {here.model} "
            f"holds other weights; set {key}.model to that one"
        )


def find_learned(adapter: str, mark: str, writer: str) -> Path:
    """The folder, on disk or brought from the hub, that has the file `mark` in it, which `writer` writes. Raises
    UserError where there is none."""
    folder = Path(adapter)
    if folder.exists():
        if (folder / mark).is_file():
            return folder
        inside = sorted(path.parent.name for path in folder.glob(f"*/{mark}"))
        hint = f"name one of its folders: {', '.join(inside)}" if inside else f"name a folder that {writer} wrote"
        raise UserError(f"adapter = {adapter}: holds no {mark}; {hint}")
    if folder.is_absolute():
        raise UserError(f"adapter = {adapter}: not there; name a folder or a hub name")
    from huggingface_hub import snapshot_download

    try:
        brought = Path(snapshot_download(adapter))
    except Exception as error:  # absent, gated, not reached: half a dozen types
        raise UserError(f"adapter = {adapter}: no {mark} there ({first_line(error)})") from None
    if not (brought / mark).is_file():
        raise UserError(f"adapter = {adapter}: no {mark} there; name one that {writer} wrote")
    return brought
