"""`rewrite help` tells every key; `rewrite config` writes one that says what the bundled config says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rewrite.__main__ as cli
from rewrite.commands.keys import list_topics, tell_keys, topics, write_config
from rewrite.config import Config
from rewrite.run import plugins
from rewrite.run.configs import KINDS, list_keys, load_config

BACKENDS = [(kind, name) for kind in KINDS for name in plugins.names(kind)]


def say(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str, str]:
    status = cli.main(list(command))
    said = capsys.readouterr()
    return status, said.out, said.err


def switch_on(text: str) -> str:
    """The text with the settings on that are off, but those that want completing."""
    return re.sub(r"^#(?=\[|\w+ = )", "", text, flags=re.MULTILINE)


def test_every_topic_is_listed_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, listed, _ = say(capsys, "help")
    assert (status, listed) == (0, list_topics() + "\n")
    assert len(listed.splitlines()) < 60 and max(map(len, listed.splitlines())) <= 120
    assert "Screens: `rewrite help simulators.llm.screen`. Scorers: `rewrite help score.scorers`." in listed
    for topic, line in topics().items():
        assert re.search(rf"^  {re.escape(topic)} ", listed, re.MULTILINE)
        assert len(line) > 15, topic


def test_every_key_is_told_under_its_topic() -> None:
    told = "\n".join(tell_keys(topic) for topic in topics())
    keys = list_keys()
    for kind, name in BACKENDS:
        keys |= list_keys(plugins.load(kind, name).Settings, f"{kind}.{name}.")
    for key, (text, _) in keys.items():
        if key not in KINDS:
            assert len(re.findall(rf"^  {re.escape(key)} ", told, re.MULTILINE)) == 1, key
            assert text.split()[0] in told


def test_the_names_that_a_key_takes_are_told_and_taken() -> None:
    whole = " ".join(write_config().replace("\n# ", " ").split())
    for key, names in (
        ("evaluate.order_by", ("simulation", "detection", "fuzz")),
        ("coder.kind", ("transcoder", "skip_transcoder", "sae")),
        ("simulators.llm.scheme", ("auto", "all_at_once", "last_token", "ratings_list")),
    ):
        told = f"One of {', '.join(names)}."
        assert told in " ".join(tell_keys(key).split()) and told in whole
        for name in names:
            load_config(None, [f"{key}={name}"])


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (
            "coder",
            ["coder: The sparse coder", "  coder.k = 16\n", "Width of the coder [latents]", "  coder.path   (not set)"],
        ),
        ("coder", ["  coder.tokens = 2000000   (the bundled config: 600000)"]),
        ("simulators.towers", ["  simulators.towers.layers = [0, 4, 10]"]),
        ("simulators.patterns", ["It has no settings."]),
        ("engines", ["engines.openai: ", "engines.vllm: "]),
        ("general", ['  hookpoint = "layers.1.mlp"', "  subject   (not set)"]),
        ("device", ["general: ", '  device = "cpu"']),
        ("coder.k", ["coder: ", "  coder.k = 16"]),
        ("explain", ["  explain.file   (not set)"]),
        ("calibrator", ["One of identity,\n      linear, quantile, conditional_mean.\n"]),
        ("explainers.llm.exemplars", ["One of quantile, top, contrastive."]),
        ("score.scorers", ["Any of detection, fuzz."]),
        ("sample.positions", ["By name: all, last."]),
        ("calls.price_in", ["  calls.price_in = 0\n"]),
        ("status", ["usage: rewrite status", "--run DIR"]),
        ("config", ["usage: rewrite config", "bundled"]),
    ],
)
def test_a_topic_is_a_table_a_kind_a_key_or_a_command(
    topic: str, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, told, _ = say(capsys, "help", topic)
    assert status == 0
    for part in expected:
        assert part in told + "\n"
    assert topic != "coder.k" or "latents" not in told.partition("\n")[2].replace("[latents]", "")


@pytest.mark.parametrize("command", ["help", "config"])
@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("codr", "codr: no such topic; did you mean coder or coder.k?"),
        ("llm", "llm: no such topic; did you mean explainers.llm or simulators.llm?"),
        ("coder.q", "coder.q: no such topic; did you mean coder.k"),
        ("coder.kk", "coder.kk: no such topic; did you mean coder.k or coder.kind?"),
        ("engines.openai.retry", "did you mean engines.openai.retries"),
        ("qqq", "qqq: no such topic; `rewrite help` lists them"),
    ],
)
def test_an_unknown_topic_is_one_line(
    command: str, topic: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = say(capsys, command, topic)
    assert (status, out) == (2, "")
    assert err.startswith("rewrite: ") and err.count("\n") == 1
    assert expected in err


def test_the_config_to_start_from_is_the_bundled_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = say(capsys, "config")
    assert status == 0
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    assert load_config(mine) == load_config()
    for key, (told, _) in list_keys().items():
        name = key.rpartition(".")[2]
        assert key in KINDS or re.search(rf"^#?{name} =", text, re.MULTILINE), key
        assert key in KINDS or told.split(".")[0][:60] in text.replace("\n# ", " "), key
    assert max(len(line) for line in text.splitlines() if line.startswith("# ")) <= 120
    assert text.startswith("# Every key as the bundled config has it")
    for default, value in re.findall(r"^# Without this line it is (.+)\.\n#?\w+ = (.+)$", text, re.MULTILINE):
        assert tomllib.loads(f"value = {default}") != tomllib.loads(f"value = {value}"), value


def test_what_is_switched_off_in_it_is_each_backends_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(switch_on(write_config()))
    config = load_config(mine)
    assert config.model_copy(update={kind: {} for kind in KINDS}) == load_config()
    for kind, name in BACKENDS:
        table = getattr(config, kind).get(name, {})
        assert plugins.settings(kind, name, table) == plugins.load(kind, name).Settings()
        assert set(table) == set(plugins.load(kind, name).Settings.model_fields)


@pytest.mark.parametrize("topic", ["general", "coder", "simulators.towers", "engines", "coder.k", "explain"])
def test_one_table_of_it_is_switched_on(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = say(capsys, "config", topic)
    assert status == 0
    tree = tomllib.loads(text)
    assert Config.model_validate(tree)
    assert topic in ("general", "explain") or set(tree) == {topic.partition(".")[0]}
    assert topic != "coder.k" or tree == {"coder": {"k": 16}}


def test_a_reader_may_stop_listening() -> None:
    """As `rewrite config | head -1` does."""
    script = "import rewrite.__main__ as cli\nfor _ in range(9): cli.main(['config'])"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as said:
        assert said.stdout is not None and said.stderr is not None
        said.stdout.readline()
        said.stdout.close()
        assert said.stderr.read() == b""
    assert said.returncode == 0
