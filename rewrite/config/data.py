"""What is read and what is kept of it: the corpus, the coder, true activations, and how much of it is simulated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rewrite.config.base import MaybePlace, Place, Section, Share


class CorpusConfig(Section):
    """The text: where it is, how it is cut into windows, which documents are in which split."""

    source: Place = "stdlib"
    """Where the text is: `stdlib` (this Python's standard library), a file of text or of rows (.jsonl, .json, .csv,
    .tsv, .parquet), compressed or not, a folder of files, or a dataset: a hub name or a folder that the datasets
    library reads."""
    glob: str = ""
    """The files of a folder that are documents, by a pattern (`*.md`); empty for .txt files."""
    subset: str = ""
    """The hub dataset's configuration name; empty for its default."""
    revision: str = "main"
    """The hub dataset's revision."""
    part: str = "train"
    """The hub dataset's split that documents are read from (ours are drawn from it by hash)."""
    text_field: str = "text"
    """The field of a row that holds the text; `meta.text` is a field within one."""
    stream: bool = False
    """Read a dataset of the hub as it comes, in an order shuffled through a seeded buffer, until there are
    `max_documents`; without it the whole dataset is downloaded."""
    special_tokens: Literal["text", "control"] = "text"
    """What `<|endoftext|>` and the like within a document are: text like any other, or the control tokens that the
    tokenizer makes of them. What the tokenizer itself puts at a start is not touched."""
    near_duplicates: Literal["keep", "drop"] = "keep"
    """What is done with calibrate and test documents that share 50 words in a row with a document of an earlier split:
    they stay and the report says how much it is, or are left out."""
    separator: str = Field("\n\n", min_length=1)
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
    """The sparse coder: one that is given, or how one is trained."""

    path: MaybePlace = None
    """A coder somebody else trained, in sparsify's, SAELens' or Gemma Scope's layout, used instead of training one: a
    folder, or on the hub OWNER/NAME, with /FOLDER where it has several."""
    revision: str = "main"
    """That coder's revision on the hub."""
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
    """How much of the true activations is kept, and in what portions."""

    shard: int = Field(16, ge=1)
    """Documents in one shard of activations and of simulations, the unit that an interrupted run repeats
    [documents]."""
    train_tokens: int = Field(1_000_000, ge=1)
    """Activations of at most this much of the train split are kept as evidence for explanations [tokens]."""


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
