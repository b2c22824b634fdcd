"""Later parts held and let go: in every family, to the last bit, and against an implementation of its own."""

from __future__ import annotations

import math

import pytest
import torch
from makers.families import FAMILIES
from makers.llamas import llama_sizes
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rewrite.config import UserError
from rewrite.subject.clamping import Clamp, Part, build_clamp
from rewrite.subject.subject import Subject, build_subject

IDS = torch.randint(3, 90, (3, 12), generator=torch.Generator().manual_seed(0))
WHOLE = ("bloom", "mamba", "mpt", "opt")
"""Families whose blocks do not add up from an attention and an MLP of their own names."""
JOINED = ("falcon", "gpt_neo", "gptj")
"""Families that compute attention in a way of their own."""


def clamp_of(family: str, hookpoint: str) -> Clamp:
    torch.manual_seed(0)
    return build_clamp(build_subject(FAMILIES[family]().eval(), None, hookpoint))


def other(vectors: Tensor) -> Tensor:
    return vectors + vectors.std() * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hookpoint", ["layers.0.mlp", "layers.0"])
def test_what_is_held_is_as_it_was_and_what_is_free_is_the_model(family: str, hookpoint: str) -> None:
    try:
        clamp = clamp_of(family, hookpoint)
    except UserError:
        pytest.skip("this family is refused at this hookpoint (docs/families.md)")
    subject = clamp.subject
    prefix = subject.run_to(IDS)
    vectors = other(prefix.output)
    own, kept = clamp.keep(prefix, prefix.output)
    assert torch.equal(own, subject.run_from(prefix, prefix.output)), "keeping changes nothing"
    torch.testing.assert_close(clamp.run(prefix, prefix.output, kept, ()), own, rtol=0, atol=1e-6)
    free = subject.run_from(prefix, vectors)
    assert torch.equal(clamp.run(prefix, vectors, kept, clamp.parts), free)
    for backward in (False, True):
        runs = list(clamp.release(prefix, vectors, kept, backward))
        order = clamp.parts[::-1] if backward else clamp.parts
        assert [part for part, _ in runs] == [None, *order]
        for number, (_, logits) in enumerate(runs):
            assert torch.equal(logits, clamp.run(prefix, vectors, kept, order[:number])), "nothing is left out"
        assert torch.equal(runs[-1][1], free)
    kinds = {part.kind for part in clamp.parts}
    expected = {"block"} if family in WHOLE else {"attention", "mlp"} if family in JOINED else set()
    assert kinds == (expected or {"values", "pattern", "mlp"})


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "gemma2", "qwen3_moe"])
def test_a_head_is_let_go_or_held_by_itself(family: str) -> None:
    clamp = clamp_of(family, "layers.0.mlp")
    prefix = clamp.subject.run_to(IDS)
    vectors = other(prefix.output)
    _, kept = clamp.keep(prefix, prefix.output)
    held = clamp.run(prefix, vectors, kept, ())
    free = clamp.subject.run_from(prefix, vectors)
    found = list(clamp.each_head(prefix, vectors, kept))
    assert [head for head, _, _ in found] == list(clamp.heads) and len(found) == 8
    for head, alone, without in found:
        assert torch.equal(alone, clamp.run(prefix, vectors, kept, (), {head: True}))
        assert torch.equal(without, clamp.run(prefix, vectors, kept, clamp.parts, {head: False}))
        assert not torch.equal(alone, held) and not torch.equal(without, free)
    last = clamp.later[-1]
    every = {head: True for head in clamp.heads if head.layer == last.layer}
    freed = [part for part in clamp.parts if part.layer == last.layer and part.kind != "mlp"]
    torch.testing.assert_close(
        clamp.run(prefix, vectors, kept, (), every), clamp.run(prefix, vectors, kept, freed), msg="all heads are it"
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "gemma2", "bloom"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_the_same_parts(family: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    clamp = build_clamp(build_subject(FAMILIES[family]().eval().to(dtype), None, "layers.0"))
    assert clamp.parts == clamp_of(family, "layers.0").parts


def test_after_the_last_layer_there_is_nothing_to_hold() -> None:
    clamp = clamp_of("llama", "layers.2.mlp")
    prefix = clamp.subject.run_to(IDS)
    _, kept = clamp.keep(prefix, prefix.output)
    assert (
        clamp.parts == ()
        and kept == {}
        and [part for part, _ in clamp.release(prefix, prefix.output, kept, True)] == [None]
    )


# --- an implementation of its own: a Llama of two layers, written out -------------------------------------------------


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6)


def turn(x: Tensor) -> Tensor:
    """Rotary positions of [position, head, d_head]."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x))[:, None] * 10000.0 ** (-torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def plain(model: LlamaForCausalLM, stream: Tensor, was: dict[str, Tensor], free: set[str]) -> tuple[Tensor, dict]:
    """The second block and the head on [position, d], whose parts are those of `was` where they are not free."""
    block, did = model.model.layers[1], {}
    x, heads = norm(stream, block.input_layernorm.weight), 4
    look = block.self_attn
    q, k, v = ((x @ p.weight.T).view(len(x), -1, 8) for p in (look.q_proj, look.k_proj, look.v_proj))
    scores = torch.einsum("phd,shd->hps", turn(q), turn(k).repeat_interleave(heads // k.shape[1], 1)) / math.sqrt(8)
    pattern = scores.masked_fill(~torch.ones(len(x), len(x), dtype=torch.bool).tril(), -math.inf).softmax(-1)
    did |= {"pattern": pattern, "values": v.repeat_interleave(heads // v.shape[1], 1)}
    used = {name: did[name] if name in free else was.get(name, did[name]) for name in ("pattern", "values")}
    mixed = torch.einsum("hps,shd->phd", used["pattern"], used["values"]).flatten(1)
    stream = stream + mixed @ look.o_proj.weight.T
    x = norm(stream, block.post_attention_layernorm.weight)
    mlp = block.mlp
    did["mlp"] = (
        torch.nn.functional.silu(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T)
    ) @ mlp.down_proj.weight.T
    stream = stream + (did["mlp"] if "mlp" in free else was.get("mlp", did["mlp"]))
    return norm(stream, model.model.norm.weight) @ model.lm_head.weight.T, did


def test_an_implementation_of_its_own_agrees() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**llama_sizes(99, 32, layers=2, heads=4), rms_norm_eps=1e-6))
    subject = build_subject(model.double().eval(), None, "layers.0.mlp")
    for name, weight in model.named_parameters():
        weight.data += 0.3 * torch.randn_like(weight) * ("norm" in name or 0.3)
    clamp, ids = build_clamp(subject), IDS[:1]
    prefix = subject.run_to(ids)
    before = stream_before_write(subject, ids)
    vectors = other(prefix.output)
    _, kept = clamp.keep(prefix, prefix.output)
    with torch.no_grad():
        _, was = plain(model, (before + prefix.output)[0], {}, set())
        for free in (set(), {"values"}, {"pattern"}, {"values", "pattern"}, {"mlp"}, {"values", "pattern", "mlp"}):
            expected, _ = plain(model, (before + vectors)[0], was, free)
            found = clamp.run(prefix, vectors, kept, [Part(1, kind) for kind in free])  # type: ignore[arg-type]
            torch.testing.assert_close(found[0].double(), expected, rtol=0, atol=1e-5)


def stream_before_write(subject: Subject, ids: Tensor) -> Tensor:
    """The residual stream that the hookpoint's output is added to."""
    prefix, found = subject.run_to(ids), []
    block = subject.block

    def watch(_: object, __: object, output: Tensor) -> None:
        found.append(output)

    handle = block.register_forward_hook(watch)
    try:
        subject.run_from(prefix, torch.zeros_like(prefix.output))
    finally:
        handle.remove()
    return found[0]
