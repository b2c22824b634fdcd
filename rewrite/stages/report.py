"""The report: 7_report/report.md and its figures, from what the stages before it left.

1. Gather: the statistics, the coder's metrics, the explanations, each latent's held-out score, seconds a stage.
2. Draw the figures (`rewrite.figures`).
3. Fill in `report.md.jinja`, the page as it reads. Every number comes from a file; nothing is estimated here.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewrite import cost_figures, figures
from rewrite.config import Config
from rewrite.costs import PREDICTORS, rows_of_costs
from rewrite.explanations import load_explanations
from rewrite.firings import rows_of_rates
from rewrite.fresh import Asks, asked_model
from rewrite.records import Explanation
from rewrite.stats import find_headline, format_p
from rewrite.store import Run, read_json

TEMPLATE = Path(__file__).with_name("report.md.jinja")

# Rows in each of the lists of best and worst latents, kinds of missing predictions listed, characters of a cell.
SHOWN, KINDS, WIDTH = 10, 12, 300

# The arms of the ladder that are controls, as the page tells them.
CONTROLS = {
    "quantised": "the true activations in 10 levels: the finest that a reader who says 0 to 9 could do",
    "matched": "which latents fire is true, and how strongly is simulated where the simulation fires too, else true",
    "true_active": "which latents fire is true, and how strongly is simulated; what the simulation misses has its mean "
    "when active",
    "simulated_active": "which latents fire is simulated, and how strongly is true; what fires falsely has its mean "
    "when active",
    "hits": "only what truly fires and is simulated to, as strongly as simulated",
    "shuffled": "every latent reads another latent's explanation, calibrated anew",
    "random": "strengths drawn as often and as high as each latent's own, calibrated anew",
    "token_table": "each latent's mean activation at the current token, from the train split; no explanation is read",
    "linear_probe": "a ridge regression from the last 8 tokens' embeddings, from the train split; none is read",
    "mean": "every latent at its mean",
    "mean_layer": "the layer's mean output",
    "zero": "every latent 0, the coder's bias and skip path in place",
    "zero_layer": "the zero vector",
}

# Whitespace of every kind, control characters, and marks that turn the direction of writing.
UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
MARKUP = re.compile(r"([\\`*_\[\]|~$])")

Row = dict[str, Any]


@dataclass(frozen=True)
class Latent:
    """A latent's explanation and its scores on the calibrate split; `correlation` is None where it is undefined, and
    `scores` are those that a language model gave, in the words of their cells."""

    number: int
    text: str
    correlation: float | None
    density: float
    maximum: float
    missing: str
    r2: float | None = None
    scores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """Predictions or explanations that are missing for the same reason; `example` is one reason in full."""

    reason: str
    latents: int
    example: str


def run(config: Config, run: Run) -> None:
    """Write 7_report."""
    stats: Row = read_json(run.path("6_stats.json"))
    explanations = load_explanations(run.path("3_explanations.jsonl"))
    latents = read_latents(run.path("5_latents.parquet"), run.path("4_scores.parquet"), explanations, config)
    costs: Row = read_json(run.path("5_costs.json"))
    page = render(
        stats=stats,
        setting=describe_setting(config, stats),
        scorers=config.score.scorers,
        faults=read_faults(run.path("4_simulations")),
        unjudged=read_unjudged(run.path("4_scores.parquet"), config.score.scorers),
        calls=run.manifest.get("calls", {}),
        metrics=read_metrics(run.path("1_coder")),
        latents=latents,
        unexplained=group_reasons([e.why for e in explanations if e.text is None]),
        seconds=read_seconds(run.manifest),
        costs=costs,
        costly=rows_of_costs(run.path("5_costs.parquet"), SHOWN),
    )
    with run.writing("7_report") as folder:
        folder.mkdir(exist_ok=True)
        figures.draw_ladder(stats, folder / "ladder.png")
        figures.draw_fractions(stats, folder / "fractions.png")
        if stats["split"]:
            figures.draw_split(stats, folder / "split.png")
        cost_figures.draw_costs(run.path("5_costs.parquet"), folder / "costs.png", costs["alpha"])
        (folder / "report.md").write_text(page, encoding="utf-8", errors="replace")


def render(
    *,
    stats: Row,
    setting: dict[str, str],
    scorers: Sequence[str],
    faults: dict[str, int],
    unjudged: dict[str, int],
    calls: dict[str, Row],
    metrics: dict[str, str],
    latents: list[Latent],
    unexplained: list[Kind],
    seconds: dict[str, float],
    costs: Row,
    costly: list[Row],
) -> str:
    """The page. All arguments are plain data, so that a page can be made and tested without a run."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # The page is Markdown: `cell` escapes what was not written by us.
    )
    environment.filters.update(
        cell=escape_cell,
        nats=format_number,
        ends=format_ends,
        percent=format_percent,
        p=format_p_cell,
        arm=figures.name_arm,
    )
    scored = sorted((row for row in latents if row.correlation is not None and not row.missing), key=_by_score)
    half = min(SHOWN, (len(scored) + 1) // 2)
    return environment.get_template(TEMPLATE.name).render(
        stats=stats,
        headline=find_headline(stats),
        setting=setting,
        scorers=scorers,
        faults=faults,
        unjudged=unjudged,
        calls=calls,
        ladder=figures.select_ladder(stats),
        controls={name: told for name, told in CONTROLS.items() if any(row["arm"] == name for row in stats["arms"])},
        parts=figures.PARTS,
        curves=[
            (label, figures.select_curve(stats, arm, order)) for (arm, order), (*_, label) in figures.CURVES.items()
        ],
        disagreeing=find_disagreements(stats),
        metrics=metrics,
        latents=latents,
        scored=scored,
        best=scored[:half],
        worst=scored[half:][::-1][:SHOWN],
        missing=group_reasons([row.missing for row in latents if row.missing]),
        unexplained=unexplained,
        silent=sum(row.density == 0 for row in latents),
        seconds=seconds,
        costs=costs,
        costly=costly,
        rates=rows_of_rates(costs["firings"]),
        predictors=PREDICTORS,
    )


def _by_score(latent: Latent) -> tuple[float, int]:
    return -(latent.correlation or 0.0), latent.number


def find_disagreements(stats: Row) -> list[Row]:
    """Comparisons where the t test and the sign-flip test, both unadjusted, fall on different sides of alpha."""
    alpha = stats["alpha"]
    return [row for row in stats["comparisons"] if (row["p"] < alpha) != (row["p_sign_flip"] < alpha)]


# --- what the other stages left ---------------------------------------------------------------------------------------


def describe_setting(config: Config, stats: Row) -> dict[str, str]:
    """What was run, in the config's words; folders by their last name, so that a page says nothing of a home."""
    coder = config.coder
    trained = f"{coder.kind}, k = {coder.k}, {coder.tokens:,} training tokens"
    return (
        {
            "subject": _last_name(config.subject),
            "hookpoint": config.hookpoint,
            "coder": f"{stats['latents']:,} latents; " + (f"from {_last_name(coder.path)}" if coder.path else trained),
            "corpus": f"{_last_name(config.corpus.source)}, windows of {config.corpus.window} tokens",
            "rewritten": describe_sample(config, stats),
            "explainer": config.explainer if not config.explain.file else f"file {_last_name(config.explain.file)}",
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
    roles: dict[str, Asks] = {"explains": "explainer", "simulates": "simulator", "judges explanations": "score"}
    models = {verb: asked_model(asks, config) for verb, asks in roles.items()}
    told = {f"model that {verb}": _last_name(model) for verb, model in models.items() if model}
    return told | ({"engine": config.engine} if told else {})


def _last_name(source: str) -> str:
    return Path(source).name if Path(source).is_absolute() else source


def read_metrics(folder: Path) -> dict[str, str]:
    """The scalars of the coder's metrics.json, formatted; empty where there is none."""
    files = sorted(folder.rglob("metrics.json"))
    metrics: Row = read_json(files[0]) if files else {}
    return {name: _format_scalar(value) for name, value in metrics.items() if isinstance(value, int | float | str)}


def _format_scalar(value: int | float | str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def read_latents(path: Path, scores: Path, explanations: Sequence[Explanation], config: Config) -> list[Latent]:
    """Each latent's scores with its explanation, by number."""
    import pyarrow.parquet as pq

    texts = {e.latent: e.text or "" for e in explanations}
    scored = {row["latent"]: row for row in pq.read_table(scores).to_pylist()}
    latents = []
    for row in sorted(pq.read_table(path).to_pylist(), key=lambda row: int(row["latent"])):
        own = scored[row["latent"]]
        latents.append(
            Latent(
                number=row["latent"],
                text=texts.get(row["latent"], ""),
                correlation=_finite(own["simulation"]),
                density=row["density"],
                maximum=row["maximum"],
                missing=row["missing"],
                r2=_finite(own["r2"]),
                scores=tuple(describe_score(own, name) for name in config.score.scorers),
            )
        )
    return latents


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def describe_score(row: Row, name: str) -> str:
    """A language model's score with its interval and the precision at the true base rate, or why there is none."""
    value, low, high, precision = (_finite(row[name + end]) for end in ("", "_low", "_high", "_precision"))
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


def group_reasons(reasons: list[str]) -> list[Kind]:
    """Reasons counted by what stands before a colon or a quotation mark: what follows is about one latent only."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for reason in reasons:
        kind = re.split(r"[:\"“]", reason, maxsplit=1)[0].strip() or "no reason given"
        counts[kind] += 1
        examples.setdefault(kind, reason if reason != kind else "")
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = [Kind(reason, number, examples[reason]) for reason, number in ordered[:KINDS]]
    rest = sum(number for _, number in ordered[KINDS:])
    return kinds + ([Kind("other reasons", rest, "")] if rest else [])


def read_seconds(manifest: Row) -> dict[str, float]:
    """Seconds that each artefact before the report took, in the order of the stages."""
    entries = manifest.get("artefacts", {})
    return {name: float(entries[name].get("seconds", 0.0)) for name in sorted(entries) if not name.startswith("7")}


def read_unjudged(path: Path, scorers: Sequence[str]) -> dict[str, int]:
    """Windows that a scorer's language model did not judge, by scorer and kind of failure."""
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    table = pq.read_table(path)
    for scorer in scorers:
        for faults in table.column(f"{scorer}_faults").to_pylist():
            found.update({f"{scorer}, {kind}": number for kind, number in json.loads(faults or "{}").items()})
    return dict(found.most_common())


# --- how numbers and foreign text are written -------------------------------------------------------------------------


def escape_cell(value: object) -> str:
    """Any text as one table cell that shows the text itself: no Markdown, no HTML, no line breaks, not too long."""
    text = UNSEEN.sub(" ", str(value))
    text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return MARKUP.sub(r"\\\1", text).strip() or "–"


def format_number(value: float, digits: int = 4) -> str:
    """A number with fixed digits, and no minus before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def format_ends(ends: list[float] | None, scale: float = 1.0, digits: int = 4) -> str:
    """An interval in brackets, empty where there is none."""
    return "[" + ", ".join(format_number(scale * end, digits) for end in ends) + "]" if ends else ""


def format_percent(value: float | None) -> str:
    return f"{format_number(100 * value, 1)}%" if value is not None else "–"


def format_p_cell(p: float) -> str:
    """As `rewrite.stats.format_p`, without the letter that heads the column."""
    return format_p(p).removeprefix("p ").removeprefix("= ")
