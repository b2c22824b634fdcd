"""Classes of tokens, by which routes are told apart: from token strings alone, in English.

The first token of a sentence is one whatever it is; a sentence begins after `.`, `!` or `?` and a space, or after a
newline. Then signs without a letter or digit are punctuation, the words of `FUNCTION` function words, and all else,
pieces of words among it, content.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

CLASSES = ("content", "function", "punctuation", "first in sentence")
ENDS = frozenset(".!?")
WORDS = """
a an the this that these those i you he she it we they me him her us them my your his its our their who whom whose
which what where when why how there here and or but nor so yet if then than because as while until although though of
in on at to for from by with about into over under after before between through during without within against up down
out off again is are was were be been being am do does did done doing have has had having will would can could shall
should may might must not no yes all any both each few more most other some such only own same too very just also even
still one
"""
FUNCTION = frozenset(WORDS.split())


def classify(tokens: Sequence[str]) -> Int[np.ndarray, " token"]:
    """The number of each token's class, read from left to right."""
    found = np.zeros(len(tokens), dtype=np.int64)
    begins, ended = True, False
    for place, token in enumerate(tokens):
        text = token.strip(" \t")
        # Pieces of a character are a part of a word; a point within a word or a number ends nothing.
        sign = not any(letter.isalnum() or letter == "\ufffd" for letter in text)
        begins = begins or (ended and (token[:1].isspace() or not text))
        if begins and not sign:
            found[place], begins = CLASSES.index("first in sentence"), False
        elif sign:
            found[place] = CLASSES.index("punctuation")
        elif token[:1] in (" ", "\t") and text.lower() in FUNCTION:
            found[place] = CLASSES.index("function")
        begins = begins or (sign and "\n" in text)
        ended = (sign and bool(ENDS & set(text))) or (ended and sign)
    return found
