"""`make bench`: how fast the hot loops are, beside the naive way and the peer.

python -m benchmarks [simulate predictions evaluate train memory growth page]
"""

from __future__ import annotations

import argparse

from benchmarks import evaluate, growth, memory, page, predictions, simulate, train

BENCHMARKS = {
    "simulate": simulate.bench,
    "predictions": predictions.bench,
    "evaluate": evaluate.bench,
    "train": train.bench,
    "memory": memory.bench,
    "growth": growth.bench,
    "page": page.bench,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure what is named, or everything."""
    known = ", ".join(BENCHMARKS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast the hot loops are.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what is measured: {known}; everything without one")
    names: list[str] = parser.parse_args(arguments).names
    for name in names:
        if name not in BENCHMARKS:
            raise SystemExit(f"benchmarks: {name}: no such benchmark; there are: {known}")
    for name in names or BENCHMARKS:
        print(f"— {name}", flush=True)
        for line in BENCHMARKS[name]():
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
