"""A coder is taken from the hub by its name: from the hub's own cache on this machine, as after a download."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewrite.coder import hub
from rewrite.coder.files import find_coder, load_coder
from rewrite.coder.hub import fetch_coder
from rewrite.config import UserError
from rewrite.run.files import on_hub
from rewrite.run.freshness import check, stage_keys
from rewrite.stages import STAGES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay(folder: Path) -> None:
    """A coder in sparsify's layout."""
    folder.mkdir(parents=True)
    cfg = {"num_latents": 8, "k": 2, "d_in": 4, "transcode": False, "activation": "topk", "skip_connection": False}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    shapes = {"encoder.weight": (8, 4), "encoder.bias": (8,), "W_dec": (8, 4), "b_dec": (4,)}
    save_file({name: torch.rand(shape) for name, shape in shapes.items()}, folder / "sae.safetensors")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one repository, of two coders and a pickle, as huggingface_hub lays it out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--somebody--coders"
    for place in ("layers.3", "wide/layers.3"):
        lay(repository / "snapshots" / COMMIT / place)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


def test_a_name_is_found_and_a_folder_within_it(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def download(repository: str, **kwargs: object) -> str:
        asked.update(kwargs, repository=repository)
        return str(real(repository, cache_dir=cached.parents[2], **kwargs))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch_coder("somebody/coders", "layers.3", "main") == cached
    assert load_coder(cached, "layers.3").latents == 8
    assert fetch_coder("somebody/coders/wide", "layers.3", "main") == cached / "wide"
    assert asked["repository"] == "somebody/coders" and asked["revision"] == "main"
    files = asked["allow_patterns"]
    assert isinstance(files, list)
    assert {"wide/layers.3/sae.safetensors", "wide/cfg.json", "wide/h.3/sae_weights.safetensors"} <= set(files)
    assert not any(file.endswith((".pt", ".bin", "*")) for file in files), "neither a pickle nor all there is"
    with pytest.raises(UserError, match=r"coder\.path = somebody/coders/absent: somebody/coders has no coder there"):
        fetch_coder("somebody/coders/absent", "layers.3", "main")
    with pytest.raises(
        UserError, match=r"coder\.path = somebody/nothing: neither a folder here nor to be had"
    ) as error:
        fetch_coder("somebody/nothing", "layers.3", "main")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["h.3", "model.layers.3", "layers.3", "blocks.3.hook_resid_post"])
def test_a_coders_folder_may_be_named_as_its_model_names_the_layer(tmp_path: Path, name: str) -> None:
    lay(tmp_path / name)
    lay(tmp_path / "layers.4")
    assert find_coder(tmp_path, "layers.3") == tmp_path / name
    with pytest.raises(UserError, match=r"no coder for layers\.5 here; it has coders for"):
        find_coder(tmp_path, "layers.5")


def test_what_is_on_disk_is_not_asked_for(tmp_path: Path) -> None:
    assert fetch_coder(str(tmp_path), "layers.3", "main") == tmp_path
    assert hub.fetch_coder("./here/it/is", "layers.3", "main") == Path("./here/it/is")
    assert [on_hub(name) for name in ("a/b", "a/b/c", "a", "./a/b", "/a/b", str(tmp_path))] == [True, True] + [
        False
    ] * 4


def test_a_run_may_name_one_and_its_revision_counts() -> None:
    from makers.small import small_config

    keys = set()
    for revision in ("main", "v2"):
        config = small_config("coder.path=somebody/coders", f"coder.revision={revision}")
        check(STAGES, config)
        keys.add(json.dumps(stage_keys(STAGES, config)["train"], sort_keys=True, default=str))
    assert len(keys) == 2
    with pytest.raises(UserError, match=r"coder\.path = nowhere: not there"):
        check(STAGES, small_config("coder.path=nowhere"))
