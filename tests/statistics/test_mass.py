"""The mass on digits: quantiles from bins, by latent and by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from rewrite.coder.activations import ActivationStore, Shard, Split, save_shard
from rewrite.run.files import write_json
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import Simulations, save_simulator, save_strengths
from rewrite.statistics.mass import measure_mass, pack, quantile, unpack
from rewrite.text.windows import Text


def lay(folder: Path, outside: np.ndarray | None) -> tuple[Split, Simulations]:
    """Two windows of 5 and 4 tokens, of which all but the first are rated for two of three latents."""
    vocabulary = ("a", "b")
    text = Text(np.zeros(9, dtype=np.int32), np.array([0, 5, 9]), vocabulary)
    (folder / "a").mkdir()
    save_shard(folder / "a", "test-00000", Shard(text, np.array([0, 1]), csr_array((9, 3), dtype=np.float32)))
    splits = {"train": [], "calibrate": [], "test": [["x", "y"]]}
    write_json(folder / "a" / "documents.json", {"vocabulary": vocabulary, "latents": 3, "splits": splits})
    rated = np.outer(text.counted(), [True, False, True])
    values = csr_array(
        (np.arange(14, dtype=np.float32), np.tile([0, 2], 7), np.cumsum([0, *rated.sum(1)])), shape=(9, 3)
    )
    (folder / "s").mkdir()
    save_strengths(folder / "s", "test-00000", Strengths(values, {}, {}, outside, outside), text)
    save_simulator(folder / "s", "llm", 9.0, None)
    return ActivationStore(folder / "a", ("test",)).test, Simulations(folder / "s", 3)


def test_by_hand(tmp_path: Path) -> None:
    # Latent 0 has .9 everywhere but at its first position of the first window, latent 2 has .3; one is missing.
    outside = np.tile([0.1, 0.7], 7)
    outside[0], outside[3] = 0.5, np.nan
    found = measure_mass(*lay(tmp_path, outside))
    assert found is not None
    said = found.describe()
    assert said["predictions"] == 13
    assert said["mean"] == pytest.approx((6 * 0.9 + 0.5 + 6 * 0.3) / 13, abs=1e-3)
    assert said["median"] == pytest.approx(0.5, abs=1e-3) and said["p10"] == pytest.approx(0.3, abs=1e-3)
    assert found.medians[[0, 2]] == pytest.approx([0.9, 0.3], abs=1e-2) and np.isnan(found.medians[1])
    assert [(row["low"], row["high"], row["predictions"]) for row in said["positions"]] == [
        (1, 2, 4),
        (2, 4, 7),
        (4, 8, 2),
    ]
    assert unpack(pack(found)) == said


def test_a_simulator_that_reads_no_probabilities_has_none(tmp_path: Path) -> None:
    assert measure_mass(*lay(tmp_path, None)) is None
    assert unpack(pack(None)) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_quantile_is_known_to_a_bin(values: list[float], share: float) -> None:
    bins = np.minimum((np.array(values) * 1000).astype(int), 999)
    found = quantile(np.bincount(bins, minlength=1000), share)
    expected = float(np.quantile(values, share, method="inverted_cdf"))
    assert abs(found - expected) <= 1.001e-3
