"""The list of planted faults fits the code: each still stands where it says, and names tests that there are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.mutants import Mutant, main, read_mutants  # noqa: E402  (benchmarks stand beside the tests)


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda mutant: mutant.name)
def test_a_fault_fits_the_code_and_its_tests_are_there(mutant: Mutant) -> None:
    for file, old, new in mutant.edits:
        assert (ROOT / file).read_text(encoding="utf-8").count(old) == 1 and old != new
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")


def test_faults_have_names_of_their_own() -> None:
    names = [mutant.name for mutant in read_mutants()]
    assert len(names) == len(set(names)) >= 40


def test_a_name_that_no_fault_has_is_said_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("no such fault") == 1
    assert capsys.readouterr().out == "no fault has 'no such fault' in its name; all of them stand in mutants.toml\n"
