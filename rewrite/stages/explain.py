"""Explain: write what each latent does, from the train split's true activations.

`3_explanations.jsonl` holds one latent a line: `latent`, `text` (null where the explainer failed), `why`, `words`.
Where `explain.file` names explanations written or edited elsewhere, those are read, checked and kept instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.sparse import vstack
from tqdm import tqdm

from rewrite import plugins
from rewrite.activations import ActivationStore
from rewrite.config import Config, UserError
from rewrite.records import Evidence, Explanation, Text
from rewrite.store import Run, write_whole


def run(config: Config, run: Run) -> None:
    """Write `3_explanations.jsonl`."""
    store = ActivationStore(run.path("2_activations"))
    if config.explain.file:
        explanations: Iterable[Explanation] = read_explanations(Path(config.explain.file), store.latents)
    else:
        name = config.explainer
        settings = plugins.settings("explainers", name, config.explainers.get(name, {}))
        explainer = plugins.load("explainers", name).build(settings)
        explanations = explainer.explain(gather_evidence(store), range(store.latents))
    progress = tqdm(explanations, desc="explain", unit=" latents", total=store.latents, disable=None)
    lines = [json.dumps(as_line(e), ensure_ascii=False) + "\n" for e in progress]
    with run.writing("3_explanations.jsonl") as path:
        write_whole(path, "".join(lines).encode("utf-8", errors="surrogatepass"))


def as_line(explanation: Explanation) -> dict[str, object]:
    """An explanation as its line says it."""
    return {"latent": explanation.latent, "text": explanation.text, "why": explanation.why}


def gather_evidence(store: ActivationStore) -> Evidence:
    """The train split as one text, its activations by latent."""
    shards = [store.load(name) for name in store.shards("train")]
    ids = np.concatenate([s.text.ids for s in shards])
    lengths = np.concatenate([np.diff(s.text.starts) for s in shards])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    activations = vstack([s.activations for s in shards], format="csc")
    return Evidence(Text(ids, starts, store.vocabulary), activations)


def read_explanations(file: Path, latents: int) -> list[Explanation]:
    """Explanations from a JSONL file, one a latent at most. Raises UserError naming the line that does not fit."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable as UTF-8 text ({error}); set explain.file") from None
    found: dict[int, Explanation] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            explanation = _read_line(line, f"{file}:{number}", latents)
            if explanation.latent in found:
                raise UserError(f"{file}:{number}: latent {explanation.latent} is explained twice; keep one line")
            found[explanation.latent] = explanation
    if not found:
        raise UserError(f"{file}: no explanations in this file; write a line with latent and text for each")
    return [found.get(i) or Explanation(i, None, "not in the explanations file") for i in range(latents)]


def _read_line(line: str, where: str, latents: int) -> Explanation:
    try:
        row = json.loads(line)
        latent, text, why = row["latent"], row["text"], row.get("why", "")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: needs an object with latent and text ({error!r})") from None
    if not isinstance(latent, int) or isinstance(latent, bool) or not 0 <= latent < latents:
        raise UserError(f"{where}: latent {latent!r} is not one of the coder's 0 to {latents - 1}")
    if not (text is None or isinstance(text, str)) or not isinstance(why, str):
        raise UserError(f"{where}: text must be a string, or null where the explanation is missing")
    return Explanation(latent, text, why)
