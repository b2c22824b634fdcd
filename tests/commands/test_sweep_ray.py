"""A sweep on a real Ray cluster of two nodes, of which one is killed and a worker of the other: the same bytes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from makers.sweeps import results, start, words

import rewrite.__main__ as cli
from rewrite.run.files import find_holder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, as processes of this machine."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield found
    found.shutdown()


def holders(out: Path) -> dict[str, int]:
    """The processes that work on points just now, by point."""
    found = {run.parent.name: find_holder(run.parent) for run in out.glob("*/.lock") if run.parent != out}
    return {name: int(said.split()[1]) for name, said in found.items() if said.startswith("process")}


def until(find: Callable[[], Any]) -> Any:
    """Wait for something to be there."""
    end = time.monotonic() + 120
    while not (found := find()):
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.05)
    return found


@pytest.mark.timeout(600)
def test_a_node_and_a_worker_die_and_no_byte_changes(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    out = tmp_path / "ray"
    process = start(out, "ray", f"executors.ray.address={cluster.address}")
    until(lambda: len(holders(out)) == 2)
    cluster.remove_node(second, allow_graceful=False)
    explained = until(
        lambda: [pid for name, pid in holders(out).items() if (out / name / "3_explanations.jsonl").is_file()]
    )
    os.kill(explained[0], signal.SIGKILL)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait() == 0, said
    assert said.count("tried again") == 2, said
    assert cli.main(words(tmp_path / "local", "local")) == 0
    assert results(out) == results(tmp_path / "local")
