"""Sources → documents: files of text and of rows, folders, and what the datasets library reads.

| source | documents |
|---|---|
| `stdlib` | the modules of this Python's standard library |
| a folder with .txt files, or any with `corpus.glob` | its files |
| .jsonl, .ndjson, .json (a list), .csv, .tsv, .parquet | the rows' field `corpus.text_field`; `a.b` is one within one |
| any other file | what `corpus.separator` separates |
| a hub name, or a folder of rows | the rows' field; with `corpus.stream` read as they come, through a seeded buffer |

Files may be compressed (.gz, .bz2, .lz4, .zst), and begin with a byte-order mark. A row whose text is null is left out
and counted.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from rewrite.config import CorpusConfig, UserError
from rewrite.text.documents import Corpus, Document, draw, hash_documents

# Tables and generated text rather than source, and tests, which not every distribution ships.
NOT_SOURCE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
PACKED = {".gz": "gzip", ".bz2": "bz2", ".lz4": "lz4", ".zst": "zstd"}
ROWS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LOOKED_AT = (*ROWS, ".arrow", ".txt")
BUFFER = 10_000
"""Rows of a stream that the next document is drawn from [rows]."""
Row = dict[str, Any]


def read_corpus(config: CorpusConfig) -> Corpus:
    """All documents of the source that hold any text, sorted by name.

    Raises UserError where the source is absent, unreadable or empty.
    """
    corpus = _read(config)
    documents = sorted((d for d in corpus.documents if d.text.strip()), key=lambda d: d.name)
    if config.max_documents:
        documents = sorted(documents, key=lambda d: draw(d.name, config.seed))[: config.max_documents]
        documents.sort(key=lambda d: d.name)
    if not documents:
        raise UserError(f"{config.source}: no text in this corpus; check corpus.source and corpus.text_field")
    return Corpus(documents, corpus.null)


def _read(config: CorpusConfig) -> Corpus:
    path = Path(config.source)
    if config.source == "stdlib":
        return Corpus(list(_read_stdlib()))
    if path.is_dir() and (config.glob or any(_kind(file) == ".txt" for file in path.rglob("*"))):
        return Corpus(_read_folder(path, config.glob))
    if path.is_file():
        return _read_file(path, config)
    if path.is_dir() and not any(_kind(file) in LOOKED_AT for file in path.rglob("*")):
        raise UserError(f"{path}: a folder without .txt files; say which files are text, as in corpus.glob = '*.md'")
    if not path.is_dir() and (path.is_absolute() or _kind(path) in LOOKED_AT):
        raise UserError(f"{config.source}: no such file; set corpus.source to a file, a folder or a hub name")
    if config.stream and not config.max_documents:
        raise UserError("corpus.stream = true: would read the whole dataset; set corpus.max_documents")
    return _keep(_open_dataset(config), config, config.source, config.source, 9, config.max_documents)


def fingerprint_corpus(config: CorpusConfig) -> str:
    """Changes when the corpus does: the texts' hash, or a hub dataset's name and revision, without the network."""
    if config.source == "stdlib" or Path(config.source).exists() or Path(config.source).is_absolute():
        return hash_documents(read_corpus(config).documents)
    return "@".join([config.source, config.subset, config.part, config.revision])


# --- text -------------------------------------------------------------------------------------------------------------


@cache
def _read_stdlib() -> tuple[Document, ...]:
    """Python's own modules; read once in a process, for stages ask again and again."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files: list[Path] = []
    for here, inside, names in os.walk(folder):
        # Packages that somebody installed lie within, and are many: they are not walked through.
        inside[:] = [name for name in inside if name not in NOT_SOURCE]
        files += [Path(here, name) for name in names if name.endswith(".py")]
    return tuple(
        Document(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8", errors="replace"))
        for path in sorted(files)
    )


def _read_folder(folder: Path, glob: str) -> list[Document]:
    try:
        files = sorted(path for path in folder.rglob(glob or "*") if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"corpus.glob = {glob}: no pattern ({error}); write it as in '*.md'") from None
    if not files:
        raise UserError(f"{folder}: no file matches corpus.glob = {glob}; write it as in '*.md'")
    files = files if glob else [path for path in files if _kind(path) == ".txt"]
    return [Document(path.relative_to(folder).as_posix(), _read_text(path)) for path in files]


def _read_text(path: Path) -> str:
    """A file's text, unpacked, without the byte-order mark that it may begin with."""
    import pyarrow as pa

    try:
        with pa.input_stream(str(path), compression=PACKED.get(path.suffix.lower())) as stream:
            return io.TextIOWrapper(stream, encoding="utf-8-sig").read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 text: {str(error).splitlines()[0]}") from None


def _kind(path: Path) -> str:
    """A file's last suffix but that of its compression."""
    return Path(path.stem if path.suffix.lower() in PACKED else path.name).suffix.lower()


def _read_file(path: Path, config: CorpusConfig) -> Corpus:
    if _kind(path) not in ROWS:
        parts = _read_text(path).split(config.separator)
        return Corpus([Document(f"{path.name}:{i:06d}", part) for i, part in enumerate(parts)])
    return _keep(_read_rows(path), config, str(path), path.name, 6)


# --- rows -------------------------------------------------------------------------------------------------------------


def _read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """A file's rows, each with its number: lines from 1 where there are lines, rows from 0 else."""
    match _kind(path):
        case ".jsonl" | ".ndjson":
            for number, line in enumerate(_read_text(path).split("\n"), start=1):
                if line.strip():
                    yield number, _parse(line, f"{path}:{number}")
        case ".json":
            rows = _parse(_read_text(path), str(path))
            if not isinstance(rows, list):
                raise UserError(f"{path}: not a list of rows; write one row a line as .jsonl, or a list")
            yield from enumerate(rows)
        case ".parquet":
            yield from enumerate(_read_parquet(path))
        case kind:
            csv.field_size_limit(sys.maxsize)
            with io.StringIO(_read_text(path), newline="") as stream:
                yield from enumerate(csv.DictReader(stream, delimiter="\t" if kind == ".tsv" else ","))


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error}); mend it or leave it out") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]})") from None


def _find(row: Any, field: str, place: str) -> str | None:
    """The text of a row, None where it says null. A dot leads into a field, unless a field has that very name."""
    found = row
    for name in [field] if isinstance(row, dict) and field in row else field.split("."):
        if not isinstance(found, dict) or name not in found:
            there = f"; there are {', '.join(map(str, row))}" if isinstance(row, dict) else ""
            raise UserError(f"{place}: no field {field!r} in this row{there}; set corpus.text_field")
        found = found[name]
    if found is not None and not isinstance(found, str):
        raise UserError(f"{place}: field {field!r} is not text; set corpus.text_field")
    return found


def _keep(
    rows: Iterator[tuple[int, Any]], config: CorpusConfig, place: str, name: str, digits: int, most: int = 0
) -> Corpus:
    """The texts of rows, which bear their numbers for names; no more than `most` of those that hold any, where that is
    not 0."""
    documents, null = [], 0
    for number, row in rows:
        text = _find(row, config.text_field, f"{place}:{number}")
        if text is None:
            null += 1
        elif text.strip():
            documents.append(Document(f"{name}:{number:0{digits}d}", text))
        if most and len(documents) == most:
            break
    return Corpus(documents, null)


def _open_dataset(config: CorpusConfig) -> Iterator[tuple[int, Row]]:
    """Rows of the hub, or of a folder that the datasets library reads, with their numbers in the order of the dataset:
    all of them, those that `corpus.max_documents` draws, or a stream."""
    from datasets import load_dataset

    try:
        rows: Any = load_dataset(
            config.source, config.subset or None, split=config.part, revision=config.revision, streaming=config.stream
        )
        if config.stream:
            yield from shuffle(enumerate(rows), config.seed)
            return
        numbers = list(range(len(rows)))
        if config.max_documents:
            drawn = sorted(numbers, key=lambda i: draw(f"{config.source}:{i:09d}", config.seed))
            numbers = sorted(drawn[: config.max_documents])
        for number in numbers:
            yield number, rows[number]
    except Exception as error:  # whatever the hub, the network or a damaged file makes the library raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{config.source}: neither a file here nor a dataset of the hub ({reason})") from None


def shuffle(rows: Iterable[tuple[int, Row]], seed: int) -> Iterator[tuple[int, Row]]:
    """A stream in another order: each row that comes takes the place of one drawn from the last `BUFFER`.

    The datasets library's own shuffle takes the files of a dataset in another order too, beneath any count of rows."""
    generator = Random(seed)
    held: list[tuple[int, Row]] = []
    for row in rows:
        if len(held) < BUFFER:
            held.append(row)
        else:
            place = generator.randrange(BUFFER)
            yield held[place]
            held[place] = row
    generator.shuffle(held)
    yield from held
