"""The configuration: frozen, documented field by field, and loud about what it does not know.

A TOML file and `key=value` overrides become one `Config`. The docstring under a field is its help text and names its
unit. Relative paths in a file are relative to that file; those in an override are relative to the working folder.
Settings that belong to one backend live in that backend's own `Settings` (see `rewrite.plugins`); here they are
carried as plain tables under `explainers.<name>`, `simulators.<name>` and `engines.<name>`.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Share = Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)]
Scalar = bool | int | float | str | list[Any] | None
Control = Literal[
    "mean",
    "mean_layer",
    "zero_layer",
    "quantised",
    "true_active",
    "simulated_active",
    "matched",
    "hits",
    "shuffled",
    "random",
    "token_table",
    "linear_probe",
]


class UserError(Exception):
    """Something the user can mend: one line that names the file, the key or the token and says what to do."""


class Section(BaseModel):
    """Base of every config table: unknown keys are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CorpusConfig(Section):
    source: str = "stdlib"
    """Where the text is: `stdlib` (this Python's standard library), a .txt or .jsonl file, a folder of .txt files, or a
    dataset: a hub name or a folder that the datasets library reads."""
    subset: str = ""
    """The hub dataset's configuration name; empty for its default."""
    revision: str = "main"
    """The hub dataset's revision."""
    part: str = "train"
    """The hub dataset's split that documents are read from (ours are drawn from it by hash)."""
    text_field: str = "text"
    """The field of a JSONL line or of a hub dataset's row that holds the text."""
    separator: str = "\n\n"
    """What separates the documents of a single .txt file."""
    max_documents: int = Field(0, ge=0)
    """Read at most this many documents [documents]; 0 reads all."""
    train: Share = 0.8
    """Documents for the coder and the explanations: a share below 1, or a number [documents]."""
    calibrate: Share = 0.1
    """Documents for the calibrators and for ordering the latents: a share below 1, or a number [documents]."""
    test: Share | None = None
    """Documents whose losses are counted: a share below 1, a number [documents], or none for all the rest."""
    window: int = Field(128, ge=8)
    """Length of the windows that a document is cut into [tokens]."""
    max_windows: int = Field(0, ge=0)
    """Windows kept of one calibrate or test document, spread evenly over it [windows]; 0 keeps all."""
    seed: int = 0
    """Names the draw of the three splits."""


class CoderConfig(Section):
    path: str | None = None
    """A coder somebody else trained: a folder in sparsify's or SAELens' layout, used instead of training one."""
    kind: Literal["transcoder", "skip_transcoder", "sae"] = "transcoder"
    """What is trained: a transcoder (input to output), the same with a linear skip, or an autoencoder of the output."""
    latents: int = Field(1024, ge=1)
    """Width of the coder [latents]."""
    k: int = Field(16, ge=1)
    """Latents active at a position [latents]."""
    tokens: int = Field(2_000_000, ge=1)
    """Training length [tokens]; the train split is repeated as often as it takes."""
    batch: int = Field(8, ge=1)
    """Windows in a training step [windows]."""
    learning_rate: float = Field(5e-3, gt=0)
    """Peak learning rate of Adam."""
    warmup: int = Field(50, ge=0)
    """Steps over which the learning rate rises [steps]."""
    seed: int = 0
    """Names the initial weights and the order of the windows."""


class CollectConfig(Section):
    shard: int = Field(16, ge=1)
    """Documents in one shard of activations and of simulations, the unit that an interrupted run repeats
    [documents]."""
    train_tokens: int = Field(1_000_000, ge=1)
    """Activations of at most this much of the train split are kept as evidence for explanations [tokens]."""


class ExplainConfig(Section):
    file: str | None = None
    """Explanations to use instead of writing them: a JSONL file with `latent` and `text`, maybe edited by hand."""


class SampleConfig(Section):
    """What is explained and simulated where not everything can be paid for. What is left out keeps its true activations
    (latents) or is not written and not scored (documents, windows, positions) in every arm alike."""

    latents: int = Field(0, ge=0)
    """Latents that are rewritten, drawn from all of the coder's [latents]; 0 takes all."""
    documents: int = Field(0, ge=0)
    """Documents of the calibrate split, and as many of the test split, that are simulated [documents]; 0 takes all."""
    windows: int = Field(0, ge=0)
    """Windows of a document that are simulated [windows]; 0 takes all."""
    positions: Literal["all", "last"] | Annotated[int, Field(ge=1)] = "all"
    """Positions of a window that are simulated: `all`, `last` (the last that has a next token to score), or a number
    drawn from it [positions]."""
    seed: int = 0
    """Names the draws of latents, documents, windows and positions."""


class CallsConfig(Section):
    """Calls of language models: the cache, what they cost and how much may be spent."""

    cache: str | None = None
    """The cache of all calls, a SQLite file that several runs may share; where none is named, `calls.sqlite` beside the
    run folder."""
    max_calls: int = Field(0, ge=0)
    """Stop the run before it has made more calls than this [calls]; 0 is no limit."""
    max_tokens: int = Field(0, ge=0)
    """Stop the run before it has used more prompt and answer tokens than this [tokens]; 0 is no limit."""
    max_cost: float = Field(0, ge=0)
    """Stop the run before it has spent more than this [dollars, by the prices below, which must then be set]; 0 is no
    limit."""
    price_in: float = Field(0, ge=0)
    """Price of prompt tokens [dollars a million tokens]."""
    price_out: float = Field(0, ge=0)
    """Price of answer tokens [dollars a million tokens]."""


class ScoreConfig(Section):
    scorers: tuple[Literal["detection", "fuzz"], ...] = ()
    """Scores that a language model gives each explanation on held-out windows, beside the correlation of the
    simulation, which costs nothing."""
    model: str = ""
    """The language model that judges: a folder or a hub name."""
    windows: int = Field(100, ge=1)
    """Windows shown in which the latent is active, and as many others [windows]."""
    window: int = Field(32, ge=4)
    """Length of a window that is judged [tokens]."""
    together: int = Field(5, ge=1)
    """Windows judged in one prompt [windows]."""
    max_tokens: int = Field(100, ge=8)
    """Longest answer [tokens]."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of the judge."""
    seed: int = 0
    """Names the draw of the windows."""


class EvaluateConfig(Section):
    missing: Literal["mean", "leave_out"] = "mean"
    """What stands for a latent whose prediction is missing: its mean on the calibrate split, or it leaves the
    comparison and keeps its true activation."""
    order_by: Literal["simulation", "detection", "fuzz"] = "simulation"
    """The score that orders the latents from best to worst explained."""
    fractions: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Shares of the latents that are simulated, the others keeping their true activations."""
    random_seeds: int = Field(5, ge=0)
    """Draws of the random order in which latents are simulated [draws]."""
    controls: tuple[Control, ...] = get_args(Control)
    """The arms beside `clean`, `coder`, `zero` and the simulated ones; without `matched` and `hits` the report does not
    split what is lost."""
    control_seeds: int = Field(5, ge=1)
    """Draws of the controls that are drawn, `shuffled` and `random` [draws]."""
    topk: bool = False
    """Also write every simulated arm after keeping only each position's k strongest latents (the paper's splice)."""


class CostConfig(Section):
    """What each latent's simulation costs in loss (`rewrite.attribution`)."""

    steps: int = Field(4, ge=1)
    """Points on the line from true to simulated activations at which gradients are taken [backward passes]."""
    documents: int = Field(60, ge=0)
    """Test documents that costs are taken on, drawn from those that are simulated [documents]; 0 takes all."""
    check: int = Field(50, ge=0)
    """Latents whose cost is also measured alone, all others true, a forward pass each: half of them those of most cost,
    half drawn from the others [latents]."""
    seed: int = 0
    """Names the draws of documents and of latents to check."""


class AnalyseConfig(Section):
    max_missing: float = Field(0.05, ge=0, le=1)
    """Largest share of the predictions that may be missing; beyond it there is no verdict."""
    margin: float = Field(0.05, gt=0)
    """Half-width of the equivalence region, as a share of the gap."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Error rate of every test; intervals cover 1 - alpha."""
    resamples: int = Field(10_000, ge=999)
    """Draws of a permutation test or a bootstrap [draws]."""
    seed: int = 0
    """Names the draws of the permutation tests and bootstraps."""


class Config(Section):
    subject: str = "../subject"
    """The language model under study: a folder or a hub name."""
    revision: str = "main"
    """The subject's revision on the hub."""
    hookpoint: str = "layers.1.mlp"
    """The module whose output is rewritten: `layers.N.mlp` or `layers.N`."""
    device: str = "cpu"
    """Where the subject runs: `cpu`, `cuda`, `cuda:N` or `mps`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the subject; the coder and the losses are always float32."""
    batch: int = Field(16, ge=1)
    """Windows in one forward pass of collect and evaluate [windows]."""
    explainer: str = "patterns"
    """Who writes the explanations: a file of `rewrite/explainers/`."""
    simulator: str = "patterns"
    """Who reads them: a file of `rewrite/simulators/`."""
    engine: str = "transformers"
    """Where language models run: a file of `rewrite/engines/`. Only the `llm` explainer and simulator and the scorers
    need one."""
    calibrator: str = "conditional_mean"
    """How strengths become activations: a function of `rewrite/calibrate.py`."""
    corpus: CorpusConfig = CorpusConfig()
    coder: CoderConfig = CoderConfig()
    collect: CollectConfig = CollectConfig()
    explain: ExplainConfig = ExplainConfig()
    sample: SampleConfig = SampleConfig()
    calls: CallsConfig = CallsConfig()
    score: ScoreConfig = ScoreConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    cost: CostConfig = CostConfig()
    analyse: AnalyseConfig = AnalyseConfig()
    explainers: dict[str, dict[str, Scalar]] = {}
    """Settings of the explainers, a table each: `explainers.patterns.max_words = 40`."""
    simulators: dict[str, dict[str, Scalar]] = {}
    """Settings of the simulators, a table each: `simulators.oracle.levels = 10`."""
    engines: dict[str, dict[str, Scalar]] = {}
    """Settings of the engines, a table each: `engines.openai.base_url = "http://127.0.0.1:8000/v1"`."""


PATHS = (
    "subject",
    "corpus.source",
    "coder.path",
    "explain.file",
    "calls.cache",
    "score.model",
    "explainers.llm.model",
    "simulators.llm.model",
    "engines.openai.tokenizer",
)


def data_folder() -> Path:
    """The folder with the bundled subject and configs: inside an installed package, or the checkout's own."""
    installed = Path(__file__).parent / "data"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "data"


def load_config(file: Path | None = None, overrides: list[str] | None = None) -> Config:
    """Read `file` (the bundled default where none is given) and apply `key=value` overrides in order.

    Raises UserError, in one line, for a file that is absent or not TOML and for a key or value that does not fit.
    """
    file = file or data_folder() / "configs" / "default.toml"
    tree = _read_toml(file)
    origin = {path: file.parent for path in PATHS}
    sources: dict[str, str] = {}
    for override in overrides or []:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UserError(f"--set {override}: write it as key=value, as in --set coder.k=16")
        _assign(tree, key, parse_value(text))
        origin[key] = Path.cwd()
        sources[key] = f"--set {override}"
    for path in PATHS:
        _anchor(tree, path, origin[path])
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain_error(error, file, sources)) from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such config file; name one with --config") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file}: not readable as TOML: {error}") from None


def parse_value(text: str) -> Any:
    """A TOML value where the text is one (`16`, `true`, `[0.1, 1.0]`), else the text itself (`layers.2.mlp`)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for table in tables:
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise UserError(f"--set {key}: {table} is a value, not a table")
    tree[last] = value


def _anchor(tree: dict[str, Any], path: str, folder: Path) -> None:
    """Make a relative path absolute where it names something on disk; a hub name stays as it is."""
    *tables, last = path.split(".")
    for table in tables:
        tree = tree.get(table, {})
        if not isinstance(tree, dict):
            return
    value = tree.get(last)
    if isinstance(value, str) and value and (value.startswith(".") or (folder / value).exists()):
        tree[last] = str((folder / value).resolve())


def _explain_error(error: ValidationError, file: Path, sources: dict[str, str]) -> str:
    """The first fault in one line: where it stands, what is wrong, what is near."""
    fault = error.errors()[0]
    names = [str(part) for part in fault["loc"] if isinstance(part, str)]
    known = list_keys()
    key = next((".".join(names[:n]) for n in range(len(names), 0, -1) if ".".join(names[:n]) in known), ".".join(names))
    where = sources.get(key) or f"{file}: {key}"
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see --help for the keys there are"
        return f"{where}: no such key; {hint}"
    return f"{where}: {fault['msg'].lower()}, got {json.dumps(fault['input'], default=str)}"


def list_keys(model: type[Section] = Config, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Every key with its help text and its default, in the order of the file: {key: (help, default)}."""
    keys: dict[str, tuple[str, str]] = {}
    for name, field in model.model_fields.items():
        default = field.default
        if isinstance(default, Section):
            keys.update(list_keys(type(default), f"{prefix}{name}."))
        else:
            shown = json.dumps(default) if default is not None else "none"
            keys[prefix + name] = (" ".join((field.description or "").split()), shown)
    return keys
