"""What the answers of a language model depend on, known before any is loaded: model, engine and prompts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from rewrite.config import Config, UserError
from rewrite.run import plugins
from rewrite.run.files import bundled, hash_path

WHOLE = 1 << 22
"""Files up to this size are hashed whole, larger ones by size and both ends [bytes]."""


def prompts_folder() -> Path:
    """The folder of templates: inside an installed package, or the checkout's own."""
    return bundled("prompts")


def fingerprint_model(model: str, revision: str = "main") -> str:
    """What a model's answers depend on: the content of a folder or file (large files by their size and ends), else
    name@revision."""
    folder = Path(model)
    if not folder.exists():
        return f"{model}@{revision}"
    digest = hashlib.sha256()
    for file in [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(min(size, WHOLE)))
            if size > WHOLE:
                stream.seek(max(WHOLE, size - WHOLE))
                digest.update(stream.read())
    return digest.hexdigest()


def fingerprint_asked(model: str, config: Config) -> list[object]:
    """What the answers of a language model depend on: the model, the engine with those of its settings that change
    what it answers, the prompts."""
    settings = plugins.chosen("engine", config)
    operational: frozenset[str] = getattr(settings, "operational", frozenset())
    table = {key: value for key, value in settings.model_dump(mode="json").items() if key not in operational}
    return [fingerprint_model(model), plugins.identify("engine", config), table, hash_path(prompts_folder())]


def check_tunes(name: str) -> None:
    """Raise UserError for an engine that neither tunes a model nor reads an adapter."""
    able = plugins.names("engines", re.compile(r"^def learn\(", re.MULTILINE))
    if name not in able and not hasattr(plugins.load("engines", name), "learn"):
        raise UserError(f"engine = {name}: tunes no model and reads no adapter; those that do: {', '.join(able)}")
