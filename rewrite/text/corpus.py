"""Texts → documents → token windows, and the three splits that no document shares.

1. `read_documents` reads a source into named texts, sorted by name.
2. `split_documents` puts each into train, calibrate or test by a hash of its name and the seed: with shares the
   place of one document never depends on which others there are, so a corpus that grows keeps its splits.
3. `cut_windows` tokenizes a document, with whatever the tokenizer itself puts at a start, and cuts it into windows.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewrite.config import CorpusConfig, UserError

if TYPE_CHECKING:
    pass

SPLITS = ("train", "calibrate", "test")

# Tables and generated text rather than source, and tests, which not every distribution ships.
NOT_SOURCE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}


@dataclass(frozen=True)
class Document:
    """One text, the unit of every statistic."""

    name: str
    text: str


def read_documents(config: CorpusConfig) -> list[Document]:
    """All documents of the source that hold any text, sorted by name.

    Raises UserError where the source is absent, unreadable or empty.
    """
    path = Path(config.source)
    if config.source == "stdlib":
        documents = _read_folder(Path(sysconfig.get_paths()["stdlib"]), "*.py", NOT_SOURCE)
    elif path.is_dir() and next(path.rglob("*.txt"), None):
        documents = _read_folder(path, "*.txt", set())
    elif path.suffix == ".jsonl" and path.is_file():
        documents = _read_jsonl(path, config.text_field)
    elif path.is_file():
        parts = _read_text(path).split(config.separator)
        documents = [Document(f"{path.name}:{i:06d}", part) for i, part in enumerate(parts)]
    elif not path.is_dir() and (path.is_absolute() or path.suffix in (".jsonl", ".txt")):
        raise UserError(f"{config.source}: no such file; set corpus.source to a file, a folder or a hub name")
    else:
        documents = _read_hub(config)
    documents = sorted((d for d in documents if d.text.strip()), key=lambda d: d.name)
    if config.max_documents:
        documents = sorted(documents, key=lambda d: _draw(d.name, config.seed))[: config.max_documents]
        documents.sort(key=lambda d: d.name)
    if not documents:
        raise UserError(f"{config.source}: no text in this corpus; check corpus.source and corpus.text_field")
    return documents


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 text: {error}") from None


def _read_folder(folder: Path, glob: str, skip: set[str]) -> list[Document]:
    documents = []
    for path in sorted(folder.rglob(glob)):
        name = path.relative_to(folder)
        if skip.isdisjoint(name.parts[:-1]):
            documents.append(Document(name.as_posix(), path.read_text(encoding="utf-8", errors="replace")))
    return documents


def _read_jsonl(path: Path, field: str) -> list[Document]:
    documents = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{number}: no field {field!r} in this line ({error}); set corpus.text_field"
            ) from None
        if not isinstance(text, str):
            raise UserError(f"{path}:{number}: field {field!r} is not text; set corpus.text_field")
        documents.append(Document(f"{path.name}:{number:06d}", text))
    return documents


def _read_hub(config: CorpusConfig) -> list[Document]:
    from datasets import load_dataset

    try:
        rows: Any = load_dataset(
            config.source, config.subset or None, split=config.part, revision=config.revision, streaming=True
        )
        limit = config.max_documents or None
        rows = rows.take(limit) if limit else rows
        return [Document(f"{config.source}:{i:09d}", row[config.text_field]) for i, row in enumerate(rows)]
    except KeyError:
        raise UserError(f"{config.source}: rows have no field {config.text_field!r}; set corpus.text_field") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{config.source}: neither a file here nor a dataset of the hub ({reason})") from None


def hash_documents(documents: Sequence[Document]) -> str:
    """SHA-256 over names and texts, in order."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.name, document.text):
            raw = part.encode("utf-8", errors="surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def fingerprint_corpus(config: CorpusConfig) -> str:
    """Changes when the corpus does: the texts' hash, or a hub dataset's name and revision, without the network."""
    if config.source == "stdlib" or Path(config.source).exists() or Path(config.source).is_absolute():
        return hash_documents(read_documents(config))
    return "@".join([config.source, config.subset, config.part, config.revision])


def _draw(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on the name and the seed alone."""
    raw = hashlib.sha256(f"{seed}:{name}".encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(raw[:8], "big") / 2**64


def split_documents(documents: Sequence[Document], config: CorpusConfig) -> dict[str, list[int]]:
    """Indices of the documents of each split, each in the order of `documents`; a document is in one split at most.

    A share takes the documents whose draw falls into its stretch of [0, 1); a number takes the next so many in the
    order of their draws. Raises UserError where there are too few documents or a split stays empty.
    """
    draws = [_draw(document.name, config.seed) for document in documents]
    order = sorted(range(len(documents)), key=draws.__getitem__)
    splits: dict[str, list[int]] = {}
    begin, edge = 0, 0.0
    for name, wanted in zip(SPLITS, (config.train, config.calibrate, config.test), strict=True):
        if wanted is None:
            end = len(order)
        elif isinstance(wanted, int):
            end = begin + wanted
        else:
            edge = (edge if begin else 0.0) + wanted
            end = sum(draw < edge for draw in draws)
        if end > len(order) or end <= begin:
            raise UserError(
                f"corpus.{name} = {wanted}: {len(order)} documents leave {len(order) - begin} for this split; "
                "ask for fewer or give a larger corpus"
            )
        splits[name] = sorted(order[begin:end])
        begin = end
    return splits
