"""What watches each line that a test runs, coverage and the check of shapes, and how to do without it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from jaxtyping import config as shapes


@contextmanager
def untraced() -> Iterator[None]:
    """Without the tracer of coverage, also in threads that begin meanwhile. To stop coverage would not do: in a process
    of xdist another collector, which pytest-cov leaves below, then goes on in its place."""
    own, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        threading.settrace(of_threads)  # type: ignore[arg-type]
        sys.settrace(own)
        (lambda: None)()  # It is back at the next call only, and is to see these functions end as it saw them begin.


def aside(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a library, untraced: only our lines are counted, but the tracer is asked at each of theirs too."""

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        with untraced():
            return function(*given, **named)

    return call


@contextmanager
def unwatched() -> Iterator[None]:
    """No coverage is counted and no shape is checked meanwhile."""
    was = shapes.jaxtyping_disable
    shapes.update("jaxtyping_disable", True)
    try:
        with untraced():
            yield
    finally:
        shapes.update("jaxtyping_disable", was)
