"""Finished runs and studies side by side: `rewrite.compare`, the same as the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewrite.commands.compare import compare as compare_runs
from rewrite.commands.study import Study
from rewrite.display.notebook import Shown
from rewrite.display.tables import Page


@dataclass(frozen=True, repr=False)
class Compared(Shown):
    """Every pair of some runs, tested on the test documents that they share."""

    told: Page

    @property
    def facts(self) -> dict[str, Any]:
        """All of it for a program, as `rewrite compare --json` prints it."""
        return self.told.facts

    def page(self) -> Page:
        """The runs, the pairs, and where their settings differ."""
        return self.told


def compare(*runs: Study | str | Path) -> Compared:
    """Set runs on the same test documents side by side, and test every pair; a study is finished first.

    Raises UserError for a folder without a finished run, and for runs on different documents.
    """
    folders = []
    for one in runs:
        if isinstance(one, Study):
            one.run("analyse")
        folders.append(one.folder if isinstance(one, Study) else Path(one))
    return Compared(compare_runs(folders))
