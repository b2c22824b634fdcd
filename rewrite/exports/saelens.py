"""the coder in SAELens' layout, for SAE.load_from_disk

`cfg.json` and `sae_weights.safetensors` hold the coder of the run as SAELens computes it (`rewrite.coder.saelens`). The
metadata name the subject and its hooks, so that `SAETransformerBridge.add_sae` splices the coder where the run did.
What it splices is `decode(encode(x))`, in which SAELens leaves out a skip; calling the coder itself has it.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from rewrite.coder.files import CONFIG, SAELENS_WEIGHTS, load_coder
from rewrite.coder.saelens import compose_saelens
from rewrite.exports.base import public
from rewrite.run.finished import Finished


def write(run: Finished, folder: Path) -> list[str]:
    """Write both files. Raises UserError for a coder that SAELens has no form for."""
    hookpoint = str(run.setting("hookpoint"))
    coder = load_coder(run.path("1_coder"), hookpoint)
    metadata = {
        "model_name": public(run, "subject"),
        "dataset_path": public(run, "corpus.source"),
        "context_size": run.setting("corpus.window"),
    }
    layout = compose_saelens(vars(coder), hookpoint, metadata)
    save_file(layout.tensors, folder / SAELENS_WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(layout.cfg, indent=1), encoding="utf-8")
    said = f"architecture {layout.cfg['architecture']}, {coder.latents:,} latents, at {hookpoint}"
    return [f"{CONFIG} and {SAELENS_WEIGHTS}: the {coder.kind} with {coder.activation} ({said})"]
