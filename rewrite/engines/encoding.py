"""Requests → token ids, the same for every engine that takes ids, so that their answers can be compared.

1. Messages go through the model's chat template with the answer opened; a model without one reads them as plain text,
   a paragraph a message.
2. The pieces of an answer are tokenized one by one and joined: where a piece ends, a token ends.
3. Each digit must be one token of its own; a model whose digits are not is refused by the digit's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from rewrite.config import UserError
from rewrite.engines.base import DIGITS, Branches, Question
from rewrite.engines.prompting import Message
from rewrite.subject.loading import place_of

ANCHOR = "\n"
SEAM = "\ue0f0{}\ue0f1"
"""Stands for a message's content while the chat template is filled in."""


@dataclass(frozen=True)
class Encoded:
    """A request as ids: branch i stands after the first `ends[i]` tokens of the trunk."""

    trunk: Int[np.ndarray, " token"]
    ends: Int[np.ndarray, " branch"]
    branch: Int[np.ndarray, " token_of_branch"]

    def prompts(self) -> Iterator[Int[np.ndarray, " token"]]:
        """Each branch as a prompt of its own."""
        for end in self.ends.tolist():
            yield np.concatenate([self.trunk[:end], self.branch])

    @property
    def lengths(self) -> Int[np.ndarray, " branch"]:
        """The length of each branch's own prompt [tokens]."""
        lengths: np.ndarray = self.ends + len(self.branch)
        return lengths


class Encoder:
    """A model's tokenizer with what the harness needs of it. Raises UserError where the tokenizer cannot be read."""

    def __init__(self, model: str, revision: str = "main", template: Sequence[str] = ()) -> None:
        """`template` are options of the chat template (`read_options`)."""
        from transformers import AutoTokenizer

        self.model, self.options = model, read_options(template)
        if Path(model).is_absolute() and not Path(model).exists():
            raise UserError(f"{model}: no such folder; name a model's folder or its name on the hub")
        place, file = place_of(model)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(place, revision=revision, **file)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{model}: no tokenizer can be read from this model ({reason})") from None
        # A piece of running text by itself; names of special tokens in it are text.
        self.piece = lru_cache(maxsize=1 << 16)(self._encode_piece)
        self._head = lru_cache(maxsize=1 << 10)(self._encode_head)

    @property
    def chat(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self.tokenizer.chat_template)

    @cached_property
    def digits(self) -> Int[np.ndarray, " 10"]:
        """The token id of each digit. Raises UserError for a digit that is not one token."""
        ids = [self._encode_piece(digit) for digit in DIGITS]
        for digit, tokens in zip(DIGITS, ids, strict=True):
            if len(tokens) != 1:
                raise UserError(
                    f"{self.model}: the digit {digit} is {len(tokens)} tokens in this model's vocabulary, so its "
                    "probability cannot be read; choose another model or the scheme ratings_list"
                )
        return np.array([tokens[0] for tokens in ids])

    @cached_property
    def start(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text."""
        return tuple(self.tokenizer("")["input_ids"])

    def branches(self, request: Branches) -> Encoded:
        """The ids of a request's trunk and branch."""
        head, tail = self._head(request.messages, request.turn)
        ids, ends = list(head), []
        for number, piece in enumerate(request.pieces):
            ids += self.piece(piece)
            if number not in request.silent:
                ends.append(len(ids))
        branch = [*tail, *self.piece(request.branch)]
        return Encoded(*(np.array(part, dtype=np.int64) for part in (ids, ends, branch)))

    def question(self, request: Question) -> Int[np.ndarray, " token"]:
        """The ids of a question, with the given beginning of its answer."""
        return np.array([*self._head(request.messages)[0], *self.piece(request.answer)], dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, special tokens left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _encode_head(
        self, messages: tuple[Message, ...], turn: bool = False
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids before a request's pieces, and those that its branch begins with: with `turn` the frame behind the
        last message, else none.

        The frame around the messages is tokenized with its special tokens, their contents without: a text that looks
        like the end of a turn stays text."""
        contents = [m.content for m in messages]
        parts = re.split(SEAM.format("([0-9]+)"), self._frame(messages))
        ids: list[Sequence[int]] = []
        for number, part in enumerate(parts):
            if part:
                text, special = (contents[int(part)], False) if number % 2 else (part, True)
                goes_on = bool(ids) and not (self._begins_anew and ids[-1][-1] in self.tokenizer.all_special_ids)
                ids.append(self._encode_piece(text, special) if goes_on else self._plain(text, special))
        behind = len(ids) - bool(parts[-1]) if turn else len(ids)
        return tuple(chain.from_iterable(ids[:behind])), tuple(chain.from_iterable(ids[behind:]))

    def _frame(self, messages: tuple[Message, ...]) -> str:
        """The chat template filled in with a seam in the place of each content; every one of them is found again.

        A model without a system role gets what the system says in the first user turn. Raises UserError for one whose
        template refuses the messages or drops one of them: the model would not see it.
        """
        if not self.chat:
            start: str = self.tokenizer.decode(self.start)
            return start + "".join(SEAM.format(i) + "\n\n" for i in range(len(messages)))
        turns = [{"role": m.role, "content": SEAM.format(i)} for i, m in enumerate(messages)]
        tries = [turns]
        if len(turns) > 1 and [turn["role"] for turn in turns[:2]] == ["system", "user"]:
            joined = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            tries.append([joined, *turns[2:]])
        why = ""
        for way in tries:
            try:
                frame: str = self.tokenizer.apply_chat_template(
                    way, add_generation_prompt=True, tokenize=False, **self.options
                )
            except Exception as error:
                why = why or f"refuses these messages ({error})"
                continue
            lost = [m.role for i, m in enumerate(messages) if SEAM.format(i) not in frame]
            if not lost:
                return frame
            why = why or f"drops the {lost[0]} message, so the model would not see it"
        raise UserError(f"{self.model}: its chat template {why}; name another model")

    @property
    def marks(self) -> dict[str, str]:
        """What else the rendered prompt depends on: options of the template, and today where it shows the date."""
        template = str(self.tokenizer.chat_template or "")
        dated = "strftime_now" in template or "date_string" in template
        said = {"template": json.dumps(self.options, sort_keys=True)} if self.options else {}
        said |= {"pieces": "anchored"} if self._adds_space else {}  # Earlier releases put a space before each.
        return said | ({"date": date.today().isoformat()} if dated else {})

    def _encode_piece(self, text: str, special: bool = False) -> tuple[int, ...]:
        """A piece of text by itself. Tokenizers that put a space before a text get an anchor, which is then cut off."""
        if not text:
            return ()
        if self._adds_space:
            anchor = self._plain(ANCHOR)
            ids = self._plain(ANCHOR + text, special)
            if ids[: len(anchor)] == anchor:
                return tuple(ids[len(anchor) :])
        return tuple(self._plain(text, special))

    @cached_property
    def _begins_anew(self) -> bool:
        """Whether a text behind a special token is tokenized as one at the beginning is, a space put before it."""
        if not self.chat:
            return True  # What stands there is the token that begins every text.
        mark = self.tokenizer.decode(self.tokenizer.all_special_ids[:1])
        return self._plain(mark + "1", special=True)[1:] == self._plain("1")

    @cached_property
    def _adds_space(self) -> bool:
        return self._plain("1")[:1] != self._plain(ANCHOR + "1")[-1:]

    def _plain(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text; `special` reads the names of special tokens in it as those tokens."""
        if not special and self._names is not None:
            # Added tokens that are not marked special would be read as themselves all the same: each name is cut in
            # two.
            cuts = [0, *(found.start() + 1 for found in self._names.finditer(text)), len(text)]
            if len(cuts) > 2:
                first, *others = (text[begin:end] for begin, end in pairwise(cuts))
                return [*self._plain(first), *chain.from_iterable(map(self._encode_piece, others))]
        answer = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special, verbose=False)
        ids: list[int] = answer["input_ids"]
        return ids

    @cached_property
    def _names(self) -> re.Pattern[str] | None:
        """What the added tokens of more than one character look like, but for those of blanks alone."""
        added = [str(token) for token in self.tokenizer.added_tokens_encoder if len(token) > 1 and not token.isspace()]
        return re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True)))) if added else None


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of a chat template from `name=value`; a value is JSON where it can be (`false`, `3`), else text."""
    options: dict[str, Any] = {}
    for name, _, value in (pair.partition("=") for pair in pairs):
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
