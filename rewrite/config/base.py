"""What every table of the config is made of: frozen, loud about what it does not know, clear about what is a file."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1, strict=True)]


class OnDisk:
    """Marks a setting that may name a file or a folder: what is relative in a config file is so to that file."""


class Written:
    """Marks one of those that names a file which the run itself makes, so that it need not be there."""


Place = Annotated[str, OnDisk]
"""A file or folder, or the name of something on the hub."""
MaybePlace = Annotated[str | None, OnDisk]
MaybeFile = Annotated[str | None, OnDisk, Written]
Scalar = bool | int | float | str | list[Any] | None


HOOKPOINT = re.compile(
    r"(?:(?:model|base_model|language_model|transformer|gpt_neox|decoder|backbone)\.)*"
    r"(?:layers|h|blocks)\.(?P<layer>\d+)(?:\.(?P<module>mlp|hook_mlp_out|hook_resid_post|hook_resid_pre))?"
)


def name_hookpoint(said: str) -> str:
    """The hookpoint as it is named here, `layers.N.mlp` or `layers.N`, from what people write: a module's path in a
    model (`model.layers.6.mlp`, `transformer.h.6.mlp`) or a hook of TransformerLens (`blocks.6.hook_mlp_out`). What is
    neither stays, for the subject to refuse."""
    found = HOOKPOINT.fullmatch(said)
    # The stream before a block is what the block before it returned; before the first there is none.
    layer = int(found["layer"]) - (found["module"] == "hook_resid_pre") if found else -1
    if found is None or layer < 0:
        return said
    return f"layers.{layer}.mlp" if found["module"] in ("mlp", "hook_mlp_out") else f"layers.{layer}"


class UserError(Exception):
    """Something the user can mend: one line that names the file, the key or the token and says what to do."""


class Section(BaseModel):
    """Base of every config table: unknown keys are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
