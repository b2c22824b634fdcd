"""The test split and what a screen did with it → counts, document by document (see the package)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool
from scipy.sparse import csr_array

from rewrite.arms.audit import find_screened
from rewrite.arms.batches import walk_shards
from rewrite.arms.controls import TOP
from rewrite.coder.activations import Split
from rewrite.simulators.strengths import Simulations

Row = dict[str, Any]
COUNTS = ("pairs", "passed", "audited", "true", "true_passed", "said", "said_truly", "heard", "heard_truly", "failed")
"""Of each document: `true` are the true firings at all pairs; `said` those of the simulator where pairs passed, `heard`
where they were held back and asked about for the audit, and of either those that are true; `failed` answers of the
audit."""
SCREEN = b"screen"


def measure_screen(test: Split, simulations: Simulations) -> Row | None:
    """{"by": name, "documents": [...], "full": [...], a list for each of COUNTS}, of the documents that are simulated;
    None where no screen was used."""
    told = simulations.screen(test.shards[0])
    if told is None:
        return None
    size = len(test.names)
    counts = np.zeros((len(COUNTS), size), dtype=np.int64)
    simulated, full = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    known = simulations.rewritten & ~simulations.absent(test.shards)
    least = simulations.scale / TOP / 2
    for name, shard in walk_shards(test, simulations):
        counted, owners = shard.text.counted(), shard.owners
        screened = find_screened(simulations, name, len(counted))
        passed, audit = simulations.strengths(name, len(counted)), screened.audit
        said, heard = (_where(own, (own.data >= least) & known[own.indices]) for own in (passed, audit))
        entries, asked = (_where(own, known[own.indices]) for own in (passed, audit))
        true = shard.activations
        here = counted.repeat(np.diff(true.indptr))
        truth = _where(true, (true.data > 0) & known[true.indices] & here)
        failed = _where(audit, np.isnan(audit.data) & known[audit.indices])
        found = [entries, asked, truth, _both(entries, truth)]
        found += [said, _both(said, truth), heard, _both(heard, truth), failed]
        each = [np.bincount(owners, np.diff(one.indptr), size) for one in found]
        pairs = np.bincount(owners[counted], minlength=size) * known.sum()
        counts += np.stack([pairs, *each]).astype(np.int64)
        simulated[owners[counted]] = True
        full[owners[counted & screened.full]] = True
    own = np.flatnonzero(simulated)
    columns = {column: values[own].tolist() for column, values in zip(COUNTS, counts, strict=True)}
    return {"by": told["by"], "documents": own.tolist(), "full": full[own].tolist()} | columns


def _where(matrix: csr_array, holds: Bool[np.ndarray, " entry"]) -> csr_array:
    """Ones at the entries of a matrix for which something holds."""
    found = csr_array((holds.astype(np.int8), matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
    found.eliminate_zeros()
    return found


def _both(one: csr_array, other: csr_array) -> csr_array:
    """Ones where both have one."""
    found = csr_array(one.multiply(other))
    found.eliminate_zeros()
    return found


def note_screen(table: pa.Table, measured: Row | None) -> pa.Table:
    """The table of latents with what was measured in its metadata."""
    if measured is None:
        return table
    return table.replace_schema_metadata((table.schema.metadata or {}) | {SCREEN: json.dumps(measured).encode()})


def read_screen(table: pa.Table) -> Row | None:
    """What `note_screen` noted."""
    noted = (table.schema.metadata or {}).get(SCREEN)
    return json.loads(noted) if noted else None
