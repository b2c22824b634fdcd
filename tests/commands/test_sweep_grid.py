"""What a grid may say, what its points are called, and which jobs they become; every fault in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.small import SMALL

import rewrite.__main__ as cli
from rewrite.commands.sweep import check_cache
from rewrite.commands.sweep.grid import Point, read_points
from rewrite.commands.sweep.jobs import plan_jobs
from rewrite.config import SweepConfig, UserError
from rewrite.run.configs import read_preset
from rewrite.run.executors.base import Job

TWO = "hookpoint=layers.0.mlp,layers.1.mlp"


def points_of(*grids: str, file: Path | None = None, more: tuple[str, ...] = ()) -> list[Point]:
    return read_points(file, [*SMALL, *more], grids)[1]


def test_every_combination_is_a_point_with_a_config_of_its_own() -> None:
    points = points_of(TWO, "coder.seed=0,1", more=("executor=processes", "sweep.threads=1"))
    assert [point.name for point in points] == [
        "hookpoint=layers.0.mlp,coder.seed=0",
        "hookpoint=layers.0.mlp,coder.seed=1",
        "hookpoint=layers.1.mlp,coder.seed=0",
        "hookpoint=layers.1.mlp,coder.seed=1",
    ]
    assert points[1].values == {"hookpoint": "layers.0.mlp", "coder.seed": 1}
    assert (points[1].config.hookpoint, points[1].config.coder.seed) == ("layers.0.mlp", 1)
    assert points[1].config.coder.latents == 128
    assert points[1].config.sweep == SweepConfig() and points[1].config.executor == "local", "a run stands by itself"


def test_a_preset_lies_under_the_grid() -> None:
    points = read_points(None, ["coder.k=4"], ["coder.latents=64,128"], "quick")[1]
    assert [point.config.coder.latents for point in points] == [64, 128]
    assert all(point.config.corpus.window == read_preset("quick")["corpus"]["window"] for point in points)
    assert all(point.config.coder.k == 4 for point in points)
    command = cli.build_parser().parse_args(["sweep", "--preset", "quick", "--grid", "coder.seed=0,1"])
    assert command.preset == "quick"


def test_values_are_written_as_toml_writes_them_or_as_words() -> None:
    points = points_of(
        "evaluate.fractions=[0.5],[0.5, 1.0]", "simulators.oracle.levels=0,10", "coder.learning_rate=1e-3"
    )
    assert points[3].config.evaluate.fractions == (0.5, 1.0)
    assert points[3].config.simulators == {"oracle": {"levels": 10}}
    assert points[3].config.coder.learning_rate == 1e-3


def test_a_file_names_keys_and_the_command_line_takes_their_place(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / f"{name}.jsonl").write_text('{"text": "x"}\n')
    file = tmp_path / "my.toml"
    file.write_text(
        '[sweep]\ntogether = 2\n[sweep.grid]\n"coder.seed" = [0, 1]\n'
        'corpus.source = ["texts/a.jsonl", "texts/b.jsonl"]\n'
    )
    base, points = read_points(file, [], ["coder.seed=7"])
    assert base.sweep.together == 2
    assert [point.values["coder.seed"] for point in points] == [7, 7]
    assert points[1].config.corpus.source == str(tmp_path / "texts" / "b.jsonl"), "relative to the file"
    assert points[1].name == "coder.seed=7,corpus.source=texts-b.jsonl"


def test_names_are_folders_that_tell_points_apart() -> None:
    long = "x" * 60
    points = points_of(f"corpus.glob={long}a,{long}b,a/b,a b")
    names = [point.name for point in points]
    assert len(set(names)) == 4
    assert all("/" not in name and " " not in name and len(name) < 200 for name in names)
    again = [point.name for point in points_of(f"corpus.glob={long}a,{long}b,a/b,a b")]
    assert names == again, "a rerun finds its folders"


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        (["coder.sed=0,1"], r"--grid coder.sed=0,1 \(coder.sed=0\): no such key; did you mean coder.seed\?"),
        (["coder.k=16,many"], r'--grid coder.k=16,many \(coder.k=many\): input should be a valid integer.*"many"'),
        (["coder.seed="], "--grid coder.seed=: an empty value; write a value between any two commas"),
        (["coder.seed=0,,1"], "--grid coder.seed=0,,1: an empty value"),
        (["coder.seed=0,1,"], "--grid coder.seed=0,1,: an empty value"),
        (["coder.seed=0,1,0"], "--grid coder.seed=0,1,0: 0 stands there twice; leave one out"),
        (["coder.seed=0", "coder.seed=1"], "--grid coder.seed=1: coder.seed stands there twice; give all its values"),
        (["coder.seed"], "--grid coder.seed: write it as KEY=a,b, as in --grid coder.seed=0,1,2"),
        ([], r"sweep: no grid; say what varies, as in --grid coder.seed=0,1,2, or in \[sweep.grid\]"),
        (["executor=local,ray"], "--grid executor=local,ray: executor says how runs are made, so it cannot vary"),
        (["calls.max_cost=1,2"], "calls.max_cost says how runs are made"),
        (["hookpoint.x=1"], r"--grid hookpoint.x=1 \(hookpoint.x=1\): hookpoint is a value, not a table"),
        (
            ["hookpoint=layers.1.mlp,blocks.1.hook_mlp_out"],
            "hookpoint=layers.1.mlp and hookpoint=blocks.1.hook_mlp_out are the same run; leave one of them out",
        ),
    ],
)
def test_a_grid_that_cannot_be_is_refused_in_one_line(grids: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read_points(None, ["hookpoint=layers.1.mlp"] if grids and "hookpoint.x" in grids[0] else [], grids)
    assert "\n" not in str(refused.value)


def test_faults_of_a_file_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    for grid, said in (("coder.seed = 3", "no list of values"), ('hookpoint = [""]', "an empty value")):
        file.write_text(f"[sweep.grid]\n{grid}\n")
        with pytest.raises(UserError, match=f"{file}: sweep.grid.{grid.partition(' ')[0]}: {said}"):
            read_points(file, [], [])


def test_the_command_line_says_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "s")]
    assert cli.main(["sweep", "--grid", "coder.seed=0", "--set", "executor=proceses", *out]) == 2
    assert "executor = proceses: no such executor; did you mean processes?" in capsys.readouterr().err
    assert cli.main(["sweep", "--grid", "simulator=patterns,patern", *out]) == 2
    assert "simulator = patern: no such simulator; did you mean patterns?" in capsys.readouterr().err
    assert not (tmp_path / "s").exists(), "nothing was begun"
    (tmp_path / "manifest.json").write_text("{}")
    assert cli.main(["sweep", "--grid", "coder.seed=0,1", "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path}: is the folder of a run; name another" in capsys.readouterr().err


def test_machines_do_not_share_a_cache_of_calls() -> None:
    asking = ("explainer=llm", "explainers.llm.model=some/model")
    check_cache(1, points_of("coder.seed=0,1", more=asking))
    check_cache(2, points_of("coder.seed=0,1"))
    check_cache(2, points_of("coder.seed=0,1", more=(*asking, "calls.cache=/tmp/calls.sqlite")))
    with pytest.raises(UserError, match=r"calls\.cache: not set, and 2 machines cannot share"):
        check_cache(2, points_of("coder.seed=0,1", more=asking))


# --- jobs -------------------------------------------------------------------------------------------------------------


def planned(tmp_path: Path, *grids: str, together: int = 8) -> list[Job]:
    return plan_jobs(points_of(*grids), tmp_path, together, 0)


def test_hookpoints_share_a_pass_over_the_text(tmp_path: Path) -> None:
    jobs = {job.name: job for job in planned(tmp_path, TWO)}
    shared = "collect for 2 points, hookpoint=layers.0.mlp and others"
    zero, one = "hookpoint=layers.0.mlp", "hookpoint=layers.1.mlp"
    assert list(jobs) == [
        f"{zero}: train",
        f"{one}: train",
        shared,
        f"{zero}: explain to report",
        f"{one}: explain to report",
    ]
    assert jobs[shared].needs == (f"{zero}: train", f"{one}: train")
    assert jobs[f"{one}: explain to report"].needs == (shared,)


def test_a_pass_needs_what_it_needs_in_the_order_of_the_points(tmp_path: Path) -> None:
    jobs = {job.name: job for job in planned(tmp_path, "coder.seed=4,0,3,1,2")}
    shared = jobs["collect for 5 points, coder.seed=4 and others"]
    assert shared.needs == tuple(f"coder.seed={seed}: train" for seed in (4, 0, 3, 1, 2))


def test_a_pass_serves_so_many_points(tmp_path: Path) -> None:
    names = [job.name for job in planned(tmp_path, "coder.seed=0,1,2", together=2)]
    assert "collect for 2 points, coder.seed=0 and others" in names
    assert "coder.seed=2: train to report" in names, "what is left over is one job by itself"
    assert [job.name for job in planned(tmp_path, "coder.seed=0,1", together=1)] == [
        "coder.seed=0: train to report",
        "coder.seed=1: train to report",
    ]


def test_what_is_the_same_is_one_job_that_others_wait_for(tmp_path: Path) -> None:
    jobs = planned(tmp_path, "coder.seed=0,1", "explainers.patterns.max_words=10,40", "calibrator=linear,quantile")
    names = [job.name for job in jobs]
    assert sum(": train" in name for name in names) == 2
    assert sum("collect for 2 points" in name for name in names) == 1
    assert sum(": explain to score" in name for name in names) == 4, "each explanation is simulated once"
    assert sum(": evaluate to report" in name for name in names) == 8
    assert [job.needs for job in jobs if ": evaluate" in job.name and "calibrator=quantile" in job.name] == [
        job.needs for job in jobs if ": evaluate" in job.name and "calibrator=linear" in job.name
    ]
    done: set[str] = set()
    for job in jobs:
        assert done.issuperset(job.needs), "each stands after those that it needs"
        done.add(job.name)


def test_points_that_compute_the_same_still_have_a_report_each(tmp_path: Path) -> None:
    names = [job.name for job in planned(tmp_path, "collect.shard=5,6", "batch=8,16")]
    assert sum("report" in name for name in names) == 4
    assert sum("train" in name for name in names) == 1, "neither says anything of the coder"
