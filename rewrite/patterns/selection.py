"""Which things to say of a latent, when words are scarce.

Cells and candidates are those of `rewrite.patterns.candidates`. One latent's candidates are chosen so:

1. Every cell starts with the prediction 0 and precedence -1. A chosen candidate gives its strength, a multiple of a
   ninth of the largest mean, to those of its cells where nothing of its own or a higher precedence speaks yet.
2. A candidate's gain is the squared error it removes from the activations, its mean shrunk toward what is predicted
   already by `prior` positions. Its cost is its price in words, and the glue of a new rule if no rule of its group and
   strength is there to join. The best gain per word is taken, again and again, until the budget is spent.
3. Pairs of a word and the word before it may also be taken as a *cross*, some words after some words: a star (one word
   after several, or several after one) that takes over pairs chosen singly, then grown by one word on either side.
4. What has been said is revised once (`rewrite.patterns.revision`), and the words that this gives back are spent as
   before.

The greedy rule is the knapsack's; the rest is our own.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from rewrite.patterns.candidates import Board, Catalogue, Choice, Index, Sums
from rewrite.patterns.drafting import Draft
from rewrite.patterns.revision import revise

FOREMOST = 40
"""Words of a latent whose frequent pairs are looked at [words]."""
FREQUENT = 4
"""Positions that a frequent pair has at least [positions]."""


class Selector(Board):
    """Chooses for latent after latent."""

    def __init__(self, catalogue: Catalogue, prior: float, keep: int) -> None:
        """As for `Board`; of a latent's candidates the `keep` with most to explain are looked at."""
        super().__init__(catalogue, prior)
        self.keep = keep
        self._frequent = np.flatnonzero((catalogue.pair[:, 0] >= 0) & (self.counts >= FREQUENT))
        self._frequent_of = Index(catalogue.pair[self._frequent, 0], catalogue.words)

    def choose(self, sums: Sums, budget: int) -> Choice:
        """What to say of a latent in at most `budget` words; nothing for one that is never active."""
        if not len(sums.cells):
            return Choice([], 0)
        totals = self.add_up(sums.cells, sums.activation)
        known = self._with_exceptions(self._foremost(totals))
        self.activation[sums.cells] = sums.activation
        first = Draft(self, known, budget, [], totals[known]).fill()
        said = revise(self.catalogue, first.said, self.activation, first.levels, first.last_ratio)
        final = Draft(self, known, budget, said, totals[known]).fill()
        self.activation[sums.cells] = 0
        return Choice(final.said, final.spent)

    def _foremost(self, totals: Float[np.ndarray, " candidate"]) -> Int[np.ndarray, " some"]:
        """The candidates with most to explain for their price, of equal ones the first, foremost first."""
        candidates = np.flatnonzero(totals)
        price = np.maximum(self.catalogue.price[candidates], 1)
        potential = totals[candidates] ** 2 / (self.counts[candidates] + self.prior) / price
        if len(candidates) > self.keep:  # Only what may be kept is worth sorting.
            least = np.partition(potential, -self.keep)[-self.keep]
            candidates, potential = candidates[potential >= least], potential[potential >= least]
        foremost: Int[np.ndarray, " some"] = candidates[np.argsort(-potential, kind="stable")[: self.keep]]
        return foremost

    def _with_exceptions(self, candidates: Int[np.ndarray, " some"]) -> Int[np.ndarray, " more"]:
        """Also the frequent pairs of the foremost words: where a word does not fire may be worth saying."""
        c = self.catalogue
        single = candidates[(c.group[candidates] == 0) & (c.pair[candidates, 0] < 0)][:FOREMOST]
        words = c.word[self.covers.members[self.covers.starts[single]]]
        return np.union1d(candidates, self._frequent[self._frequent_of.having(words)])
