"""vLLM in this process: exact digits from one-token requests, with what prompts begin with computed once.

1. A request with slots becomes one request of one answer token per slot, as token ids, and vLLM gives the
   log-probability of exactly the ten digits (`logprob_token_ids`).
2. These are handed over in lists. Requests go in the order of their ids, so that those that begin alike follow each
   other, and the slots of one from last to first: what the last one reads is in the cache for the others. vLLM keeps
   whole blocks of tokens (16 on a GPU, 32 on a CPU), so each further slot costs about half a block.
3. A question's answer is vLLM's own: greedy or sampled with a seed, ended by stop texts, held to a JSON schema.

`can.prompt_logprobs` is False, in truth: vLLM's log-probabilities of prompt tokens are the most probable 20, which miss
one digit in twelve, and they do not read the cache of prefixes. `can.begun` is True, which is all that the scheme
all_at_once asks for: it is the default here as on the transformers engine, with the same numbers.

How a model is loaded stands in `loading.py`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rewrite.config import Section


class Settings(Section):
    """Settings under `engines.vllm`."""

    revision: str = "main"
    """The model's revision on the hub."""
    template: tuple[str, ...] = ()
    """Options of the model's chat template, as `enable_thinking=false` for a model that thinks before it answers."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Precision of weights and activations, as on the transformers engine; `auto` is the one that the weights are
    stored in."""
    max_model_len: int = Field(0, ge=0)
    """Longest prompt with its answer [tokens]; 0 is what the model was made for. Fewer need less memory, but some
    models place their tokens by it, so it is part of what answers depend on."""
    memory: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes for the model and the cache of prefixes."""
    cpu_cache: int = Field(1, ge=1)
    """Memory for the cache of prefixes where there is no GPU [GiB]."""
    prefix_reuse: bool = True
    """Compute what prompts begin with only once."""
    batch: int = Field(512, ge=1)
    """Prompts handed to vLLM in one list, whose answers are kept together [prompts]."""

    operational: ClassVar[frozenset[str]] = frozenset({"memory", "cpu_cache", "prefix_reuse", "batch"})
