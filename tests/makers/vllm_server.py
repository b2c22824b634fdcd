"""vLLM's own server for the tests: a real one, on loopback, which ends with the test and all that it has started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READY = 240.0
"""Longest wait for the server to start [s]."""
LONGEST = 4096
"""Longest prompt with its answer [tokens]."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


@contextmanager
def vllm_server(model_folder: Path, work: Path) -> Iterator[str]:
    """The base URL of `vllm serve` with the model, in float32 and under the name `tiny`; its log lies in `work`."""
    address = f"http://127.0.0.1:{_free_port()}"
    log = work / "vllm.log"
    # The variable may be set for engines in process, and the server starts its own.
    environment = {k: v for k, v in os.environ.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"} | ENVIRONMENT
    with log.open("wb") as stream:
        process = subprocess.Popen(
            _command(model_folder, address), stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
    try:
        _wait(process, f"{address}/health", log)
        yield f"{address}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _command(model_folder: Path, address: str) -> list[str]:
    options = {
        "--model": str(model_folder),
        "--served-model-name": "tiny",
        "--host": "127.0.0.1",
        "--port": address.rpartition(":")[2],
        "--dtype": "float32",
        "--max-model-len": str(LONGEST),
        "--block-size": "32",
        "--structured-outputs-config": json.dumps({"backend": "guidance", "disable_any_whitespace": True}),
    }
    flags = ["--enforce-eager", "--enable-prefix-caching", "--enable-prompt-tokens-details"]
    # The script `vllm` fails where the distribution is called vllm-cpu.
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return [*server, *(part for option in options.items() for part in option), *flags]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    """Until the server says that it is well. Fails with the end of its log where it dies or takes too long."""
    deadline = time.monotonic() + READY
    while True:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            pass
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        raise AssertionError(f"vllm serve did not get ready:\n{log.read_text(errors='replace')[-3000:]}")
