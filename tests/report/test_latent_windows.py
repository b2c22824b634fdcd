"""The windows to look at: planted errors found first, and exactly those that a search position by position finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.big_run import SMALL, make_big_run
from makers.sights_made import LATENTS, NAN, Made, draw, make_curves, make_table, write

from rewrite.arms.batches import document_pairs
from rewrite.arms.calibrate import Scaled
from rewrite.arms.controls import fires
from rewrite.coder.activations import ActivationStore
from rewrite.report.latents import windows
from rewrite.report.latents.excerpts import AFTER, BEFORE, BINS, Sights, find_sights
from rewrite.report.latents.windows import KINDS, SHOWN
from rewrite.report.scripts import NOT_SIMULATED
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.curves import Curves, load_curves
from rewrite.statistics.firings import count_firings
from rewrite.text.corpus import SPLITS

Row = dict[str, Any]


# --- the same, one position at a time ---------------------------------------------------------------------------------


def search(made: Made, curves: Curves, latent: int, kind: str) -> list[int]:
    """The places of one latent and kind: the best of each window, then the best windows."""
    found: list[tuple[float, int]] = []
    for begin, length in zip(made.starts, made.lengths, strict=False):
        places = [(value_at(made, curves, latent, kind, p), p) for p in range(begin, begin + length)]
        best = max((value, -p) for value, p in places)
        if best[0] > 0:
            found.append((best[0], -best[1]))
    return [place for _, place in sorted(found, key=lambda one: (-one[0], one[1]))[:SHOWN]]


def value_at(made: Made, curves: Curves, latent: int, kind: str, place: int) -> float:
    """How much a place is of a kind; 0 where it is not."""
    truth = float(made.truth[place, latent])
    if kind == "train":
        return truth
    if not made.counted[place] or np.isnan(made.strengths[place, latent]):
        return 0.0
    predicted, fired = predict(made, curves, latent, place)
    return {
        "false": predicted if fired and truth == 0 else 0.0,
        "missed": truth if truth > 0 and not fired else 0.0,
        "right": min(truth, predicted) if truth > 0 and fired else 0.0,
    }[kind]


def predict(made: Made, curves: Curves, latent: int, place: int) -> tuple[float, bool]:
    own = np.array([latent])
    strength = made.strengths[place, own]
    activation = curves.calibrator.apply(strength, own)
    return float(activation[0]), bool(fires(strength, activation, own, curves.threshold)[0])


def check_excerpt(sights: Sights, number: int, made: Made, curves: Curves, tested: bool) -> None:
    """An excerpt says of each of its positions what stands there."""
    excerpts = sights.excerpts
    peak, latent, length = (int(values[number]) for values in (excerpts.position, excerpts.latent, excerpts.length))
    window = int(np.searchsorted(made.starts, peak, side="right")) - 1
    begin, end = max(made.starts[window], peak - BEFORE), min(made.starts[window + 1], peak + AFTER + 1)
    assert (peak - begin, end - begin) == (excerpts.at[number], length)
    assert excerpts.document[number] == made.documents[window]
    np.testing.assert_array_equal(excerpts.ids[number, :length], made.ids[begin:end])
    for column, place in enumerate(range(begin, end)):
        context = place == made.starts[window]
        np.testing.assert_equal(excerpts.true[number, column], NAN if context else made.truth[place, latent])
        unknown = -np.inf if tested else NAN
        expected = predict(made, curves, latent, place)[0] if tested and made.counted[place] else unknown
        np.testing.assert_equal(excerpts.simulated[number, column], np.float32(expected))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), documents=st.integers(1, 5), scaled=st.booleans())
def test_places_and_excerpts_are_those_of_a_search_position_by_position(
    tmp_path_factory: pytest.TempPathFactory, seed: int, documents: int, scaled: bool
) -> None:
    test, train = draw(seed), draw(seed + 1)
    factor = np.linspace(0.2, 1.5, LATENTS).astype(np.float32)
    curves = make_curves(Scaled(factor) if scaled else make_table(seed))
    sights = find_sights(*write(tmp_path_factory.mktemp("run"), test, train, documents), curves)
    excerpts = sights.excerpts
    for latent in range(LATENTS):
        for number, kind in enumerate(KINDS):
            own = np.flatnonzero((excerpts.latent == latent) & (excerpts.kind == number))
            made = train if kind == "train" else test
            assert excerpts.position[own].tolist() == search(made, curves, latent, kind), (latent, kind)
            for place in own:
                check_excerpt(sights, int(place), made, curves, kind != "train")


# --- what is planted --------------------------------------------------------------------------------------------------


def plant(places: dict[tuple[int, int], tuple[float, float]], windows: int = 6, length: int = 30) -> Made:
    """Silence everywhere but at (position, latent): (truth, strength)."""
    shape = (windows * length, LATENTS)
    truth, strengths = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    for place, (true, said) in places.items():
        truth[place], strengths[place] = true, said
    ids = (np.arange(shape[0]) % 7).astype(np.int32)
    return Made([length] * windows, list(range(windows)), ids, truth, strengths, np.ones(shape[0], dtype=bool))


def windows_of(page: Row, kind: str) -> list[Row]:
    return [window for window in page["windows"] if window["kind"] == kind]


def test_planted_errors_are_found_worst_first(tmp_path: Path) -> None:
    made = plant(
        {
            (40, 1): (0, 6),  # false, in document 1
            (70, 1): (0, 9),  # the worst false one, in document 2
            (75, 1): (0, 8),  # another of the same window
            (100, 1): (3, 0),  # missed, in document 3
            (130, 1): (5, 0),  # the worst missed one, in document 4
            (160, 1): (2, 2),  # right, in document 5
            (10, 1): (4, NAN),  # no prediction: none of all
        }
    )
    curves = make_curves(Scaled(np.full(LATENTS, 0.5, dtype=np.float32)))
    pages = list(find_sights(*write(tmp_path, made, plant({(32, 1): (7, 0)})), curves).pages())
    page = pages[1]
    assert [w["document"] for w in windows_of(page, "false")] == [2, 1]
    assert [w["document"] for w in windows_of(page, "missed")] == [4, 3]
    assert [w["document"] for w in windows_of(page, "right")] == [5]
    worst = windows_of(page, "false")[0]
    assert (worst["at"], len(worst["tokens"])) == (10, 19)  # from the window's begin to 8 positions after the peak
    # The largest activation shown is 7, in the train split: 999 thousandths of the unit. 9 · 0.5 and 8 · 0.5 of it:
    assert page["top"] == pytest.approx(7000 / 999, rel=1e-4)
    assert [worst["simulated"][at] for at in (9, 10, 15)] == [0, round(999 * 4.5 / 7), round(999 * 4 / 7)]
    assert worst["true"] == [None, *[0] * 18]
    assert worst["simulated"][0] == NOT_SIMULATED
    missed = windows_of(page, "missed")[0]
    assert (missed["true"][missed["at"]], missed["simulated"][missed["at"]]) == (round(999 * 5 / 7), 0)
    (train,) = windows_of(page, "train")
    assert train["document"] is None and "simulated" not in train and train["true"][train["at"]] == 999
    assert page["firings"] == {"positions": 6 * 29 - 1, "true": 3, "hits": 1, "false": 3}
    assert pages[0]["windows"] == [] and pages[0]["firings"]["true"] == 0 and pages[0]["why"] == ""


def test_missing_is_null_not_simulated_is_told_apart_and_what_is_small_is_not_zero(tmp_path: Path) -> None:
    made = plant({(40, 1): (0, 9), (41, 1): (1, NAN), (42, 1): (0.0001, 0)})
    made.asked[43] = False
    curves = make_curves(Scaled(np.ones(LATENTS, dtype=np.float32)))
    pages = list(find_sights(*write(tmp_path, made, plant({})), curves).pages())
    (window,) = windows_of(pages[1], "false")
    begin = 40 - window["at"]
    assert [window["simulated"][p - begin] for p in (40, 41, 42, 43, 44)] == [999, None, 0, NOT_SIMULATED, 0]
    assert [window["true"][p - begin] for p in (40, 41, 42)] == [0, 111, 1]


def test_tokens_are_named_by_how_often_they_are_shown(tmp_path: Path) -> None:
    made = plant({(40, 1): (0, 9)})
    made.ids[:] = 3
    made.ids[41] = 8
    sights = find_sights(*write(tmp_path, made, plant({})), make_curves(Scaled(np.ones(LATENTS, dtype=np.float32))))
    assert sights.tokens == ["d", "i"]
    (window,) = windows_of(list(sights.pages())[1], "false")
    assert [sights.tokens[i] for i in window["tokens"]] == [*"d" * 11, "i", *"d" * 7]


def test_a_latent_without_predictions_shows_the_train_split_only_and_says_why(tmp_path: Path) -> None:
    made = plant({(40, 1): (2, 9), (40, 3): (2, 9)})
    made.strengths[:, 2] = NAN
    curves = make_curves(Scaled(np.ones(LATENTS, dtype=np.float32)))
    run = write(tmp_path, made, plant({(50, 1): (1, 0), (50, 2): (1, 0)}), missing={1: "refused"}, rewritten=[1, 2, 4])
    first, second, third = find_sights(*run, curves).pages()
    assert [page["latent"] for page in (first, second, third)] == [1, 2, 4]
    assert (first["why"], third["why"]) == ("refused", "") and "no prediction" in second["why"]
    for page in (first, second):
        assert [window["kind"] for window in page["windows"]] == ["train"]
        assert page["firings"] is None and page["histogram"]["simulated"] is None
    assert sum(first["histogram"]["true"]) == 1  # what is true is known all the same


# --- counts, and a whole run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_big_run(tmp_path_factory.mktemp("big") / "run", SMALL)


def look(folder: Path) -> tuple[Sights, ActivationStore, Simulations, Curves]:
    store = ActivationStore(folder / "2_activations", SPLITS)
    simulations = Simulations(folder / "4_simulations", store.latents)
    curves = load_curves(folder / "5_calibration.safetensors")
    return find_sights(store, simulations, curves), store, simulations, curves


@pytest.mark.parametrize("run", ["big", pytest.param("small_run", marks=pytest.mark.slow)])
def test_counts_are_those_of_the_cost_stage(run: str, request: pytest.FixtureRequest) -> None:
    sights, store, simulations, curves = look(request.getfixturevalue(run))
    pairs = document_pairs(store.test, simulations)
    everywhere = np.ones(store.latents, dtype=bool)
    firings = count_firings(pairs, curves.calibrator, curves.threshold, everywhere).latents
    for name, values in vars(firings).items():
        np.testing.assert_array_equal(getattr(sights.counts, name), values, err_msg=name)
    assert firings.hits.sum() > 100 and firings.false.sum() > 100
    pages = list(sights.pages())
    assert [page["latent"] for page in pages] == np.flatnonzero(simulations.rewritten).tolist()
    for page in pages:
        if page["firings"]:
            assert sum(page["histogram"]["true"]) == page["firings"]["true"]
            assert sum(page["histogram"]["simulated"]) == page["firings"]["hits"] + page["firings"]["false"]
            assert sum(page["curve"]["count"]) == page["firings"]["positions"]


def test_a_histogram_counts_in_equal_bins_up_to_the_largest_value(tmp_path: Path) -> None:
    made = plant({(p, 1): (p - 40, 0) for p in range(41, 51)} | {(32, 1): (0, 9), (33, 1): (0, 4.9)})
    curves = make_curves(Scaled(np.full(LATENTS, 0.5, dtype=np.float32)))
    page = list(find_sights(*write(tmp_path, made, plant({})), curves).pages())[1]
    true, simulated = page["histogram"]["true"], page["histogram"]["simulated"]
    assert page["histogram"]["most"] == 10 and len(true) == BINS
    assert np.flatnonzero(true).tolist() == [2, 4, 6, 8, 10, 12, 14, 16, 18, 19]  # half a unit a bin; 10 in the last
    assert np.flatnonzero(simulated).tolist() == [4, 9]  # 2.45 and 4.5


@pytest.mark.traced
def test_how_a_split_is_cut_into_shards_or_read_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    test, train = draw(3, windows=12), draw(4, windows=12)
    curves = make_curves(make_table(3))
    runs = [write(tmp_path_factory.mktemp("run"), test, train, documents) for documents in (1, 2, 6)]
    first, *others = [(sights.tokens, list(sights.pages())) for sights in (find_sights(*run, curves) for run in runs)]
    assert any(page["windows"] for page in first[1])
    assert all(other == first for other in others)
    for positions in (1, 50):
        monkeypatch.setattr(windows, "AT_ONCE", positions)
        sights = find_sights(*runs[2], curves)
        assert (sights.tokens, list(sights.pages())) == first
