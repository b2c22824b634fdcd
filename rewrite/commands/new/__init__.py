"""`rewrite new`: a config for a model, a layer and a text, in sizes that fit this machine.

1. What is not said is asked for at a terminal, and elsewhere taken as it is proposed: the bundled model, the MLP in the
   middle, the standard library.
2. The subject is loaded, and run on some windows of the text to see how fast this machine is (`pace`).
3. The largest sizes are taken whose stages come to at most `minutes` (`sizes`, `estimate`); a preset may set them
   instead. They go into a TOML file with what each stage should take.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rewrite.commands.new.estimate import estimate
from rewrite.commands.new.pace import measure, random_coder
from rewrite.commands.new.sizes import Machine, choose, look, read_sample
from rewrite.config import Config, UserError, name_hookpoint
from rewrite.display.escaping import public
from rewrite.display.tables import Page, Row, Table
from rewrite.run.configs import change_config, data_folder, load_config, read_preset
from rewrite.run.files import flatten, make_folder, write_whole
from rewrite.subject.subject import Subject, build_subject, load_subject

Ask = Callable[[str, str], str]
"""Asks a question, with what is proposed, and returns the answer."""
LONG = 60.0
"""A run that takes longer is told of [minutes]."""


@dataclass(frozen=True)
class Wish:
    """What is wanted; what is empty is asked for or proposed."""

    out: Path
    subject: str = ""
    hookpoint: str = ""
    corpus: str = ""
    preset: str = ""
    device: str = ""
    minutes: float = LONG


def draft(wish: Wish, ask: Ask | None) -> Page:
    """Write the config; the page tells its sizes and minutes.

    Raises UserError for a file that is there already or cannot be written, before anything is measured, and for what
    the subject, the text or the preset refuse.
    """
    if wish.out.exists():
        raise UserError(f"{wish.out}: is there already; name another file")
    make_folder(wish.out.parent, str(wish.out))
    propose = ask or (lambda question, proposed: proposed)
    bundled = str((data_folder() / "subject").resolve())
    named = wish.subject or propose("Model, a folder or a hub name", bundled)
    machine = look(wish.device)
    start: Row = {"subject": _absolute(named), "device": machine.device, "dtype": "float32"}
    subject = load_subject(change_config(Config(), start | {"hookpoint": "layers.0", "corpus.window": 8}))
    subject = _choose_hookpoint(subject, wish, propose)
    source = wish.corpus or propose("Text, a file, a folder, a hub dataset or stdlib", "stdlib")
    start |= {"hookpoint": subject.hookpoint, "corpus.source": _absolute(source)}
    laid = read_preset(wish.preset) if wish.preset else {}
    config, settings, minutes = _fit(subject, machine, start | flatten(laid), wish)
    write_whole(wish.out, _write(settings, minutes, machine).encode())
    if load_config(wish.out) != config:
        raise AssertionError(f"{wish.out}: reads back as another config")
    return _tell(wish, config, minutes)


def _choose_hookpoint(subject: Subject, wish: Wish, propose: Ask) -> Subject:
    """The subject at the hookpoint that is wanted; the MLP of its middle layer, where it has one, is proposed."""
    middle = len(subject.blocks) // 2
    there = {name_hookpoint(name) for name in subject.hookpoints()}
    proposed = f"layers.{middle}.mlp" if f"layers.{middle}.mlp" in there else f"layers.{middle}"
    named = wish.hookpoint or propose("Layer", proposed)
    return build_subject(subject.model, subject.tokenizer, name_hookpoint(named))


def _fit(subject: Subject, machine: Machine, start: Row, wish: Wish) -> tuple[Config, Row, dict[str, float | None]]:
    """The largest sizes that come to at most the minutes that are wanted, the smallest where none do."""
    kind = str(start.get("coder.kind") or ("transcoder" if subject.hookpoint.endswith(".mlp") else "sae"))
    sample = read_sample(
        change_config(Config(), {k: v for k, v in start.items() if not k.startswith("coder.")}), subject
    )
    base = random_coder(subject, machine.latents(subject.width), 16, kind)
    pace, found = measure(subject, sample.windows, base, 8), None
    for settings in choose(subject, machine, sample, start | {"coder.kind": kind}, wish.preset):
        config = change_config(Config(), settings)
        coder = random_coder(subject, config.coder.latents, config.coder.k, kind)
        ratio = config.coder.latents / base.latents
        scaled = replace(pace, train=pace.train * ratio, encode=pace.encode * ratio)
        minutes = estimate(config, scaled, sample.amounts(config), coder)
        found = config, settings, minutes
        if sum(value or 0 for value in minutes.values()) <= wish.minutes:
            break
    assert found is not None, "there is always a smallest size"
    return found


def _absolute(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).exists() else source


# --- what is written and told -----------------------------------------------------------------------------------------


def _write(settings: Mapping[str, Any], minutes: Mapping[str, float | None], machine: Machine) -> str:
    """TOML, a table after the other, under what each stage should take."""
    told = ", ".join(f"{stage} {_show(value)}" for stage, value in minutes.items())
    head = f"Written by `rewrite new` for {machine.told}. Estimated minutes: {told}. `rewrite help coder` and the like "
    lines = [f"# {line}" for line in textwrap.wrap(head + "tell every key.", 118, break_on_hyphens=False)]
    tables: dict[str, list[str]] = {"": []}
    for key, value in settings.items():
        table, _, name = key.rpartition(".")
        tables.setdefault(table, []).append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    for table, rows in tables.items():
        lines += [*(["", f"[{table}]"] if table else []), *rows]
    return "\n".join(lines) + "\n"


def _tell(wish: Wish, config: Config, minutes: Mapping[str, float | None]) -> Page:
    total = sum(value or 0 for value in minutes.values())
    rows = tuple((stage, _show(value)) for stage, value in minutes.items())
    notes = ["Estimated from measured forward passes: right within a factor of two or so."]
    if total > LONG:
        notes.append(
            f"It takes more than an hour, about {total / 60:.1f}: --minutes asks for less, --preset quick for a look."
        )
    if None in minutes.values():
        notes.append("What a language model takes is not in it: `--dry-run` counts its calls and tokens.")
    place = f"{config.hookpoint} of {public(config.subject)}"
    title = f"{wish.out}: {place}, {config.coder.latents:,} latents, about {_show(total)} minutes"
    command = f"rewrite run --config {wish.out} --run runs/{wish.out.stem}"
    table = Table("What each stage should take", ("stage", "minutes"), rows)
    facts: Row = {"schema": 1, "config": str(wish.out), "minutes": dict(minutes), "total": total}
    return Page(title, (table,), tuple(notes), facts, command)


def _show(minutes: float | None) -> str:
    return "not known" if minutes is None else f"{minutes:.1f}" if minutes < 10 else f"{minutes:,.0f}"


def ask_at_terminal(question: str, proposed: str) -> str:
    """Ask a person; who says nothing more takes what is proposed."""
    try:
        return input(f"{question} [{proposed}]: ").strip() or proposed
    except EOFError:
        return proposed


def is_asked() -> bool:
    """Whether there is a person to ask."""
    return os.isatty(0) and os.isatty(1)
