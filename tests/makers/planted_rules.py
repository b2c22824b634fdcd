"""Each planted latent's rule once more, by hand and in Python, without any code of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class At:
    """A position of a text, read without any code of the package."""

    now: str
    before: str
    before2: str
    quoted: bool
    bracketed: bool


def read(words: list[str], i: int) -> At:
    def inside(left: str, right: str) -> bool:
        return words[:i].count(left) > words[:i].count(right)

    return At(words[i], words[i - 1], words[i - 2] if i > 1 else "", inside("“", "”"), inside("(", ")"))


def among(text: str) -> Callable[[str], bool]:
    return lambda word: word in text.split(" ")


RULES: dict[str, Callable[[At], int]] = {
    '"the" (9)': lambda p: 9 * (p.now == "the"),
    '"king" after "the" (9)': lambda p: 9 * (p.now == "king" and p.before == "the"),
    '"queen" (9)': lambda p: 9 * (p.now == "queen"),
    '"said" (9)': lambda p: 9 * (p.now == "said"),
    '"to", "not" (9)': lambda p: 9 * among("to not")(p.now),
    '"gold" (9); "silver" (6); "copper" (3)': lambda p: {"gold": 9, "silver": 6, "copper": 3}.get(p.now, 0),
    'tokens "amber" (9)': lambda p: 9 * (p.now == "amber"),
    '"old" (9)': lambda p: 9 * (p.now == "old"),
    '"old man" (9)': lambda p: 9 * (p.before == "old" and p.now == "man"),
    '"once" (9)': lambda p: 9 * (p.now == "once"),
    '"upon" (9)': lambda p: 9 * (p.now == "upon"),
    '"a" after "upon" (9)': lambda p: 9 * (p.now == "a" and p.before == "upon"),
    '"upon a time" (9)': lambda p: 9 * ([p.before2, p.before, p.now] == ["upon", "a", "time"]),
    '"because" (8)': lambda p: 8 * (p.now == "because"),
    'anything after "because" (9)': lambda p: 9 * (p.before == "because"),
    '"very" (7)': lambda p: 7 * (p.now == "very"),
    'anything after "very" (9)': lambda p: 9 * (p.before == "very"),
    'words ending "ing" (9); "king", "ring" (0)': lambda p: 9 * among("running singing sleeping")(p.now),
    'words starting "un" (9); "under" (4)': lambda p: 4 * (p.now == "under") + 9 * among("unlit unkind unhappy")(p.now),
    "numbers (9)": lambda p: 9 * among("7 12 40")(p.now),
    'capitalised words (9); "Clara" (4)': lambda p: {"Anna": 9, "Ben": 9, "Clara": 4}.get(p.now, 0),
    '"sun", "moon" inside quotes (9)': lambda p: 9 * (p.quoted and among("sun moon")(p.now)),
    '"sun" (5); "moon" (8)': lambda p: {"sun": 5, "moon": 8}.get(p.now, 0),
    "anything inside quotes (5)": lambda p: 5 * p.quoted,
    "anything inside brackets (6)": lambda p: 6 * p.bracketed,
    "numbers inside brackets (9)": lambda p: 9 * (p.bracketed and p.now.isdigit()),
    "anything starting a line (8)": lambda p: 8 * (p.before == "\n"),
    '"." (9)': lambda p: 9 * (p.now == "."),
    '"Anna", "the" starting a sentence (9)': lambda p: 9 * (p.now in ("Anna", "the") and p.before in ("\n", ".")),
    '"hungry" (9)': lambda p: 9 * (p.now == "hungry"),
    '"bread" within 2 words after "hungry" (9)': lambda p: 9 * (p.now == "bread" and "hungry" in (p.before, p.before2)),
    '"bird", "fish" (9)': lambda p: 9 * among("bird fish")(p.now),
    '"under" (9)': lambda p: 9 * (p.now == "under"),
    '"my" (9)': lambda p: 9 * (p.now == "my"),
    '"dear" after "my" (9)': lambda p: 9 * (p.now == "dear" and p.before == "my"),
    '"sea", "river" (8); "stone" (5)': lambda p: {"sea": 8, "river": 8, "stone": 5}.get(p.now, 0),
    '"," (9)': lambda p: 9 * (p.now == ","),
    '"red", "blue", "green" after "very" (9)': lambda p: 9 * (p.before == "very" and among("red blue green")(p.now)),
    '"salt", "milk" (9)': lambda p: 9 * among("salt milk")(p.now),
    '"cup" (7); "ring" (3)': lambda p: {"cup": 7, "ring": 3}.get(p.now, 0),
}
"""Each latent's rule once more, by hand and in Python."""
