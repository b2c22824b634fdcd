"""What `rewrite status` tells of any manifest: of another version, damaged, hostile; calls and dollars; every form."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.finished_runs import edit_manifest, snapshot
from makers.small import small_config

import rewrite.__main__ as cli
from rewrite.commands.status import status
from rewrite.config import UserError
from rewrite.engines.base import Answer
from rewrite.engines.cache import Cache
from rewrite.engines.ledger import Spent
from rewrite.run.files import write_json

HOSTILE = "r|un [red]x[red]<b>\x1b[31m\u202e`$5$"


# --- the manifest's own config ----------------------------------------------------------------------------------------


def test_keys_of_an_older_or_newer_version_are_no_obstacle(copy: Path) -> None:
    config = json.loads((copy / "manifest.json").read_text())["config"]
    del config["cost"], config["evaluate"]["topk"]
    config["corpus"]["colour"] = "blue"
    config["zeal"] = {"much": 1}
    edit_manifest(copy, config=config)
    page = status(copy)
    assert "Keys of its config that this version does not know: corpus.colour, zeal." in page.notes
    assert page.facts["stages"][0]["state"] == "fresh"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"config": None}, "says no config; name the run's own with --config"),
        ({"config": {"coder": {"k": "many"}}}, "config.coder.k: input should be a valid integer"),
        ({"config": {"coder": 3}}, "config.coder: "),
        ({"artefacts": {"1_coder": {"sha256": 3}}}, "not the manifest of a run"),
        ({"artefacts": []}, "not the manifest of a run"),
        ({"calls": {"simulate": {"calls": "x"}}}, "not the manifest of a run"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_one_line(
    copy: Path, facts: dict[str, Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(copy, **facts)
    assert cli.main(["status", "--run", str(copy)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"rewrite: {copy / 'manifest.json'}: " in said and expected in said


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(
    artefacts=json_values | st.dictionaries(st.sampled_from(["1_coder", "6_stats.json"]), json_values),
    config=json_values | st.dictionaries(st.sampled_from(["coder", "subject", "simulator"]), json_values),
    calls=json_values,
    ledger=json_values,
)
def test_any_manifest_gives_a_page_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, artefacts: Any, config: Any, calls: Any, ledger: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write_json(folder / "manifest.json", {"artefacts": artefacts, "config": config, "calls": calls, "ledger": ledger})
    try:
        page = status(folder)
    except UserError as error:
        assert str(error)
    else:
        assert json.loads(page.write("json"))["schema"] == 1


def test_where_the_subject_is_gone_the_run_is_told_as_far_as_it_is_known(copy: Path) -> None:
    config = json.loads((copy / "manifest.json").read_text())["config"] | {"subject": "/nowhere/model"}
    edit_manifest(copy, config=config)
    page = status(copy)
    assert (
        "Whether settings changed is not known: subject = /nowhere/model: not there; name a file or folder that is."
        in page.notes
    )
    assert {stage["state"] for stage in page.facts["stages"]} == {"there", "absent"}
    assert page.facts["fresh"] is False
    with pytest.raises(UserError, match="subject = /nowhere/model: not there"):
        status(copy, None, ["subject=/nowhere/model"])


# --- calls and dollars ------------------------------------------------------------------------------------------------

SPENT = {"calls": 10, "tokens_in": 100, "tokens_out": 10, "cached": 0, "seconds": 1.0}


def test_calls_and_dollars_come_from_the_ledger(copy: Path) -> None:
    edit_manifest(copy, calls={"explain": SPENT | {"cost": 0.25}, "simulate": SPENT | {"cost": 0.5}})
    facts = status(copy).facts
    asked = {stage["stage"]: (stage["calls"], stage["dollars"]) for stage in facts["stages"]}
    assert (asked["explain"], asked["simulate"], asked["score"]) == ((10, 0.25), (10, 0.5), (None, None))
    assert (facts["total"]["calls"], facts["total"]["dollars"]) == (20, 0.75)
    edit_manifest(copy, calls={"explain": SPENT | {"cost": 0.0}})
    page = status(copy)
    assert page.facts["total"]["dollars"] is None
    assert "No price: set calls.price_in and calls.price_out." in page.notes


@pytest.fixture
def cache(copy: Path) -> Iterator[Cache]:
    cache = Cache(copy.parent / "calls.sqlite")
    yield cache
    cache.close()


def test_a_session_that_has_not_ended_is_counted_from_the_cache(copy: Path, cache: Cache) -> None:
    config = small_config("calls.price_in=2.0").model_dump(mode="json")
    edit_manifest(copy, ledger={"id": "mine", "folder": "x"}, calls={"explain": SPENT | {"cost": 0.25}}, config=config)
    reply = Answer("yes", True, Spent(calls=1, tokens_in=500_000))
    for number, run in enumerate(("mine", "mine", "other")):
        cache.keep(bytes([number]), reply, run, "simulate", 0.1)
    facts = status(copy).facts
    asked = {stage["stage"]: (stage["calls"], stage["dollars"]) for stage in facts["stages"]}
    assert (asked["explain"], asked["simulate"]) == ((10, 0.25), (2, 2.0))
    cache.close()
    assert not (copy.parent / "calls.sqlite-wal").exists()
    before = snapshot(copy.parent)
    assert status(copy).facts["total"]["calls"] == 10, "a session that ended has put its sums into the manifest"
    assert snapshot(copy.parent) == before


# --- the forms --------------------------------------------------------------------------------------------------------


def test_all_forms_say_the_same(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_manifest(copy, calls={"explain": SPENT | {"cost": 0.25}})
    said = {}
    for form in ("--json", "--markdown", None):
        assert cli.main(["status", "--run", str(copy), *([form] if form else [])]) == 0
        said[form] = capsys.readouterr().out
    facts = json.loads(said["--json"])
    for stage in facts["stages"]:
        (line,) = [line for line in (said[None] or "").splitlines() if line.startswith(f"  {stage['stage']} ")]
        assert ", ".join(stage["artefacts"]) in line
        assert ("not there yet" if stage["state"] == "absent" else stage["state"]) in line
        assert stage["seconds"] is None or f" {stage['seconds']:.1f} " in line
    for form in ("--markdown", None):
        assert "$0.25" in said[form].replace("\\", "")
        assert shlex.split(facts["next"])[1] in said[form]
    assert facts["next"] in said[None] and facts["verdict"] in said[None]


def test_a_hostile_name_stays_text(analysed: Path, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    shutil.copytree(analysed, folder)
    page = status(folder)
    for form in ("table", "markdown"):
        text = page.write(form)  # type: ignore[arg-type]
        assert "\x1b" not in text and "\u202e" not in text
    assert "<b>" not in page.write("markdown").split("## ")[0]
    assert json.loads(page.write("json"))["run"] == HOSTILE
    assert cli.build_parser().parse_args(shlex.split(page.command)[1:]).run == folder
