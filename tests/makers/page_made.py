"""A report's folder with all that a page shows, made in memory: some of it ordinary, some of it hostile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from makers.facts_made import make_facts, make_stats

from rewrite.report.facts import Facts, Kind, Latent
from rewrite.report.latents.files import write_side_files
from rewrite.report.scripts import NOT_SIMULATED
from rewrite.stages.report import write_facts

Row = dict[str, Any]

LATENTS = 120
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "</script><script>alert(3)</script><!--",
    '"quotes" and \'quotes\' `and` more" onmouseover="alert(4)',
    "javascript:alert(5)",
    "right \u202eto left\u202c and \u2066isolated\u2069",
    "nul \x00 escape \x1b[31m bell \x07 delete \x7f",
    "long " * 2000,
    "half \ud83d of a pair, and the other \ude42",
    "{{ 7 * 7 }} {% raw %} ]]> &lt;b&gt; &amp; \\u003c",
    "=HYPERLINK('http://example.com')",
    'Fires on "<b>" (9); "\\"" after "</script>" (3).',
)
"""What explanations, tokens, names and reasons may hold; each is shown as text, and nothing of it runs."""

ORDINARY = ("The", " king", " of", "\n", "    ", "\tthe", " land", ".")


def explain(latent: int) -> str | None:
    """Hostile ones first, then one that is absent, then a word of each latent's own."""
    if latent < len(HOSTILE):
        return HOSTILE[latent]
    return None if latent == len(HOSTILE) else f"fires on the word w{latent}, or on kings"


def make_hostile_facts(folder: Path) -> Facts:
    """What a report tells, with a hostile string wherever a run can bring one."""
    latents = [
        Latent(
            i, explain(i) or "", None if i == 20 else 0.99 - i / 200, 0.001 * (i + 1), 2.0, "", scores=("0.75", "0.5")
        )
        for i in range(LATENTS)
    ]
    call: Row = {"calls": 1200, "tokens_in": 34000, "tokens_out": 560, "cached": 7, "retried": 3, "seconds": 12.5}
    call |= {"failed": {HOSTILE[0]: {"requests": 2, "example": HOSTILE[1]}}, "cost": 0.25, "cost_per_latent": None}
    stats = make_stats(folder / "losses.parquet", topk=True)
    facts = make_facts(
        stats | {"warnings": [HOSTILE[0]]},
        latents=latents,
        scorers=("detection", "fuzz"),
        metrics=dict(zip(HOSTILE, reversed(HOSTILE), strict=True)),
        faults={HOSTILE[1]: 5, HOSTILE[5]: 1},
        unjudged={HOSTILE[2]: 7},
        unexplained=[Kind(text, 1, text) for text in HOSTILE],
        calls={HOSTILE[4]: call},
    )
    names = dict(zip(("subject", "hookpoint", "explainer", "model that explains"), HOSTILE, strict=False))
    facts.setting.update(names)
    return facts


def make_columns() -> dict[str, list[float | None]]:
    """The table's numbers: correlation falls with the number and cost rises; latent 20 has none of either."""
    rows = range(LATENTS)
    columns: dict[str, list[float | None]] = {
        "latent": list(rows),
        "simulation": [None if i == 20 else 0.99 - i / 200 for i in rows],
        "r2": [0.5 for _ in rows],
        "detection": [0.75 for _ in rows],
        "density": [0.001 * (i + 1) for i in rows],
        "maximum": [2.0 for _ in rows],
        "cost": [None if i == 20 else 1e-5 * i for i in rows],
        "q": [0.01 for _ in rows],
        "alone": [None for _ in rows],
        "precision": [0.5 for _ in rows],
        "recall": [0.5 for _ in rows],
        "false": [0.002 for _ in rows],
        "missed": [0.003 for _ in rows],
        "missing": [0.25 if i % 10 == 3 else 0.0 for i in rows],
    }
    return columns


def make_page(latent: int) -> Row:
    """All else of a latent: a window of each kind with ordinary tokens, and one that holds every hostile one."""
    own = [*range(len(HOSTILE), len(HOSTILE) + len(ORDINARY))]
    true, simulated = [0, 0, 500, 0, 0, 0, 1000, None], [0, 800, 400, 2, 1, None, 2, NOT_SIMULATED]
    windows: list[Row] = [
        {"kind": kind, "document": 1, "at": at, "tokens": own, "true": true, "simulated": simulated}
        for kind, at in (("false", 1), ("missed", 6), ("right", 2))
    ]
    odd = list(range(len(HOSTILE)))
    windows.insert(
        0, windows[0] | {"document": 0, "tokens": odd, "true": [0] * len(odd), "simulated": [900] * len(odd)}
    )
    windows.append({"kind": "train", "document": None, "at": 6, "tokens": own, "true": true})
    count = [900, 0, 5, 5, 5, 5, 5, 5, 5, 5]
    means = [None if i == 1 else 0.2 * i for i in range(10)]
    page: Row = {"latent": latent, "why": "", "top": 2.0, "windows": windows}
    page["histogram"] = {"most": 2.0, "true": [20 - i for i in range(20)], "simulated": list(range(20))}
    page["curve"] = {"count": count, "true": means, "predicted": means}
    page["firings"] = {"positions": 5000, "true": 200, "hits": 100, "false": 50}
    if latent == 0:
        page |= {"answer": "\n".join(HOSTILE), "scores": {"detection": HOSTILE[1]}}
    if latent == len(HOSTILE):
        page |= {"why": HOSTILE[0], "firings": None, "curve": {"count": [0] * 10, "true": [None] * 10}}
        page["curve"]["predicted"] = [None] * 10
        page["histogram"]["simulated"] = None
    return page


def make_folder(folder: Path) -> Path:
    """The folder of a hostile report."""
    report = folder / "7_report"
    report.mkdir()
    write_facts(make_hostile_facts(folder), report)
    pages = (make_page(i) for i in range(LATENTS))
    texts = [explain(i) for i in range(LATENTS)]
    documents = [HOSTILE[0], "a document"]
    write_side_files(report / "data", make_columns(), documents, texts, [*HOSTILE, *ORDINARY], pages)
    return report
