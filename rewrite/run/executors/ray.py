"""The workers of a Ray cluster: the one at `RAY_ADDRESS`, or one that is started on this machine.

1. Every job is a task of Ray's with the resources that the settings name; Ray finds it a node, and queues what has to
   wait. All nodes must see the folder of the sweep under the same path, and have this package.
2. Ray's own retries are off: a task whose worker or node died comes back as `died`, and `launch` says so and tries it
   again, wherever there is room.

Source: Ray's documentation, "Fault tolerance: tasks", https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html.
"""

from __future__ import annotations

import os
import re
import socket
from importlib.util import find_spec
from typing import Any

from pydantic import Field

from rewrite import DISTRIBUTION
from rewrite.config import Section, UserError
from rewrite.display.escaping import one_line
from rewrite.run.executors.base import Ended, Job, attempt

SLOTS = 1000
"""Jobs that are handed to Ray at once: it queues them."""
REACHED = 10.0
"""How long a cluster may take to answer at all [s]."""


class Settings(Section):
    """Which cluster, and what a job has of it."""

    address: str = ""
    """The cluster's address (`10.0.0.1:6379`, `ray://host:10001`); empty for that of `RAY_ADDRESS`, without which a
    cluster of this machine alone is started."""
    cpus: float = Field(1, gt=0)
    """Cores that a job has [cores]."""
    gpus: float = Field(0, ge=0)
    """GPUs that a job has [GPUs]; half of one lets two jobs share it."""
    memory: float = Field(0, ge=0)
    """Memory that a job is taken to need [GiB]; 0 leaves it out of account."""


def build(settings: Settings, threads: int) -> OnRay:
    """See `rewrite.run.executors.base`. Raises UserError where Ray is not installed, where its cluster is not reached,
    and where no such cluster could ever do a job."""
    if find_spec("ray") is None:
        raise UserError(f"executor = ray: needs ray; install it: pip install '{DISTRIBUTION}[ray]'")
    return OnRay(settings, threads)


class OnRay:
    """A connection to a cluster."""

    slots = SLOTS

    def __init__(self, settings: Settings, threads: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray: Any = ray
        self._out: dict[Any, Job] = {}
        address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
        environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}} if threads else {}
        _reach(address)
        try:
            ray.init(address=address, logging_level="warning", log_to_driver=True, runtime_env=environment)
        except Exception as error:  # ConnectionError, and a dozen others
            raise UserError(f"executors.ray.address = {address}: no cluster there ({_tell(error)})") from None
        self._check(settings)
        options = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "max_retries": 0}
        if settings.memory:
            options["memory"] = settings.memory * 2**30
        self._attempt = ray.remote(**options)(attempt)

    @property
    def machines(self) -> int:
        """Machines of the cluster; several nodes may be one."""
        return len({node["NodeManagerAddress"] for node in self._ray.nodes() if node["Alive"]})

    def _check(self, settings: Settings) -> None:
        """Refuse what no node has: Ray would wait for one for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        for key, name in (("cpus", "CPU"), ("gpus", "GPU")):
            asked, most = getattr(settings, key), max((node.get(name, 0) for node in nodes), default=0)
            if asked > most:
                self.close()
                raise UserError(
                    f"executors.ray.{key} = {asked:g}: no node of the cluster has more than {most:g}; set less"
                )

    def start(self, job: Job) -> None:
        """Hand a job to Ray."""
        self._out[self._attempt.remote(job)] = job

    def wait(self) -> Ended:
        """Wait for the first task that ends."""
        (ended, *_), _ = self._ray.wait(list(self._out), num_returns=1)
        job = self._out.pop(ended)
        try:
            return Ended(job, self._ray.get(ended))
        except self._ray.exceptions.RayTaskError as error:  # It was not even begun: something cannot be imported there.
            return Ended(job, f"cannot be done by this cluster ({_tell(error, last=True)})")
        except self._ray.exceptions.RayError as error:
            return Ended(job, f"its worker is gone ({_tell(error)})", died=True)

    def close(self) -> None:
        """Leave the cluster; one that was started for this ends."""
        self._ray.shutdown()


def _reach(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for minutes. Raises UserError."""
    found = re.fullmatch(r"(?:ray://)?(?P<host>[^/:]+):(?P<port>\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found["host"], int(found["port"])), timeout=REACHED).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"executors.ray.address = {address}: no cluster there ({_tell(error)}); start one with `ray start --head`"
        ) from None


def _tell(error: Exception, last: bool = False) -> str:
    """An error's first line, or its last, without colours."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().splitlines()
    return one_line(lines[-1 if last else 0]) if lines else type(error).__name__
