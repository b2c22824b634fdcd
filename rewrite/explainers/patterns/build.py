"""The explainer: what could be said of a latent, and the way from what was picked to rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from rewrite.coder.evidence import Evidence
from rewrite.engines.base import OpenEngine
from rewrite.explainers.base import Explanation, Simulate
from rewrite.explainers.patterns import Settings
from rewrite.patterns.candidates import Catalogue, Choice, Cross, Links, Single
from rewrite.patterns.features import PLACE_VALUES
from rewrite.patterns.grammar import (
    LEAD,
    LISTED,
    PLACES,
    Before,
    Form,
    Pattern,
    Place,
    Rule,
    count_words,
    precedence,
    write,
)
from rewrite.patterns.pooling import Ids, Pooled, Summed, pool
from rewrite.patterns.prose import tell
from rewrite.patterns.selection import Selector
from rewrite.patterns.words import has_kind
from rewrite.run.forking import count_processes, in_order

UNLIMITED = 10**9
OPENING = count_words(LEAD)
AFFIX = 4
"""Longest ending or start that is considered [characters]."""


@dataclass(frozen=True)
class _Items:
    """What some candidates say in one pair of quotes: words by their numbers, which take less memory than texts do; no
    word where the rule has no list."""

    names: Sequence[str]
    words: Int[np.ndarray, "item word"]

    def __getitem__(self, number: int) -> tuple[str, ...]:
        return tuple(self.names[word] for word in self.words[number].tolist())


NOTHING = _Items((), np.zeros((1, 0), dtype=np.int64))


@dataclass(frozen=True)
class _Kind:
    """A sort of candidate: all of a sort with one strength share a rule. `covered` has the candidate of each cell, an
    index into `items`, or -1."""

    rule: Rule
    items: _Items
    covered: Ids


# --- what could be said ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Keys:
    """Distinct keys, and for each cell the index of its own among them, or -1."""

    keys: Int[np.ndarray, " key"]
    of: Ids


def _distinct(key: Ids, least: int, count: Int[np.ndarray, " cell"]) -> _Keys:
    """The keys that at least `least` positions have; a negative key is none."""
    keys, index = np.unique(key, return_inverse=True)
    good = (keys >= 0) & (np.bincount(index, count) >= least)
    return _Keys(keys[good], np.where(good, np.cumsum(good) - 1, -1)[index])


def _simple(cells: Pooled, form: Form, key: Ids, names: Sequence[str], places: tuple[Place, ...] = ()) -> _Kind:
    """Items of a listed form, one a key."""
    found = _distinct(key, 2 if places else 1, cells.count)
    return _Kind(
        Rule(Pattern(form, (("",),)), 0, places=places), _Items(names, found.keys[:, None].astype(np.int32)), found.of
    )


def _pairs(cells: Pooled) -> _Kind:
    """Runs of two words that occur twice at least."""
    names = cells.words
    found = _distinct(cells.word.astype(np.int64) * len(names) + cells.before, 2, cells.count)
    word, before = np.divmod(found.keys, len(names))
    return _Kind(
        Rule(Pattern("words", (("",),)), 0), _Items(names, np.stack([before, word], axis=1).astype(np.int32)), found.of
    )


def _affixes(cells: Pooled) -> Iterator[_Kind]:
    """Endings and starts that two words at least share, by length since precedence depends on it."""
    names = cells.words
    present = np.unique(cells.word)
    for form, length in ((form, length) for form in ("ending", "starting") for length in range(1, AFFIX + 1)):
        shared: dict[str, list[int]] = defaultdict(list)
        for i in present.tolist():
            if len(names[i]) >= length and not names[i].isspace():
                shared[names[i][-length:] if form == "ending" else names[i][:length]].append(i)
        texts = sorted(text for text, having in shared.items() if len(having) > 1)
        key = np.full(len(names), -1)
        for number, text in enumerate(texts):
            key[shared[text]] = number
        yield _simple(cells, "ending" if form == "ending" else "starting", key[cells.word], texts)


def _kinds(cells: Pooled) -> Iterator[_Kind]:
    """Kinds of word, and anything in a place."""
    kinds: tuple[Form, ...] = ("numbers", "capitalised", "capitals", "symbols")
    for kind in kinds:
        has = np.array([has_kind(word, kind) for word in cells.words])
        yield _Kind(Rule(Pattern(kind), 0), NOTHING, np.where(has[cells.word], 0, -1))
    for place in PLACES:
        column, value = PLACE_VALUES[place]
        inside = cells.places[:, column] == value
        yield _Kind(Rule(Pattern("anything"), 0, places=(place,)), NOTHING, np.where(inside, 0, -1))


def _everything(cells: Pooled) -> Iterator[_Kind]:
    """All kinds of candidates; words and pairs come first."""
    words = cells.words
    yield _simple(cells, "words", cells.word, words)
    yield _pairs(cells)
    yield from _affixes(cells)
    yield _simple(cells, "tokens", cells.token, cells.tokens)
    yield from _kinds(cells)
    found = _distinct(cells.before, 2, cells.count)
    after = Rule(Pattern("anything"), 0, before=(Before(Pattern("words", (("",),))),))
    yield _Kind(after, _Items(words, found.keys[:, None].astype(np.int32)), found.of)
    for place in PLACES:
        column, value = PLACE_VALUES[place]
        key = np.where(cells.places[:, column] == value, cells.word, -1)
        yield _simple(cells, "words", key, words, (place,))


def _with(kind: Rule, items: Sequence[tuple[str, ...]], strength: int) -> Rule:
    """The rule of a kind, said of these items."""
    if kind.pattern.form in LISTED:
        return Rule(Pattern(kind.pattern.form, tuple(items)), strength, kind.before, kind.places)
    if kind.before:
        return Rule(kind.pattern, strength, (Before(Pattern("words", tuple(items))),), kind.places)
    return Rule(kind.pattern, strength, kind.before, kind.places)


@dataclass(frozen=True)
class _Covered:
    """How many cells each item covers, and which, item by item."""

    count: Int[np.ndarray, " item"]
    cells: Ids


def _cover(covered: Ids, items: int) -> _Covered:
    """Of each item the cells that it covers, in order, from the item that covers each cell."""
    where = np.flatnonzero(covered >= 0).astype(np.int32)
    own = covered[where]
    return _Covered(np.bincount(own, minlength=items), where[np.argsort(own, kind="stable")])


def _stack(parts: Sequence[_Covered]) -> Links:
    """The cells of each item, of one part after the other."""
    ends = np.concatenate([[0], np.cumsum(np.concatenate([part.count for part in parts]))]).astype(np.int32)
    return Links(ends, np.concatenate([part.cells for part in parts]))


class _Book:
    """The catalogue for the selection, and the way back from what it picks to rules."""

    def __init__(self, cells: Pooled) -> None:
        self.names = cells.words
        self.items: list[_Items] = []
        rules: dict[Rule, int] = {}
        groups, ranks, pairs, covered = [], [], [], []
        # A kind's cells are let go when the next is listed: all of them at once are many times what is kept.
        for kind in _everything(cells):
            number, words = kind.items.words.shape
            self.items.append(kind.items)
            ranks.append(np.array([precedence(kind.rule, kind.items[i]) for i in range(number)], dtype=np.int32))
            groups.append(np.full(number, rules.setdefault(kind.rule, len(rules)), dtype=np.int32))
            pairs.append(kind.items.words[:, ::-1] if words == 2 else np.full((number, 2), -1, dtype=np.int32))
            covered.append(_cover(kind.covered, number))
        self.begins = np.cumsum([0, *map(len, groups)])
        self.rules, self.group = list(rules), np.concatenate(groups)
        rank = np.concatenate(ranks)
        self.catalogue = Catalogue(
            count=cells.count.astype(float),
            word=cells.word,
            before=cells.before,
            covers=_stack(covered),
            precedence=rank,
            price=np.concatenate([np.full(len(items.words), items.words.shape[1], np.int32) for items in self.items]),
            group=self.group,
            pair=np.concatenate(pairs),
            glue=np.array([count_words(write([rule])) - OPENING - self._listed(rule) for rule in self.rules]),
            pair_precedence=int(rank.max()),
            cross_glue=2,
            opening=OPENING,
        )

    @staticmethod
    def _listed(rule: Rule) -> int:
        """Words of the placeholder that a rule of this kind carries."""
        return int(rule.pattern.form in LISTED or bool(rule.before))

    def item_of(self, candidate: int) -> tuple[str, ...]:
        """The words of a candidate."""
        kind = int(np.searchsorted(self.begins, candidate, side="right")) - 1
        return self.items[kind][candidate - int(self.begins[kind])]

    def rules_of(self, choice: Choice) -> tuple[Rule, ...]:
        """The chosen candidates gathered into rules, strongest first."""
        lists: dict[tuple[int, int], list[tuple[str, ...]]] = defaultdict(list)
        for one in choice.said:
            if isinstance(one, Single):
                item = self.item_of(one.candidate)
                lists[int(self.group[one.candidate]), one.strength].extend([item] if item else [])
        rules = [_with(self.rules[group], items, strength) for (group, strength), items in lists.items()]
        rules.extend(self._cross(one) for one in choice.said if isinstance(one, Cross))
        return tuple(sorted(rules, key=lambda rule: -rule.strength))

    def _cross(self, cross: Cross) -> Rule:
        words, befores = (tuple((self.names[i],) for i in side) for side in (cross.words, cross.befores))
        return Rule(Pattern("words", words), cross.strength, (Before(Pattern("words", befores)),))


class PatternExplainer:
    """Chooses rules and writes them out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def explain(self, evidence: Evidence, latents: Sequence[int]) -> Iterator[Explanation]:
        """A sentence for each latent; one that is never active on the evidence never fires.

        Latents do not depend on each other: once their activations are in memory, as many processes choose for them as
        there are cores (`rewrite.run.forking`), and what they choose is the same as if it were one.
        """
        book, summed = _read(evidence)
        say = tell if self.settings.prose else write
        selector = Selector(book.catalogue, self.settings.prior, self.settings.candidates)

        def write_one(latent: int) -> Explanation:
            choice = selector.choose(summed.of(latent), self.settings.max_words or UNLIMITED)
            return Explanation(latent, say(book.rules_of(choice)))

        for together in summed.blocks(latents):
            yield from in_order(write_one, together, count_processes())


def _read(evidence: Evidence) -> tuple[_Book, Summed]:
    """What could be said, and what each latent does: all that is kept of the cells."""
    cells = pool(evidence.text)
    return _Book(cells), Summed(evidence, cells.of, len(cells.count))


def build(settings: Settings, open_engine: OpenEngine, simulate: Simulate | None = None) -> PatternExplainer:
    """The explainer with these settings; no language model is asked, and nothing is tried out."""
    return PatternExplainer(settings)
