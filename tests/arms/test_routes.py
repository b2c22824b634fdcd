"""Routes against a literal double loop: what the stream is made of, and the way back from a prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from makers.families import without_biases

from rewrite.arms.circuits.routes import Importance, f1, find_route, proximity, watch_routes
from rewrite.subject.attending import Look, tapping
from rewrite.subject.families import find_attention
from rewrite.subject.forwards import Record, vectors_of, with_forwards
from rewrite.subject.subject import build_subject
from rewrite.subject.weights import writes_of

IDS = torch.randint(3, 90, (1, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "neox_serial", "gemma2", "olmo2", "qwen3"])
def test_importances_are_those_of_a_double_loop(family: str) -> None:
    subject, layer = build_subject(without_biases(family), None, "layers.0.mlp"), 1
    block, attention = subject.blocks[layer], find_attention(subject.blocks[layer])
    assert attention is not None
    stream, added, mlp, looks = Record(), Record(), Record(), list[tuple[Look, Any]]()

    def note(look: Look) -> Any:
        looks.append((look, look.pattern()))
        return look.compute()

    watched = {block: stream, attention: added, block.mlp: mlp}
    forwards = {part: record.watch(part) for part, record in watched.items()}
    with with_forwards(forwards), tapping(subject.model, {attention: note}):
        subject.logits(IDS)
    look, pattern = looks[0]
    x, out = stream.input[0], vectors_of(stream.output)[0]
    after = out - vectors_of(mlp.output)[0]
    raw, matrix = vectors_of(added.output)[0], writes_of(subject, layer)
    assert matrix is not None
    heads, length = pattern.shape[1], len(x)
    columns = matrix.view(len(matrix), heads, -1)
    parts = torch.zeros(heads, length, length, x.shape[1])
    for head in range(heads):
        shared = head * look.value.shape[1] // heads
        for position in range(length):
            for source in range(length):
                moved = columns[:, head] @ look.value[0, shared, source]
                parts[head, position, source] = pattern[0, head, position, source] * moved
    torch.testing.assert_close(parts.sum((0, 2)), raw, rtol=1e-4, atol=1e-5, msg="the parts are attention's output")
    parts = parts * ((after - x) / raw)[None, :, None]
    importance = watch_routes(subject, [layer], subject.run_to(IDS), None)[layer]
    for position in range(length):
        y = after[position]
        sizes = torch.tensor(
            [
                [
                    max(0.0, float(y.abs().sum() - (y - parts[head, position, source]).abs().sum()))
                    for source in range(length)
                ]
                for head in range(heads)
            ]
        )
        rest = max(0.0, float(y.abs().sum() - (y - x[position]).abs().sum()))
        expected = sizes / (sizes.sum() + rest)
        torch.testing.assert_close(importance.attention[0, :, position], expected, rtol=1e-3, atol=1e-4)
        assert float(importance.attention[0, :, position].sum() + importance.stream[0, position]) == pytest.approx(1)
        a, b = (float(proximity(part, out[position])) for part in (vectors_of(mlp.output)[0, position], y))
        assert float(importance.mlp[0, position]) == pytest.approx(a / (a + b), abs=1e-4)


def test_the_way_back_is_that_of_a_search() -> None:
    rng = torch.Generator().manual_seed(0)
    length, heads, layers, threshold = 9, 3, 3, 0.06
    found = []
    for _ in range(layers):
        attention = torch.rand(1, heads, length, length, generator=rng).tril() * 0.06
        found.append(Importance(attention, torch.rand(1, length, generator=rng) * 0.1, torch.zeros(1, length)))
    expected, open_places = set[tuple[Any, ...]](), {length - 1}
    for layer in reversed(range(layers)):
        ahead = set(open_places)
        for position in sorted(open_places):
            if float(found[layer].mlp[0, position]) > threshold:
                expected.add((layer, "mlp", position))
            for source in range(length):
                if float(found[layer].attention[0, :, position, source].sum()) > threshold:
                    expected.add((layer, "attention", position, source))
                    ahead.add(source)
        open_places = ahead
    flags = find_route(found, 0, length - 1, threshold)
    names: list[tuple[Any, ...]] = []
    for layer in range(layers):
        names += [(layer, "attention", position, source) for position in range(length) for source in range(length)]
        names += [(layer, "mlp", position) for position in range(length)]
    assert {name for name, flag in zip(names, flags, strict=True) if flag} == expected and expected


def test_how_alike_two_routes_are() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert f1(a, b) == 0.5 and f1(a, a) == 1 and f1(~a & a, ~a & a) == 1 and f1(a, ~a) == 0
