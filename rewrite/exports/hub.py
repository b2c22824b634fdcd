"""all of it in a folder for the hub: coder, explanations, predictions, report, card

    README.md           the card
    coder/              the sparse coder, in a folder named after its hookpoint, and its metrics
    explanations.jsonl  what each latent does, in words
    predictions/, windows/, explanations/   what was predicted beside what is true (`rewrite export dataset`)
    stats.json          the statistics and the verdict
    report/             the page; index.html opens it
    rewrite.toml        a config that takes coder and explanations from here, for `rewrite run --config`
    SHA256SUMS          a hash of every file, for `sha256sum -c` and `rewrite pull`

`hf upload OWNER/NAME FOLDER`, or `rewrite export hub RUN --out FOLDER --upload OWNER/NAME`, puts it on the hub.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from rewrite.config import Config
from rewrite.display import escaping
from rewrite.exports.base import render
from rewrite.exports.predictions import tabulate
from rewrite.run.files import bundled, flatten, on_hub
from rewrite.run.finished import Finished

SUMS = "SHA256SUMS"
OWN = ("calls.", "engines.", "track.")
"""Tables of the config that are this machine's alone: limits, caches, addresses, trackers."""
ALWAYS = ("hookpoint", "corpus.source", "corpus.window", "corpus.train", "corpus.calibrate", "corpus.seed")
"""What is said even where it is the default."""
TAKEN = {"coder.path": "coder", "explain.file": "explanations.jsonl"}
HEAD = """\
# The config of the run that this folder was made from, with its coder and its explanations.
# Of a file or folder that was not on the hub only the name is left: put in its place where you have it.
"""


def write(run: Finished, folder: Path) -> list[str]:
    """Write all of it. Raises UserError for a run without a report."""
    hookpoint = str(run.setting("hookpoint"))
    shutil.copytree(run.path("1_coder"), folder / "coder")
    shutil.copyfile(run.path("3_explanations.jsonl"), folder / "explanations.jsonl")
    shutil.copyfile(run.path("6_stats.json"), folder / "stats.json")
    shutil.copytree(run.path("7_report"), folder / "report")
    written = tabulate(run, folder)
    (folder / "rewrite.toml").write_text(write_settings(run), encoding="utf-8")
    metrics = json.loads((folder / "coder" / "metrics.json").read_text(encoding="utf-8"))
    subject = str(run.setting("subject"))
    card = render(
        "hub.md.jinja", run, counts=written.counts, metrics=metrics, base_model=subject if on_hub(subject) else ""
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / SUMS).write_text(sum_up(folder), encoding="utf-8")
    rows = ", ".join(f"{rows:,} {name}" for name, rows in written.counts.items())
    return [
        f"coder/{hookpoint}: the sparse coder",
        f"explanations.jsonl, stats.json, report/index.html, rewrite.toml, {SUMS}",
        f"{rows} as Parquet",
        "README.md: the card; set its license before you publish it",
    ]


def write_settings(run: Finished) -> str:
    """The run's config as TOML: what differs from the defaults, nothing of this machine."""
    defaults = flatten(Config().model_dump(mode="json"))
    own = bundled("data").resolve() / "subject"
    kept = {
        key: value
        for key, value in run.settings.items()
        if not key.startswith(OWN) and value is not None and (value != defaults.get(key) or key in ALWAYS)
    }
    if Path(str(kept.get("subject", ""))) == own:
        del kept["subject"]
    tables: dict[str, list[str]] = {"": []}
    for key, value in (kept | TAKEN).items():
        table, _, name = key.rpartition(".")
        tables.setdefault(table, []).append(f"{name} = {_show(value)}")
    parts = [HEAD] + [(f"[{table}]\n" if table else "") + "\n".join(rows) + "\n" for table, rows in tables.items()]
    return "\n".join(parts)


def _show(value: Any) -> str:
    return json.dumps(escaping.public(value) if isinstance(value, str) else value, ensure_ascii=False)


def sum_up(folder: Path) -> str:
    """A line for each file, as `sha256sum` writes it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(folder).as_posix()}" for f in files]
    return "\n".join(lines) + "\n"
