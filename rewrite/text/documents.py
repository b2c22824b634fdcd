"""Documents and a corpus of them: their names, their texts, the hash over both and what is drawn by name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text, the unit of every statistic."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """The documents of a source, and how many rows had null for a text."""

    documents: list[Document]
    null: int = 0


def hash_documents(documents: Sequence[Document]) -> str:
    """SHA-256 over names and texts, in order."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.name, document.text):
            raw = part.encode("utf-8", errors="surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def draw(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on the name and the seed alone."""
    raw = hashlib.sha256(f"{seed}:{name}".encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(raw[:8], "big") / 2**64
