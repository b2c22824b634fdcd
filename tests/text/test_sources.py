"""Whatever people keep text in is read, or refused in one line that names the file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewrite.config import CorpusConfig, UserError
from rewrite.text import sources
from rewrite.text.documents import hash_documents
from rewrite.text.sources import fingerprint_corpus, read_corpus, shuffle

ROWS: list[dict[str, Any]] = [
    {"text": "one", "meta": {"text": "eins"}},
    {"text": None, "meta": {"text": "nichts"}},
    {"text": "zwei\nlines, \u2028 and 中", "meta": {"text": "zwei"}},
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
TEXTS = ["one", "zwei\nlines, \u2028 and 中"]


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


def zstd(content: bytes) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as packed:
        packed.write(content)
    return bytes(stream.getvalue())


def table(delimiter: str) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["number", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows({"number": i, "text": text} for i, text in enumerate(TEXTS))
    return stream.getvalue().encode()


def texts(source: Path, **settings: Any) -> list[str]:
    return [d.text for d in read_corpus(CorpusConfig(source=str(source), **settings)).documents]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.jsonl", lambda: LINES),
        ("a.jsonl", lambda: b"\xef\xbb\xbf" + LINES + b"\n\n"),
        ("a.ndjson", lambda: LINES),
        ("a.jsonl.gz", lambda: gzip.compress(LINES)),
        ("a.jsonl.bz2", lambda: bz2.compress(LINES)),
        ("a.jsonl.zst", lambda: zstd(LINES)),
        ("a.json", lambda: json.dumps(ROWS).encode()),
        ("a.json.gz", lambda: gzip.compress(json.dumps(ROWS).encode())),
        ("a.parquet", parquet),
        ("a.csv", lambda: table(",")),
        ("a.csv", lambda: b"\xef\xbb\xbf" + table(",")),
        ("a.tsv", lambda: table("\t")),
        ("a.txt", lambda: "\n\n".join(TEXTS).encode()),
        ("a.txt", lambda: "\n\n".join(TEXTS).replace("\n", "\r\n").encode()),
        ("A.CSV", lambda: table(",")),
        ("a.JSONL.GZ", lambda: gzip.compress(LINES)),
        ("a.txt.gz", lambda: gzip.compress(b"\xef\xbb\xbf" + "\n\n".join(TEXTS).encode())),
    ],
)
def test_a_file_is_read(tmp_path: Path, name: str, make: Callable[[], bytes]) -> None:
    assert texts(write(tmp_path / name, make())) == TEXTS


@pytest.mark.parametrize(("name", "make"), [("a.jsonl", lambda: LINES), ("a.parquet", parquet)])
def test_a_row_without_text_is_left_out_and_counted(tmp_path: Path, name: str, make: Callable[[], bytes]) -> None:
    corpus = read_corpus(CorpusConfig(source=str(write(tmp_path / name, make()))))
    assert (len(corpus.documents), corpus.null) == (2, 1)


def test_a_field_may_lie_within_another_or_have_a_dot(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.jsonl", LINES), text_field="meta.text") == ["eins", "nichts", "zwei"]
    dotted = write(tmp_path / "b.jsonl", b'{"meta.text": "dotted", "meta": {"text": "within"}}')
    assert texts(dotted, text_field="meta.text") == ["dotted"]


def test_lines_have_their_numbers_for_names(tmp_path: Path) -> None:
    corpus = read_corpus(CorpusConfig(source=str(write(tmp_path / "a.jsonl", LINES))))
    assert [d.name for d in corpus.documents] == ["a.jsonl:000001", "a.jsonl:000003"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"text": "x"}\nnot json', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b'{"text": "x"}\n[1]', r"a\.jsonl:2: no field 'text' in this row; set"),
        ("a.jsonl", b'{"other": 1, "body": 2}', "there are other, body; set corpus.text_field"),
        ("a.jsonl", b'{"text": 1}', "is not text"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", r"a\.jsonl:1: not JSON"),
        ("a.json", b'{"text": "x"}', "not a list of rows"),
        ("a.json", b'[{"text": "x"}', r"a\.json: not JSON"),
        ("a.csv", b"number,body\n1,x\n", r"a\.csv:0: no field 'text' in this row; there are number, body"),
        ("a.parquet", b"not parquet", r"a\.parquet: not readable as Parquet"),
        ("a.txt", b"  \n\n ", "no text in this corpus"),
        ("a.txt", b"\xff\xfe\x00", "not readable as UTF-8"),
        ("a.jsonl.gz", b"not gzip", r"a\.jsonl\.gz: not readable"),
        ("a.jsonl.zst", b"not zstd", r"a\.jsonl\.zst: not readable"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        texts(write(tmp_path / name, content))
    assert len(str(caught.value).splitlines()) == 1


def test_stdlib_is_source_without_tests() -> None:
    found = read_corpus(CorpusConfig()).documents
    assert {"argparse.py", "json/decoder.py"} <= {d.name for d in found}
    assert not any("/test/" in d.name or d.name.startswith("test/") for d in found)
    assert hash_documents(found) == fingerprint_corpus(CorpusConfig())


def test_a_folder_of_text_is_its_txt_files_or_those_that_are_named(tmp_path: Path) -> None:
    for name in ("a.md", "deep/b.md", "c.py"):
        write(tmp_path / name, name.encode())
    with pytest.raises(UserError, match=r"a folder without \.txt files; say which files are text"):
        texts(tmp_path)
    assert texts(tmp_path, glob="*.md") == ["a.md", "deep/b.md"]
    assert texts(tmp_path, glob="deep/*") == ["deep/b.md"]
    with pytest.raises(UserError, match=r"no file matches corpus\.glob = \*\.rst"):
        texts(tmp_path, glob="*.rst")
    with pytest.raises(UserError, match="no pattern"):
        texts(tmp_path, glob="/abs/*.md")
    write(tmp_path / "d.txt", b"\xef\xbb\xbftext")
    write(tmp_path / "packed.txt.gz", gzip.compress(b"one\n\ntext"))
    assert texts(tmp_path) == ["text", "one\n\ntext"]
    write(tmp_path / "e.txt", b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"e\.txt: not readable as UTF-8"):
        texts(tmp_path)


def test_absent_corpora_are_named(tmp_path: Path) -> None:
    for name in ("nowhere.jsonl", "nowhere.jsonl.zst", "nowhere"):
        with pytest.raises(UserError, match="no such file"):
            texts(tmp_path / name)
    with pytest.raises(UserError, match="neither a file here nor a dataset of the hub"):
        read_corpus(CorpusConfig(source="nobody/nothing"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder of several files that the datasets library reads as it reads a hub name."""
    rows = [{"body": f"text {i}" if i % 10 else None, "n": i} for i in range(200)]
    for file in range(4):
        lines = map(json.dumps, rows[50 * file : 50 * file + 50])
        write(tmp_path / f"train-{file:05d}-of-00004.jsonl", "\n".join(lines).encode())
    return tmp_path


def test_a_dataset_is_read_by_its_rows(dataset: Path) -> None:
    corpus = read_corpus(CorpusConfig(source=str(dataset), text_field="body"))
    assert (len(corpus.documents), corpus.null) == (180, 20)
    assert corpus.documents[0].name.endswith(":000000001") and corpus.documents[0].text == "text 1"
    with pytest.raises(UserError, match="no field 'text' in this row; there are body, n; set"):
        texts(dataset)
    with pytest.raises(UserError, match=r"corpus\.stream = true: would read the whole dataset"):
        texts(dataset, stream=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_few_rows_are_drawn_from_all_by_the_seed(dataset: Path, stream: bool) -> None:
    def draw(seed: int) -> dict[str, str]:
        config = CorpusConfig(source=str(dataset), text_field="body", max_documents=50, stream=stream, seed=seed)
        return {d.name: d.text for d in read_corpus(config).documents}

    first, again, other = draw(0), draw(0), draw(1)
    assert first == again and first.keys() != other.keys()
    assert len(first) == 50 if stream else 35 <= len(first) <= 50, "where rows are drawn, some have no text"
    for name, text in first.items():
        assert text == f"text {int(name.rpartition(':')[2])}", "a document's name says where it stands in the dataset"
    assert max(int(name.rpartition(":")[2]) for name in first) > 100, "not the first rows"


def test_a_stream_is_shuffled_through_its_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BUFFER", 10)
    rows = [(i, {"text": str(i)}) for i in range(100)]
    found = list(shuffle(iter(rows), 0))
    assert sorted(number for number, _ in found) == list(range(100)) and found != rows
    assert all(number < place + 10 for place, (number, _) in enumerate(found)), "no row comes before it was read"
