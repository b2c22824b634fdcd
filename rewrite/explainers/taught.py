"""Explainers that were taught (`rewrite teach`): what one says of itself, and who may explain with it.

Beside the adapter stand `explainer.json` (`rewrite.engines.learned.Learned`, the coder whose latents it learned from,
and whose words) and `learned.json`, which latents those were and how it went.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from rewrite.config import UserError
from rewrite.engines.fingerprints import prompts_folder
from rewrite.engines.learned import LEARNED, Learned, check_learned, find_learned
from rewrite.run.files import hash_path, hash_value, read_json

EXPLAINER = "explainer.json"
find_taught = partial(find_learned, mark=EXPLAINER, writer="`rewrite teach`")


def learned_by(model: str, identity: Mapping[str, str], template: str) -> Learned:
    """Of a language model, by an engine's or a learner's identity, and the template that shows it windows."""
    shown = [hash_path(prompts_folder() / f"{template}.jinja"), identity.get("template", "")]
    return Learned(model, identity["model"], hash_value(shown))


def check_taught(adapter: str, here: Learned) -> None:
    """Raise UserError for an explainer that is not there, belongs to another model or was shown windows otherwise."""
    check_learned("explainers.llm", adapter, read_json(find_taught(adapter) / EXPLAINER), here)


def check_unmet(adapter: str, coder: str, latents: Sequence[int]) -> None:
    """Raise UserError where one of these latents of a coder, by its hash, was learned from: what would be written of it
    is what was told."""
    place = find_taught(adapter)
    if read_json(place / EXPLAINER).get("coder") != coder:
        return
    met = sorted(set(read_json(place / LEARNED)["latents"]).intersection(latents))
    if met:
        raise UserError(
            f"explainers.llm.adapter = {adapter}: {len(met):,} latents of this coder, {met[0]} the first, were learned "
            "from; set sample.latents to others, or teach again with these in sample.latents"
        )
