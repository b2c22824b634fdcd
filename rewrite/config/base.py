"""What every table of the config is made of: frozen, loud about what it does not know, clear about what is a file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)]


class OnDisk:
    """Marks a setting that may name a file or a folder: what is relative in a config file is so to that file."""


Place = Annotated[str, OnDisk]
"""A file or folder, or the name of something on the hub."""
MaybePlace = Annotated[str | None, OnDisk]
Scalar = bool | int | float | str | list[Any] | None


class UserError(Exception):
    """Something the user can mend: one line that names the file, the key or the token and says what to do."""


class Section(BaseModel):
    """Base of every config table: unknown keys are refused, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
