"""Cost: what each rewritten latent's simulation costs in loss, and how often it fires falsely or not at all.

1. A few of the test documents are drawn; on them integrated gradients give every latent's cost
   (`rewrite.arms.attribution`), and the two ends of their line, `coder` and `simulated`, say by how much the costs fail
   to add up.
2. Some latents are also measured alone, all others true, and both ways are compared (`rewrite.statistics.costs`).
3. False and missed firings are counted on all simulated positions of the test split (`rewrite.statistics.firings`).

`5_costs.parquet` has a row per rewritten latent: `cost`, `cost_low`, `cost_high` [nats per token], `p`, `q`, `alone`
with its ends, the scores it may be predicted from, the counts and the rates; null is what there is none of.
`5_costs.json`: {"schema", "documents", "tokens", "steps", "loss": {"coder", "simulated"}, "sum", "completeness_error",
"completeness_share", "costly", "tested", "check", "predictors", "firings"}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float

from rewrite.arms.batches import Fitted, document_pairs
from rewrite.arms.controls import find_threshold
from rewrite.arms.drawn import open_drawn
from rewrite.arms.latent_costs import Meter
from rewrite.coder.activations import ActivationStore, Split
from rewrite.coder.files import load_coder
from rewrite.config import Config
from rewrite.run.files import write_json
from rewrite.run.parts import Share
from rewrite.run.store import Run
from rewrite.simulators.strengths import Simulations
from rewrite.statistics.costs import PREDICTORS, Costs, check_costs, draw_check, predict, summarise
from rewrite.statistics.firings import Firings, count_firings, pool, rate_latents

Row = dict[str, Any]


def run(config: Config, run: Run) -> None:
    """Write `5_costs.parquet` and `5_costs.json`."""
    store = ActivationStore(run.path("2_activations"), ("calibrate", "test"))
    simulations = Simulations(run.path("4_simulations"), store.latents)
    rewritten = simulations.rewritten
    coder = load_coder(run.path("1_coder"), config.hookpoint).to(torch.device(config.device))
    drawn = open_drawn(config, store, simulations, coder)
    meter = Meter(drawn, config.cost.steps, drawn.documents(config.cost.documents, config.cost.seed))
    with run.parts("5_costs.parquet") as folder:
        make = Share(config, folder)
        ledger = meter.attribute(make)
        value = ledger.nats.sum(0) / ledger.tokens.sum()
        check = draw_check(value, drawn.simulated, config.cost.check, config.cost.seed)
        measured = meter.measure_alone(np.concatenate([check["most"], check["drawn"]]), ledger, make)
        alpha = config.analyse.alpha
        costs, alone = summarise(ledger.nats, ledger.tokens, alpha), summarise(measured, ledger.tokens, alpha)
        firings = count_test_firings(store.test, simulations, drawn.fitted, rewritten & ~drawn.absent)
        scores = read_scores(run.path("4_scores.parquet"))
        scores |= {"density": drawn.fitted.tally.density, "size": ledger.sizes(coder.W_dec)}
        with run.writing("5_costs.parquet") as path:
            columns = _cost_columns(costs, alone) | scores | _firing_columns(firings)
            pq.write_table(tabulate(columns, rewritten), path)
    with run.writing("5_costs.json") as path:
        known = costs.q[~np.isnan(costs.q)]
        content = ledger.describe(config.cost.steps)
        content |= {"alpha": alpha, "costly": int((known < alpha).sum()), "tested": len(known)}
        content["check"] = check_costs(costs.value, alone.value, check["drawn"], alpha)
        content["predictors"] = predict(costs.value, scores, alpha)
        content["firings"] = pool(firings, alpha)
        write_json(path, content)


def count_test_firings(
    test: Split, simulations: Simulations, fitted: Fitted, counted: Bool[np.ndarray, " latent"]
) -> Firings:
    """Count on every simulated position of the test split; latents without a prediction are not `counted`."""
    threshold = find_threshold(fitted.calibrator, simulations.scale, test.latents)
    return count_firings(document_pairs(test, simulations), fitted.calibrator, threshold, counted)


def read_scores(path: Path) -> dict[str, Float[np.ndarray, " latent"]]:
    """The scores of every latent that were taken, by name; NaN where a latent has none."""
    table = pq.read_table(path)
    taken = [name for name in PREDICTORS if name in table.column_names]
    return {name: table.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in taken}


def _cost_columns(costs: Costs, alone: Costs) -> dict[str, np.ndarray]:
    return {
        "cost": costs.value,
        "cost_low": costs.low,
        "cost_high": costs.high,
        "p": costs.p,
        "q": costs.q,
        "alone": alone.value,
        "alone_low": alone.low,
        "alone_high": alone.high,
    }


def _firing_columns(firings: Firings) -> dict[str, np.ndarray]:
    columns = {name: np.where(firings.counted, values, np.nan) for name, values in vars(firings.latents).items()}
    return columns | {name: np.where(firings.counted, values, np.nan) for name, values in rate_latents(firings).items()}


def tabulate(columns: dict[str, np.ndarray], rewritten: Bool[np.ndarray, " latent"]) -> pa.Table:
    """A row per rewritten latent, null for NaN."""
    latents = np.flatnonzero(rewritten)
    table: dict[str, pa.Array] = {"latent": pa.array(latents, pa.int32())}
    for name, values in columns.items():
        table[name] = pa.array(values[latents], pa.float64(), from_pandas=True)
    return pa.table(table)
