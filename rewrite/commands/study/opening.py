"""Opening a study: `rewrite.study`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewrite.coder.coder import Coder
from rewrite.commands.study import Study, say
from rewrite.commands.study.given import Given
from rewrite.config import Config
from rewrite.run.configs import choose_config
from rewrite.subject.subject import Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def study(
    subject: PreTrainedModel | Subject | str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    hookpoint: str | None = None,
    texts: str | Sequence[str] | None = None,
    coder: Coder | str | Path | None = None,
    explanations: Mapping[int, str] | str | Path | None = None,
    simulator: str | type | None = None,
    run: str | Path = "runs/default",
    config: str | Path | None = None,
    preset: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Open a study in a run folder.

    - `subject`: a model in memory (transformers; with its `tokenizer`), a folder, a hub name or a GGUF file. A model in
      memory is put into evaluation mode, its parameters need no gradients from then on, and it stays where it is; open
      the study again after you changed its weights.
    - `texts`: a list of documents, or a source as `corpus.source` names one.
    - `coder`: one in memory (`rewrite.Coder`, `rewrite.load_coder`), a folder or a hub name; without one it is trained.
    - `explanations`: texts by latent, or a file of them; without them they are written.
    - `simulator`: a backend's name, or a class, as in a cell of a notebook (`rewrite.commands.study.classes`).
    - `config`: a TOML file; `preset`: sizes that go over it, `quick`, `paper` or `full`; `settings`: any keys of the
      config, as in `{"coder.k": 16}`.

    A folder that has a run goes on with the config that it records, what is given over it, unless `config` is named.
    Raises UserError, in one line, for what does not fit.
    """
    folder = Path(run)
    given = Given(subject, tokenizer, hookpoint, texts, coder, explanations, simulator)
    file, named = Path(config) if config else None, given.name(folder, Config().hookpoint)
    if not (folder / "manifest.json").is_file():
        say(f"{folder}: a new run")
    return Study(choose_config(folder, file, named | dict(settings or {}), say, preset), folder)
