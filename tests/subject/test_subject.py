"""The subject: every family of models, both kinds of hookpoint, first, middle and last layer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from makers.families import FAMILIES
from torch import Tensor, nn

from rewrite.config import Config, CorpusConfig, UserError
from rewrite.subject.subject import Subject, build_subject, load_subject, look, tap, write

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories260K"
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/models/stories260K is not here")

LAYERS = (0, 1, 2)


DEEP = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "neox", "neox_serial", "gemma2", "gemma3", "gptj", "falcon")
"""Families tried at every layer: each differs from the others in what its blocks do with what their parts return."""


def make(family: str) -> hf.PreTrainedModel:
    """A random small model, its norms' gains random too, so that a forgotten norm shows."""
    torch.manual_seed(1)
    model: hf.PreTrainedModel = FAMILIES[family]().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or ".ln_" in name:
            parameter.data += 0.5 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module", params=DEEP)
def family(request: pytest.FixtureRequest) -> hf.PreTrainedModel:
    return make(request.param)


IDS = torch.randint(0, 99, (2, 17), generator=torch.Generator().manual_seed(0))


def plain(model: hf.PreTrainedModel, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def test_one_pass_shows_each_hookpoint_what_its_own_would(family: hf.PreTrainedModel) -> None:
    clean = plain(family)
    names = [f"layers.{layer}{suffix}" for layer in (1, 0, 2, 1) for suffix in ("", ".mlp")]
    subjects = [build_subject(family, None, name) for name in names]
    for subject, seen in zip(subjects, look(subjects, IDS), strict=True):
        alone = subject.run_to(IDS)
        assert torch.equal(seen.input, alone.input) and torch.equal(seen.output, alone.output), subject.hookpoint
    assert torch.equal(plain(family), clean), "the modules are as they were"


@pytest.mark.parametrize("suffix", ["", ".mlp"])
@pytest.mark.parametrize("layer", LAYERS)
def test_writing_back_the_own_output_changes_no_bit(family: hf.PreTrainedModel, layer: int, suffix: str) -> None:
    clean = plain(family)
    subject = build_subject(family, None, f"layers.{layer}{suffix}")
    prefix = subject.run_to(IDS)
    assert torch.equal(subject.run_from(prefix, prefix.output), clean)
    with write(subject, prefix.output):
        assert torch.equal(subject.logits(IDS), clean)
    assert torch.equal(plain(family), clean)


@pytest.mark.parametrize("suffix", ["", ".mlp"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_fast_path_is_the_whole_forward(family: hf.PreTrainedModel, layer: int, suffix: str) -> None:
    subject = build_subject(family, None, f"layers.{layer}{suffix}")
    prefix = subject.run_to(IDS)
    other = torch.randn(prefix.output.shape, generator=torch.Generator().manual_seed(3))
    fast = subject.run_from(prefix, other)
    with write(subject, other):
        assert torch.equal(fast, subject.logits(IDS))
    with write(subject, lambda read, returned: other):
        assert torch.equal(fast, subject.logits(IDS))
    assert not torch.allclose(fast, subject.logits(IDS))


@pytest.mark.parametrize("suffix", ["", ".mlp"])
def test_tap_sees_what_a_torch_hook_sees(family: hf.PreTrainedModel, suffix: str) -> None:
    subject = build_subject(family, None, f"layers.1{suffix}")
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        # Copies: Falcon adds to what its MLP returned in place.
        seen.append((inputs[0].clone(), (output[0] if isinstance(output, tuple) else output).clone()))

    handle = subject.module.register_forward_hook(hook)
    with tap(subject) as tapped:
        subject.logits(IDS)
    handle.remove()
    assert torch.equal(tapped.inputs[0], seen[0][0])
    assert torch.equal(tapped.outputs[0], seen[0][1])
    prefix = subject.run_to(IDS)
    assert torch.equal(prefix.input, seen[0][0])
    assert torch.equal(prefix.output, seen[0][1])
    assert subject.width == prefix.output.shape[-1] == 32


@pytest.mark.parametrize("layer", LAYERS)
def test_the_mlp_hookpoint_is_what_is_added_to_the_stream(family: hf.PreTrainedModel, layer: int) -> None:
    """Writing v instead of 0 at the MLP moves the block's output by v, in every family."""
    mlp = build_subject(family, None, f"layers.{layer}.mlp")
    whole = build_subject(family, None, f"layers.{layer}")
    vectors = torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(4))
    outputs = []
    for written in (vectors, torch.zeros_like(vectors)):
        with write(mlp, written), tap(whole) as tapped:
            whole.logits(IDS)
        outputs.append(tapped.outputs[0])
    torch.testing.assert_close(outputs[0] - outputs[1], vectors, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_joining_gemmas_norm_changes_no_bit(name: str) -> None:
    model = make(name)
    before = plain(model)
    subject = build_subject(model, None, "layers.1.mlp")
    assert torch.equal(plain(model), before)
    build_subject(model, None, "layers.2.mlp")  # a second subject on the same model does not join twice
    assert torch.equal(plain(model), before)
    assert type(subject.module).__name__ == "NormedMLP"


def count_calls(model: nn.Module) -> dict[str, int]:
    """How often each linear map runs in one forward, counted by hooks that stay."""
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            calls[name] = calls.get(name, 0) + 1

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(note(name))
    return calls


def test_nothing_before_or_after_is_computed_twice() -> None:
    model = make("llama")
    calls = count_calls(model)
    subject = build_subject(model, None, "layers.1.mlp")
    calls.clear()
    prefix = subject.run_to(IDS)
    assert {name.split(".")[2] for name in calls} == {"0", "1"}, "run_to stops at its layer, before the head"
    calls.clear()
    subject.run_from(prefix, prefix.output)
    assert {name for name in calls if ".layers.2." not in name} == {"lm_head"}


def test_everything_is_undone_on_an_exception() -> None:
    model = make("llama")
    clean = plain(model)
    subject = build_subject(model, None, "layers.1.mlp")
    with pytest.raises(RuntimeError, match="stop"), subject.cut(), tap(subject), write(subject, torch.zeros(2, 17, 32)):
        raise RuntimeError("stop")
    prefix = subject.run_to(IDS)
    with pytest.raises((RuntimeError, ValueError)):
        subject.run_from(prefix, torch.zeros(2, 16, 32))
    assert torch.equal(plain(model), clean)
    assert not any("forward" in vars(module) for module in model.modules())


def test_taps_and_writes_nest() -> None:
    subject = build_subject(make("llama"), None, "layers.1.mlp")
    vectors = torch.ones(2, 17, 32)
    with write(subject, vectors), tap(subject) as tapped:
        subject.logits(IDS)
        subject.logits(IDS)
    assert [torch.equal(output, vectors) for output in tapped.outputs] == [True, True]


def test_logits_are_float32_in_every_precision() -> None:
    subject = build_subject(FAMILIES["llama"]().bfloat16(), None, "layers.1.mlp")
    prefix = subject.run_to(IDS)
    assert prefix.output.dtype == torch.bfloat16
    written = subject.run_from(prefix, prefix.output.float())
    assert written.dtype == torch.float32
    assert torch.equal(written, subject.logits(IDS))


def test_hookpoint_names() -> None:
    gpt2 = make("gpt2")
    assert build_subject(gpt2, None, "layers.2.mlp").module_path == "h.2.mlp"
    subject = build_subject(gpt2, None, "h.2")
    assert (subject.module_path, subject.hookpoint) == ("h.2", "h.2")
    assert subject.hookpoints() == ["h.0.mlp", "h.1.mlp", "h.2.mlp", "h.0", "h.1", "h.2"]
    llama = make("llama")
    for wrong in ("layers.3.mlp", "layers.1.mpl", "layers.-1", "lm_head", "layers.1.self_attn", ""):
        with pytest.raises(UserError) as error:
            build_subject(llama, None, wrong)
        assert "there are: layers.0.mlp, layers.1.mlp, layers.2.mlp, layers.0, layers.1, layers.2" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"did you mean layers\.1\.mlp\?"):
        build_subject(llama, None, "layers.1.mpl")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make("llama").save_pretrained(tmp_path)
    vocabulary = {chr(i + 33): i for i in range(99)}
    from tokenizers import Tokenizer, models

    fast: Any = hf.PreTrainedTokenizerFast
    fast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="!")), unk_token="!").save_pretrained(
        tmp_path
    )
    return tmp_path


def configure(folder: Path | str, device: str = "cpu", window: int = 32) -> Config:
    return Config(subject=str(folder), hookpoint="layers.1.mlp", device=device, corpus=CorpusConfig(window=window))


def test_loading_from_a_folder_is_silent(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subject = load_subject(configure(saved))
    assert capfd.readouterr() == ("", "")
    assert torch.equal(subject.logits(IDS), plain(make("llama")))
    assert not subject.model.training
    assert not any(p.requires_grad for p in subject.model.parameters())


def test_what_cannot_be_loaded_is_one_line(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def refuse(config: Config) -> str:
        with pytest.raises(UserError) as error:
            load_subject(config)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no config.json" in refuse(configure(tmp_path / "absent"))
    assert "no config.json" in refuse(configure("../absent"))
    assert "device = cuda:77: not on this machine; there are: cpu" in refuse(configure(saved, device="cuda:77"))
    assert "device = gpu" in refuse(configure(saved, device="gpu"))
    assert "corpus.window = 65" in refuse(configure(saved, window=65))
    weights = saved / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "lack model.layers.1.mlp.up_proj.weight" in refuse(configure(saved))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in refuse(configure(saved))


@needs_stories
def test_stories260k_writes_its_golden_story() -> None:
    subject = load_subject(Config(subject=str(STORIES), hookpoint="layers.2.mlp"))
    ids = torch.tensor([[1]])
    for _ in range(200):
        ids = torch.cat([ids, subject.logits(ids)[:, -1:].argmax(-1)], dim=1)
    assert subject.tokenizer is not None
    text = str(subject.tokenizer.decode(ids[0, 1:], skip_special_tokens=True))
    golden = (STORIES / "golden_greedy_200_from_bos.txt").read_text(encoding="utf-8")
    assert text.strip() == golden.strip()


@needs_stories
def test_an_arm_costs_less_than_a_plain_forward() -> None:
    subject: Subject = load_subject(Config(subject=str(STORIES), hookpoint="layers.2.mlp"))
    ids = torch.randint(3, 512, (16, 128), generator=torch.Generator().manual_seed(0))
    prefix = subject.run_to(ids)

    def best(run: Callable[[], object]) -> float:
        times = []
        for _ in range(7):
            begin = time.process_time()
            run()
            times.append(time.process_time() - begin)
        return min(times)

    ratio = best(lambda: subject.run_from(prefix, prefix.output)) / best(lambda: subject.logits(ids))
    assert ratio < 0.8
