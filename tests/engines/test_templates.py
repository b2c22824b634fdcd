"""Pieces and chat templates: whatever a text or a template holds, what is asked stands in the prompt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewrite.config import UserError
from rewrite.engines.base import Branches, Engine
from rewrite.engines.encoding import Encoder
from rewrite.engines.prompting import Message
from rewrite.run import plugins


def build(model: str, **table: Any) -> Engine:
    built: Engine = plugins.load("engines", "transformers").build(
        model, plugins.settings("engines", "transformers", table)
    )
    return built


PIECES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\t\n0179 \\"), max_size=8), min_size=1
)


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder(str(tiny_model))


@settings(max_examples=150, deadline=None)
@given(pieces=PIECES)
def test_branch_i_follows_piece_i(encoder: Encoder, pieces: list[str]) -> None:
    """Whatever the pieces say, their ids read as the pieces, and a branch stands where its piece ends."""
    request = Branches((Message("user", "x"),), tuple(pieces), "?")
    encoded = encoder.branches(request)
    head = encoder.branches(Branches(request.messages)).trunk
    assert encoded.trunk[: len(head)].tolist() == head.tolist()
    assert encoded.ends[-1] == len(encoded.trunk)
    begin, decode = len(head), encoder.tokenizer.decode
    for piece, end in zip(pieces, encoded.ends, strict=True):
        text = decode(encoded.trunk[begin:end].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert text == piece
        begin = int(end)
    assert decode(encoded.branch.tolist()) == "?"


def with_template(tiny_model: Path, folder: Path, template: str) -> Encoder:
    shutil.copytree(tiny_model, folder)
    file = folder / "chat_template.jinja"
    if file.exists():
        file.write_text(template)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return Encoder(str(folder))


USERS = "{% for m in messages if m['role'] != 'system' %}<|user|>{{ m['content'] }}<eos>{% endfor %}<|assistant|>"


def test_a_model_without_a_system_role_gets_it_in_the_first_user_turn(tiny_model: Path, tmp_path: Path) -> None:
    """Some templates drop what the system says without a word."""
    encoder = with_template(tiny_model, tmp_path / "m", USERS)
    messages = (
        Message("system", "Rate it."),
        Message("user", "dogs"),
        Message("assistant", "9"),
        Message("user", "cats"),
    )
    text = encoder.tokenizer.decode(encoder.branches(Branches(messages)).trunk)
    assert text.index("Rate it.") < text.index("dogs") < text.index("cats")


def test_a_template_that_drops_a_message_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    encoder = with_template(tiny_model, tmp_path / "m", "{{ messages[-1]['content'] }}<|assistant|>")
    with pytest.raises(UserError, match="its chat template drops the user message"):
        encoder.branches(Branches((Message("user", "dogs"), Message("user", "cats"))))


def test_the_date_in_a_template_is_part_of_what_answers_depend_on(tiny_model: Path, tmp_path: Path) -> None:
    dated = "Today is {{ strftime_now('%d %b %Y') }}." + USERS
    with_template(tiny_model, tmp_path / "m", dated)
    assert "date" in build(str(tmp_path / "m")).identity
    assert "date" not in build(str(tiny_model)).identity


def test_added_tokens_in_a_text_are_text(tiny_model: Path, tmp_path: Path) -> None:
    """Also those that are not marked special, as the tool calls and infilling marks of many models."""
    encoder = with_template(tiny_model, tmp_path / "m", USERS)
    encoder.tokenizer.add_tokens(["<tool_call>", "<|fim_prefix|>"])
    text = "say <tool_call> and <|fim_prefix|> here"
    added = set(encoder.tokenizer.convert_tokens_to_ids(["<tool_call>", "<|fim_prefix|>"]))
    encoded = encoder.branches(Branches((Message("user", text),), (text,)))
    assert not added & set(encoded.trunk.tolist())
    assert encoder.tokenizer.decode(encoded.trunk).count(text) == 2


def test_options_reach_the_chat_template(tiny_model: Path, tmp_path: Path) -> None:
    thinking = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    with_template(tiny_model, tmp_path / "m", USERS + thinking)
    said = {}
    for options in ((), ("enable_thinking=false",)):
        encoder = Encoder(str(tmp_path / "m"), template=options)
        said[options] = encoder.tokenizer.decode(encoder.branches(Branches((Message("user", "dogs"),))).trunk)
    assert "<think>" in said[()] and "<think>" not in said["enable_thinking=false",]
    plain, quiet = (
        build(str(tmp_path / "m"), template=options).identity for options in ([], ["enable_thinking=false"])
    )
    assert plain != quiet and "template" not in plain
