"""A small language whose every rule is known: what `rewrite.commands.planted` builds a model of.

1. `LATENTS` says of each latent, in the language of `rewrite.patterns.grammar`, when it fires and how strongly, and
   which words it makes likely to come next.
2. `compile_latents` turns those sentences into one ReLU unit each, over features of a position that are 0 or 1: which
   word stands there, one and two before it, near it, and whether it stands in quotes or brackets.
3. `draw_texts` writes texts in which the next word really depends on the units that fire: punctuation, quotes and
   brackets are laid out first, then the words are drawn from left to right.
4. `corrupt` replaces the sentences of a share of the latents by those of other latents, more for a larger share.

What must come out is known beforehand, so a harness that finds anything else is broken: a positive control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float

from rewrite.patterns.grammar import Pattern, Rule, precedence
from rewrite.patterns.parsing import parse

UNKNOWN: Final = "<unk>"
SIGNS: Final = ("\n", ".", ",", "“", "”", "(", ")")
# fmt: off
CONTENT: Final = (
    "the", "a", "king", "queen", "man", "tree", "time", "said", "to", "not", "gold", "silver", "copper",
    "ring", "cup", "amber", "stone", "old", "sleeping", "hungry", "once", "upon", "because", "very",
    "running", "singing", "sea", "river", "red", "blue", "green", "unlit", "unkind", "unhappy", "under",
    "bird", "fish", "7", "12", "40", "bread", "milk", "salt", "Anna", "Ben", "Clara", "sun", "moon", "my",
    "dear",
)
# fmt: on
WORDS: Final = (UNKNOWN, *SIGNS, *CONTENT)
"""The vocabulary: one word a token."""

WINDOW: Final = 64
"""Longest text [tokens]: one window, so that every reader sees a text from its start."""


@dataclass(frozen=True)
class Latent:
    """When a latent fires, in words; the words it makes likely to come next; how much its direction is stretched."""

    sentence: str
    next: tuple[str, ...]
    gain: float = 1.0


def _latent(rules: str, following: str, gain: float = 1.0) -> Latent:
    return Latent(f"Fires on {rules}.", tuple(following.split(" ")), gain)


LATENTS: Final = (
    _latent('"the" (9)', "king queen man"),
    _latent('"king" after "the" (9)', "said"),
    _latent('"queen" (9)', "said singing"),
    _latent('"said" (9)', "to"),
    _latent('"to", "not" (9)', "the"),
    _latent('"gold" (9); "silver" (6); "copper" (3)', "ring cup"),
    _latent('tokens "amber" (9)', "stone"),
    _latent('"old" (9)', "man tree"),
    _latent('"old man" (9)', "sleeping hungry"),
    _latent('"once" (9)', "upon"),
    _latent('"upon" (9)', "a"),
    _latent('"a" after "upon" (9)', "time"),
    _latent('"upon a time" (9)', "because Anna"),
    _latent('"because" (8)', "Anna Ben"),
    _latent('anything after "because" (9)', "running sleeping"),
    _latent('"very" (7)', "red blue green"),
    _latent('anything after "very" (9)', "sea river"),
    _latent('words ending "ing" (9); "king", "ring" (0)', "to very"),
    _latent('words starting "un" (9); "under" (4)', "bird fish"),
    _latent("numbers (9)", "cup bread"),
    _latent('capitalised words (9); "Clara" (4)', "said running"),
    _latent('"sun", "moon" inside quotes (9)', "gold silver"),
    _latent('"sun" (5); "moon" (8)', "red blue"),
    _latent("anything inside quotes (5)", "sun moon my"),
    _latent("anything inside brackets (6)", "7 12 40"),
    _latent("numbers inside brackets (9)", "salt copper"),
    _latent("anything starting a line (8)", "tree", gain=2.0),
    Latent('Fires on "." (9).', ("\n", "Anna", "the"), gain=0.5),
    _latent('"Anna", "the" starting a sentence (9)', "old very"),
    _latent('"hungry" (9)', "bread my"),
    _latent('"bread" within 2 words after "hungry" (9)', "milk"),
    _latent('"bird", "fish" (9)', "under"),
    _latent('"under" (9)', "the a"),
    _latent('"my" (9)', "dear"),
    _latent('"dear" after "my" (9)', "Ben Clara"),
    _latent('"sea", "river" (8); "stone" (5)', "green fish"),
    _latent('"," (9)', "because once"),
    _latent('"red", "blue", "green" after "very" (9)', "unlit unkind unhappy"),
    _latent('"salt", "milk" (9)', "amber"),
    _latent('"cup" (7); "ring" (3)', "not"),
)
COSTLY: Final = 26
"""The latent whose loss would cost most: it fires often, what follows is all but certain, and its direction is at
least twice as long as any other."""

BOOST: Final = 5.0
"""What a latent at strength 9 adds to the logit of each word that it makes likely [nats]."""

SENTENCES: Final = tuple(latent.sentence for latent in LATENTS)


# --- sentences to units ----------------------------------------------------------------------------------------------

Where = Literal["now", "before", "before2", "near", "inside"]


@dataclass(frozen=True)
class Feature:
    """A fact about a position, 0 or 1: which word stands there (`now`), directly before it, one further, in either of
    these two places (`near`), or what it is inside of."""

    where: Where
    what: str


@dataclass(frozen=True)
class Units:
    """One ReLU unit a latent: strength = ReLU(features · weights + bias), exact where every feature is 0 or 1."""

    features: tuple[Feature, ...]
    weights: Float[np.ndarray, "feature latent"]
    bias: Float[np.ndarray, " latent"]

    def heard(self, where: Where) -> tuple[str, ...]:
        """What the units want to know of a place, in the order of `features`."""
        return tuple(feature.what for feature in self.features if feature.where == where)

    def fire(self, features: Float[np.ndarray, "position feature"]) -> Float[np.ndarray, "position latent"]:
        """Strengths, 0 to 9."""
        strengths: np.ndarray = np.maximum(features @ self.weights + self.bias, 0.0)
        return strengths


SHUT: Final = 1.0
"""How far below 0 a unit rests, so that no rounding makes it fire."""


def compile_latents(sentences: Sequence[str] = SENTENCES) -> Units:
    """The unit of each sentence: Σ (strength + SHUT) of the word, − SHUT, − 10 for every condition that fails.

    All rules of a sentence must have the same conditions; a condition's words exclude each other, so their sum is 0 or
    1. Raises ValueError for a sentence that is not of this kind.
    """
    read = [parse(sentence) for sentence in sentences]
    asked = [condition for rules in read for condition in _conditions(rules[0])]
    heard = sorted({feature for condition in asked for feature in condition}, key=lambda f: (f.where, f.what))
    features = (*(Feature("now", word) for word in WORDS), *heard)
    place = {feature: i for i, feature in enumerate(features)}
    weights, bias = np.zeros((len(features), len(sentences))), np.zeros(len(sentences))
    for latent, rules in enumerate(read):
        conditions = _conditions(rules[0])
        if any(_conditions(rule) != conditions for rule in rules):
            raise ValueError(f"rules of different conditions: {sentences[latent]}")
        for word in WORDS:
            strength = _strength(rules, word)
            weights[place[Feature("now", word)], latent] = strength + SHUT if strength else 0.0
        for feature in (feature for condition in conditions for feature in condition):
            weights[place[feature], latent] = 9 + SHUT
        bias[latent] = -SHUT - (9 + SHUT) * len(conditions)
    return Units(features, weights, bias)


def _conditions(rule: Rule) -> list[tuple[Feature, ...]]:
    """What must hold beside the rule's pattern: of each tuple one feature."""
    runs = [item for item in rule.pattern.items if len(item) > 1]
    if len(runs) > 1:
        raise ValueError(f"more than one run of words: {rule}")
    found: list[tuple[Feature, ...]] = []
    for item in runs:
        found += [(Feature(where, word),) for where, word in zip(_BACK, item[-2::-1], strict=False)]
    for before in rule.before:
        where: Where = "before" if before.within == 1 else "near"
        found.append(tuple(Feature(where, item[0]) for item in before.pattern.items))
    for name in rule.places:
        if name not in _PLACES:
            raise ValueError(f"{name}: not planted")
        found.append(_PLACES[name])
    return found


_BACK: Final[tuple[Where, ...]] = ("before", "before2")
_PLACES: Final[dict[str, tuple[Feature, ...]]] = {
    "starting a line": (Feature("before", "\n"),),
    "starting a sentence": (Feature("before", "\n"), Feature("before", ".")),
    "inside quotes": (Feature("inside", "quotes"),),
    "inside brackets": (Feature("inside", "brackets"),),
}


def _strength(rules: Sequence[Rule], word: str) -> int:
    """The strength a word has where the conditions hold, by the most telling rule; 0 where none fits."""
    fitting = [
        (precedence(rule, item), rule.strength)
        for rule in rules
        for item in rule.pattern.items or ((),)
        if word != UNKNOWN and _fits(rule.pattern, item, word)
    ]
    return max(fitting)[1] if fitting else 0


def _fits(pattern: Pattern, item: tuple[str, ...], word: str) -> bool:
    match pattern.form:
        case "words" | "tokens":
            return word == item[-1]
        case "ending":
            return word.endswith(item[0])
        case "starting":
            return word.startswith(item[0])
        case "numbers":
            return word.isdigit()
        case "capitalised":
            return word.istitle()
        case "anything":
            return True
    raise ValueError(f"{pattern.form}: not planted")


def spell(word: str) -> str:
    """A word as its token is spelt: every one but the new line has its space before it."""
    return word if word in ("\n", UNKNOWN) else f" {word}"


def next_logits() -> Float[np.ndarray, "latent word"]:
    """What a latent at full strength adds to the logit of each word."""
    logits = np.zeros((len(LATENTS), len(WORDS)))
    for row, latent in zip(logits, LATENTS, strict=True):
        row[[WORDS.index(word) for word in latent.next]] = BOOST
    return logits


# --- texts -----------------------------------------------------------------------------------------------------------


PAIRS: Final = {"quotes": ("“", "”"), "brackets": ("(", ")")}
"""What opens and closes each place."""


# --- corruption ------------------------------------------------------------------------------------------------------


def corrupt(sentences: Sequence[str], share: float, seed: int) -> list[str]:
    """The sentences, a share of them replaced by another latent's; a larger share takes in those of a smaller.

    At share 1 each latent has the sentence of another, and each sentence is there once. `seed` names the draw.
    """
    generator = np.random.default_rng([seed, 2])
    circle, order = generator.permutation(len(sentences)), generator.permutation(len(sentences))
    other = np.empty(len(sentences), dtype=np.int64)
    other[circle] = np.roll(circle, 1)
    chosen = set(order[: round(share * len(sentences))].tolist())
    return [sentences[other[i]] if i in chosen else sentence for i, sentence in enumerate(sentences)]
