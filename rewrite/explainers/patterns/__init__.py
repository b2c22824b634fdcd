"""Writes, for each latent, the rules of `rewrite.patterns.grammar` that explain most of its activation in `max_words`
words.

1. Positions are pooled into cells that share the word so far, the word before, the token and the places.
2. All that could be said in one item of a rule is listed as candidates over those cells: words, words after a word,
   endings and starts, tokens, kinds of word, anything after a word or in a place, words in a place.
3. `rewrite.patterns.selection` picks those that remove most squared error of the activations per word of text, and
   joins words and the words before them into rules such as `"a", "the" after "in", "on"`.
4. What was picked is gathered into rules, strongest first, and written as the language has it, or told in prose, for
   readers that know a language (`rewrite.patterns.prose`). 9 is the largest mean of any candidate; what no rule
   mentions is predicted as 0, and it is the calibrator that knows what a strength is worth.

The grammar knows more than this explainer tries: a word within some words before, two conditions at once, three words
in a row are for people and other explainers to write. On stories260K the word two before adds, in tables of any length,
0.01 to 0.03 of the gap to what the word so far and the word before recover; it would cost a third word for each.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rewrite.config import Section


class Settings(Section):
    # Raised when the same settings explain otherwise: an older run then explains anew.
    version: ClassVar[int] = 2
    max_words: int = Field(40, ge=0)
    """Longest explanation [words, counted by `rewrite.patterns.grammar.count_words`]; 0 is unlimited. Prose says the
    same in more words."""
    prose: bool = False
    """Write prose in place of the language of rules: only a language model can read it."""
    prior: float = Field(0.5, gt=0)
    """Weight of what is predicted already against what is measured, when a rule is judged [positions]."""
    candidates: int = Field(600, ge=1)
    """Candidates looked at for one latent, those with most to explain [candidates]."""
