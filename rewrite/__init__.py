"""Rewrite one layer of a transformer in natural language, and say how much of the model survives.

    train      a sparse coder learns what the layer does, in latents                        1_coder
    collect    each latent's true activations on three splits that share no document        2_activations
    explain    an explainer writes down in plain language what each latent does             3_explanations.jsonl
    simulate   a simulator reads only that text and predicts each latent on new text        4_simulations
    score      how good each explanation is, on text that it was not made from              4_scores.parquet
    evaluate   calibrated predictions are written at the layer; losses under every arm      5_losses.parquet
    cost       what each latent's error costs, how often it fires falsely or not at all     5_costs.parquet
    diagnose   through which later parts of the model the loss comes, where it is asked for     5_diagnosis.json
    analyse    paired tests by document: how much of the gap is recovered, how sure         6_stats.json
    report     the verdict, why it is not more, every latent, on one page                   7_report

Each stage reads the artefacts before its own from a run folder and writes its own (`rewrite.stages`). The method is
Paulo & Belrose, Partially Rewriting a Transformer in Natural Language (arXiv:2501.18838, 2025).

In Python, `rewrite.study` does the same step by step, on a model in memory or one that is named. The names below are
imported when they are first used, so that `import rewrite` waits for no library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rewrite.coder.coder import Coder
    from rewrite.coder.files import load_coder
    from rewrite.commands.study import Study
    from rewrite.commands.study.comparing import compare
    from rewrite.commands.study.opening import study
    from rewrite.config import Section, UserError
    from rewrite.explainers.base import Explanation
    from rewrite.simulators.base import Strengths
    from rewrite.subject.subject import Subject, build_subject
    from rewrite.text.windows import Text

__all__ = [
    "Coder",
    "Explanation",
    "Section",
    "Strengths",
    "Study",
    "Subject",
    "Text",
    "UserError",
    "build_subject",
    "compare",
    "load_coder",
    "study",
]

__version__ = "0.1.0"
DISTRIBUTION = "rewrite-in-words"
"""What pip installs; the name of the import is somebody else's there."""

HOMES = {
    "Coder": "coder.coder",
    "Explanation": "explainers.base",
    "Section": "config",
    "Strengths": "simulators.base",
    "Study": "commands.study",
    "Subject": "subject.subject",
    "Text": "text.windows",
    "UserError": "config",
    "build_subject": "subject.subject",
    "compare": "commands.study.comparing",
    "load_coder": "coder.files",
    "study": "commands.study.opening",
}
"""Where the names of `__all__` live."""


def __getattr__(name: str) -> object:
    """A public name, imported now."""
    if name not in HOMES:
        raise AttributeError(f"module 'rewrite' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rewrite.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
