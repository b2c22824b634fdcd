"""What is said of one latent while it is being chosen: `rewrite.patterns.selection` says by which rule.

Sums over a candidate's cells are kept up to date, not summed again: a choice touches only the candidates that share
cells with it. They are sums of activation (`total`) and of positions (`count`) where the candidate would speak, and
there of `settled` = Σ n(2mc - c²) and `predicted` = Σ nc, with n positions, mean m and prediction c in a cell; taking
it at value v then removes 2v·total - v²·count - settled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from rewrite.patterns.candidates import TOP, Board, Cells, Cross, Single
from rewrite.patterns.stars import Centre, best_star

TINY = 1e-9
NEGLIGIBLE = 3e-4
"""A word that removes less than this share of what the first word did is not worth reading, however long the budget."""


@dataclass
class Move:
    """The best step found so far, and its gain per word."""

    ratio: float = TINY
    cost: int = 0
    strength: int = 0
    index: int = -1
    cross: Cross | None = None
    side: int = 0
    word: int = -1
    indices: Int[np.ndarray, " pair"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class Draft:
    """The choice for one latent while it is made, starting from what is said already."""

    def __init__(
        self,
        board: Board,
        candidates: Int[np.ndarray, " candidate"],
        budget: int,
        said: list[Single | Cross],
        total: Float[np.ndarray, " candidate"],
    ) -> None:
        """`total`: the latent's activation summed over each candidate's cells."""
        self.s, self.c = board, board.catalogue
        self.candidates, self.budget = candidates, budget
        self.spent = self.c.opening
        self.first_ratio = self.last_ratio = 0.0
        self.singles: list[Single] = []
        self.crosses: list[Cross] = []
        self.promise: dict[tuple[int, int], float] = {}
        self.touched: list[Cells] = []
        board.place_of[candidates] = np.arange(len(candidates))
        self.count = board.counts[candidates].copy()
        self.total = total.copy()
        self.settled = np.zeros(len(candidates))
        self.predicted = np.zeros(len(candidates))
        self.precedence = self.c.precedence[candidates]
        self.price = self.c.price[candidates]
        self.group = self.c.group[candidates]
        self.levels = np.arange(TOP + 1) * (self.total / (self.count + board.prior)).max() / TOP
        self.open = np.zeros((len(self.c.glue), TOP + 1), dtype=bool)
        self.done = np.zeros(len(candidates), dtype=bool)
        self.pairs = np.flatnonzero(self.c.pair[candidates, 0] >= 0)
        self.pair_words = self.c.pair[candidates[self.pairs]]
        for one in sorted(said, key=lambda one: -one.strength):
            self._say_again(one)

    @property
    def said(self) -> list[Single | Cross]:
        """All that has been chosen."""
        return [*self.singles, *self.crosses]

    def fill(self) -> Draft:
        """Take steps until the budget is spent, and leave the shared scratch arrays as they were found."""
        while self.step():
            pass
        self.s.place_of[self.candidates] = -1
        for cells in self.touched:
            self.s.prediction[cells] = 0
            self.s.precedence[cells] = -1
        return self

    def _say_again(self, one: Single | Cross) -> None:
        """Take over what was said before, the strongest first, for at equal precedence the first to speak is heard."""
        self.spent += self.c.words_of(one)
        if isinstance(one, Cross):
            self.crosses.append(one)
            self._settle(self.c.cells_at(one), self.c.pair_precedence, one.strength)
            return
        group = self.c.group[one.candidate]
        if not self.open[group, one.strength]:
            self.spent += int(self.c.glue[group])
        self.open[group, one.strength] = True
        self.done[self.s.place_of[one.candidate]] = True
        self.singles.append(one)
        self._settle(self.c.cells_of(one.candidate), int(self.c.precedence[one.candidate]), one.strength)

    def gains(self) -> Float[np.ndarray, "candidate strength"]:
        """Squared error that each candidate would remove at each strength."""
        return _gains(self.total, self.count, self.settled, self.predicted, self.levels, self.s.prior)

    def step(self) -> bool:
        """Take the best step; False when none is left that helps and fits."""
        gains = self.gains()
        gains[self.done | (self.count <= 0)] = 0
        move = self._best_single(gains)
        self._grow(move)
        self._star(gains, move)
        if move.ratio <= max(TINY, NEGLIGIBLE * self.first_ratio):
            return False
        self.spent += move.cost
        self.last_ratio = move.ratio
        self.first_ratio = self.first_ratio or move.ratio
        if move.cross:
            self._take_growth(move)
        elif len(move.indices):
            self._take_star(move)
        else:
            self._take_single(move)
        return True

    # --- one candidate ---

    def _best_single(self, gains: Float[np.ndarray, "candidate strength"]) -> Move:
        cost = self.price[:, None] + np.where(self.open[self.group], 0, self.c.glue[self.group][:, None])
        ratio = gains / np.maximum(cost, 1)
        ratio[cost > self.budget - self.spent] = 0
        ratio[self.precedence < self.c.pair_precedence, 0] = 0
        index, strength = np.unravel_index(int(ratio.argmax()), ratio.shape)
        best = float(ratio[index, strength])
        return Move(best, int(cost[index, strength]), int(strength), int(index)) if best > TINY else Move()

    def _take_single(self, move: Move) -> None:
        self.open[self.group[move.index], move.strength] = True
        self.done[move.index] = True
        self.singles.append(Single(int(self.candidates[move.index]), move.strength))
        cells = self.c.cells_of(int(self.candidates[move.index]))
        self._settle(cells, int(self.precedence[move.index]), move.strength)

    # --- crosses ---

    def _grow(self, move: Move) -> None:
        """Whether a word more in a cross is better than `move`.

        What a word would gain seldom rises as more is said, so a cross is looked at again only if what it promised
        when last looked at would win (lazy greedy, Minoux 1978).
        """
        if self.spent >= self.budget:
            return
        for number, cross in enumerate(self.crosses):
            for side in (0, 1):
                if self.promise.get((number, side), np.inf) > move.ratio:
                    self.promise[number, side] = self._grow_by(move, cross, side)

    def _grow_by(self, move: Move, cross: Cross, side: int) -> float:
        """The gain of the best word more on one side of a cross, which becomes the move if it is better."""
        cells = self.s.beside[1 - side].having(cross.befores if side == 0 else cross.words)
        cells = cells[self.s.precedence[cells] < self.c.pair_precedence]
        if not len(cells):
            return 0.0
        words, of = self.s.distinct(self.s.sides[side][cells])
        n, total, c = self.c.count[cells], self.s.activation[cells], self.s.prediction[cells]
        sums = [np.bincount(of, x, len(words)) for x in (total, n, 2 * total * c - n * c * c, n * c)]
        level = self.levels[cross.strength : cross.strength + 1]
        gains = _gains(sums[0], sums[1], sums[2], sums[3], level, self.s.prior)[:, 0]
        gains[sums[1] < 2] = 0
        index = int(gains.argmax())
        if gains[index] > move.ratio:
            move.ratio, move.cost, move.strength = float(gains[index]), 1, cross.strength
            move.cross, move.side, move.word = cross, side, int(words[index])
        return float(gains[index])

    def _take_growth(self, move: Move) -> None:
        assert move.cross is not None
        across = move.cross.befores if move.side == 0 else move.cross.words
        cells = self.s.beside[1 - move.side].having(across)
        (move.cross.words if move.side == 0 else move.cross.befores).append(move.word)
        number = next(i for i, cross in enumerate(self.crosses) if cross is move.cross)
        for side in (0, 1):
            self.promise.pop((number, side), None)
        self._settle(cells[self.s.sides[move.side][cells] == move.word], self.c.pair_precedence, move.strength)

    def _star(self, gains: Float[np.ndarray, "candidate strength"], move: Move) -> None:
        """Whether one word after several, or several words after one, is better than `move`."""
        said: Counter[Centre] = Counter()
        for single in self.singles:
            for side in (0, 1):
                if (word := int(self.c.pair[single.candidate, side])) >= 0:
                    said[single.strength, side, word] += 1
        left, more = self.budget - self.spent, self.c.cross_glue + 1
        star = best_star(gains[self.pairs], self.pair_words, said, more, left, move.ratio)
        if star:
            move.ratio, move.cost, move.cross = star.ratio, star.cost, None
            move.strength, move.side, move.word = star.centre
            move.indices = self.pairs[star.pairs]

    def _singles_of(self, centre: int, strength: int, side: int) -> list[Single]:
        """Pairs chosen singly that a star would take over."""
        pair = self.c.pair
        return [s for s in self.singles if s.strength == strength and pair[s.candidate, side] == centre]

    def _take_star(self, move: Move) -> None:
        over = self._singles_of(move.word, move.strength, move.side)
        self.singles = [single for single in self.singles if single not in over]
        members = [single.candidate for single in over] + self.candidates[move.indices].tolist()
        others = self.c.pair[members, 1 - move.side].tolist()
        words, befores = ([move.word], others) if move.side == 0 else (others, [move.word])
        self.crosses.append(Cross(words, befores, move.strength))
        self.done[move.indices] = True
        self._count_words()
        cells = self.c.covers.of_all(self.candidates[move.indices])
        self._settle(cells, self.c.pair_precedence, move.strength)

    def _count_words(self) -> None:
        """Count afresh, for a list of a strength whose last item has moved into a star is not written any more."""
        self.open[:] = False
        for single in self.singles:
            self.open[self.c.group[single.candidate], single.strength] = True
        self.spent = self.c.opening + sum(map(self.c.words_of, self.said)) + int(self.c.glue @ self.open.sum(axis=1))

    # --- what a choice changes ---

    def _settle(self, cells: Cells, precedence: int, strength: int) -> None:
        """Let these cells be predicted so, where nothing of this precedence speaks yet, and mend all sums."""
        s, value = self.s, self.levels[strength]
        cells = cells[s.precedence[cells] < precedence]
        self.touched.append(cells)
        lost, gained = np.zeros((4, len(self.candidates))), np.zeros((2, len(self.candidates)))
        for place, of in s.link(cells):
            own = self.precedence[place]
            spoke = s.precedence[of] < own
            n, total, old = self.c.count[of], s.activation[of], s.prediction[of]
            settled = 2 * total * old - n * old * old
            more = 2 * total * value - n * value * value - settled
            _add(lost, place, spoke & (own <= precedence), total, n, settled, n * old)
            _add(gained, place, spoke & (own > precedence), more, n * (value - old))
        for sums, part in zip((self.total, self.count, self.settled, self.predicted), lost, strict=True):
            sums -= part
        self.settled += gained[0]
        self.predicted += gained[1]
        s.prediction[cells], s.precedence[cells] = value, precedence


def _add(
    sums: Float[np.ndarray, "part candidate"],
    place: Int[np.ndarray, " link"],
    chosen: Bool[np.ndarray, " link"],
    *parts: Float[np.ndarray, " link"],
) -> None:
    """Add to each sum what its part has at the chosen links, one link after the other."""
    for own, part in zip(sums, parts, strict=True):
        np.add.at(own, place[chosen], part[chosen])


def _gains(
    total: Float[np.ndarray, " row"],
    count: Float[np.ndarray, " row"],
    settled: Float[np.ndarray, " row"],
    predicted: Float[np.ndarray, " row"],
    levels: Float[np.ndarray, " strength"],
    prior: float,
) -> Float[np.ndarray, "row strength"]:
    """Squared error removed at each level, the activations pulled toward what is predicted by `prior` positions."""
    count = np.maximum(count, TINY)
    pull = (total - predicted) * (count / (count + prior) - 1)
    settled = settled + 2 * predicted / count * pull
    gains: Float[np.ndarray, "row strength"] = (
        2 * (total + pull)[:, None] * levels - count[:, None] * levels**2 - settled[:, None]
    )
    return gains
