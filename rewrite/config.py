"""The configuration: frozen, documented field by field, and loud about what it does not know.

The docstring under a field is its help text and names its unit. Settings that belong to one backend live in that
backend's own `Settings` (see `rewrite.run.plugins`); here they are carried as plain tables under `explainers.<name>`,
`simulators.<name>` and `engines.<name>`. How a config is read is `rewrite.run.configs`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)]


class OnDisk:
    """Marks a setting that may name a file or a folder: what is relative in a config file is so to that file."""


Place = Annotated[str, OnDisk]
"""A file or folder, or the name of something on the hub."""
MaybePlace = Annotated[str | None, OnDisk]
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
    "unread",
]


class UserError(Exception):
    """Something the user can mend: one line that names the file, the key or the token and says what to do."""


class Section(BaseModel):
    """Base of every config table: unknown keys are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CorpusConfig(Section):
    source: Place = "stdlib"
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
    path: MaybePlace = None
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
    file: MaybePlace = None
    """Explanations to use instead of writing them: a JSONL file with `latent` and `text`, maybe edited by hand."""


class SampleConfig(Section):
    """What is explained and simulated where not everything can be paid for. What is left out keeps its true activations
    (latents) or is not written and not scored (documents, windows, positions) in every arm alike."""

    latents: Annotated[int, Field(ge=0)] | tuple[Annotated[int, Field(ge=0)], ...] = 0
    """Latents that are rewritten: a number of them, drawn from all [latents], or a list, by number; 0 takes all."""
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

    cache: MaybePlace = None
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
    model: Place = ""
    """The language model that judges: a folder, a GGUF file or a hub name."""
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


class TuneConfig(Section):
    """How a reader of explanations is tuned, on the train split, for simulators that learn (`simulators.llm.tune`)."""

    latents: int = Field(0, ge=0)
    """Latents that are explained to learn from, beside those that are rewritten [latents]; 0 takes all others."""
    folds: int = Field(2, ge=1)
    """Readers that are tuned: the rewritten latents are dealt out among them, and each is read by the one that learned
    from all others. With 1, a reader learns only from latents that are not rewritten [readers]."""
    tokens: int = Field(150_000, ge=0)
    """Tokens that go through the language model in tuning one reader of `simulators.llm` [tokens]; 0 is no limit."""
    minutes: float = Field(0, ge=0)
    """Longest time for tuning one reader [minutes]; 0 is no limit. What a reader learns then depends on the machine."""
    rank: int = Field(16, ge=1)
    """Rank of the matrices that are added to every linear layer of `simulators.llm`."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW; it rises over the first 20 steps and falls to a tenth over the budget."""
    window: int = Field(32, ge=4)
    """Length of a window that is learned from [tokens]."""
    positions: int = Field(12, ge=2)
    """Positions of a window that are learned from: where the latent fires, and others drawn to make up the number
    [positions]."""
    windows: int = Field(4, ge=2)
    """Windows of one latent in a step: half of them with a firing, one with a token on which it fires elsewhere, the
    others drawn [windows]."""
    batch: int = Field(2, ge=1)
    """Latents in a step of `simulators.llm` [latents]."""
    unread: float = Field(0.05, ge=0, lt=1)
    """Share of the examples whose explanation is left blank, so that a reader knows what to say without one (the arm
    `unread`)."""
    held_out: int = Field(40, ge=0)
    """Latents that a reader must not learn from on which it is judged as it learns [latents]."""
    every: int = Field(20, ge=1)
    """Steps between two judgements, and between two states that a killed run goes on from [steps]."""
    seed: int = 0
    """Names the folds, the examples and the initial weights."""


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
    """What each latent's simulation costs in loss (`rewrite.arms.attribution`)."""

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
    low_mass: float = Field(0.5, ge=0, le=1)
    """Median probability of the ten digits together, where ratings are read, below which the report warns."""
    least_mass: float = Field(0.1, ge=0, le=1)
    """The same below which there is no verdict: such strengths are noise."""
    margin: float = Field(0.05, gt=0)
    """Half-width of the equivalence region, as a share of the gap."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Error rate of every test; intervals cover 1 - alpha."""
    resamples: int = Field(10_000, ge=999)
    """Draws of a permutation test or a bootstrap [draws]."""
    seed: int = 0
    """Names the draws of the permutation tests and bootstraps."""


class Config(Section):
    subject: Place = "../subject"
    """The language model under study: a folder, a GGUF file or a hub name."""
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
    """How strengths become activations: a function of `rewrite/arms/calibrate.py`."""
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
    analyse: AnalyseConfig = AnalyseConfig()
    explainers: dict[str, dict[str, Scalar]] = {}
    """Settings of the explainers, a table each: `explainers.patterns.max_words = 40`."""
    simulators: dict[str, dict[str, Scalar]] = {}
    """Settings of the simulators, a table each: `simulators.oracle.levels = 10`."""
    engines: dict[str, dict[str, Scalar]] = {}
    """Settings of the engines, a table each: `engines.openai.base_url = "http://127.0.0.1:8000/v1"`."""
