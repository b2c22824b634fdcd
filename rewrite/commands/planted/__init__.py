"""A planted truth: a model whose hookpoint is built, not trained, and what the whole pipeline must say of it.

1. `build` writes a folder: the model (`rewrite.commands.planted.model`) that speaks the language of
   `rewrite.commands.planted.language`, its coder, texts, and explanations: the true ones, and those with a quarter,
   half, three quarters, all of them corrupted.
2. `experiment` runs every stage for each set of explanations, collecting once.
3. `check` holds what was planted against what the runs say.

    rewrite planted FOLDER
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from rewrite.coder.files import save_coder
from rewrite.commands.planted.language import SENTENCES, WORDS, corrupt, spell
from rewrite.commands.planted.model import make_coder, make_weights, save_subject
from rewrite.commands.planted.texts import draw_texts
from rewrite.config import Config, UserError
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import save_explanations
from rewrite.run.configs import data_folder, load_config
from rewrite.run.files import read_json
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES
from rewrite.statistics.verdict import find_headline

HOOKPOINT: Final = "layers.1.mlp"
SHARES: Final = {"true": 0.0, "corrupted-25": 0.25, "corrupted-50": 0.5, "corrupted-75": 0.75, "shuffled": 1.0}
"""The sets of explanations, and the share of each that is another latent's."""

TEXTS: Final = 320
"""Length of the corpus [documents]."""

# --- the folder ------------------------------------------------------------------------------------------------------


def build(folder: Path, seed: int = 0) -> Path:
    """Write `subject`, `coder`, `corpus.jsonl` and `explanations` into the folder; one seed gives the same bytes."""
    texts = draw_texts(TEXTS, seed)
    counts = np.full(len(WORDS), 0.5)
    np.add.at(counts, [WORDS.index(word) for text in texts for word in text[2:]], 1.0)
    weights = make_weights(np.log(counts / counts.sum()), seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made a folder ({error.strerror}); name another") from None
    save_subject(folder / "subject", weights)
    save_coder(make_coder(weights), folder / "coder" / HOOKPOINT, HOOKPOINT)
    lines = [json.dumps({"text": "".join(map(spell, text))}, ensure_ascii=False) + "\n" for text in texts]
    (folder / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "explanations").mkdir(exist_ok=True)
    for name, share in SHARES.items():
        sentences = corrupt(SENTENCES, share, seed)
        save_explanations(_file(folder, name), [Explanation(i, sentence) for i, sentence in enumerate(sentences)])
    return folder


def _file(folder: Path, name: str) -> Path:
    return folder / "explanations" / f"{name}.jsonl"


# --- the experiment --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a run says of one set of explanations; `against` holds the verdict against each arm, by its name."""

    name: str
    share: float
    recovered: float
    interval: tuple[float, float]
    against: Mapping[str, str]


def settings(folder: Path, name: str = "true", *more: str) -> Config:
    """The config of a run on a folder that `build` wrote, for one set of explanations."""
    places = {
        "subject": folder / "subject",
        "corpus.source": folder / "corpus.jsonl",
        "coder.path": folder / "coder",
        "explain.file": _file(folder, name),
    }
    named = [f"{key}={json.dumps(str(place.resolve()))}" for key, place in places.items()]
    return load_config(data_folder() / "configs" / "planted.toml", [*named, *more])


def experiment(folder: Path, *more: str, last: str = STAGES[-1].name) -> list[Outcome]:
    """Run the pipeline in `folder`/runs for every set of explanations; each but the first starts from the first's
    activations. `more` overrides config keys, `last` is the last stage to run."""
    outcomes = []
    first = folder / "runs" / next(iter(SHARES))
    for name, share in SHARES.items():
        place = folder / "runs" / name
        if not place.exists() and first.exists():
            shutil.copytree(first, place)
        with Run(place, "testbed") as run:
            go(STAGES, settings(folder, name, *more), run, last, lambda line: None)
        outcomes.append(read_outcome(name, share, read_json(place / "6_stats.json")))
    return outcomes


def read_outcome(name: str, share: float, result: dict[str, Any]) -> Outcome:
    """An outcome from the content of 6_stats.json."""
    headline = find_headline(result)
    keys = ("arm", "fraction", "order")
    (arm,) = [row for row in result["arms"] if all(row[key] == headline[key] for key in keys)]
    rows = [row for row in result["comparisons"] if all(row[key] == headline[key] for key in keys)]
    low, high = arm["recovered_ci"]
    return Outcome(name, share, arm["recovered"], (low, high), {row["reference"]: row["verdict"] for row in rows})


def check(outcomes: Sequence[Outcome]) -> list[str]:
    """What is not as it was planted, a sentence each; nothing where all is."""
    true, shuffled = outcomes[0], outcomes[-1]
    found = []
    if true.recovered < 0.99 or true.against["coder"] != "equivalent":
        found.append(
            f"true rules recover {true.recovered:.1%}, {true.against['coder']} to the coder: not all of the gap"
        )
    for less, more in pairwise(outcomes):
        if not more.recovered < less.recovered:
            found.append(
                f"{more.name} recovers {more.recovered:.1%}, no less than the {less.recovered:.1%} of {less.name}"
            )
    if shuffled.against["mean"] == "better" or shuffled.recovered > 0.05:
        found.append(
            f"shuffled rules recover {shuffled.recovered:.1%}, {shuffled.against['mean']} than the mean: not none"
        )
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as lines of text."""
    lines = [f"{'explanations':<14}{'recovered':>10}  {'95%':<16}{'zero':<14}{'mean':<14}{'coder':<14}"]
    for outcome in outcomes:
        low, high = outcome.interval
        words = "".join(f"{outcome.against[arm]:<14}" for arm in ("zero", "mean", "coder"))
        lines.append(f"{outcome.name:<14}{outcome.recovered:>9.1%}   {f'[{low:.1%}, {high:.1%}]':<16}{words}")
    return "\n".join(line.rstrip() for line in lines)


def plant(folder: Path) -> tuple[str, list[str]]:
    """Build the folder and run the experiment: its table, and what is not as it was planted."""
    outcomes = experiment(build(folder))
    return table(outcomes), check(outcomes)
