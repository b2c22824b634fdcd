"""Reads sentences of `rewrite.patterns.grammar` and says where they apply. Nothing but the sentences and the text is
used.

1. Each sentence is parsed; a latent whose sentence is not in the language is missing, with the sentence quoted.
2. A rule is judged at the coarsest grain that can tell: the distinct words of a text where it has no conditions, the
   distinct runs of three words where it looks at the one or two words before, else the positions.
3. Each match is a code, precedence × 10 + strength + 1; the largest code of a latent at a position wins, so that
   rules need no order (what takes precedence is said in `rewrite.patterns.grammar`).
4. The codes of the coarser grains are spread over the positions by row indexing, and the strengths are read off.
"""

from __future__ import annotations

from typing import ClassVar

from rewrite.config import Section


class Settings(Section):
    """This simulator has no settings."""

    calls: ClassVar[bool] = False
    """It asks no engine."""
