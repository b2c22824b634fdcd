"""An export says who wrote the explanations, and nothing of the machine that they were written on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from makers.finished_runs import Made, make_run

from rewrite.exports.base import author
from rewrite.run.finished import open_finished

LLM = {"explainer": "llm", "explainers": {"llm": {"model": "/home/alice/models/small"}}}
LLM |= {"simulator": "llm", "simulators": {"llm": {"model": "org/model"}}}


@pytest.mark.parametrize(
    ("config", "explainer", "simulator"),
    [
        ({"explainer": "patterns", "simulator": "patterns"}, "patterns", "patterns"),
        (LLM, "llm with small", "llm with org/model"),
        (LLM | {"explain": {"file": "/home/alice/mine.jsonl"}}, "file mine.jsonl", "llm with org/model"),
        ({"explainer": "patterns", "simulator": "oracle", "explain": {"file": None}}, "patterns", "oracle"),
    ],
)
def test_who_wrote_and_who_read(config: dict[str, Any], explainer: str, simulator: str, tmp_path: Path) -> None:
    run = open_finished(make_run(tmp_path / "run", Made(config=config)))
    assert (author(run, "explainer"), author(run, "simulator")) == (explainer, simulator)
