"""The config refuses what it does not know, in one line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewrite.config import Config, UserError
from rewrite.run.configs import data_folder, list_keys, load_config


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", sorted(file.name for file in (data_folder() / "configs").glob("*.toml")))
def test_bundled_configs_load(name: str) -> None:
    assert load_config(data_folder() / "configs" / name).corpus.window >= 32


def test_a_default_is_the_bundled_one_wherever_the_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(write(tmp_path, "batch = 4"))
    assert config.subject == load_config().subject == str(data_folder() / "subject")
    assert (Path(config.subject) / "config.json").is_file()
    places = {key: default for key, (_, default) in list_keys().items() if default.startswith('"')}
    assert [key for key, default in places.items() if "/" in default or ".." in default] == ["subject"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[coder]\nlatnets = 3\n", ["coder.latnets: no such key", "did you mean coder.latents?"]),
        ("[coder]\nk = 0\n", ["coder.k", "greater than or equal to 1", "got 0"]),
        ("seed 3", ["not readable as TOML"]),
        ('dtype = "float8"\n', ["dtype", "'float32'", '"float8"']),
        ("[corpus]\ntrain = 1.5\n", ["corpus.train"]),
        ('[evaluate]\ncontrols = ["mean", "shufled"]\n', ["evaluate.controls", "'shuffled'", '"shufled"']),
    ],
)
def test_bad_files_give_one_line_that_names_file_and_key(tmp_path: Path, text: str, expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text))
    message = str(caught.value)
    assert str(tmp_path / "mine.toml") in message
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such config file"):
        load_config(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("coder.k", "write it as key=value"),
        ("coder.q=3", "--set coder.q=3: no such key"),
        ("hookpoint.x=1", "hookpoint"),
    ],
)
def test_bad_overrides_name_themselves(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected.replace(".", r"\.")):
        load_config(write(tmp_path, 'hookpoint = "layers.1"\n'), [override])


def test_overrides_are_toml_values_or_plain_text(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, ""),
        ["hookpoint=layers.2.mlp", "coder.k=8", "evaluate.topk=true", "evaluate.fractions=[0.5, 1.0]", "corpus.test=7"],
    )
    assert (config.hookpoint, config.coder.k, config.evaluate.topk) == ("layers.2.mlp", 8, True)
    assert config.evaluate.fractions == (0.5, 1.0)
    assert config.corpus.test == 7


def test_backend_settings_are_carried(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""), ["explainers.patterns.max_words=20"])
    assert config.explainers == {"patterns": {"max_words": 20}}


def test_relative_paths_start_at_their_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = load_config(write(tmp_path, 'subject = "model"\n[corpus]\nsource = "../texts.jsonl"\n'))
    assert config.subject == str(tmp_path / "model")
    assert config.corpus.source == str(tmp_path.parent / "texts.jsonl")


def test_a_file_that_the_run_makes_is_the_configs_neighbour_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same config asks and pays anew from another folder."""
    monkeypatch.chdir(Path("/"))
    file = write(tmp_path, '[calls]\ncache = "calls/all.sqlite"\n')
    assert load_config(file).calls.cache == str(tmp_path / "calls" / "all.sqlite")
    assert load_config(file, ["calls.cache=mine.sqlite"]).calls.cache == "/mine.sqlite"
    assert load_config().calls.cache is None


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("simulators.llm.modle=x", r"simulators\.llm\.modle: no such setting; there are: .*model"),
        ("simulators.llm.tune=tru", r"simulators\.llm\.tune: .*bool"),
        ("engines.openai.concurrency=0", r"engines\.openai\.concurrency: .*greater"),
    ],
)
def test_settings_of_a_backend_that_is_not_chosen_are_checked(setting: str, fault: str, tmp_path: Path) -> None:
    assert load_config().simulator == "patterns"
    with pytest.raises(UserError, match=fault):
        load_config(None, [setting])
    key, _, value = setting.partition("=")
    *table, name = key.split(".")
    written = value if value.isdigit() else f'"{value}"'
    with pytest.raises(UserError, match=fault):
        load_config(write(tmp_path, f"[{'.'.join(table)}]\n{name} = {written}\n"))


def test_settings_of_a_backend_that_is_not_chosen_make_no_stage_stale() -> None:
    from rewrite.run.freshness import stage_keys
    from rewrite.stages import STAGES

    keys = stage_keys(STAGES, load_config())
    assert stage_keys(STAGES, load_config(None, ["simulators.llm.model=x"])) == keys
    assert stage_keys(STAGES, load_config(None, ["explainers.patterns.max_words=3"]))["explain"] != keys["explain"]


def test_hub_names_stay_as_they_are(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, 'subject = "EleutherAI/pythia-160m"\n')).subject == "EleutherAI/pythia-160m"


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("corpus.train=1.0", "input should be less than 1, or input should be a valid integer, got 1.0"),
        ("sample.positions=0", "input should be 'all' or 'last', or input should be greater than or equal to 1, got 0"),
        ("score.scorers=detection", 'a list is needed, as in ["detection"], got "detection"'),
        ("evaluate.fractions=0.5", "a list is needed, as in [0.5], got 0.5"),
        ("coder.learning_rate=inf", "input should be a finite number, got Infinity"),
    ],
)
def test_a_value_of_another_sort_is_told_what_it_may_be(setting: str, fault: str) -> None:
    with pytest.raises(UserError) as told:
        load_config(None, [setting])
    assert str(told.value) == f"--set {setting}: {fault}"


def test_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().hookpoint = "layers.0"  # type: ignore[misc]


def test_every_key_is_documented() -> None:
    undocumented = [key for key, (text, _) in list_keys().items() if len(text) < 10 and not key.endswith("corpus")]
    assert undocumented == []


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("layers.6.mlp", "layers.6.mlp"),
        ("model.layers.6.mlp", "layers.6.mlp"),
        ("model.language_model.layers.6", "layers.6"),
        ("transformer.h.6.mlp", "layers.6.mlp"),
        ("h.0", "layers.0"),
        ("gpt_neox.layers.11.mlp", "layers.11.mlp"),
        ("blocks.6.hook_mlp_out", "layers.6.mlp"),
        ("blocks.6.hook_resid_post", "layers.6"),
        ("blocks.6.hook_resid_pre", "layers.5"),
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre"),
        ("layers.6.attn", "layers.6.attn"),
        ("visual.layers.6.mlp", "visual.layers.6.mlp"),
    ],
)
def test_hookpoints_are_understood_as_people_write_them(said: str, named: str) -> None:
    assert load_config(None, [f"hookpoint={said}"]).hookpoint == named
