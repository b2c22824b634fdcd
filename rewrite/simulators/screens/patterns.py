"""Passes where a rule that the explanation is applies, as the `patterns` simulator reads it.

A pair passes where the rules give at least the strength `screen_strength`. An explanation that is no rule
passes everywhere: nothing is known of where it does not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy.sparse import csc_array, csr_array

from rewrite.explainers.base import Explanation
from rewrite.simulators.patterns.build import PatternSimulator
from rewrite.simulators.screens.base import Told
from rewrite.text.windows import Text


@dataclass(frozen=True)
class PatternScreen:
    """See the module; `unread` are the columns of explanations that are no rules."""

    simulator: PatternSimulator
    unread: Bool[np.ndarray, " explanation"]
    least: float

    def passes(self, text: Text) -> csr_array:
        """See `Screen.passes`."""
        strengths = self.simulator.simulate(text).values.tocsc()
        every, rows = np.arange(len(text.ids)), strengths.indices
        columns = [
            every if unread else rows[begin:end][strengths.data[begin:end] >= self.least]
            for unread, begin, end in zip(self.unread, strengths.indptr[:-1], strengths.indptr[1:], strict=True)
        ]
        ends = np.cumsum([0, *(len(own) for own in columns)])
        passed = np.concatenate([every[:0], *columns])
        found = csc_array((np.ones(len(passed), dtype=np.int8), passed, ends), shape=strengths.shape)
        passing: csr_array = found.tocsr()
        return passing


def screen(explanations: Sequence[Explanation], settings: Told) -> PatternScreen:
    """The screen of these explanations."""
    numbered = [Explanation(column, one.text) for column, one in enumerate(explanations)]
    simulator = PatternSimulator(numbered, len(numbered))
    unread = np.isin(np.arange(len(numbered)), list(simulator.missing))
    return PatternScreen(simulator, unread, settings.screen_strength)
