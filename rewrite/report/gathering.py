"""A run folder → `rewrite.report.facts.Facts`: what a report tells, read from what the stages before it left."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from rewrite.config import Config
from rewrite.display.escaping import public
from rewrite.engines.learned import LEARNED
from rewrite.engines.ledger import cost_of
from rewrite.explainers.base import Explanation
from rewrite.explainers.explanations import load_explanations
from rewrite.explainers.taught import EXPLAINER, find_taught
from rewrite.report.facts import Facts, Latent, Row, group_reasons
from rewrite.run.files import read_json
from rewrite.run.finished import count_seconds
from rewrite.run.plugins import Role, asked_model, chosen, learns
from rewrite.run.store import Run
from rewrite.simulators.readers import find_reader, is_all


def gather(config: Config, run: Run) -> Facts:
    """Read what the stages before the report left. Raises UserError for what is damaged or not there."""
    explanations = load_explanations(run.path("3_explanations.jsonl"))
    stats: Row = read_json(run.path("6_stats.json"))
    scores = read_rows(run.path("4_scores.parquet"))
    latents = read_latents(run.path("5_latents.parquet"), scores, explanations, config.score.scorers)
    rewritten = {latent.number for latent in latents}
    return Facts(
        stats=stats,
        costs=read_json(run.path("5_costs.json")),
        latent_costs=read_rows(run.path("5_costs.parquet")),
        latent_scores=scores,
        setting=describe_setting(config, stats) | describe_corpus(run.manifest.get("corpus", {})),
        scorers=config.score.scorers,
        latents=latents,
        faults=read_faults(run.path("4_simulations")),
        unjudged=count_unjudged(scores, config.score.scorers),
        unexplained=group_reasons([e.why for e in explanations if e.text is None and e.latent in rewritten]),
        metrics=read_metrics(run.path("1_coder")),
        seconds=read_seconds(run.manifest),
        calls=read_calls(run.manifest),
        learned=read_learned(run) if learns(config) else [],
        diagnosis=read_json(run.path("5_diagnosis.json")) if config.diagnose.documents else {},
    )


# --- what was run -----------------------------------------------------------------------------------------------------


def describe_setting(config: Config, stats: Row) -> dict[str, str]:
    """What was run, in the config's words; folders by their last name, so that a page says nothing of a home."""
    coder = config.coder
    trained = f"{coder.kind}, k = {coder.k}, {coder.tokens:,} training tokens"
    return (
        {
            "subject": public(config.subject),
            "hookpoint": config.hookpoint,
            "coder": f"{stats['latents']:,} latents; " + (f"from {public(coder.path)}" if coder.path else trained),
            "corpus": f"{public(config.corpus.source)}, windows of {config.corpus.window} tokens",
            "rewritten": describe_sample(config, stats),
            "explainer": config.explainer if not config.explain.file else f"file {public(config.explain.file)}",
            "simulator": config.simulator,
        }
        | describe_models(config)
        | {
            "calibrator": config.calibrator,
            "missing predictions": {
                "mean": "the latent keeps its mean",
                "leave_out": "the latent keeps its true activation",
            }[config.evaluate.missing],
            "scored": f"{stats['documents']:,} test documents, {stats['tokens']:,} tokens",
        }
    )


def describe_corpus(noted: Row) -> dict[str, str]:
    """What the test split shares with the others; nothing of a run folder that does not say."""
    if "shared" not in noted:
        return {}
    shared = noted["shared"]["test"]
    counts = {"copies of other documents": noted["copies"], "rows without a text": noted["null"]}
    told = f"{len(shared['documents']):,} of {noted['documents']['test']:,} test documents share {shared['run']} words "
    told += f"in a row with a train or calibrate document, {shared['share']:.1%} of the test split's words"
    left_out = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return {"seen before": told} | ({"left out": left_out} if left_out else {})


def describe_sample(config: Config, stats: Row) -> str:
    """How much of what could be rewritten is."""
    sample, rewritten = config.sample, stats["rewritten"]
    parts = [
        f"{rewritten:,} latents" + ("" if rewritten == stats["latents"] else ", the others keep their true values")
    ]
    if sample.documents:
        parts.append(f"at most {sample.documents:,} documents of a split")
    if sample.windows:
        parts.append(f"{sample.windows:,} windows of a document")
    if sample.positions != "all":
        parts.append("the last position of a window" if sample.positions == "last" else f"{sample.positions} positions")
    return "; ".join(parts)


def describe_models(config: Config) -> dict[str, str]:
    """The language models that were asked, and where they ran."""
    roles: dict[str, Role] = {"explains": "explainer", "simulates": "simulator", "judges explanations": "score"}
    models = {verb: asked_model(asks, config) for verb, asks in roles.items()}
    told = {f"model that {verb}": public(model) for verb, model in models.items() if model}
    return told | describe_taught(config) | describe_reader(config) | ({"engine": config.engine} if told else {})


def describe_taught(config: Config) -> dict[str, str]:
    """Where an explainer learned to explain; empty where it was not taught."""
    adapter: str = getattr(chosen("explainer", config), "adapter", "")
    if not adapter or config.explain.file:
        return {}
    said = read_json(find_taught(adapter) / EXPLAINER)
    place = f"{said['hookpoint']} of {public(str(said['subject']))}"
    whose = Path(said["words_of"]).name
    return {"taught to explain": f"as {whose} did at {place}; it met no latent of this coder that it explains here"}


def describe_reader(config: Config) -> dict[str, str]:
    """Where a tuned reader comes from; empty where the simulator is none."""
    if learns(config):
        tune = config.tune
        number = "one reader" if tune.folds == 1 else f"{tune.folds} readers"
        return {"tuned": f"{number} on this run's train split; each latent is read by one that never met it"}
    adapter: str = getattr(chosen("simulator", config), "adapter", "")
    if not adapter:
        return {}
    said = find_reader(adapter)
    here = (said.get("subject"), said.get("hookpoint")) == (config.subject, config.hookpoint)
    place = f"{said.get('hookpoint')} of {public(str(said.get('subject')))}"
    # Of one that does not say whose coder it learned on nothing is known: it may be this one.
    unmet = is_all(adapter) and "coder" in said
    met = "each latent is read by one that never met it" if unmet else "maybe on these latents"
    told = f"at this hookpoint, {met}" if here else "zero-shot transfer to this one"
    return {"tuned": f"elsewhere: by a run at {place}; {told}"}


def read_learned(run: Run) -> list[Row]:
    """The judgements of each reader as it learned."""
    folders = sorted(path.parent for path in run.path("4_reader").glob(f"*/{LEARNED}"))
    return [{"reader": folder.name} | row for folder in folders for row in read_json(folder / LEARNED)["curve"]]


# --- what the other stages left ---------------------------------------------------------------------------------------


def read_metrics(folder: Path) -> dict[str, str]:
    """The scalars of the coder's metrics.json, formatted; empty where there is none."""
    files = sorted(folder.rglob("metrics.json"))
    metrics: Row = read_json(files[0]) if files else {}
    return {name: _format_scalar(value) for name, value in metrics.items() if isinstance(value, int | float | str)}


def _format_scalar(value: int | float | str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def read_latents(
    path: Path, scores: Sequence[Row], explanations: Sequence[Explanation], scorers: Sequence[str]
) -> list[Latent]:
    """Each rewritten latent's scores with its explanation, by number."""
    found = {e.latent: e for e in explanations}
    scored = {row["latent"]: row for row in scores}
    latents = []
    for row in read_rows(path):
        own, explanation = scored[row["latent"]], found.get(row["latent"])
        latents.append(
            Latent(
                number=row["latent"],
                text=(explanation.text or "") if explanation else "",
                correlation=own["simulation"],
                density=row["density"],
                maximum=row["maximum"],
                missing=row["missing"],
                r2=own["r2"],
                scores=tuple(describe_score(own, name) for name in scorers),
                missing_share=row["missing_share"],
                answer=explanation.answer if explanation else "",
            )
        )
    return latents


def read_rows(path: Path) -> list[Row]:
    """The rows of a Parquet file about latents, by latent, with None for a number that is not known."""
    rows = pq.read_table(path).to_pylist()
    known = [{k: _finite(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    return sorted(known, key=lambda row: int(row["latent"]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def describe_score(row: Row, name: str) -> str:
    """A language model's score with its interval and, where it has one, the precision at the true base rate, or why
    there is none."""
    value, low, high, precision = (row[name + end] for end in ("", "_low", "_high", "_precision"))
    if value is None:
        return str(row[f"{name}_why"] or "none")
    interval = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    return f"{value:.2f}{interval}" + (f", precision {precision:.2f}" if precision is not None else "")


def read_faults(folder: Path) -> dict[str, int]:
    """Single predictions that failed, by kind, over all shards."""
    found: Counter[str] = Counter()
    for file in sorted(folder.glob("*-*.json")):
        found.update(read_json(file)["faults"])
    return dict(found.most_common())


def read_seconds(manifest: Row) -> dict[str, float]:
    """Seconds that each artefact before the report took, in the order of the stages."""
    return {name: seconds for name, seconds in count_seconds(manifest).items() if not name.startswith("7")}


def read_calls(manifest: Row) -> dict[str, Row]:
    """The ledger of calls; a cost is None where calls were made and no price was set."""
    ledger: dict[str, Row] = manifest.get("calls", {})
    priced = {stage: cost_of({stage: row}) is not None for stage, row in ledger.items()}
    unknown = {"cost": None, "cost_per_latent": None}
    return {stage: row if priced[stage] else row | unknown for stage, row in ledger.items()}


def count_unjudged(scores: Sequence[Row], scorers: Sequence[str]) -> dict[str, int]:
    """Windows that a scorer's language model did not judge, by scorer and kind of failure."""
    found: Counter[str] = Counter()
    for scorer in scorers:
        for row in scores:
            faults = json.loads(row[f"{scorer}_faults"] or "{}")
            found.update({f"{scorer}, {kind}": number for kind, number in faults.items()})
    return dict(found.most_common())
