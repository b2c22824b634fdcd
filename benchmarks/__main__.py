"""`make bench`: how fast the hot loops are, beside the naive way and the peer.

python -m benchmarks [simulate predictions evaluate train memory growth page]
"""

from __future__ import annotations

import sys

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

for name in sys.argv[1:] or BENCHMARKS:
    print(f"— {name}", flush=True)
    for line in BENCHMARKS[name]():
        print(f"  {line}", flush=True)
