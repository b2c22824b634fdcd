"""The cache of all calls and the ledger, in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rewrite.config import UserError
from rewrite.engines.base import Answer, Fault, Reading
from rewrite.engines.ledger import SUMS, Spent

Reply = Reading | Answer | Fault

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, kind TEXT, content BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (run TEXT, stage TEXT, calls INTEGER, tokens_in INTEGER, tokens_out INTEGER,
    processed INTEGER, retried INTEGER, seconds REAL, fault TEXT, detail TEXT);
CREATE INDEX IF NOT EXISTS ledger_of_run ON ledger (run, stage);
"""


class Cache:
    """Answers by key, and the ledger. Raises UserError where the file cannot be a cache."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                self._data = opened.enter_context(closing(sqlite3.connect(path, timeout=60, isolation_level=None)))
                self._data.executescript(TABLES)
                opened.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path}: cannot be used as the cache of calls ({error}); set calls.cache") from None

    def close(self) -> None:
        self._data.close()

    def find(self, key: bytes) -> Reply | None:
        """The answer kept under a key."""
        with self._sound():
            row = self._data.execute("SELECT kind, content FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else _unpack(*row)

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """What the disk or another process does to the file is told in one line, and leaves nothing half done."""
        try:
            yield
        except sqlite3.Error as error:
            if self._data.in_transaction:
                self._data.rollback()
            raise UserError(
                f"{self._path}: the cache of calls cannot be used ({error}); mend it or set calls.cache; "
                "nothing answered is lost"
            ) from None

    def keep(self, key: bytes, reply: Reply, run: str, stage: str, seconds: float) -> None:
        """Commit an answer and its line in the ledger together."""
        fault, detail = (reply.kind, reply.detail[:300]) if isinstance(reply, Fault) else ("", "")
        spent = reply.spent
        line = (run, stage, spent.calls, spent.tokens_in, spent.tokens_out, spent.processed, spent.retried, seconds)
        with self._sound():
            self._data.execute("BEGIN IMMEDIATE")
            if not isinstance(reply, Fault) or reply.kind == "refusal":
                self._data.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, *_pack(reply)))
            self._data.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*line, fault, detail))
            self._data.execute("COMMIT")

    def spent(self, run: str, stage: str = "") -> Spent:
        """What a run, or one stage of it, has spent so far."""
        query, values = (SUMS + " AND stage = ?", (run, stage)) if stage else (SUMS, (run,))
        return Spent(*self._data.execute(query, values).fetchone())

    def faults(self, run: str, stage: str) -> dict[str, dict[str, Any]]:
        """Requests that failed, by kind, each with an example."""
        rows = self._data.execute(
            "SELECT fault, COUNT(*), MIN(detail) FROM ledger WHERE run = ? AND stage = ? AND fault != '' GROUP BY 1",
            (run, stage),
        )
        return {kind: {"requests": number, "example": detail} for kind, number, detail in rows}

    def seconds(self, run: str, stage: str) -> float:
        """Time spent waiting for answers [s]."""
        query = "SELECT COALESCE(SUM(seconds), 0) FROM ledger WHERE run = ? AND stage = ?"
        return float(self._data.execute(query, (run, stage)).fetchone()[0])


def _pack(reply: Reply) -> tuple[str, bytes]:
    match reply:
        case Reading():
            return "reading", reply.digits.astype(np.float32).tobytes()
        case Answer():
            content: dict[str, Any] = {"text": reply.text, "whole": reply.whole}
            return "answer", json.dumps(content).encode()
        case Fault():
            return "fault", json.dumps({"kind": reply.kind, "detail": reply.detail}).encode()


def _unpack(kind: str, content: bytes) -> Reply:
    if kind == "reading":
        return Reading(np.frombuffer(content, dtype=np.float32).reshape(-1, 10))
    fields = json.loads(content)
    return Answer(**fields) if kind == "answer" else Fault(**fields)
