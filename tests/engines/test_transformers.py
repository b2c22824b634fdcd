"""The transformers engine: sharing changes no answer; failures stay with their request."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.reading_families import FAMILIES, SIZES

from rewrite.config import UserError
from rewrite.engines.base import Answer, Branches, Fault, Question, Reading
from rewrite.engines.ledger import Spent
from rewrite.engines.prompting import Message
from rewrite.engines.transformers import Settings
from rewrite.engines.transformers.build import TransformersEngine, build
from rewrite.engines.transformers.trunk import Row, common, plan_batches

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def sliding(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose layers see 9 tokens back, with the tokenizer and template of the tiny one."""
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    folder = tmp_path_factory.mktemp("models") / "sliding"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sizes = SIZES | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    MistralForCausalLM(MistralConfig(**sizes, **FAMILIES["mistral"])).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_takes_no_mask_gets_separate_prompts_and_the_log_says_so_once(
    sliding: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = build(str(sliding), Settings(batch=4))
    assert not engine.can.prompt_logprobs
    for _ in range(2):
        for request, reading in zip(prompts(5), readings(engine, prompts(5)), strict=True):
            encoded = engine.encoder.branches(request)
            row = Row(0, encoded.trunk, encoded.ends, encoded.branch)
            model, digits = engine.network, engine.encoder.digits
            found = all_of(model, row)[:, digits]
            np.testing.assert_allclose(reading.digits, found, rtol=1e-3, atol=1e-6)
            assert reading.spent.tokens_in == engine.estimate(request).tokens_in == int(encoded.lengths.sum())
            assert reading.spent.calls == 3
    assert sum("takes no mask" in record.message for record in caplog.records) == 1


def all_of(model: Any, row: Row) -> np.ndarray:
    """The whole vocabulary's probabilities at each branch, in a plain forward each."""
    import torch

    with torch.no_grad():
        prompts = [torch.from_numpy(np.concatenate([row.ids[:end], row.branch]))[None] for end in row.ends]
        return np.stack([model(ids, use_cache=False).logits[0, -1].softmax(-1).numpy() for ids in prompts])


ROWS = st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=8), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(prompts=ROWS, most=st.integers(1, 4), trunk=st.lists(st.integers(0, 1), max_size=8))
def test_batches_cover_all_rows_and_share_what_is_alike(prompts: list[list[int]], most: int, trunk: list[int]) -> None:
    rows = [
        Row(n, np.array(ids), np.array([len(ids)]), np.zeros(0, dtype=np.int64))
        for n, ids in enumerate(sorted(prompts))
    ]
    batches = plan_batches(rows, most, np.array(trunk, dtype=np.int64))
    assert [n for batch in batches for n in range(batch.begin, batch.end)] == list(range(len(rows)))
    for batch in batches:
        some = rows[batch.begin : batch.end]
        assert 1 <= len(some) <= most
        assert all(common(some[0].ids, row.ids) >= batch.shared and row.open >= batch.shared for row in some)


def prompts(number: int) -> list[Branches]:
    head = Message("system", "Rate each token from 0 to 9. " * 20)
    words = ["import", "os", "for", "x", "in", "range", "class", "def", "return"]
    return [
        Branches((head, Message("user", f"Explanation: {words[n % 9]} {n}")), (f" {words[n % 7]}", " os", " 7"), " => ")
        for n in range(number)
    ]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    return build(str(tiny_model), Settings())


def readings(engine: TransformersEngine, requests: Sequence[Branches]) -> list[Reading]:
    found = dict(engine.read(requests))
    return [reply for n in range(len(requests)) if isinstance(reply := found[n], Reading)]


@pytest.mark.parametrize("batch", [1, 3, 8, 64])
def test_the_trunk_changes_no_answer(engine: TransformersEngine, tiny_model: Path, batch: int) -> None:
    requests, alone = prompts(20), []
    for request in requests:
        engine.forget()
        alone += readings(engine, [request])
    whole = sum((reading.spent for reading in alone), start=Spent())
    assert whole.processed == whole.tokens_in
    together = readings(build(str(tiny_model), Settings(batch=batch)), requests)
    assert len(together) == len(alone) == 20
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.digits, one.digits, rtol=1e-4)
    shared = sum((reading.spent for reading in together), start=Spent())
    assert shared.tokens_in == whole.tokens_in and shared.processed * 4 < whole.processed


def test_what_is_processed_is_what_reaches_the_model(engine: TransformersEngine) -> None:
    """Every token is embedded once; with one prompt at a time there is no padding."""
    seen: list[int] = []
    engine.forget()
    hook = engine.network.get_input_embeddings().register_forward_hook(lambda *a: seen.append(a[1][0].numel()))
    try:
        processed = [readings(engine, [request])[0].spent.processed for request in prompts(5)]
    finally:
        hook.remove()
    assert seen == processed


def test_only_the_ends_of_branches_reach_the_vocabulary(engine: TransformersEngine) -> None:
    seen: list[int] = []
    head = engine.network.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, inputs, output: seen.append(output.numel() // output.shape[-1]))
    try:
        requests = prompts(8)
        readings(engine, requests)
    finally:
        hook.remove()
    assert sum(seen) == sum(len(request.pieces) for request in requests)


def test_a_failure_stays_with_its_request(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = prompts(6)
    good = readings(engine, requests)
    bad, read = engine.encoder.branches(requests[2]).trunk.tolist(), engine._reader.read

    def fail(rows: Sequence[Row], shared: int) -> list[Reading]:
        import torch

        if any(row.ids.tolist() == bad for row in rows):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return read(rows, shared)

    monkeypatch.setattr(engine._reader, "read", fail)
    found = dict(engine.read(requests))
    fault = found.pop(2)
    assert isinstance(fault, Fault) and fault.kind == "server error" and "engines.transformers.batch" in fault.detail
    for number, reply in found.items():
        assert isinstance(reply, Reading)
        np.testing.assert_allclose(reply.digits, good[number].digits, rtol=1e-4)


def test_logits_that_are_no_numbers_are_missing(tiny_model: Path) -> None:
    import torch

    engine = build(str(tiny_model), Settings())
    with torch.no_grad():
        engine.network.get_output_embeddings().weight[0, 0] = float("nan")
    replies = [reply for _, reply in engine.read(prompts(3))]
    assert len(replies) == 3
    assert all(isinstance(reply, Fault) and reply.kind == "no log-probabilities" for reply in replies)


def test_sampled_answers_do_not_depend_on_company(engine: TransformersEngine) -> None:
    asked = [
        Question(prompts(9)[n].messages, 5 + n, temperature=0.7 * (n % 3), seed=n, stop=("e", "\n")[: n % 3])
        for n in range(9)
    ]
    together = dict(engine.generate(asked))
    for number, question in enumerate(asked):
        assert dict(engine.generate([question]))[0] == together[number]
        assert isinstance(together[number], Answer)


def test_draws_follow_the_softmax(engine: TransformersEngine, tiny_model: Path) -> None:
    """The first token of many seeds, beside the probabilities of the 4 most probable at a low temperature."""
    import torch

    question = Question((Message("user", "import os"),), 1, temperature=0.25)
    ids = torch.from_numpy(engine.encoder.question(question))[None]
    with torch.no_grad():
        expected = (engine.network(ids).logits[0, -1] / 0.25).softmax(-1)
    draws = 400
    seeds = [Question(question.messages, 1, temperature=0.25, seed=seed) for seed in range(draws)]
    texts = [answer.text for _, answer in build(str(tiny_model), Settings(batch=50)).generate(seeds)]  # type: ignore[union-attr]
    for token in expected.topk(4).indices.tolist():
        share, wanted = texts.count(engine.encoder.decode([token])) / draws, float(expected[token])
        assert abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / draws) + 1e-9


def test_identity_names_all_that_answers_depend_on(tiny_model: Path) -> None:
    plain = build(str(tiny_model), Settings()).identity
    assert plain["engine"] == "transformers"
    assert build(str(tiny_model), Settings(batch=1)).identity == plain
    assert build(str(tiny_model), Settings(dtype="bfloat16")).identity != plain


def test_what_the_user_can_mend_is_said_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    empty, no_weights, other = tmp_path / "empty", tmp_path / "weights", tmp_path / "other"
    empty.mkdir()
    shutil.copytree(tiny_model, no_weights)
    (no_weights / "model.safetensors").unlink()
    shutil.copytree(tiny_model, other)
    (other / "config.json").write_text('{"model_type": "vit"}')
    for engine, said in (
        (build(str(tmp_path / "absent"), Settings()), "no such folder"),
        (build(str(empty), Settings()), "no tokenizer can be read|no model folder"),
        (build(str(no_weights), Settings()), "cannot be loaded as a causal language model"),
        (build(str(other), Settings()), "cannot be loaded as a causal language model"),
        (
            build(str(tiny_model), Settings(device="cuda:99")),
            "engines.transformers.device = cuda:99: .* there are: cpu",
        ),
        (build(str(tiny_model), Settings(device="gpu")), "engines.transformers.device = gpu: .* there are: cpu"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            list(engine.read(prompts(1)))
        assert "\n" not in str(caught.value)
