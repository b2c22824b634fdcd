"""A prompt of pieces has the ids of the whole, also where a tokenizer puts a space before every text."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewrite.engines.base import Branches
from rewrite.engines.encoding import Encoder
from rewrite.engines.prompting import Message

MESSAGES = (Message("system", "Once upon a time there was"), Message("user", "a little girl. Her name was Lily."))
ANSWER = (" She", " liked", " to play")


def ids_of(encoder: Encoder) -> list[int]:
    ids: list[int] = encoder.branches(Branches(MESSAGES, ANSWER)).trunk.tolist()
    return ids


def test_plain_text(stories: Path) -> None:
    encoder = Encoder(str(stories))
    whole = "".join(f"{message.content}\n\n" for message in MESSAGES) + "".join(ANSWER)
    assert ids_of(encoder) == encoder.tokenizer(whole)["input_ids"]


@pytest.mark.parametrize(
    "template",
    [
        "{{bos_token}}{% for m in messages %}{{m.role}}:\n{{m.content}}{{eos_token}}\n{% endfor %}assistant:\n",
        "{% for m in messages %}{{bos_token}}{{m.content}}{% endfor %}\n",
    ],
)
def test_a_chat(stories: Path, template: str) -> None:
    encoder = Encoder(str(stories))
    encoder.tokenizer.chat_template = template
    turns = [{"role": message.role, "content": message.content} for message in MESSAGES]
    whole = encoder.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) + "".join(ANSWER)
    assert ids_of(encoder) == encoder.tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_a_space_before_a_content_stays_by_itself(stories: Path) -> None:
    """The known difference: in the whole it would be one token with the word behind it."""
    encoder = Encoder(str(stories))
    encoder.tokenizer.chat_template = "{% for m in messages %}[{{m.role}}] {{m.content}}{% endfor %}"
    pieces = encoder.tokenizer.convert_ids_to_tokens(ids_of(encoder))
    assert pieces[pieces.index("]") + 1 :][:4] == ["▁", "O", "n", "ce"]


def test_the_name_of_an_added_token_gets_no_space_where_it_is_cut(stories: Path) -> None:
    encoder = Encoder(str(stories))
    encoder.tokenizer.add_tokens(["<tool>"])
    request = Branches((Message("user", "x"),), (" a <tool> b",))
    assert encoder.decode(encoder.branches(request).trunk.tolist()).endswith(" a <tool> b")
