"""The simulator: sentences, parsed once, applied to any text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_array, vstack

from rewrite.engines.base import OpenEngine
from rewrite.explainers.base import Explanation
from rewrite.patterns.features import APART, PLACE_VALUES, Features, read_features
from rewrite.patterns.grammar import Before, GrammarError, Pattern, Rule, precedence
from rewrite.patterns.parsing import parse
from rewrite.patterns.words import has_kind
from rewrite.simulators.base import Peek, Strengths
from rewrite.simulators.patterns import Settings
from rewrite.text.windows import Text

CHUNK = 1 << 16
Rows = Int[np.ndarray, " row"]
Flags = Bool[np.ndarray, " row"]


class _Vocabulary:
    """The distinct words of a text, and which of them a pattern matches."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.id_of = {word: i for i, word in enumerate(words)}
        self._known: dict[Pattern, Int[np.ndarray, " id"]] = {}

    @cached_property
    def endings(self) -> dict[str, list[int]]:
        """Ids of the words with each ending."""
        found: dict[str, list[int]] = defaultdict(list)
        for i, word in enumerate(self.words):
            for begin in range(len(word)):
                found[word[begin:]].append(i)
        return found

    @cached_property
    def starts(self) -> dict[str, list[int]]:
        """Ids of the words with each start."""
        found: dict[str, list[int]] = defaultdict(list)
        for i, word in enumerate(self.words):
            for end in range(1, len(word) + 1):
                found[word[:end]].append(i)
        return found

    def match(self, pattern: Pattern) -> Int[np.ndarray, " id"]:
        """Ids of the words that match, looking at the last word of each item only; not for tokens."""
        ids = self._known.get(pattern)
        if ids is None:
            ids = self._known[pattern] = np.unique(np.array(self._match(pattern), dtype=np.int64))
        return ids

    def _match(self, pattern: Pattern) -> list[int]:
        lasts = [item[-1] for item in pattern.items]
        if pattern.form == "words":
            return [self.id_of[word] for word in lasts if word in self.id_of]
        if pattern.form in ("ending", "starting"):
            index = self.endings if pattern.form == "ending" else self.starts
            return [i for text in lasts for i in index.get(text, ())]
        if pattern.form == "anything":
            return list(range(len(self.words)))
        return [i for i, word in enumerate(self.words) if has_kind(word, pattern.form)]


class _Rows:
    """Distinct rows of features, with an index from a word (or token) to its rows."""

    def __init__(self, key: Int[np.ndarray, " row"], keys: int) -> None:
        self.count = len(key)
        self.order = np.argsort(key, kind="stable")
        self.starts = np.searchsorted(key[self.order], np.arange(keys + 1))

    def having(self, ids: Int[np.ndarray, " id"]) -> Rows:
        """Rows whose key is one of `ids`."""
        return np.concatenate([self.order[:0], *(self.order[self.starts[i] : self.starts[i + 1]] for i in ids)])


class _Matches:
    """Codes of (row, latent) pairs, gathered rule by rule."""

    def __init__(self, rows: int, latents: int) -> None:
        self.shape = (rows, latents)
        self.keys: list[Int[np.ndarray, " match"]] = []
        self.codes: list[Int[np.ndarray, " match"]] = []

    def add(self, rows: Rows, latent: int, code: int) -> None:
        self.keys.append(rows * self.shape[1] + latent)
        self.codes.append(np.full(len(rows), code, dtype=np.int32))

    def matrix(self) -> csr_array:
        """Rows × latents, the largest code of each pair."""
        if not self.keys:
            empty = np.zeros(0, dtype=np.int32)
            return csr_array((empty, empty, np.zeros(self.shape[0] + 1, np.int32)), shape=self.shape)
        keys, codes = np.concatenate(self.keys), np.concatenate(self.codes)
        order = np.lexsort((codes, keys))
        keys, codes = keys[order], codes[order]
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        rows, latents = np.divmod(keys[last], self.shape[1])
        ends = np.searchsorted(rows, np.arange(self.shape[0] + 1))
        return csr_array((codes[last], latents, ends), shape=self.shape)


class _Page:
    """A stretch of text, ready to be asked where a rule holds."""

    def __init__(self, text: Text) -> None:
        self.features: Features = read_features(text)
        f, self.vocabulary = self.features, _Vocabulary(self.features.words)
        size = len(f.words)
        runs = (f.word * size + f.before) * size + f.before2
        _, self.first, self.run = np.unique(runs, return_index=True, return_inverse=True)
        self.by_run = _Rows(f.word[self.first], size)

    @cached_property
    def by_word(self) -> _Rows:
        return _Rows(self.features.word, len(self.features.words))

    @cached_property
    def by_token(self) -> _Rows:
        return _Rows(self.features.token, len(self.features.tokens))

    @cached_property
    def token_ids(self) -> dict[str, int]:
        """The id of each token: a vocabulary is too long to be looked through for every rule."""
        return {token: i for i, token in enumerate(self.features.tokens)}

    def codes(self, rules: Sequence[tuple[int, Rule]], latents: int) -> csr_array:
        """The winning code at every position, positions × latents."""
        words = _Matches(len(self.features.words), latents)
        runs = _Matches(len(self.first), latents)
        positions = _Matches(len(self.run), latents)
        for latent, rule in rules:
            code = 10 * precedence(rule, rule.pattern.items[0] if rule.pattern.items else ()) + rule.strength + 1
            if rule.places or rule.pattern.form == "tokens" or any(b.within > 1 for b in rule.before):
                positions.add(self._match_positions(rule), latent, code)
            elif rule.before or len(rule.pattern.items[0] if rule.pattern.items else ()) > 1:
                runs.add(self._match_runs(rule), latent, code)
            else:
                words.add(self.vocabulary.match(rule.pattern), latent, code)
        spread = words.matrix()[self.features.word]
        for matches, rows in ((runs, self.run), (positions, slice(None))):
            if matches.keys:
                spread = spread.maximum(matches.matrix()[rows])
        return spread

    def _match_runs(self, rule: Rule) -> Rows:
        rows = self.by_run.having(self.vocabulary.match(rule.pattern))
        held: Rows = rows[self._holds(rule, self.first[rows])]
        return held

    def _match_positions(self, rule: Rule) -> Rows:
        if rule.pattern.form == "tokens":
            ids = {self.token_ids[item[0]] for item in rule.pattern.items if item[0] in self.token_ids}
            rows = self.by_token.having(np.array(sorted(ids), dtype=np.int64))
        else:
            rows = self.by_word.having(self.vocabulary.match(rule.pattern))
        held: Rows = rows[self._holds(rule, rows)]
        return held

    def _holds(self, rule: Rule, positions: Rows) -> Flags:
        """Whether all that the rule asks beside its pattern holds at these positions."""
        f = self.features
        holds = np.ones(len(positions), dtype=bool)
        if rule.pattern.form == "words" and len(rule.pattern.items[0]) > 1:
            ids = [[self.vocabulary.id_of.get(word, -1) for word in item] for item in rule.pattern.items]
            columns = np.stack([f.before2, f.before, f.word], axis=1)[positions, -len(ids[0]) :]
            holds &= (columns[:, None, :] == np.array(ids)).all(axis=2).any(axis=1)
        for condition in rule.before:
            holds &= self._comes_after(condition, positions)
        for place in rule.places:
            column, value = PLACE_VALUES[place]
            holds &= f.places[positions, column] == value
        return holds

    def _comes_after(self, condition: Before, positions: Rows) -> Flags:
        f = self.features
        matching = np.zeros(len(f.words), dtype=bool)
        matching[self.vocabulary.match(condition.pattern)] = True
        if condition.within == 1:
            direct: Flags = matching[f.before[positions]]
            return direct
        numbers = np.unique(f.number[matching[f.before]])
        here = f.number[positions]
        nearest = np.append(-APART, numbers)[np.searchsorted(numbers, here, side="right")]
        near: Flags = here - nearest < min(condition.within, APART)
        return near


def _split(rule: Rule) -> list[Rule]:
    """One rule for each length of its items, since precedence depends on it."""
    groups: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    for item in rule.pattern.items:
        groups[precedence(rule, item)].append(item)
    if len(groups) < 2:
        return [rule]
    form = rule.pattern.form
    return [Rule(Pattern(form, tuple(g)), rule.strength, rule.before, rule.places) for g in groups.values()]


class PatternSimulator:
    """Sentences, parsed once, applied to any text."""

    scale = 9.0

    def __init__(self, explanations: Sequence[Explanation], latents: int) -> None:
        self.latents = latents
        self.missing = {latent: "no explanation" for latent in range(latents)}
        self.rules: list[tuple[int, Rule]] = []
        for explanation in explanations:
            if 0 <= explanation.latent < latents:
                self._read(explanation)

    def _read(self, explanation: Explanation) -> None:
        if explanation.text is None:
            self.missing[explanation.latent] = explanation.why or "no explanation"
            return
        try:
            rules = parse(explanation.text)
        except GrammarError as error:
            self.missing[explanation.latent] = str(error)
            return
        self.missing.pop(explanation.latent, None)
        self.rules.extend((explanation.latent, single) for rule in rules for single in _split(rule))

    def simulate(self, text: Text) -> Strengths:
        """Strengths 0 to 9 at the counted positions; the work goes through the text in chunks of whole windows."""
        parts = [self._simulate(chunk) for chunk in text.chunks(CHUNK)]
        parts = parts or [self._simulate(text)]
        return Strengths(vstack(parts, format="csr", dtype=np.float32), dict(self.missing))

    def _simulate(self, text: Text) -> csr_array:
        codes = _Page(text).codes(self.rules, self.latents)
        strengths = ((codes.data - 1) % 10).astype(np.float32)
        strengths[~np.repeat(text.counted(), np.diff(codes.indptr))] = 0
        result = csr_array((strengths, codes.indices, codes.indptr), shape=codes.shape)
        result.eliminate_zeros()
        return result


def build(
    explanations: Sequence[Explanation], latents: int, settings: Settings, peek: Peek, open_engine: OpenEngine
) -> PatternSimulator:
    """The simulator of these sentences; `peek` stays unused."""
    return PatternSimulator(explanations, latents)
