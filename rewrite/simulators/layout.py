"""How a language model that is tuned to read is asked: the prompt, what stands before a digit, and a hash of both."""

from __future__ import annotations

from rewrite.engines.fingerprints import prompts_folder
from rewrite.run.files import hash_path, hash_value

PROMPT, BRANCH = "simulate_tuned", " =>"


def layout(template: str = "") -> str:
    """A hash of what surrounds explanation and text where a language model reads; `template` are the options of its
    chat template."""
    return hash_value([hash_path(prompts_folder() / f"{PROMPT}.jinja"), BRANCH, template])
