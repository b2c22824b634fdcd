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
from jaxtyping import Int

from rewrite.patterns.candidates import Board, Catalogue, Choice, Sums, ragged
from rewrite.patterns.drafting import Draft
from rewrite.patterns.revision import revise


class Selector(Board):
    """Chooses for latent after latent."""

    def __init__(self, catalogue: Catalogue, prior: float, keep: int) -> None:
        """As for `Board`; of a latent's candidates the `keep` with most to explain are looked at."""
        super().__init__(catalogue, prior)
        self.keep = keep

    def choose(self, sums: Sums, budget: int) -> Choice:
        """What to say of a latent in at most `budget` words; nothing for one that is never active."""
        candidates, totals = sums.candidates, sums.totals.astype(float)
        if not len(candidates):
            return Choice([], 0)
        potential = totals**2 / (self.counts[candidates] + self.prior) / np.maximum(self.catalogue.price[candidates], 1)
        best = np.argsort(-potential, kind="stable")[: self.keep]
        self.activation[sums.cells] = sums.activation
        known = self._with_exceptions(candidates[best])
        total = self.covers[known] @ self.activation
        first = Draft(self, known, budget, [], total).fill()
        said = revise(self.catalogue, first.said, self.activation, first.levels, first.last_ratio)
        final = Draft(self, known, budget, said, total).fill()
        self.activation[sums.cells] = 0
        return Choice(final.said, final.spent)

    def _with_exceptions(self, candidates: Int[np.ndarray, " some"]) -> Int[np.ndarray, " more"]:
        """Also the frequent pairs of the foremost words: where a word does not fire may be worth saying."""
        c = self.catalogue
        words = [i for i in candidates.tolist() if c.group[i] == 0 and c.pair[i, 0] < 0][:40]
        near = np.unique(self.covered_by.indices[ragged(self.covered_by.indptr, self.covers[words].indices)])
        pairs = near[(c.pair[near, 0] >= 0) & (self.counts[near] >= 4)]
        return np.union1d(candidates, pairs)
