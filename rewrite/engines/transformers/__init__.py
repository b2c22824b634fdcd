"""Any causal model that the transformers library reads, in this process.

Reading: prompts are sorted by their token ids within a window of requests, so that those with the longest beginnings in
common stand together; `trunk.py` computes each shared beginning once and reads all branches of a prompt in one pass.

Generating: `writer.py` writes the answers to a batch of questions; questions of like length stand together.

Tuning: `learner.py` adds a low-rank adapter and teaches it to read; `build` with an adapter merges it into the weights.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rewrite.config import Section


class Settings(Section):
    """Settings under `engines.transformers`."""

    operational: ClassVar[frozenset[str]] = frozenset({"batch"})

    revision: str = "main"
    """Revision of a model on the hub; a folder has none."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, cuda:1, mps."""
    template: tuple[str, ...] = ()
    """Options of the model's chat template, as `enable_thinking=false` for a model that thinks before it answers."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of weights and activations."""
    batch: int = Field(8, ge=1)
    """Prompts in one forward pass [prompts]; lower it where memory runs out."""
