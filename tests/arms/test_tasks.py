"""Tasks: what is read, what is made, and scores against the model asked one continuation at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from makers.small import small_config
from transformers import AutoTokenizer

from rewrite.arms.anywhere import Anywhere
from rewrite.arms.circuits.tasks import (
    FACTORS,
    Item,
    check_lengths,
    encode,
    make_laundry,
    name_factor,
    read_task,
    try_task,
)
from rewrite.coder.files import load_coder
from rewrite.config import UserError
from rewrite.stages import check_task
from rewrite.subject.subject import load_subject


def test_a_laundry_list_leaves_one_thing() -> None:
    items = make_laundry(30, 0)
    assert items == make_laundry(30, 0) != make_laundry(30, 1)
    for item in items:
        assert 2 <= len(item.wrong) <= 4 and item.right not in item.wrong
        words = item.prompt.replace(",", " ").replace(".", " ").split()
        assert words.count(item.right[1:]) == 1
        assert all(words.count(wrong[1:]) == 2 for wrong in item.wrong)


def test_a_file_is_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "task.jsonl"
    rows = [{"prompt": "a", "right": " b", "wrong": " c"}, {"prompt": "d", "right": " e", "wrong": [" f", " g"]}]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert [item.wrong for item in read_task(str(file), 9, 0)] == [(" c",), (" f", " g")]
    assert len(read_task(str(file), 1, 0)) == 1
    odd = {"prompt": "a\u2028b\x85", "right": " b", "wrong": " c"}
    file.write_text("\n" + json.dumps(odd, ensure_ascii=False), encoding="utf-8")
    assert read_task(str(file), 9, 0)[0].prompt == odd["prompt"]
    for text, reason in (
        ("{", "line 1: not a JSON object"),
        ('{"prompt": "a", "right": " b"}', "line 1: not a JSON object"),
        ('{"prompt": "a", "right": " b", "wrong": []}', "must be texts"),
        ('{"prompt": "a", "right": 3, "wrong": "c"}', "must be texts"),
        ('\n\n{"prompt": "a"}', "line 3: not a JSON object"),
        ('{"prompt": "\\ud800", "right": " b", "wrong": "c"}', "must be texts"),
        ("", "no item"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=reason):
            read_task(str(file), 9, 0)
    with pytest.raises(UserError, match=r"diagnose\.task = .*absent: not `laundry`"):
        read_task(str(tmp_path / "absent"), 9, 0)


def test_scores_are_those_of_the_model_asked_one_by_one(small_run: Path) -> None:
    subject = load_subject(small_config())
    coder = load_coder(small_run / "1_coder", "layers.1.mlp")
    items = make_laundry(5, 0)
    every = np.ones(coder.latents, dtype=bool)
    basis = torch.linalg.qr(torch.randn(subject.width, 2, dtype=torch.float64)).Q.T
    tried = try_task(subject, Anywhere(coder, every), items, basis)
    assert list(tried.right) == ["clean", "coder", "zero", *map(name_factor, FACTORS)]
    assert subject.tokenizer is not None
    for number, item in enumerate(items):
        said = []
        for text in (item.right, *item.wrong):
            first, rest = encode(subject.tokenizer, item.prompt, text)
            with torch.no_grad():
                chances = subject.logits(torch.tensor([first + rest])).log_softmax(-1)[0]
            said.append(sum(float(chances[len(first) - 1 + place, token]) for place, token in enumerate(rest)))
        assert tried.margin["clean"][number] == pytest.approx(said[0] - max(said[1:]), abs=1e-4)
    assert (tried.right["clean"] == (tried.margin["clean"] > 0)).all()
    differ = {arm: np.abs(tried.margin[arm] - tried.margin["coder"]).max() for arm in tried.margin}
    assert differ["coder"] == 0 and all(differ[arm] > 1e-6 for arm in differ if arm != "coder")
    # With no latent rewritten, zero is the coder; with no channel, nothing is turned.
    none = try_task(subject, Anywhere(coder, ~every), items, None)
    np.testing.assert_allclose(none.margin["zero"], none.margin["coder"], atol=1e-4)
    assert list(none.right) == ["clean", "coder", "zero"]


def test_a_continuation_is_cut_into_tokens_as_in_its_text(stories: Path) -> None:
    """sentencepiece puts a space before a text, which a continuation has not."""
    tokenizer = AutoTokenizer.from_pretrained(stories)
    for prompt, text in (("Tom had a", " ball"), ("He walk", "ed")):
        first, rest = encode(tokenizer, prompt, text)
        assert tokenizer.decode(first + rest, skip_special_tokens=True).strip() == prompt + text
        assert tokenizer.convert_ids_to_tokens(rest)[0] != "▁"


def test_what_is_too_short_or_too_long_is_named(small_run: Path) -> None:
    subject = load_subject(small_config())
    coder = load_coder(small_run / "1_coder", "layers.1.mlp")
    items = [*make_laundry(1, 0), Item("a b " * 5000, " b", (" c",))]
    with pytest.raises(UserError, match="item 2 has more tokens than the subject reads"):
        try_task(subject, Anywhere(coder, np.ones(coder.latents, dtype=bool)), items, None)
    for pair in (([5], [6]), ([5, 6], [])):
        with pytest.raises(UserError, match="item 1 has a prompt of fewer than 2 tokens"):
            check_lengths(subject, [pair], [(0, "")])


def test_a_task_that_cannot_be_tried_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"diagnose.*set documents too"):
        small_config("diagnose.task=laundry")
    with pytest.raises(UserError, match="absent: no such file; name a JSONL file, or `laundry`"):
        check_task(small_config("diagnose.documents=8", f"diagnose.task={tmp_path / 'absent'}"))
