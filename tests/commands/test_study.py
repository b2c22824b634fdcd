"""The Python API: each step alone, on a run folder like any other, by the code that the stages use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from makers.small import SMALL, small_config

import rewrite
from rewrite.commands.study import Study
from rewrite.config import UserError
from rewrite.display.notebook import tokens_html
from rewrite.explainers.explanations import load_explanations
from rewrite.run.configs import data_folder, parse_value
from rewrite.run.files import hash_path
from rewrite.statistics.curves import load_curves
from rewrite.text.corpus import split_documents
from rewrite.text.sources import read_corpus
from rewrite.text.windows import spread_windows

pytestmark = pytest.mark.usefixtures("session")

SETTINGS = {key: parse_value(value) for key, _, value in (setting.partition("=") for setting in SMALL)}
BUNDLED = data_folder() / "subject"


def seen(html: str) -> str:
    """The text that a notebook shows; refuses markup that is not closed."""
    opened: list[str] = []
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            assert tag in {"p", "b", "i", "div", "span", "table", "caption", "thead", "tbody", "tr", "th", "td"}, tag
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

        def handle_data(self, data: str) -> None:
            found.append(data)

    Reader().feed(html)
    assert not opened
    return "".join(found)


# --- each step is the stage's own code --------------------------------------------------------------------------------


def test_a_study_goes_on_with_what_a_run_has_finished(study: Study, small_run: Path) -> None:
    assert study.config == small_config()
    before = hash_path(study.folder / "1_coder"), hash_path(study.folder / "6_stats.json")
    assert study.coder.latents == 128
    stats = json.loads((small_run / "6_stats.json").read_text())
    assert study.verdict().stats == stats
    assert study.report() == study.folder / "7_report" / "index.html"
    assert (hash_path(study.folder / "1_coder"), hash_path(study.folder / "6_stats.json")) == before
    assert study.coder_metrics() == json.loads((small_run / "1_coder" / "metrics.json").read_text())


def test_one_latent_is_explained_as_among_all_of_them(small_run: Path, study: Study) -> None:
    written = load_explanations(small_run / "3_explanations.jsonl")
    alone = Study(study.config, study.folder)
    assert [alone.explain(number).explanation for number in (5, 77)] == [written[5], written[77]], (
        "before the stage ran"
    )
    assert alone.explanations().num_rows == 128
    assert alone.explain(5).explanation == written[5], "after it ran"


def test_a_latent_shows_the_windows_where_it_fires_most(study: Study) -> None:
    latent = study.latent(5)
    column = study._evidence.activations[:, [5]].data
    assert latent.maximum == column.max() == latent.windows[0].activations.max()
    assert latent.density == (column > 0).sum() / study._evidence.text.counted().sum()
    tops = [window.activations.max() for window in latent.windows]
    assert tops == sorted(tops, reverse=True) and len(tops) == 10
    assert f"latent 5: fires at {latent.density:.2%}" in repr(latent)
    assert "[" in repr(latent) and latent.text is None
    explained = study.explain(5)
    assert explained.text is not None and explained.text in repr(explained)
    assert explained.text in seen(explained._repr_html_())
    for number in (-1, 128):
        with pytest.raises(UserError, match=rf"latent {number}: the coder has latents 0 to 127"):
            study.latent(number)


def test_a_text_of_ones_own_is_encoded_as_the_collect_stage_does(study: Study) -> None:
    corpus = study.config.corpus
    documents = read_corpus(corpus).documents
    test = study.activations.test
    names = [documents[i].name for i in split_documents(documents, corpus)["test"]]
    assert names == test.names
    shard = test.load(test.shards[0])
    own = study.encode(next(d.text for d in documents if d.name == names[0]))
    kept = spread_windows(len(own.text.starts) - 1, corpus.max_windows)
    mine = np.isin(np.repeat(np.arange(len(own.text.starts) - 1), np.diff(own.text.starts)), kept)
    theirs = np.repeat(shard.documents == 0, np.diff(shard.text.starts))
    np.testing.assert_array_equal(own.text.ids[mine], shard.text.ids[theirs])
    np.testing.assert_allclose(own.activations[mine].toarray(), shard.activations[theirs].toarray(), atol=1e-4)
    with pytest.raises(UserError, match="fewer than 3 tokens"):
        study.encode("a")


def test_a_text_is_read_with_one_explanation_as_with_all(study: Study) -> None:
    text = "import os\n\ndef run(self, name):\n    for one in self.names:\n        return one\n"
    among = study.simulate(5, text)
    alone = study.simulate(among.text, text)
    assert among.text == study.explain(5).text and among.scale == alone.scale == 9
    np.testing.assert_array_equal(among.strengths, alone.strengths)
    assert np.isnan(among.strengths[0]) and np.isnan(among.activations[0]), "a window's first token is context"
    assert "".join(among.tokens).endswith(text[-10:])
    true = study.encode(text).activations[:, [5]].toarray()[:, 0]
    np.testing.assert_array_equal(among.activations[1:], true[1:])
    assert alone.activations is None
    the = study.simulate('Fires on "self" (7).', text)
    assert {token.strip() for token, s in zip(the.tokens, the.strengths, strict=True) if s == 7} == {"self"}
    assert "predicted" in seen(among._repr_html_()) and "true" in seen(among._repr_html_())
    assert "strength, 0 to 9" in repr(the)
    with pytest.raises(UserError, match="latent 500: not explained"):
        study.simulate(500, text)


def test_an_unreadable_explanation_is_missing_and_not_zero(study: Study) -> None:
    reading = study.simulate("It likes verbs.", "for i in range(3): pass")
    assert np.isnan(reading.strengths).all()


def test_a_calibration_is_the_evaluate_stages(study: Study) -> None:
    calibration = study.calibrate()
    kept = load_curves(study.folder / "5_calibration.safetensors").calibrator
    strengths = np.array([0, 3, 9, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(calibration.apply(5, strengths), kept.apply(strengths, np.full(4, 5)))
    curve = calibration.curve(5).to_pylist()
    assert len(curve) == 91 and sum(row["positions"] for row in curve) == calibration.fitted.tally.positions
    assert "conditional_mean" in repr(calibration)
    assert "8 to 9" in seen(calibration._repr_html_())


@pytest.mark.parametrize(
    ("arm", "fraction"), [("simulated", 1.0), ("simulated", 0.1), ("mean", 1.0), ("shuffled", 1.0)]
)
def test_an_arm_alone_loses_what_it_does_among_all(study: Study, arm: str, fraction: float) -> None:
    scored = study.score(arm, fraction)
    every = study.losses().to_pandas()
    own = every[every.arm == arm]
    if arm == "simulated":
        own = own[(own.fraction == fraction) & (own.order == "best")]
    found = scored.table.to_pandas()
    keys = ["document", "seed", "tokens"]
    assert found[keys].to_numpy().tolist() == own[keys].to_numpy().tolist()
    np.testing.assert_allclose(found.nats, own.nats, rtol=1e-6)
    if arm == "shuffled":
        assert scored.means.num_rows == own.seed.nunique() == 2
        with pytest.raises(ValueError, match="2 arms"):
            _ = scored.loss
    else:
        assert scored.loss == pytest.approx(own.nats.sum() / own.tokens.sum())
        assert f"{scored.loss:.4f}" in repr(scored)


def test_an_arm_that_is_not_there_is_refused_with_those_there_are(study: Study) -> None:
    with pytest.raises(
        UserError, match=r"arm simulate: none of that name in this run; there are: clean, coder, .*hits"
    ):
        study.score("simulate")


def test_tables_are_the_artefacts(study: Study) -> None:
    for table, name in ((study.scores(), "4_scores.parquet"), (study.costs(), "5_costs.parquet")):
        assert table.equals(pq.read_table(study.folder / name))


def test_a_verdict_shows_its_ladder(study: Study) -> None:
    verdict = study.verdict()
    assert verdict.word in ("better", "worse", "equivalent", "inconclusive")
    for told in (repr(verdict), seen(verdict._repr_html_())):
        assert verdict.sentence in told
        for row in verdict.ladder:
            assert row["arm"] in told and f"{row['loss']:.4f}" in told
    losses = [row["loss"] for row in verdict.ladder]
    assert losses == sorted(losses)
    assert verdict._repr_html_().count("<tr>") == len(losses) + 1


def test_what_a_run_says_is_text_in_a_notebook() -> None:
    shown = tokens_html(["<b>", "\n", "a"], [0.5, None, 0.0], ['"x"', "", ""])
    assert seen(shown) == "<b>⏎a"
    assert 'title="&quot;x&quot;"' in shown and "opacity" in shown


def test_a_language_model_reads_one_text(study: Study, tiny_model: Path) -> None:
    asked = {"simulators.llm.model": str(tiny_model), "simulators.llm.least_mass": 0}
    own = study.but(simulator="llm", settings=asked)
    reading = own.simulate("fires on words", "for i in range(3):\n    return i")
    assert (
        np.isfinite(reading.strengths[1:]).all()
        and 0 <= reading.strengths[1:].min() <= reading.strengths[1:].max() <= 9
    )
    assert json.loads((own.folder / "manifest.json").read_text())["calls"]["simulate"]["calls"] > 0, (
        "it is in the ledger"
    )
    tuned = own.but(settings={"simulators.llm.tune": True})
    with pytest.raises(UserError, match="simulator = llm: learns from latents; read one by its number"):
        tuned.simulate("fires on words", "for i in range(3): pass")


# --- the package ------------------------------------------------------------------------------------------------------


def test_importing_the_package_waits_for_no_library() -> None:
    script = "import sys, rewrite; print([m for m in ('torch', 'numpy', 'pydantic', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


def test_the_public_names_are_there() -> None:
    assert set(rewrite.HOMES) == set(rewrite.__all__)
    for name in rewrite.__all__:
        assert getattr(rewrite, name).__doc__
        assert name in dir(rewrite)
    with pytest.raises(AttributeError, match="has no attribute 'studdy'"):
        _ = rewrite.studdy  # type: ignore[attr-defined]


def test_a_run_goes_on_with_its_own_config_and_what_is_given_over_it(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(small_run, folder)
    study = rewrite.study(run=folder, settings={"calibrator": "linear"})
    assert study.config == small_config("calibrator=linear"), "not the bundled config's sizes"
    assert rewrite.study(run=folder).config == small_config()


def test_what_is_copied_for_another_study_is_not_the_report_of_this_one(small_run: Path, tmp_path: Path) -> None:
    # A copy: the folder that all tests share would be locked meanwhile, and others ask for its status.
    shutil.copytree(small_run, tmp_path / "own")
    other = rewrite.study(run=tmp_path / "own").but(settings={"calibrator": "linear"}, run=tmp_path / "linear")
    assert (other.folder / "5_losses.parquet").exists() and not (other.folder / "7_report").exists()
