"""`rewrite` commands as processes of their own that begin at once: forked from one that has imported what they import.

A process that is started anew spends most of its life on importing torch and transformers, and a test that kills ten
in a row would wait for it ten times. What is killed is a real process all the same, with a folder, files and sockets of
its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TextIO

IMPORTED = (
    *("rewrite.__main__", "rewrite.stages", "rewrite.engines.openai.build", "rewrite.engines.transformers.learner"),
    *("rewrite.simulators.llm.build", "rewrite.simulators.patterns.build", "rewrite.explainers.patterns.build"),
    *("rewrite.report", "torch", "scipy.stats", "scipy.sparse", "sparsify", "peft", "pyarrow.parquet", "jinja2"),
    *("transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama", "plotly"),
    *("transformers.models.auto.tokenization_auto", "openai", "httpx2", "rewrite.run.executors.local"),
)
"""What the processes find imported; one that is not there is imported, or missed, by the command itself."""


class Command:
    """One `rewrite` command that runs: `wait` for its status, or kill it by its `pid`."""

    def __init__(self, *words: str) -> None:
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(list(IMPORTED))
        said, saying = forks.Pipe(duplex=False)
        self._process = forks.Process(target=_run, args=(words, saying))
        self._process.start()
        saying.close()
        self.stderr: TextIO = os.fdopen(os.dup(said.fileno()), encoding="utf-8")
        """What it says, line by line."""
        said.close()
        self.said = ""

    @property
    def pid(self) -> int:
        """Of the process that runs the command."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its status, or None while it runs; -9 of one that was killed."""
        return self._process.exitcode

    def wait(self) -> int:
        """Its status at its end; what it still says until then is `said`, or a full pipe would keep it from ending."""
        if not self.stderr.closed:
            self.said = self.stderr.read()
            self.stderr.close()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> None:
        """Kill it, as the system would for want of memory."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL


def _run(words: Sequence[str], saying: Connection) -> None:
    from rewrite.__main__ import command

    os.dup2(saying.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["rewrite", *words]
    command()
