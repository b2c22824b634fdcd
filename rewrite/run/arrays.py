"""Named arrays as safetensors, written whole or not at all, read with one-line errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from rewrite.config import UserError
from rewrite.run.files import write_whole


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as safetensors, whole or not at all."""
    write_whole(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def load_arrays(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read named arrays, or only some of them. Raises UserError naming the file where it is absent or damaged."""
    with _readable(path):
        if only is None:
            return load_file(path)
        with safe_open(path, framework="numpy") as arrays:
            return {name: arrays.get_tensor(name) for name in only}


@contextmanager
def open_arrays(path: Path) -> Iterator[Callable[[str, int, int], np.ndarray]]:
    """What reads entries begin to end of a named array, without the others. It raises UserError as `load_arrays`."""
    with _readable(path):
        arrays: Any = safe_open(path, framework="numpy")

    def read(name: str, begin: int, end: int) -> np.ndarray:
        with _readable(path):
            if begin == end:  # An empty slice is refused at the end of an array.
                return np.asarray(arrays.get_tensor(name))[:0]
            return np.asarray(arrays.get_slice(name)[begin:end])

    with arrays:
        yield read


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}); delete it to compute it again") from None
