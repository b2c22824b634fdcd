"""`4_simulations` on disk: the strengths of the calibrate and test splits, in the shards of `2_activations`. What makes
activations of strengths is `rewrite.arms.calibrate`.

simulator.json                  {"name": ..., "scale": x, "latents": [...] or null for all}: which are rewritten
<split>-<shard>.safetensors     the strengths' CSR arrays, and `asked`, a flag for each position; a simulator that reads
                                probabilities has float16 values, each with `zero` and `outside`, one that was
                                tuned `unread` and `reader` (`rewrite.simulators.base`)
<split>-<shard>.json            {"missing": {latent: why}, "faults": {kind: predictions}}; where it stands, the shard is
                                whole

Where a simulator screens (`rewrite.simulators.base.Screened`) the JSON has "screen", {"by": name, "pairs": all that
could be asked, "passed": those that were, "audited": those asked for the audit}, and the arrays `full`, a flag for each
position, and the audit's answers as a CSR matrix: `audit_indptr`, `audit_indices`, `audit_values`. A pair then has an
entry where it passed, be it 0; NaN there, or a latent that is named, is missing; a pair without an entry was held back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from rewrite.coder.activations import pack_sparse, unpack_sparse
from rewrite.run.arrays import load_arrays, save_arrays
from rewrite.run.files import read_json, write_json
from rewrite.simulators.base import Screened, Strengths, Unread
from rewrite.text.windows import Text


@dataclass(frozen=True)
class Simulations:
    """Reads the shards of a finished `4_simulations`; `latents` is the coder's width."""

    folder: Path
    latents: int

    @cached_property
    def _simulator(self) -> dict[str, Any]:
        described: dict[str, Any] = read_json(self.folder / "simulator.json")
        return described

    @property
    def scale(self) -> float:
        """The top of the simulator's scale."""
        return float(self._simulator["scale"])

    @property
    def rewritten(self) -> Bool[np.ndarray, " latent"]:
        """The latents that were simulated; the others keep their true activations in every arm."""
        chosen = self._simulator["latents"]
        return np.isin(np.arange(self.latents), np.arange(self.latents) if chosen is None else chosen)

    def show(self, shard: str, text: Text) -> Text:
        """The shard's text with the positions that were simulated."""
        return replace(text, asked=load_arrays(self.folder / f"{shard}.safetensors")["asked"])

    def strengths(self, shard: str, positions: int) -> csr_array:
        """The strengths of one shard, positions × latents."""
        arrays = load_arrays(self.folder / f"{shard}.safetensors")
        arrays["values"] = arrays["values"].astype(np.float32)
        return unpack_sparse(arrays, (positions, self.latents))

    def outside(self, shard: str) -> Float[np.ndarray, " entry"] | None:
        """Of each stored strength the probability of an answer that is no digit; None where none was read."""
        return load_arrays(self.folder / f"{shard}.safetensors").get("outside")

    def unread(self, shard: str) -> Unread | None:
        """What the simulator says without any explanation at the simulated positions; None where it was not tuned."""
        arrays = load_arrays(self.folder / f"{shard}.safetensors")
        return Unread(arrays["unread"].astype(np.float32), arrays["reader"]) if "unread" in arrays else None

    def screen(self, shard: str) -> dict[str, Any] | None:
        """The screen of a shard and its counts; None where there was none."""
        said: dict[str, Any] | None = read_json(self.folder / f"{shard}.json").get("screen")
        return said

    def screened(self, shard: str, positions: int) -> Screened | None:
        """What a screen did with a shard; None where there was none."""
        said = self.screen(shard)
        if said is None:
            return None
        arrays = load_arrays(self.folder / f"{shard}.safetensors")
        audit = {name: arrays[f"audit_{name}"] for name in ("indptr", "indices", "values")}
        audit["values"] = audit["values"].astype(np.float32)
        return Screened(said["by"], said["pairs"], arrays["full"], unpack_sparse(audit, (positions, self.latents)))

    def missing(self, shards: Sequence[str]) -> dict[int, str]:
        """Latents without any prediction in some shard, and why."""
        found: dict[int, str] = {}
        for shard in shards:
            found |= {int(k): v for k, v in read_json(self.folder / f"{shard}.json")["missing"].items()}
        return found

    def absent(self, shards: Sequence[str]) -> Bool[np.ndarray, " latent"]:
        """The latents without any prediction in some shard."""
        return np.isin(np.arange(self.latents), list(self.missing(shards)))

    def faults(self, shards: Sequence[str]) -> Counter[str]:
        """Single predictions that are missing, by the kind of failure."""
        found: Counter[str] = Counter()
        for shard in shards:
            found.update(read_json(self.folder / f"{shard}.json")["faults"])
        return found


def save_strengths(folder: Path, shard: str, strengths: Strengths, text: Text) -> None:
    """Write one shard; the list of what is missing comes last."""
    arrays = pack_sparse(strengths.values) | {"asked": text.counted()}
    if strengths.zero is not None and strengths.outside is not None:
        half = {"values": strengths.values.data, "zero": strengths.zero, "outside": strengths.outside}
        arrays |= {name: array.astype(np.float16) for name, array in half.items()}
    if strengths.unread is not None:
        arrays |= {"unread": strengths.unread.strengths.astype(np.float16), "reader": strengths.unread.reader}
    told: dict[str, Any] = {"missing": {str(latent): why for latent, why in strengths.missing.items()}}
    told["faults"] = strengths.faults
    if (screened := strengths.screened) is not None:
        packed = pack_sparse(screened.audit) | {"values": screened.audit.data.astype(np.float16)}
        arrays |= {f"audit_{name}": array for name, array in packed.items()} | {"full": screened.full}
        counts = {"passed": strengths.values.nnz, "audited": screened.audit.nnz}
        told["screen"] = {"by": screened.by, "pairs": screened.pairs} | counts
    save_arrays(folder / f"{shard}.safetensors", arrays)
    write_json(folder / f"{shard}.json", told)


def save_simulator(folder: Path, name: str, scale: float, chosen: Int[np.ndarray, " chosen"] | None) -> None:
    """Write who simulated which latents; None is all."""
    latents = None if chosen is None else chosen.tolist()
    write_json(folder / "simulator.json", {"name": name, "scale": scale, "latents": latents})
