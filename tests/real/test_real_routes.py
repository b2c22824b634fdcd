"""What Ferrando & Voita saw of information's routes, on real models: what holds of it there (docs/diagnosis.md)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewrite.arms.circuits.routes import watch_routes
from rewrite.subject.subject import build_subject

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = (
    "Once upon a time there was a little girl who had a small dog and a big red ball. She loved to play in the garden. "
    "One day the ball rolled away. The dog ran after it, and the girl laughed."
)


def importance_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """How much of what they are added to MLPs make up, and how much of its sum with attention the stream, by layer."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    subject = build_subject(model, None, "layers.0.mlp")
    ids = torch.tensor([tokenizer(TEXT, add_special_tokens=False)["input_ids"]])
    found = watch_routes(subject, range(len(subject.blocks)), subject.run_to(ids), None)
    mlp = np.array([float(one.mlp[0, 1:].mean()) for one in found.values()])
    return mlp, np.stack([one.stream[0].numpy() for one in found.values()])


def test_mlps_weigh_most_in_the_first_layer_and_the_last() -> None:
    models = os.environ.get("REWRITE_MODELS")
    if not models or not (Path(models) / "smollm2").is_dir():
        pytest.skip("needs REWRITE_MODELS=DIR with the model smollm2 in it")
    mlp, _ = importance_of(Path(models) / "smollm2")
    assert mlp[0] > 0.9 and mlp[0] > mlp[-1] > mlp[1:-1].max() and mlp[1:-1].max() < 0.2
