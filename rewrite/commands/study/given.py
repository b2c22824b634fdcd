"""What a notebook has in memory, made what a config can name.

1. A model is held by this process under a name that says what it holds (`rewrite.subject.held`).
2. Texts, a coder and explanations are written into `given/` of the run folder, in the forms in which the config names
   such files, so that the run can go on from disk alone.
3. A class becomes a simulator backend (`rewrite.commands.study.classes`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewrite.coder.coder import Coder
from rewrite.coder.files import save_coder
from rewrite.commands.study.classes import give_simulator
from rewrite.config import UserError
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import save_explanations
from rewrite.run.files import write_whole
from rewrite.run.store import Run
from rewrite.subject.held import hold
from rewrite.subject.subject import Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GIVEN = "given"
"""The folder in a run folder with what was given in memory."""


@dataclass(frozen=True)
class Given:
    """What may be given to a study, in memory or by name; None is not given."""

    subject: PreTrainedModel | Subject | str | Path | None
    tokenizer: PreTrainedTokenizerBase | None
    hookpoint: str | None
    texts: str | Sequence[str] | None
    coder: Coder | str | Path | None
    explanations: Mapping[int, str] | str | Path | None
    simulator: str | type | None

    def name(self, folder: Path, hookpoint: str) -> dict[str, Any]:
        """All of it as keys of the config; `hookpoint` is where a coder stands if nothing else is given."""
        found = self._name_subject()
        if isinstance(self.texts, str):
            found["corpus.source"] = self.texts
        elif self.texts is not None:
            found["corpus.source"] = keep_texts(self.texts, folder)
        if isinstance(self.coder, Coder):
            found["coder.path"] = keep_coder(self.coder, folder, found.get("hookpoint", hookpoint))
        elif self.coder is not None:
            found["coder.path"] = str(self.coder)
        if isinstance(self.explanations, str | Path):
            found["explain.file"] = str(self.explanations)
        elif self.explanations is not None:
            found["explain.file"] = keep_explanations(self.explanations, folder)
        if isinstance(self.simulator, str):
            found["simulator"] = self.simulator
        elif self.simulator is not None:
            found["simulator"] = give_simulator(self.simulator)
        return found

    def _name_subject(self) -> dict[str, Any]:
        hookpoint = {"hookpoint": self.hookpoint} if self.hookpoint else {}
        if self.subject is None:
            return hookpoint
        if isinstance(self.subject, str | Path):
            return {"subject": str(self.subject)} | hookpoint
        model: Any = self.subject
        tokenizer = self.tokenizer
        if isinstance(self.subject, Subject):
            hookpoint = hookpoint or {"hookpoint": self.subject.hookpoint}
            model, tokenizer = self.subject.model, tokenizer or self.subject.tokenizer
        named: dict[str, Any] = {"subject": hold(model, tokenizer), "device": str(model.device)}
        return named | {"dtype": str(model.dtype).removeprefix("torch.")} | hookpoint


def copy_run(source: Path, folder: Path) -> None:
    """Copy a run folder, whole artefacts alone, to where nothing is yet; but for the report, which is of that run."""
    if folder.exists() or not source.exists():
        return
    with Run(source, "copying"):
        # Through a folder beside it: half a copy is none.
        beside = folder.with_name(f".{folder.name}.copying")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source, beside, ignore=shutil.ignore_patterns(".lock", ".writing-*", ".partial-*", "7_report"))
        beside.replace(folder)


def keep_texts(texts: Sequence[str], folder: Path) -> str:
    """Write documents, a row each; returns the file. Raises UserError for what is no text."""
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError("texts: give a list of strings, a document each, or name a source as corpus.source does")
    file = _place(folder) / "texts.jsonl"
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    write_whole(file, lines.encode())
    return str(file)


def keep_coder(coder: Coder, folder: Path, hookpoint: str) -> str:
    """Write a coder; returns its folder."""
    place = _place(folder) / "coder"
    save_coder(coder, place / hookpoint, hookpoint)
    return str(place)


def keep_explanations(explanations: Mapping[int, str], folder: Path) -> str:
    """Write explanations by latent; returns the file."""
    if not explanations:
        raise UserError("explanations: none given; give texts by latent, as in {3: 'Fires on ...'}, or name a file")
    file = _place(folder) / "explanations.jsonl"
    save_explanations(file, [Explanation(int(latent), text) for latent, text in sorted(explanations.items())])
    return str(file)


def _place(folder: Path) -> Path:
    place = folder.resolve() / GIVEN
    place.mkdir(parents=True, exist_ok=True)
    return place
