"""Named arrays as safetensors, written whole or not at all, read with one-line errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

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
    try:
        if only is None:
            return load_file(path)
        with safe_open(path, framework="numpy") as arrays:
            return {name: arrays.get_tensor(name) for name in only}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error}); delete it to compute it again") from None
