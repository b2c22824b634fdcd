"""Every call of a language model: one cache, one budget, one ledger.

1. A request's key is a hash of what its answer depends on: the engine's identity and the request itself. What is in the
   cache is not asked again, by this run or any other that shares the file; equal requests are asked once.
2. What is not is handed to the engine as far as the budget goes. Each answer is committed as it arrives, together with
   its line in the ledger, so a kill loses nothing but what was in flight. Failures get a line and are not cached (but
   for refusals, which are answers), so they are asked again when their stage runs again; how many did is told to what
   the run writes next (`Run.unanswered`).
3. The ledger's sums stand in the manifest under `calls`, for the run folder over all its sessions.

The cache is SQLite in write-ahead mode, which survives a killed process and lets several runs write at once.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rewrite.config import CallsConfig, Config, UserError
from rewrite.engines.base import Abilities, Answer, Branches, Engine, Fault, Question, Reading
from rewrite.engines.cache import Cache, Reply
from rewrite.engines.fingerprints import check_tunes, prompts_folder
from rewrite.engines.ledger import Planned, Spent, cost
from rewrite.run import plugins
from rewrite.run.files import hash_path
from rewrite.run.store import Run

R = TypeVar("R", Branches, Question)


class Calls:
    """The calls that one stage of a run makes; a context, at whose end the ledger goes into the manifest.

    With `dry` nothing is asked: requests that are not in the cache are estimated and come back as faults.
    """

    def __init__(self, config: Config, run: Run, stage: str, dry: bool = False) -> None:
        self.config, self.run, self.stage, self.dry = config, run, stage, dry
        self.met = Planned()
        self.cache: Cache | None = None
        self._opened: dict[tuple[str, str], Caller] = {}
        self.latents = 0
        """Latents that the stage works on, for the cost of one."""

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *error: object) -> None:
        if self.cache is not None:
            if not self.dry:
                self.run.note("calls", self.run.manifest.get("calls", {}) | {self.stage: self._ledger(self.cache)})
            self.cache.close()

    def open(self, model: str, adapter: str = "") -> Engine:
        """The run's engine with a model and maybe an adapter, loaded once. Raises UserError for an engine, a setting or
        a model that is not there."""
        if (model, adapter) in self._opened:
            return self._opened[model, adapter]
        module = plugins.load("engines", self.config.engine)
        if adapter:
            check_tunes(self.config.engine)
        with_adapter = (adapter,) if adapter else ()
        engine: Engine = module.build(model, plugins.chosen("engine", self.config), *with_adapter)
        if self.cache is None:
            beside = self.run.folder.parent / "calls.sqlite"
            self.cache = Cache(Path(self.config.calls.cache) if self.config.calls.cache else beside)
            self._name_the_run()
            if not self.dry:
                prompts = sorted(prompts_folder().glob("*.jinja"))
                self.run.note("prompts", {prompt.name: hash_path(prompt) for prompt in prompts})
        self._opened[model, adapter] = Caller(engine, self, self.cache)
        return self._opened[model, adapter]

    def _name_the_run(self) -> None:
        """Give the run folder a name of its own in the ledger; a copy of a folder has spent nothing yet."""
        path = str(self.run.folder.resolve()).encode("utf-8", errors="surrogateescape")
        place = hashlib.sha256(path).hexdigest()[:16]
        if self.run.manifest.get("ledger", {}).get("folder") != place:
            self.run.note("ledger", {"id": uuid.uuid4().hex, "folder": place})

    def _ledger(self, cache: Cache) -> dict[str, Any]:
        """This stage's sums over all sessions of the run folder."""
        run = self.run.manifest["ledger"]["id"]
        spent = cache.spent(run, self.stage)
        before = self.run.manifest.get("calls", {}).get(self.stage, {}).get("cached", 0)
        dollars = cost(spent, self.config.calls)
        return {
            **asdict(spent),
            "cached": before + self.met.cached,
            "failed": cache.faults(run, self.stage),
            "seconds": round(cache.seconds(run, self.stage), 2),
            "cost": round(dollars, 6),
            "cost_per_latent": round(dollars / self.latents, 9) if self.latents else None,
        }


class Caller:
    """An engine whose every call is looked up, paid for and kept; an `Engine` like any other."""

    def __init__(self, engine: Engine, calls: Calls, cache: Cache) -> None:
        self._engine, self._calls, self._cache = engine, calls, cache

    @property
    def can(self) -> Abilities:
        """See `Engine.can`."""
        return self._engine.can

    @property
    def identity(self) -> Mapping[str, str]:
        """See `Engine.identity`."""
        return self._engine.identity

    def estimate(self, request: Branches | Question) -> Spent:
        """See `Engine.estimate`."""
        return self._engine.estimate(request)

    def read(self, requests: Sequence[Branches]) -> Iterator[tuple[int, Reading | Fault]]:
        """See `Engine.read`; answers from the cache come first."""
        for number, reply in self._ask("read", requests, self._engine.read):
            assert not isinstance(reply, Answer), "a key says which kind of request it is of"
            yield number, reply

    def generate(self, requests: Sequence[Question]) -> Iterator[tuple[int, Answer | Fault]]:
        """See `Engine.generate`; answers from the cache come first."""
        for number, reply in self._ask("generate", requests, self._engine.generate):
            assert not isinstance(reply, Reading), "a key says which kind of request it is of"
            yield number, reply

    def _ask(
        self, kind: str, requests: Sequence[R], engine: Callable[[Sequence[R]], Iterator[tuple[int, Reply]]]
    ) -> Iterator[tuple[int, Reply]]:
        identity = json.dumps([kind, dict(self._engine.identity)], sort_keys=True)
        waiting: dict[bytes, list[int]] = {}
        for number, request in enumerate(requests):
            key = _key(identity, request)
            kept = self._cache.find(key) if key not in waiting else None
            if kept is None:
                waiting.setdefault(key, []).append(number)
            else:
                self._calls.met.cached += 1
                yield number, kept
        if self._calls.dry:
            yield from self._plan(requests, waiting)
            return
        keys = list(waiting)
        while keys:
            fresh = [requests[waiting[key][0]] for key in keys]
            # Taken at the most they can cost; what they did cost may leave room for more.
            affordable = self._afford(fresh)
            if not affordable:
                raise UserError(self._limit(fresh[0]))
            with closing(engine(fresh[:affordable])) as replies:  # type: ignore[type-var]
                for place, reply in self._kept(keys, replies):
                    for number in waiting[keys[place]]:
                        yield number, reply
            keys = keys[affordable:]

    def _kept(self, keys: Sequence[bytes], replies: Iterator[tuple[int, Reply]]) -> Iterator[tuple[int, Reply]]:
        """The replies, each in the cache and the ledger before it is passed on."""
        run, stage = self._calls.run.manifest["ledger"]["id"], self._calls.stage
        began = time.monotonic()
        for place, reply in replies:
            now = time.monotonic()
            self._cache.keep(keys[place], reply, run, stage, now - began)
            self._calls.run.unanswered += isinstance(reply, Fault) and reply.passing
            began = now
            yield place, reply

    def _plan(self, requests: Sequence[R], waiting: dict[bytes, list[int]]) -> Iterator[tuple[int, Reply]]:
        for numbers in waiting.values():
            self._calls.met.planned += self._engine.estimate(requests[numbers[0]])
            for number in numbers:
                yield number, Fault("not run", "dry run")

    def _afford(self, requests: Sequence[R]) -> int:
        """How many of the requests, in order, the budget allows, each taken at the most that it can cost."""
        limits = self._calls.config.calls
        if not (limits.max_calls or limits.max_tokens or limits.max_cost):
            return len(requests)
        spent = self._cache.spent(self._calls.run.manifest["ledger"]["id"])
        for number, request in enumerate(requests):
            spent += self._engine.estimate(request)
            if _exceeded(spent, limits):
                return number
        return len(requests)

    def _limit(self, request: Branches | Question) -> str:
        spent = self._cache.spent(self._calls.run.manifest["ledger"]["id"])
        limits = self._calls.config.calls
        name = _exceeded(spent + self._engine.estimate(request), limits)
        return (
            f"calls.{name} = {getattr(limits, name):,}: the next request would pass it, after {spent.calls:,} calls "
            f"and {spent.tokens_in + spent.tokens_out:,} tokens; nothing answered is lost: raise it and run again"
        )


def _exceeded(spent: Spent, limits: CallsConfig) -> str:
    """The name of a limit that this spending would pass, or nothing."""
    used = {
        "max_calls": spent.calls,
        "max_tokens": spent.tokens_in + spent.tokens_out,
        "max_cost": cost(spent, limits),
    }
    return next((name for name, value in used.items() if 0 < getattr(limits, name) < value), "")


def _key(identity: str, request: Branches | Question) -> bytes:
    # A request without silent pieces has the key that it had before there were any.
    fields = {k: v for k, v in vars(request).items() if k != "messages" and (k, v) != ("silent", ())}
    turns = [(m.role, m.content) for m in request.messages]
    content = json.dumps([identity, turns, fields], sort_keys=True)
    return hashlib.sha256(content.encode()).digest()
