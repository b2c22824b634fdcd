"""What ten minutes on a GPU tell: predictions a second of both engines, then a full run.

    python -m benchmarks.gpu MODEL RUN [--device cuda] [--set KEY=VALUE ...]

MODEL is the folder of a chat model; RUN a run folder, made by the config `smollm2.toml` with whatever is set (`subject`
and `corpus.source`, where they are folders and files). MODEL explains and simulates a sample of latents in it. The
engine `vllm` is measured where it is installed, in a process of its own, for two models share a GPU badly.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.predictions import TOKENS, ask, lay_out, open_engine
from rewrite.simulators.schemes import AllAtOnce

EXPLANATIONS = 64
ENGINES = ("transformers", "vllm")
SAMPLE = (
    *("explainer=llm", "simulator=llm", "explainers.llm.layout=contexts", "explainers.llm.windows=10"),
    *("sample.latents=48", "sample.documents=40", "sample.windows=1", "sample.positions=32", "cost.documents=4"),
)


def predict(name: str, model: Path, device: str) -> None:
    """Print how many predictions a second an engine makes of one window under many explanations."""
    tables = {"transformers": {"device": device, "batch": 32}, "vllm": {"max_model_len": 4096}}
    precision = {"dtype": "bfloat16"} if device != "cpu" else {}
    engine = open_engine(name, model, **tables[name], **precision)
    requests = lay_out(model, AllAtOnce(True), EXPLANATIONS)
    ask(engine, requests[:1])  # Libraries warm up.
    began = time.monotonic()
    ask(engine, requests[1:])
    rate = TOKENS * (len(requests) - 1) / (time.monotonic() - began)
    print(f"{name} on {device}: {rate:,.0f} predictions a second of {model.name}, all_at_once", flush=True)


def run(model: Path, folder: str, device: str, more: list[str]) -> int:
    """A full run; its verdict and seconds are printed by `rewrite` itself."""
    config = Path(__file__).parents[1] / "data" / "configs" / "smollm2.toml"
    asked = [f"{key}={model}" for key in ("explainers.llm.model", "simulators.llm.model")]
    engine = ["engine=transformers", f"engines.transformers.device={device}", f"device={device}"]
    engine += ["engines.transformers.dtype=bfloat16", "engines.transformers.batch=32"] if device != "cpu" else []
    settings = [part for pair in (*SAMPLE, *asked, *engine, *more) for part in ("--set", pair)]
    whole = [sys.executable, "-m", "rewrite", "report", "--config", str(config), "--run", folder, *settings]
    for command in (whole, [sys.executable, "-m", "rewrite", "status", "--run", folder]):
        if done := subprocess.run(command).returncode:
            return done
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Predictions a second of both engines, then a full run.")
    parser.add_argument("model", type=Path)
    parser.add_argument("run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", choices=ENGINES, help="measure this engine, and nothing else")
    given = parser.parse_args()
    if given.only:
        predict(given.only, given.model, given.device)
    else:
        for name in ENGINES:
            if name == "transformers" or find_spec("vllm"):
                own = [str(given.model), given.run, "--device", given.device, "--only", name]
                subprocess.run([sys.executable, "-m", "benchmarks.gpu", *own], check=True)
        sys.exit(run(given.model, given.run, given.device, given.set))
