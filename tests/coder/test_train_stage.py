"""The stage that trains a coder, or takes somebody else's: what it leaves, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from makers.training_made import TINY, VOCABULARY, D, identity_coder, make_model, make_windows
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from rewrite.coder.files import load_coder
from rewrite.config import CoderConfig, Config, CorpusConfig, UserError
from rewrite.run.store import Run
from rewrite.stages import train
from rewrite.subject.subject import build_subject
from rewrite.text.sources import read_corpus


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tokenizer of one-letter words, and documents in them."""
    folder = tmp_path_factory.mktemp("subject")
    make_model().save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({chr(65 + i): i for i in range(VOCABULARY)}, unk_token="A"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = hf.PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, unk_token="A").save_pretrained(folder)
    documents = [" ".join(chr(65 + i) for w in make_windows(3, seed) for i in w) for seed in range(40)]
    (folder / "documents.jsonl").write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    return folder


def configure(saved: Path, hookpoint: str = "layers.1.mlp", source: str = "", **coder: Any) -> Config:
    corpus = CorpusConfig(source=source or str(saved / "documents.jsonl"), train=20, calibrate=10, window=12)
    settings = TINY.model_dump() | coder
    return Config(subject=str(saved), hookpoint=hookpoint, corpus=corpus, coder=CoderConfig(**settings))


def run_stage(config: Config, folder: Path) -> dict[str, float]:
    with Run(folder, "test") as run:
        train.run(config, run)
        metrics: dict[str, float] = json.loads((run.path("1_coder") / "metrics.json").read_text())
    return metrics


def test_the_stage_leaves_a_coder_that_sparsify_reads(saved: Path, tmp_path: Path) -> None:
    from sparsify import SparseCoder

    metrics = run_stage(configure(saved), tmp_path)
    place = tmp_path / "1_coder" / "layers.1.mlp"
    files = [p.relative_to(place.parent).as_posix() for p in place.parent.rglob("*") if p.is_file()]
    assert sorted(files) == ["layers.1.mlp/cfg.json", "layers.1.mlp/sae.safetensors", "metrics.json"]
    assert SparseCoder.load_from_disk(place).num_latents == 32
    assert metrics.keys() >= {"fvu", "l0", "dead", "recovered", "tokens"}
    again = run_stage(configure(saved), tmp_path / "again")
    assert again == metrics
    assert (tmp_path / "again/1_coder/layers.1.mlp/sae.safetensors").read_bytes() == (
        place / "sae.safetensors"
    ).read_bytes()


def test_no_more_text_is_read_than_is_trained_on(saved: Path) -> None:
    subject = build_subject(make_model(), hf.AutoTokenizer.from_pretrained(saved), "layers.1.mlp")
    documents = read_corpus(configure(saved).corpus).documents
    some = train.training_windows(documents, subject, configure(saved, tokens=100))
    every = train.training_windows(documents, subject, configure(saved, tokens=10**6))
    assert 100 <= sum(len(w) - 1 for w in some) < 150
    assert all(np.array_equal(a, b) for a, b in zip(some, every[: len(some)], strict=True))
    assert sum(len(w) for w in every) > 20 * 40 / 2


def test_a_coder_of_somebody_elses(saved: Path, tmp_path: Path) -> None:
    trained = run_stage(configure(saved), tmp_path / "first")
    source = tmp_path / "first" / "1_coder"
    metrics = run_stage(configure(saved, path=str(source)), tmp_path / "second")
    weights = "1_coder/layers.1.mlp/sae.safetensors"
    ours, theirs = load_file(tmp_path / "second" / weights), load_file(tmp_path / "first" / weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert metrics == trained


def test_a_coder_without_words_in_sparsifys_layout_is_copied_as_it_is(saved: Path, tmp_path: Path) -> None:
    source = tmp_path / "saelens"
    source.mkdir()
    coder = identity_coder()
    tensors = {"W_enc": coder.W_enc.T.contiguous(), "b_enc": coder.b_enc, "W_dec": coder.W_dec, "b_dec": coder.b_dec}
    save_file(tensors | {"threshold": torch.zeros(2 * D)}, source / "sae_weights.safetensors")
    cfg = {"architecture": "jumprelu", "metadata": {"hook_name": "blocks.1.hook_mlp_out"}}
    (source / "cfg.json").write_text(json.dumps(cfg))
    metrics = run_stage(configure(saved, path=str(source)), tmp_path)
    assert metrics["fvu"] == pytest.approx(0, abs=1e-12)
    assert load_coder(tmp_path / "1_coder", "layers.1.mlp").activation == "jumprelu"


def test_what_does_not_fit_is_refused_before_the_corpus_is_read(saved: Path, tmp_path: Path) -> None:
    run_stage(configure(saved), tmp_path)
    coder = str(tmp_path / "1_coder")
    nowhere = str(tmp_path / "no.jsonl")
    for config, reason in (
        (configure(saved, "layers.2.mlp", nowhere, path=coder), "it has coders for layers.1.mlp"),
        (configure(saved, "layers.2.mlp", nowhere, path=f"{coder}/layers.1.mlp"), "trained at layers.1.mlp"),
        (configure(saved, "layers.1", nowhere), "set coder.kind=sae for layers.1"),
        (configure(saved, "layers.1.mlp", nowhere, k=33), "coder.k = 33: more than coder.latents = 32"),
        (configure(saved, "layers.1.mlp", nowhere), "no such file"),
    ):
        with pytest.raises(UserError, match=reason) as error:
            run_stage(config, tmp_path / "refused")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "refused" / "1_coder").exists()
