"""Low-rank adapters (Hu et al. 2021) on a causal model, which learns to answer: branches with digits, or questions.

1. peft adds two thin matrices to every linear layer but the head; nothing else of the model changes.
2. Lessons that begin alike (one explanation, several windows) go through the model as one row: what they have in
   common once, then each lesson's own trunk and branches, which see that beginning and themselves (`pack`). So a row
   gives what its lessons would give as prompts of their own: learning reads as simulation does (`trunk.lay_out`).
3. The loss is the cross-entropy over the whole vocabulary against the two digits next to the target, weighted by how
   near they are: its least is reached by a reader whose expected digit is the target.
4. A question is a row that is read at each token before one of its answer's; the answer ends with the model's turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from rewrite import DISTRIBUTION
from rewrite.config import UserError
from rewrite.engines import learning
from rewrite.engines.base import Branches, Lesson, Question
from rewrite.engines.encoding import Encoder
from rewrite.engines.transformers.trunk import Layout, Row, common, lay_out, read_ends
from rewrite.subject.loading import first_line

NOTHING = np.zeros(0, dtype=np.int64)
"""A branch that is the trunk's own token."""


def pack(rows: Sequence[Row]) -> Layout:
    """One row of what the rows have in common, then the rest of each; none sees another's."""
    shared = min(row.open for row in rows)
    shared = min([shared, *(common(rows[0].ids, row.ids) for row in rows[1:])])
    laid = [lay_out([row], shared) for row in rows]
    edges = shared + np.cumsum([0, *(part.ids.shape[1] for part in laid)])
    sees = np.zeros((edges[-1], edges[-1]), dtype=bool)
    sees[:shared, :shared] = np.tri(shared, dtype=bool)
    for part, (begin, end) in zip(laid, pairwise(edges), strict=True):
        own = np.tri(end - begin, dtype=bool) if part.sees is None else part.sees[0][:, shared:]
        sees[begin:end, :shared], sees[begin:end, begin:end] = True, own
    ids = np.concatenate([rows[0].ids[:shared], *(part.ids[0] for part in laid)])
    positions = np.concatenate([np.arange(shared), *(part.positions[0] for part in laid)])
    where = np.concatenate([begin + part.where for part, begin in zip(laid, edges[:-1], strict=True)])
    return Layout(ids[None], positions[None], sees[None], np.zeros_like(where), where)


def stack(packs: Sequence[Layout]) -> Layout:
    """Packs as rows of one batch, padded on the right; padding sees itself."""
    width = max(pack.ids.shape[1] for pack in packs)
    ids, positions = (np.zeros((len(packs), width), dtype=np.int64) for _ in range(2))
    sees = np.tile(np.eye(width, dtype=bool), (len(packs), 1, 1))
    for number, own in enumerate(packs):
        end = own.ids.shape[1]
        ids[number, :end], positions[number, :end], sees[number, :end, :end] = own.ids, own.positions, own.sees
    which = np.repeat(np.arange(len(packs)), [len(own.where) for own in packs])
    return Layout(ids, positions, sees, which, np.concatenate([own.where for own in packs]))


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
            raise UserError(f"{encoder.model}: cannot be tuned ({first_line(error)})") from None
        self.model, self.encoder, self.identity, self.tokens = network, encoder, dict(identity), 0
        self.digits = torch.from_numpy(encoder.digits).to(network.device)
        self.weights = {name: one for name, one in self.adapted.named_parameters() if one.requires_grad}
        self.optimizer = torch.optim.AdamW(self.weights.values(), weight_decay=0.0)

    def learn(self, groups: Sequence[Sequence[Lesson]], rate: float) -> float:
        """See `Learner.learn`."""
        packs = [pack([self._row(lesson.request) for lesson in group]) for group in groups]
        wanted = np.concatenate([share_out(lesson.strengths) for lesson in chain.from_iterable(groups)])
        digits = self._digits(stack(packs))
        loss = -(torch.from_numpy(wanted).to(digits.device) * digits).sum(1).mean()
        learning.step(loss, self.optimizer, rate)
        self.tokens += sum(own.ids.size for own in packs)
        return float(loss.detach())

    def read(self, groups: Sequence[Sequence[Branches]]) -> list[list[Float[np.ndarray, "branch 10"]]]:
        """See `Learner.read`."""
        found = []
        for group in groups:
            rows = [self._row(request) for request in group]
            with torch.no_grad():
                digits = self._digits(pack(rows)).exp().cpu().numpy()
            found.append(np.split(digits, np.cumsum([len(row.ends) for row in rows])[:-1]))
        return found

    def learn_answers(self, wanted: Sequence[tuple[Question, str]], rate: float) -> float:
        """See `Learner.learn_answers`."""
        rows = [self._answered(question, answer) for question, answer in wanted]
        loss = self._loss(rows)
        learning.step(loss, self.optimizer, rate)
        self.tokens += sum(len(row.ids) for row, _ in rows)
        return float(loss.detach())

    def judge_answers(self, wanted: Sequence[tuple[Question, str]]) -> float:
        """See `Learner.judge_answers`; one at a time, for they may be long."""
        rows = [self._answered(question, answer) for question, answer in wanted]
        with torch.no_grad():
            lost = [float(self._loss([row])) * len(row[1]) for row in rows]
        return sum(lost) / sum(len(said) for _, said in rows)

    def _loss(self, rows: Sequence[tuple[Row, Int[np.ndarray, " said"]]]) -> Float[Tensor, ""]:
        logits: Tensor = read_ends(self.model, lay_out([row for row, _ in rows], 0)).float()
        return cross_entropy(logits, torch.from_numpy(np.concatenate([said for _, said in rows])).to(logits.device))

    def _answered(self, question: Question, answer: str) -> tuple[Row, Int[np.ndarray, " said"]]:
        """A question with its answer, read before each token of the answer, and those tokens."""
        asked = self.encoder.question(question)
        whole = self.encoder.question(replace(question, answer=question.answer + answer))
        # Where the beginning of an answer and what goes on join in one token, that token is of the answer.
        begin = common(asked, whole)
        end = self.encoder.tokenizer.eos_token_id
        if end is None:
            raise UserError(f"{self.encoder.model}: has no token that ends an answer, so it cannot be taught")
        whole = np.append(whole, end)
        return Row(0, whole[:-1], np.arange(begin, len(whole)), NOTHING), whole[begin:]

    def _digits(self, laid: Layout) -> Float[Tensor, "branch 10"]:
        """The digits' log-probabilities at every branch."""
        logits: Tensor = read_ends(self.model, laid).float()
        return logits[:, self.digits] - logits.logsumexp(-1, keepdim=True)

    def _row(self, request: Branches) -> Row:
        encoded = self.encoder.branches(request)
        return Row(0, encoded.trunk, encoded.ends, encoded.branch)

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
        raise UserError(f"{said}: cannot be put on this model ({first_line(error)})") from None


def _import_peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise UserError(f"tuning needs peft; install it: pip install '{DISTRIBUTION}[tune]'") from None
    return peft
