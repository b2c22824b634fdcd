"""Training a coder: what sparsify is given, what it leaves behind, and the figures on held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.training_made import TINY, VOCABULARY, D, identity_coder, make_model, make_windows
from torch import Tensor

from rewrite.coder import training
from rewrite.coder.metrics import Tally, hold_out_metrics
from rewrite.config import CoderConfig, UserError
from rewrite.display import progress
from rewrite.subject.subject import Subject, build_subject, write
from rewrite.text.windows import pad_windows

WINDOWS = make_windows()


def test_windows_repeat_in_new_orders_until_there_are_enough() -> None:
    windows = [np.array(w, np.int32) for w in ([5, 6, 7], [5, 1, 2, 3, 4], [9, 8, 7, 6])]  # 2 + 4 + 3 positions count
    batches = training.order_windows(windows, CoderConfig(tokens=20, batch=2), length=6, offset=100)
    assert batches.ids.tolist() == [
        [105, 6, 7, 100, 100, 100],
        [105, 1, 2, 3, 4, 100],
        [109, 8, 7, 6, 100, 100],
    ]
    assert batches.excluded() == [100, 105, 109]
    # 20 positions take two rounds of 9 and some of a third; windows come in whole batches of 2.
    assert len(batches) in (8, 10)
    assert sorted(batches.order[:3].tolist()) == sorted(batches.order[3:6].tolist()) == [0, 1, 2]
    again = training.order_windows(windows, CoderConfig(tokens=20, batch=2), length=6, offset=100)
    other = training.order_windows(windows, CoderConfig(tokens=20, batch=2, seed=1), length=6, offset=100)
    assert torch.equal(again.order, batches.order)
    assert batches.order.tolist() != other.order.tolist()
    assert len(training.order_windows(windows[:1], CoderConfig(tokens=1, batch=8), length=6, offset=100)) == 8


@pytest.mark.parametrize("kind", ["transcoder", "sae"])
def test_sparsify_sees_the_counted_positions_and_no_other(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsify import SparseCoder

    subject = build_subject(make_model(), None, "layers.1.mlp")
    seen: list[Tensor] = []
    forward = SparseCoder.forward

    def spy(self: Any, x: Tensor, y: Tensor, **rest: Any) -> Any:
        seen.extend((x, y))
        return forward(self, x, y, **rest)

    monkeypatch.setattr(SparseCoder, "forward", spy)
    config = TINY.model_copy(update={"kind": kind, "tokens": 30})
    batches = training.order_windows(WINDOWS, config, 12, VOCABULARY)
    training.train_coder(config, subject, WINDOWS, 12, tmp_path)
    padded = pad_windows([WINDOWS[i] for i in batches.order[: config.batch]])
    prefix = subject.run_to(torch.from_numpy(padded.ids))
    counted = torch.from_numpy(padded.counted)
    torch.testing.assert_close(seen[0], (prefix.input if kind == "transcoder" else prefix.output)[counted])
    torch.testing.assert_close(seen[1], prefix.output[counted])
    assert len(seen) == 2 * len(batches) // config.batch


def test_training_is_silent_repeatable_and_leaves_nothing_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subject = build_subject(make_model(), None, "layers.1.mlp")
    ids = torch.from_numpy(pad_windows(WINDOWS).ids)
    before = subject.logits(ids)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = training.train_coder(TINY, subject, WINDOWS, 12, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.equal(subject.logits(ids), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in subject.model.modules())
    second = training.train_coder(TINY, subject, WINDOWS, 12, tmp_path)
    other = training.train_coder(TINY.model_copy(update={"seed": 1}), subject, WINDOWS, 12, tmp_path)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_a_long_training_tells_how_far_it_has_come(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    subject = build_subject(make_model(), None, "layers.1.mlp")
    training.train_coder(TINY, subject, WINDOWS, 12, tmp_path)
    out, err = capfd.readouterr()
    batches = training.order_windows(WINDOWS, TINY, 12, len(subject.model.get_input_embeddings().weight))
    steps = len(batches) // TINY.batch
    lines = err.splitlines()
    assert not out and all(line.startswith("train: ") for line in lines)
    assert lines[-1].startswith(f"train: {steps} of {steps} steps, ")


@pytest.mark.parametrize(
    ("family", "dtype", "kind", "hookpoint"),
    [
        ("llama", torch.float32, "transcoder", "layers.0.mlp"),
        ("llama", torch.float32, "skip_transcoder", "layers.2.mlp"),
        ("llama", torch.float32, "sae", "layers.1"),
        ("llama", torch.bfloat16, "transcoder", "layers.1.mlp"),
        ("gemma2", torch.float32, "transcoder", "layers.1.mlp"),
        ("gemma2", torch.float32, "sae", "layers.1.mlp"),
    ],
)
def test_every_kind_learns(family: str, dtype: torch.dtype, kind: Any, hookpoint: str, tmp_path: Path) -> None:
    subject = build_subject(make_model(family, dtype), None, hookpoint)
    config = TINY.model_copy(update={"kind": kind, "tokens": 8_000})
    coder = training.train_coder(config, subject, WINDOWS, 12, tmp_path)
    assert (coder.kind, coder.k, coder.latents) == (kind, 4, 32)
    metrics = hold_out_metrics(subject, coder, WINDOWS, 8)
    assert metrics.fvu < 0.75
    assert 0 < metrics.l0 <= 4


def test_metrics_of_a_coder_that_loses_nothing() -> None:
    subject = build_subject(make_model(), None, "layers.1.mlp")
    metrics = hold_out_metrics(subject, identity_coder(), WINDOWS, 8)
    assert metrics.fvu == pytest.approx(0, abs=1e-12)
    assert metrics.loss_coder == pytest.approx(metrics.loss_clean, abs=1e-7)
    assert metrics.recovered == pytest.approx(1, abs=1e-3)
    assert metrics.l0 == pytest.approx(D)
    assert metrics.dead == 0
    assert metrics.positions == sum(len(w) - 1 for w in WINDOWS)
    assert metrics.tokens == sum(len(w) - 2 for w in WINDOWS)


def loss_of(subject: Subject, window: np.ndarray) -> float:
    """Summed loss of tokens 2, 3, ... of a window, by the definition."""
    logits = subject.logits(torch.tensor(window)[None])[0].log_softmax(-1)
    return -sum(float(logits[t, window[t + 1]]) for t in range(1, len(window) - 1))


def fvu(y: torch.Tensor, guess: torch.Tensor) -> float:
    return float((y - guess).square().sum() / (y - y.mean(0)).square().sum())


def test_metrics_by_their_definitions_one_window_at_a_time(tmp_path: Path) -> None:
    subject = build_subject(make_model(), None, "layers.1.mlp")
    coder = training.train_coder(TINY.model_copy(update={"kind": "skip_transcoder"}), subject, WINDOWS, 12, tmp_path)
    metrics = hold_out_metrics(subject, coder, WINDOWS, 8)
    firsts, guessed = [], []
    truth, guess, losses = [], [], {"clean": 0.0, "coder": 0.0, "zero": 0.0}
    for window in WINDOWS:
        prefix = subject.run_to(torch.tensor(window)[None])
        x, own = prefix.input[0], prefix.output[0]
        for arm, y in (("coder", coder.reconstruct(coder.encode(x), x)), ("zero", coder.base(x))):
            with write(subject, torch.cat([own[:1], y[1:]])[None]):
                losses[arm] += loss_of(subject, window)
        losses["clean"] += loss_of(subject, window)
        firsts.append(own[0])
        guessed.append(coder.reconstruct(coder.encode(x), x)[0])
        truth.append(own[1:])
        guess.append(coder.reconstruct(coder.encode(x), x)[1:])
    y, y_hat = torch.cat(truth), torch.cat(guess)
    assert metrics.fvu == pytest.approx(fvu(y, y_hat), rel=1e-4)
    y, y_hat = torch.cat([y, torch.stack(firsts)]), torch.cat([y_hat, torch.stack(guessed)])
    assert metrics.fvu_with_first == pytest.approx(fvu(y, y_hat), rel=1e-4)
    for arm, loss in losses.items():
        assert getattr(metrics, f"loss_{arm}") == pytest.approx(loss / metrics.tokens, rel=1e-5)
    zero, clean = metrics.loss_zero, metrics.loss_clean
    assert metrics.recovered == pytest.approx((zero - metrics.loss_coder) / (zero - clean))


def test_too_little_text_to_measure_on_is_refused() -> None:
    subject = build_subject(make_model(), None, "layers.1.mlp")
    with pytest.raises(UserError, match="too few tokens"):
        Tally(subject.width, 4).metrics()


def test_outputs_that_do_not_vary_or_are_no_numbers_are_refused() -> None:
    """A share of no variance, or of NaN, would be a number that means nothing."""
    tally = Tally(3, 4)
    tally.add(torch.full((5, 3), 2.0), torch.zeros(5, 3))
    tally.tokens = 5
    with pytest.raises(UserError, match="the module returns the same at all 5 positions of the calibrate split"):
        tally.metrics()
    for value in (float("nan"), float("inf")):
        tally = Tally(3, 4)
        tally.add(torch.rand(5, 3), torch.full((5, 3), value))
        tally.tokens = 5
        with pytest.raises(UserError, match="holds NaN or infinite values; set dtype"):
            tally.metrics()


def test_a_layer_whose_outputs_are_no_numbers_is_refused() -> None:
    model = make_model()
    with torch.no_grad():
        model.base_model.layers[1].mlp.down_proj.weight[0, 0] = float("inf")
    subject = build_subject(model, None, "layers.1.mlp")
    with pytest.raises(UserError, match="holds NaN or infinite values"):
        hold_out_metrics(subject, identity_coder(), WINDOWS, 8)
