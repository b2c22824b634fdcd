"""The diagnose stage on a finished run of the bundled subject: it agrees with what the other stages wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from makers.diagnosis_made import make_readers
from makers.small import small_config, tiny_config
from makers.watching import unwatched
from transformers import AutoTokenizer

from rewrite.config import UserError
from rewrite.config.judging import DiagnoseConfig
from rewrite.report import damage
from rewrite.run.files import read_json
from rewrite.run.freshness import wanted
from rewrite.run.runner import go
from rewrite.run.store import Run
from rewrite.stages import STAGES

DIAGNOSE = ("diagnose.documents=20", "diagnose.task=laundry", "diagnose.items=8")


@pytest.fixture(scope="module")
def diagnosed(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with what it left out."""
    folder = tmp_path_factory.mktemp("diagnosed") / "run"
    shutil.copytree(small_run, folder)
    with Run(folder) as run:
        go(STAGES, small_config(*DIAGNOSE), run, "report", lambda line: None)
    return folder


def losses_of(folder: Path, name: str) -> pd.DataFrame:
    rows = pq.read_table(folder / "5_losses.parquet").to_pandas()
    fraction = rows.fraction == 1.0 if name == "simulated" else rows.fraction.isna()
    return rows[(rows.arm == name) & fraction].set_index("document")


def test_what_is_taken_apart_is_what_evaluate_measured(diagnosed: Path) -> None:
    found = read_json(diagnosed / "5_diagnosis.json")
    coder = losses_of(diagnosed, "coder")
    assert found["documents"] == len(coder) and found["tokens"] == coder.tokens.sum()
    for way in found["way"]:
        arm = losses_of(diagnosed, way["arm"])
        assert way["nats"] == pytest.approx((arm.nats - coder.nats).sum() / coder.tokens.sum(), rel=1e-6)
        assert way["error"] < 1e-9
        assert sum(row["forward"] for row in way["steps"]) == pytest.approx(way["nats"], abs=1e-9)
        assert sum(row["backward"] for row in way["steps"]) == pytest.approx(way["nats"], abs=1e-9)
        assert [row["layer"] for row in way["steps"]] == [1, 2, 2, 2]
    assert [way["arm"] for way in found["way"]] == ["simulated", "zero"]


def test_paths_of_every_length_together_are_what_evaluate_measured(diagnosed: Path) -> None:
    rows = pd.DataFrame(read_json(diagnosed / "5_diagnosis.json")["terms"])
    assert list(rows.arm.unique()) == ["model", "clean", "coder", "simulated", "zero"]
    ends = rows[rows.order.isna()].set_index("arm")
    for arm in ("clean", "coder", "simulated", "zero"):
        measured = losses_of(diagnosed, arm)
        assert ends.nats[arm] == pytest.approx(measured.nats.sum() / measured.tokens.sum(), abs=1e-5)
    assert ends.nats["model"] == pytest.approx(ends.nats["clean"], abs=1e-5), "the whole model is the clean one"
    # One later layer after the hookpoint's, three in all: what each order is worth adds up to all.
    assert rows[rows.arm == "clean"].order.tolist()[:-1] == [0.0]
    assert rows[rows.arm == "model"].order.tolist()[:-1] == [0.0, 1.0, 2.0]
    for _, own in rows.groupby("arm"):
        assert own.nats.iloc[0] - own.worth.iloc[1:].sum() == pytest.approx(own.nats.iloc[-1], abs=1e-9)
        assert own.nats.iloc[0] > own.nats.iloc[-1], "attention helps"


def test_texts_of_its_own_are_simulated_where_reading_costs_nothing(diagnosed: Path) -> None:
    found = read_json(diagnosed / "5_diagnosis.json")
    assert list(found["repeated"]["losses"]) == ["clean", "coder", "simulated", "zero"]
    assert "simulated" in {row["arm"] for row in found["task"]["arms"]}
    assert "simulated" in found["repeated"]["induction"][0]


def test_heads_have_all_that_is_known_of_them(diagnosed: Path) -> None:
    found = read_json(diagnosed / "5_diagnosis.json")
    assert {(row["layer"], row["head"]) for row in found["heads"]} == {
        (row["layer"], row["head"]) for row in found["repeated"]["induction"]
    }
    for row in found["heads"]:
        assert -1 <= row["copying"] <= 1 and set(row["reads"]) == {"query", "key", "value"}
        for score in ("previous", "induction"):
            assert set(row[score]) == {"clean", "coder", "simulated", "zero"}
            assert 0 <= row[score]["clean"]["value"] <= 1 and 0 <= row[score]["zero"]["p_holm"] <= 1
        assert 0 <= row["alone"]["p_holm"] <= 1 and row["needed"]["ci"][0] <= row["needed"]["nats"]
    reading = pq.read_table(diagnosed / "5_heads.parquet").to_pandas()
    assert len(reading) == len(found["heads"]) * 128 and np.isfinite(reading[["query", "key", "value"]]).all(axis=None)


def test_what_heads_say_and_whom_they_read(diagnosed: Path) -> None:
    found = read_json(diagnosed / "5_diagnosis.json")
    known = {token for ends in found["heads"][0]["writes"] for end in ends for token in end}
    assert len(found["heads"][0]["writes"]) == 2 and len(known) > 5 and all(isinstance(token, str) for token in known)
    assert all(len(row["trigrams"]) == 5 and row["trigrams"][0]["sd"] > 2 for row in found["heads"][:10])
    for joint in found["joined"]:
        assert joint["earlier_layer"] < joint["layer"] == 2 and joint["z"] >= joint["least"]


def test_shares_at_tokens_of_each_class_are_those_of_the_parts(diagnosed: Path) -> None:
    """Summed over classes they are what all positions have, but for a class that too few documents hold."""
    routes = read_json(diagnosed / "5_diagnosis.json")["routes"]
    for part, rows in (("mlp", ["mlp"]), ("attention", [f"head {head}" for head in range(8)])):
        classes = [row for row in routes["classes"] if row["part"] == part]
        positions = sum(row["positions"] for row in classes)
        assert 0.9 * routes["positions"] < positions <= routes["positions"]
        for arm in ("clean", "simulated", "zero"):
            own = sum(row["positions"] * row["arms"][arm]["value"] for row in classes) / routes["positions"]
            every = sum(row[arm] for row in routes["parts"] if row["layer"] == 2 and row["part"] in rows)
            assert -1e-5 <= every - own <= 1 - positions / routes["positions"] + 1e-5, (part, arm)


def test_a_task_is_tried_before_and_after(diagnosed: Path) -> None:
    task = read_json(diagnosed / "5_diagnosis.json")["task"]
    assert (task["task"], task["count"]) == ("laundry", 8)
    arms = {row["arm"]: row for row in task["arms"]}
    assert list(arms)[:5] == ["clean", "coder", "simulated", "zero", "coder × 0"] and "p_holm" not in arms["coder"]
    for row in task["arms"]:
        assert 0 <= row["ci"][0] <= row["accuracy"] <= row["ci"][1] <= 1
        assert row["accuracy"] * 8 == arms["coder"]["accuracy"] * 8 + row["gained"] - row["lost"]


def test_the_report_says_it_in_a_sentence(diagnosed: Path) -> None:
    found = read_json(diagnosed / "5_diagnosis.json")
    told = damage.sentence(found)
    report = (diagnosed / "7_report" / "report.md").read_text()
    page = (diagnosed / "7_report" / "index.html").read_text()
    assert told in report and "Where the damage goes" in page
    assert (diagnosed / "7_report" / "way.csv").is_file() and (diagnosed / "7_report" / "damage.png").is_file()


def test_the_damage_in_words() -> None:
    kinds = [
        {"kind": kind, "share": share, "share_ci": [share - 0.05, share + 0.05]}
        for kind, share in (("direct", 0.6), ("values", 0.2), ("pattern", 0.05), ("mlp", 0.15))
    ]
    head = {"layer": 3, "head": 2, "copying": 0.5, "needed": {"nats": 0.01, "ci": [0.005, 0.015], "p_holm": 0.001}}
    said = {
        "documents": 20,
        "head_documents": 8,
        "alpha": 0.05,
        "way": [{"arm": "simulated", "nats": 0.1, "ci": [0.08, 0.12], "kinds": kinds}],
        "heads": [
            head,
            head | {"head": 1, "needed": head["needed"] | {"nats": 0.02, "p_holm": 0.2}},
            head | {"head": 0, "needed": head["needed"] | {"nats": -0.03}},
        ],
        "repeated": {"heads": [{"layer": 3, "head": 2, "induction": 0.4, "previous": 0.0}]},
    }
    assert damage.sentence(said) == (
        "On 20 test documents the simulation loses 0.1000 nats more than the coder: 60% [55, 65] reach the output "
        "directly, 15% [10, 20] come by later MLPs, 20% [15, 25] by what later attention moves, 5% [0, 10] by where "
        "it looks. Of single heads 3.2, an induction head, matters most: with it held as it was, 0.0100 "
        "[0.0050, 0.0150] nats less are lost on 8 of them."
    )
    unsure = said | {"heads": [head | {"needed": head["needed"] | {"p_holm": 0.2}}]}
    assert damage.sentence(unsure).endswith(" No single head is told from 0, on 8 of them.")
    mends = {"nats": -0.03, "ci": [-0.04, -0.02], "p_holm": 0.001}
    mended = said | {"heads": [head | {"needed": mends | {"nats": -0.01}}, head | {"head": 1, "needed": mends}]}
    cost = "0.0300 [0.0200, 0.0400] nats more are lost on 8 of them."
    assert damage.sentence(mended).endswith(f" Of single heads 3.1 mends most: with it held as it was, {cost}")
    for nats, more in ((0.01, "0.0100 [0.0050, 0.0150] nats more"), (-0.03, "0.0300 [0.0200, 0.0400] nats less")):
        own = mends if nats < 0 else head["needed"]
        alone = said | {"heads": [unsure["heads"][0] | {"alone": own}, unsure["heads"][0] | {"head": 1}]}
        assert damage.sentence(alone).endswith(
            " No single head is told from 0 where it is held, on 8 of them; with 3.2, an induction head, let go alone, "
            f"{more} are lost."
        )
    lowers = said | {"heads": [head | {"copying": -0.5}]}
    assert "Of single heads 3.2 matters most" in damage.sentence(lowers), (
        "a head that does not copy is no induction head"
    )


@pytest.mark.parametrize(
    ("ci", "told"),
    [
        ([-0.01, 0.02], "it is not told whether the simulation loses anything against the coder."),
        ([-0.02, -0.01], "the simulation loses less than the coder: there is no damage to follow."),
    ],
)
def test_no_damage_is_said_plainly(ci: list[float], told: str) -> None:
    row = {"kind": "direct", "share": None}
    none = {"documents": 9, "way": [{"arm": "simulated", "nats": 0.0, "ci": ci, "kinds": [row]}], "heads": []}
    assert damage.sentence(none) == f"On 9 test documents {told}"


def test_the_stage_is_there_where_it_is_asked_for() -> None:
    def names(config: object) -> list[str]:
        return [stage.name for stage in wanted(STAGES, config)]  # type: ignore[arg-type]

    assert "diagnose" in names(small_config(*DIAGNOSE)) and "diagnose" not in names(small_config())
    with pytest.raises(UserError, match=r"diagnose\.documents.*8 or more, or 0"):
        small_config("diagnose.documents=5")


@given(st.integers(8, 40), st.integers(8, 40), st.sampled_from(["heads", "routes"]))
def test_no_more_documents_are_looked_at_closely_than_are_taken_apart(documents: int, few: int, key: str) -> None:
    if few <= documents:
        assert getattr(DiagnoseConfig.model_validate({"documents": documents, key: few}), key) == few
    else:
        said = (
            f"{key} = {few} is more than documents = {documents}, .*set {key} to at most {documents}, or documents to"
        )
        with pytest.raises(ValueError, match=said):
            DiagnoseConfig.model_validate({"documents": documents, key: few})
    for numbers in ({"documents": 0, key: few}, {"documents": documents, key: 0}):
        assert getattr(DiagnoseConfig.model_validate(numbers), key) == numbers[key], "0 leaves it out"


def test_it_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"diagnose.*heads = 21 is more than documents = 20") as caught:
        small_config("diagnose.documents=20", "diagnose.heads=21")
    assert "\n" not in str(caught.value)


def test_a_latent_is_told_who_reads_it(tmp_path: Path) -> None:
    pq.write_table(make_readers(), tmp_path / "heads.parquet")
    told = {0: "3.1 by its query (4.5 sd), 3.1 by its key (3.2 sd)", 1: "none that stands out"}
    assert damage.find_readers(tmp_path / "heads.parquet") == told


def test_latents_pages_name_their_readers(diagnosed: Path) -> None:
    pages = (diagnosed / "7_report" / "data" / "latents-0.js").read_text()
    assert '"readers":' in pages


@pytest.mark.slow
def test_a_recurrent_model_runs_whole(tmp_path: Path) -> None:
    """A Mamba, a layer rewritten by an autoencoder: the way goes by whole layers. Zeroed, its stream says the same of
    every text, so `zero_layer` has a loss without any spread."""
    folder = tmp_path / "mamba"
    tokenizer = AutoTokenizer.from_pretrained(small_config().subject)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4}
    hf.MambaForCausalLM(hf.MambaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    few = ("corpus.max_documents=40", "corpus.train=16", "corpus.calibrate=10", "corpus.max_windows=1")
    tokens = ("coder.tokens=4000", "collect.train_tokens=4000", "cost.check=2", "cost.steps=1")
    config = tiny_config(f"subject={folder}", "hookpoint=layers.0", "coder.kind=sae", *few, *tokens, *DIAGNOSE)
    with Run(tmp_path / "run") as run:
        with unwatched():  # As of any other model.
            go(STAGES, config, run, "cost", lambda line: None)
        go(STAGES, config, run, "report", lambda line: None)
    found = read_json(tmp_path / "run" / "5_diagnosis.json")
    assert [(row["layer"], row["kind"]) for row in found["way"][0]["steps"]] == [
        (0, "direct"),
        (1, "block"),
        (2, "block"),
    ]
    assert found["heads"] == found["reading"] == [] and found["routes"] is found["closed"] is None
    assert abs(sum(row["nats"] for row in found["way"][1]["steps"]) - found["way"][1]["nats"]) < 1e-9
    zeroed = next(row for row in read_json(tmp_path / "run" / "6_stats.json")["arms"] if row["arm"] == "zero_layer")
    assert zeroed["se"] == 0 and zeroed["loss"] == pytest.approx(np.log(len(tokenizer)), abs=1e-4)
