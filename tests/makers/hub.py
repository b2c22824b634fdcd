"""A hub on loopback that keeps what `huggingface_hub` uploads and gives it back: repositories, commits, files.

The client is the real one; the server knows the few requests that it makes, and lists them in `asked`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from makers.faults import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What is on the hub, by repository and path, and who asked for what."""

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = urlsplit(self.path).path
        self.hub.asked.append(f"POST {path}")
        self.hub.tokens.add(self.headers.get("authorization", ""))
        if path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said['organization']}/{said['name']}"
            self.hub.private[name] = said.get("visibility") == "private"
            self.hub.repositories.setdefault(name, {})
            return self._say({"url": f"{self.hub.address}/{name}"})
        if path == "/api/validate-yaml":
            return self._say({"errors": [], "warnings": []})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            return self._say({"files": [{"path": file["path"]} | regular for file in files]})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.hub.repositories[name][line["value"]["path"]] = content
        url = f"{self.hub.address}/{name}/commit/{COMMIT}"
        return self._say({"commitUrl": url, "commitOid": COMMIT, "hookOutput": "", "success": True})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.hub.repositories:
            files = self.hub.repositories["/".join(parts[2:4])]
            if "tree" in parts:
                rows = [{"type": "file", "path": p, "size": len(c), "oid": _oid(c)} for p, c in files.items()]
                return self._say(rows)
            facts = {"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": [{"rfilename": p} for p in files]}
            return self._say(facts | {"private": False, "tags": [], "downloads": 0, "likes": 0})
        content = self.hub.repositories.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if parts[2:3] == ["resolve"] and content is not None:
            return self._give(content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT})
        return self._say({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _say(self, facts: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        told = {"content-type": "application/json"} | (headers or {})
        self._give(json.dumps(facts).encode(), told, status)

    def _give(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in (headers | {"content-length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def open_hub() -> Iterator[Hub]:
    """A hub on a free port."""
    hub = Hub()
    with serving(type("Handler", (_Handler,), {"hub": hub})) as hub.address:
        yield hub
