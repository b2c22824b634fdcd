"""The configuration: frozen, documented field by field, and loud about what it does not know.

The docstring under a field is its help text and names its unit. Settings that belong to one backend live in that
backend's own `Settings` (see `rewrite.run.plugins`); here they are carried as plain tables under `explainers.<name>`,
`simulators.<name>` and `engines.<name>`. How a config is read is `rewrite.run.configs`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rewrite.config.asking import CallsConfig, ExplainConfig, ScoreConfig, TrackConfig, TuneConfig
from rewrite.config.base import MaybePlace, OnDisk, Place, Scalar, Section, UserError, Written, name_hookpoint
from rewrite.config.data import CoderConfig, CollectConfig, CorpusConfig, SampleConfig
from rewrite.config.judging import AnalyseConfig, Control, CostConfig, DiagnoseConfig, EvaluateConfig
from rewrite.config.sweep import SweepConfig

__all__ = [
    "AnalyseConfig",
    "CallsConfig",
    "CoderConfig",
    "CollectConfig",
    "Config",
    "Control",
    "CorpusConfig",
    "CostConfig",
    "DiagnoseConfig",
    "EvaluateConfig",
    "ExplainConfig",
    "MaybePlace",
    "OnDisk",
    "Place",
    "SampleConfig",
    "Scalar",
    "ScoreConfig",
    "Section",
    "SweepConfig",
    "TrackConfig",
    "TuneConfig",
    "UserError",
    "Written",
    "name_hookpoint",
]


class Config(Section):
    """The subject and its layer; who explains, who simulates, where language models run, what calibrates."""

    subject: Place = "../subject"
    """The language model under study: a folder, a GGUF file or a hub name; the bundled one by default."""
    revision: str = "main"
    """The subject's revision on the hub."""
    hookpoint: str = "layers.1.mlp"
    """The module whose output is rewritten: `layers.N.mlp` or `layers.N`; names of modules (`model.layers.6.mlp`) and
    of TransformerLens (`blocks.6.hook_mlp_out`) are understood."""
    device: str = "cpu"
    """Where the subject runs: `cpu`, `cuda`, `cuda:N` or `mps`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the subject; the coder and the losses are always float32."""
    batch: int = Field(16, ge=1)
    """Windows in one forward pass of collect and evaluate [windows]."""
    explainer: str = "patterns"
    """Who writes the explanations: a file of `rewrite/explainers/`, or one that a package brings."""
    simulator: str = "patterns"
    """Who reads them: a file of `rewrite/simulators/`, or one that a package brings."""
    engine: str = "transformers"
    """Where language models run: a file of `rewrite/engines/`, or one that a package brings. Only the `llm` explainer
    and simulator and the scorers need one."""
    calibrator: Literal["identity", "linear", "quantile", "conditional_mean"] = "conditional_mean"
    """How strengths become activations: a function of `rewrite/arms/calibrate.py`."""
    executor: str = "local"
    """Where the points of a sweep are made and, in a run by itself, the shards of its stages: a file of
    `rewrite/run/executors/`, or one that a package brings."""
    corpus: CorpusConfig = CorpusConfig()
    coder: CoderConfig = CoderConfig()
    collect: CollectConfig = CollectConfig()
    explain: ExplainConfig = ExplainConfig()
    tune: TuneConfig = TuneConfig()
    sample: SampleConfig = SampleConfig()
    calls: CallsConfig = CallsConfig()
    score: ScoreConfig = ScoreConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cost: CostConfig = CostConfig()
    diagnose: DiagnoseConfig = DiagnoseConfig()
    analyse: AnalyseConfig = AnalyseConfig()
    sweep: SweepConfig = SweepConfig()
    track: TrackConfig = TrackConfig()
    explainers: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Settings of the explainers, a table each: `explainers.patterns.max_words = 40`."""
    simulators: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Settings of the simulators, a table each: `simulators.oracle.levels = 10`."""
    engines: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Settings of the engines, a table each: `engines.openai.base_url = "http://127.0.0.1:8000/v1"`."""
    executors: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Settings of the executors, a table each: `executors.processes.workers = 4`."""

    @field_validator("hookpoint")
    @classmethod
    def _name_hookpoint(cls, said: str) -> str:
        return name_hookpoint(said)
