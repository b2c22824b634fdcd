"""Numbers of a run, sent to a tracker as its stages end: one small hook, off by default (`[track]`).

1. After a stage has run, the numbers that its artefacts hold are sent under its number among the stages as the step:
   what it took, the coder's metrics, each arm's loss and what it recovers.
2. Trackio and Weights & Biases have one interface; TensorBoard's files go into `track/` of the run folder.
3. A tracker that fails is told of and left: a run never ends for it, and its results are in the run folder.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rewrite import DISTRIBUTION
from rewrite.config import Config, UserError
from rewrite.display.escaping import one_line
from rewrite.run.files import hash_value, read_json
from rewrite.run.freshness import Stage
from rewrite.run.store import Run

Numbers = dict[str, float]
Track = Callable[[Stage, int], None]
"""Told of a stage that has run, and of its number."""
MODULES = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}


class Tracker(Protocol):
    """Where numbers go."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Keep some numbers."""

    def close(self) -> None:
        """Keep no more."""


def check_tracker(config: Config) -> None:
    """Raise UserError where the tracker that the config names is not installed."""
    name = config.track.to
    if name == "none":
        return
    try:
        importlib.import_module(MODULES[name])
    except ImportError:
        raise UserError(
            f"track.to = {name}: needs {name}; install it: pip install '{DISTRIBUTION}[{name}]', or set it to none"
        ) from None


@contextmanager
def tracking(config: Config, run: Run, say: Callable[[str], None]) -> Iterator[Track]:
    """What to tell of stages that have run; the tracker is opened with the first and closed at the end."""
    opened: list[Tracker] = []
    failed: list[str] = []

    def attempt(work: Callable[[], object]) -> None:
        if not failed:
            try:
                work()
            except Exception as error:  # whatever a tracker, its server or the network makes it raise
                failed.append(one_line(f"{type(error).__name__}: {error}"))
                say(f"track.to = {config.track.to}: {failed[0]}; the run goes on, its results are in {run.folder}")

    def track(stage: Stage, number: int) -> None:
        if not opened:
            opened.append(open_tracker(config, run))
        opened[0].log(read_numbers(run, stage), number)

    try:
        yield lambda stage, number: None if config.track.to == "none" else attempt(lambda: track(stage, number))
    finally:
        for tracker in opened:
            attempt(tracker.close)


def open_tracker(config: Config, run: Run) -> Tracker:
    """The tracker that the config names; a run folder goes on in one run there."""
    if config.track.to == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        return _Board(SummaryWriter(str(run.folder / "track")))
    module: Any = importlib.import_module(MODULES[config.track.to])
    name = config.track.name or run.folder.resolve().name
    named = {"project": config.track.project, "name": name, "config": run.manifest["config"], "resume": "allow"}
    if config.track.to == "wandb":
        named |= {"id": hash_value(str(run.folder.resolve()))[:16], "dir": str(run.folder)}
    return _Logged(module, module.init(**named))


class _Logged:
    """Trackio or Weights & Biases."""

    def __init__(self, module: Any, run: Any) -> None:
        self._module, self._run = module, run

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._run.finish()


class _Board:
    """TensorBoard's files."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker.close`."""
        self._writer.close()


def read_numbers(run: Run, stage: Stage) -> Numbers:
    """The numbers that a stage has left, by name."""
    found: Numbers = {f"seconds/{name}": run.manifest["artefacts"][name]["seconds"] for name in stage.writes}
    if "1_coder" in stage.writes:
        metrics = read_json(run.path("1_coder") / "metrics.json")
        found |= {f"coder/{name}": value for name, value in metrics.items() if value is not None}
    if "6_stats.json" in stage.writes:
        stats = read_json(run.path("6_stats.json"))
        found |= {"gap": stats["gap"]["nats"], "missing": stats["missing"]["share"]}
        for row in (*stats["arms"], *stats["averages"]):
            if row.get("seed") in (0, None) or row["order"] != "random":
                place = [row["arm"], row["order"], "" if row["fraction"] is None else f"{row['fraction']:g}"]
                name = "/".join(filter(None, place))
                found |= {f"loss/{name}": row["loss"], f"recovered/{name}": row["recovered"]}
    return found
