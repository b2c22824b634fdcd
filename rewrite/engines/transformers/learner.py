"""Low-rank adapters (Hu et al. 2021) on a causal model, which learns to answer branches with digits.

1. peft adds two thin matrices to every linear layer but the head; nothing else of the model changes.
2. Lessons that begin alike (one explanation, several windows) go through the model as one row: what they have in
   common once, then each lesson's own trunk and branches, which see that beginning and themselves (`pack`). So a row
   gives what its lessons would give as prompts of their own: learning reads as simulation does (`trunk.lay_out`).
3. The loss is the cross-entropy over the whole vocabulary against the two digits next to the target, weighted by how
   near they are: its least is reached by a reader whose expected digit is the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rewrite.config import UserError
from rewrite.engines import learning
from rewrite.engines.base import Branches, Lesson
from rewrite.engines.encoding import Encoder
from rewrite.engines.transformers.trunk import Row, common, lay_out

CLIP = 1.0
"""The gradient's norm is held to this."""


@dataclass(frozen=True)
class Packed:
    """Some rows as one, and where in it each branch is read."""

    ids: Int[np.ndarray, " token"]
    positions: Int[np.ndarray, " token"]
    sees: Bool[np.ndarray, "token token"]
    ends: tuple[Int[np.ndarray, " branch"], ...]


def pack(rows: Sequence[Row]) -> Packed:
    """What the rows have in common, then the rest of each; none sees another's."""
    shared = min(row.open for row in rows)
    shared = min([shared, *(common(rows[0].ids, row.ids) for row in rows[1:])])
    laid = [lay_out([row], shared) for row in rows]
    widths = [part.ids.shape[1] for part in laid]
    edges = shared + np.concatenate([[0], np.cumsum(widths)]).astype(int)
    sees = np.zeros((edges[-1], edges[-1]), dtype=bool)
    sees[:shared, :shared] = np.tri(shared, dtype=bool)
    for part, begin, end in zip(laid, edges, edges[1:], strict=False):
        own = np.tri(end - begin, dtype=bool) if part.sees is None else part.sees[0][:, shared:]
        sees[begin:end, :shared], sees[begin:end, begin:end] = True, own
    ids = np.concatenate([rows[0].ids[:shared], *(part.ids[0] for part in laid)])
    positions = np.concatenate([np.arange(shared), *(part.positions[0] for part in laid)])
    return Packed(ids, positions, sees, tuple(b + part.where for part, b in zip(laid, edges, strict=False)))


def share_out(strengths: Float[np.ndarray, " branch"]) -> Float[np.ndarray, "branch 10"]:
    """Each target's weight on the two digits next to it, whose mean it is."""
    inside = np.clip(strengths, 0, 9)
    low = np.minimum(np.floor(inside), 8).astype(int)
    weights = np.zeros((len(inside), 10), dtype=np.float32)
    rows = np.arange(len(inside))
    weights[rows, low], weights[rows, low + 1] = 1 - (inside - low), inside - low
    return weights


class LowRankLearner:
    """See `rewrite.engines.base.Learner`. `network` is a model whose layers take a mask of four dimensions."""

    def __init__(self, network: Any, encoder: Encoder, identity: Mapping[str, str], rank: int, seed: int) -> None:
        peft = _import_peft()
        torch.manual_seed(seed)
        how = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        # Left to itself it looks for the base model on the hub when it saves.
        how.base_model_name_or_path = encoder.model
        try:
            self.adapted: Any = peft.get_peft_model(network, how)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{encoder.model}: cannot be tuned ({str(error).splitlines()[0]})") from None
        self.model, self.encoder, self.identity, self.tokens = network, encoder, dict(identity), 0
        self.digits = torch.from_numpy(encoder.digits).to(network.device)
        self.weights = {name: one for name, one in self.adapted.named_parameters() if one.requires_grad}
        self.optimizer = torch.optim.AdamW(self.weights.values(), weight_decay=0.0)

    def learn(self, groups: Sequence[Sequence[Lesson]], rate: float) -> float:
        """See `Learner.learn`."""
        packed = [pack([self._row(lesson.request) for lesson in group]) for group in groups]
        wanted = np.concatenate([share_out(lesson.strengths) for lesson in chain.from_iterable(groups)])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        logits = self._logits(packed).float()
        digits = logits[:, self.digits] - logits.logsumexp(-1, keepdim=True)
        loss = -(torch.from_numpy(wanted).to(digits.device) * digits).sum(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), CLIP)
        self.optimizer.step()
        self.tokens += sum(len(row.ids) for row in packed)
        return float(loss.detach())

    def read(self, groups: Sequence[Sequence[Branches]]) -> list[list[Float[np.ndarray, "branch 10"]]]:
        """See `Learner.read`."""
        found = []
        for group in groups:
            packed = pack([self._row(request) for request in group])
            with torch.no_grad():
                logits = self._logits([packed]).float()
                digits = (logits[:, self.digits] - logits.logsumexp(-1, keepdim=True)).exp().cpu().numpy()
            found.append(np.split(digits, np.cumsum([len(ends) for ends in packed.ends])[:-1]))
        return found

    def _row(self, request: Branches) -> Row:
        encoded = self.encoder.branches(request)
        return Row(0, encoded.trunk, encoded.ends, encoded.branch)

    def _logits(self, packed: Sequence[Packed]) -> Tensor:
        """The logits at every branch, padded on the right; padding sees itself."""
        width = max(len(row.ids) for row in packed)
        ids, positions = (np.zeros((len(packed), width), dtype=np.int64) for _ in range(2))
        sees = np.tile(np.eye(width, dtype=bool), (len(packed), 1, 1))
        for number, row in enumerate(packed):
            own = len(row.ids)
            ids[number, :own], positions[number, :own], sees[number, :own, :own] = row.ids, row.positions, row.sees
        ends = [np.concatenate(row.ends) for row in packed]
        which, where = np.repeat(np.arange(len(packed)), [len(own) for own in ends]), np.concatenate(ends)
        dtype, device = self.model.dtype, self.model.device
        mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(torch.from_numpy(~sees), torch.finfo(dtype).min)
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][which, where][None], *inputs[1:]))
        try:
            logits: Tensor = self.model(
                torch.from_numpy(ids).to(device),
                attention_mask=mask[:, None].to(device),
                position_ids=torch.from_numpy(positions).to(device),
                use_cache=False,
            ).logits[0]
        finally:
            hook.remove()
        return logits

    def save(self, folder: Path) -> None:
        """See `Learner.save`: peft's own layout, safetensors and adapter_config.json."""
        self.adapted.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)

    def keep(self, file: Path, told: Mapping[str, Any]) -> None:
        """See `Learner.keep`."""
        learning.keep(file, self.weights, self.optimizer, {"tokens": self.tokens, "told": dict(told)})

    def go_on(self, file: Path) -> dict[str, Any]:
        """See `Learner.go_on`."""
        kept = learning.go_on(file, self.weights, self.optimizer)
        self.tokens = kept["tokens"]
        told: dict[str, Any] = kept["told"]
        return told


def merge_adapter(network: Any, adapter: str, said: str) -> Any:
    """The model with an adapter's matrices added to its own. Raises UserError for one that is not to be had or does not
    fit."""
    peft = _import_peft()
    try:
        return peft.PeftModel.from_pretrained(network, adapter).merge_and_unload()
    except Exception as error:  # whatever the library raises for files that are damaged or made for another model
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{said}: cannot be put on this model ({reason})") from None


def _import_peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise UserError("tuning needs peft; install it: pip install 'rewrite[tune]'") from None
    return peft
