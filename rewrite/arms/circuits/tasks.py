"""A task: prompts, each with a right continuation and wrong ones, before and after a rewrite and a channel turned up.

An item counts as right where the model gives the right continuation a higher probability than every wrong one; its
*margin* is the difference of their log probabilities, to the likeliest wrong one [nats]. Arms are those of
`rewrite.arms.anywhere`; under `coder` the channel that is read most (`rewrite.arms.circuits.channels`) is also
multiplied by factors: 0 closes it, 2 doubles it.

A task is a JSONL file with `prompt`, `right` and `wrong` (a text or several), or `laundry`, which is made here after
the *Laundry List* of Merullo, Eickhoff & Pavlick (2024, *Talking Heads*): things are listed, all but one of them are
named again, and what follows is the one that is left.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rewrite.arms.anywhere import Anywhere
from rewrite.config import UserError
from rewrite.subject.scoring import losses_from, next_tokens
from rewrite.subject.subject import Subject
from rewrite.text.windows import pad_windows

LAUNDRY = "laundry"
THINGS = ("ball", "book", "cup", "hat", "box", "pen", "key", "coat", "shoe", "spoon", "doll", "bell", "map", "rope")
NAMES = ("Tom", "Anna", "Ben", "Lily", "Max", "Sue")
NUMBERS = ("one", "two", "three", "four", "five")
FACTORS = (0.0, 0.5, 2.0, 4.0)


@dataclass(frozen=True)
class Item:
    prompt: str
    right: str
    wrong: tuple[str, ...]


def make_laundry(count: int, seed: int) -> list[Item]:
    """So many lists of three to five things, of which one is left."""
    rng = np.random.default_rng([seed, 4])
    items = []
    for _ in range(count):
        size = int(rng.integers(3, 6))
        things = [str(thing) for thing in rng.choice(THINGS, size, replace=False)]
        left = int(rng.integers(size))
        taken = [thing for place, thing in enumerate(things) if place != left]
        listed, named = (_list([f"a {thing}" for thing in things]), _list([f"the {thing}" for thing in taken]))
        name = str(rng.choice(NAMES))
        prompt = f"{name} had {NUMBERS[size - 1]} things: {listed}. {name} gave away {named}. All that was left was the"
        items.append(Item(prompt, f" {things[left]}", tuple(f" {thing}" for thing in taken)))
    return items


def _list(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def read_task(source: str, count: int, seed: int) -> list[Item]:
    """The first so many items of a task. Raises UserError, naming the line, for what is not one."""
    if source == LAUNDRY:
        return make_laundry(count, seed)
    path = Path(source)
    try:
        lines = list(enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"diagnose.task = {source}: not `laundry`, nor readable as JSONL ({error})") from None
    asked = [(number, line) for number, line in lines if line.strip()][:count]
    items = [_read_item(line, f"{path}, line {number}") for number, line in asked]
    if not items:
        raise UserError(f"{path}: no item; a task has a line of JSON with prompt, right and wrong for each")
    return items


def _read_item(line: str, place: str) -> Item:
    try:
        row = json.loads(line)
        prompt, right, wrong = row["prompt"], row["right"], row["wrong"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{place}: not a JSON object with prompt, right and wrong") from None
    wrong = [wrong] if isinstance(wrong, str) else wrong
    texts = [prompt, right, *(wrong if isinstance(wrong, list) else [None])]
    if not all(isinstance(text, str) and text and _is_text(text) for text in texts) or len(texts) < 3:
        raise UserError(f"{place}: prompt, right and wrong must be texts, wrong one or several")
    return Item(prompt, right, tuple(wrong))


def _is_text(text: str) -> bool:
    """Half of a pair of surrogates, which JSON can escape, is no character."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@dataclass(frozen=True)
class Tried:
    """How a task went, by item."""

    items: int
    right: dict[str, Bool[np.ndarray, " item"]]
    """By arm, and `coder × factor` with the channel turned up or down."""
    margin: dict[str, Float[np.ndarray, " item"]]


def try_task(
    subject: Subject,
    anywhere: Anywhere,
    items: Sequence[Item],
    direction: Float[Tensor, "rank d"] | None,
    batch: int = 16,
) -> Tried:
    """The task under every arm; `direction` is an orthonormal basis of the channel, None where there is none, and
    `batch` says how many continuations are in a forward pass.

    Raises UserError for an item that is too short to be scored, or longer than the subject reads.
    """
    assert subject.tokenizer is not None
    texts = [(number, text) for number, item in enumerate(items) for text in (item.right, *item.wrong)]
    encoded = [encode(subject.tokenizer, items[number].prompt, text) for number, text in texts]
    check_lengths(subject, encoded, texts)
    arms = [*anywhere.arms, *(name_factor(factor) for factor in FACTORS if direction is not None)]
    scores = np.zeros((len(arms), len(texts)))
    for begin in range(0, len(texts), batch):
        pairs = encoded[begin : begin + batch]
        scores[:, begin : begin + len(pairs)] = score_pairs(subject, anywhere, pairs, direction)
    right, margin = {}, {}
    starts = np.cumsum([0, *(1 + len(item.wrong) for item in items)])
    for name, own in zip(arms, scores, strict=True):
        gaps = [own[a] - own[a + 1 : b].max() for a, b in pairwise(starts)]
        margin[name] = np.asarray(gaps)
        right[name] = margin[name] > 0
    return Tried(len(items), right, margin)


def check_lengths(subject: Subject, encoded: Sequence[Pair], texts: Sequence[tuple[int, str]]) -> None:
    """Refuse what has no position that is written and scored, and what is longer than the subject reads."""
    longest = getattr(subject.model.config.get_text_config(), "max_position_embeddings", None)
    for (first, rest), (number, _) in zip(encoded, texts, strict=True):
        if len(first) < 2 or not rest:
            raise UserError(
                f"diagnose.task: item {number + 1} has a prompt of fewer than 2 tokens, or nothing after it"
            )
        if longest and len(first) + len(rest) > longest:
            raise UserError(f"diagnose.task: item {number + 1} has more tokens than the subject reads ({longest})")


def name_factor(factor: float) -> str:
    """How an arm with the channel multiplied is called."""
    return f"coder × {factor:g}"


Pair = tuple[list[int], list[int]]


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, text: str) -> Pair:
    """The ids of a prompt and of its continuation, each by itself, so that all continuations follow the same prompt."""
    first: list[int] = list(tokenizer(prompt)["input_ids"])
    # Some tokenizers put a space before a text: the continuation is read after a letter, which is then cut off.
    anchor: list[int] = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    rest: list[int] = list(tokenizer("a" + text, add_special_tokens=False)["input_ids"])
    if rest[: len(anchor)] != anchor:
        rest = [*anchor, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    return first, rest[len(anchor) :]


def score_pairs(
    subject: Subject, anywhere: Anywhere, pairs: Sequence[Pair], direction: Float[Tensor, "rank d"] | None
) -> Float[np.ndarray, "arm pair"]:
    """The log probability of each continuation after its prompt under each arm [nats]."""
    windows = [np.asarray([*first, *rest], dtype=np.int32) for first, rest in pairs]
    padded = pad_windows(windows)
    ids, real, later = (
        torch.as_tensor(own, device=subject.device) for own in (padded.ids, padded.real, padded.counted)
    )
    places = torch.arange(ids.shape[1], device=ids.device)
    begins = torch.tensor([len(first) for first, _ in pairs], device=ids.device)
    # A position is scored by the token after it: from the prompt's last on.
    targets = next_tokens(ids, later & (places[None] >= begins[:, None] - 1), real)
    with torch.no_grad():
        prefix = subject.run_to(ids)
        written = anywhere.write(prefix, later, windows)
        vectors = [written.vectors[arm] for arm in anywhere.arms]
        if direction is not None:
            whole = written.vectors["coder"]
            basis = direction.to(whole)
            inside = (whole - written.base) @ basis.T @ basis
            vectors += [whole + (factor - 1) * inside for factor in FACTORS]
        scores = [losses_from(subject, prefix, written.place(own), targets).sum(1) for own in vectors]
    return -torch.stack(scores).cpu().numpy()
