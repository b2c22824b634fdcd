"""Documents → the three splits that no document shares.

1. `rewrite.text.sources` reads a corpus: named texts, sorted by name.
2. `split_documents` puts each into train, calibrate or test by a hash of its name and the seed: with shares the place
   of one document does not depend on which others there are, so a corpus that grows keeps its splits. Of documents that
   are equal (`rewrite.text.duplicates`) the first by name is kept: copies would be counted as if they were evidence.
   Those that share a long run of words with an earlier split stay, and are counted, or are left out
   (`corpus.near_duplicates`).
3. `rewrite.text.windows` cuts documents into windows of tokens, by several processes where there are cores for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from rewrite.config import CorpusConfig, UserError
from rewrite.run.forking import count_processes, in_order
from rewrite.text.documents import Corpus, Document, draw, hash_documents
from rewrite.text.duplicates import RUN, Shared, find_equal, find_shared
from rewrite.text.windows import cut_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "calibrate", "test")


def split_documents(documents: Sequence[Document], config: CorpusConfig) -> dict[str, list[int]]:
    """Indices of the documents of each split, each in the order of `documents`; a document is in one split at most, and
    one that is equal to an earlier one is in none.

    A share takes the documents whose draw falls into its stretch of [0, 1); a number takes the next so many in the
    order of their draws. Raises UserError where there are too few documents or a split stays empty.
    """
    first = find_equal(document.text for document in documents)
    own = [i for i, same in enumerate(first) if same == i]
    draws = {i: draw(documents[i].name, config.seed) for i in own}
    order = sorted(own, key=draws.__getitem__)
    splits: dict[str, list[int]] = {}
    begin, edge = 0, 0.0
    for name, wanted in zip(SPLITS, (config.train, config.calibrate, config.test), strict=True):
        if wanted is None:
            end = len(order)
        elif isinstance(wanted, int):
            end = begin + wanted
        else:
            edge = (edge if begin else 0.0) + wanted
            end = sum(draw < edge for draw in draws.values())
        if end > len(order) or end <= begin:
            copies = f" that differ ({len(first) - len(own)} copies are left out)" if len(own) < len(first) else ""
            raise UserError(
                f"corpus.{name} = {wanted}: {len(order)} documents{copies} leave {len(order) - begin} for this split; "
                "ask for fewer or give a larger corpus"
            )
        splits[name] = sorted(order[begin:end])
        begin = end
    return _leave_out(documents, splits) if config.near_duplicates == "drop" else splits


def cut_documents(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, config: CorpusConfig
) -> Iterator[list[Int[np.ndarray, " position"]]]:
    """The windows of each document in their order, cut by as many processes as there are cores (`in_order`): a
    tokenizer that is asked for one text is one thread."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Else it warns where it is forked.

    def cut(document: Document) -> list[Int[np.ndarray, " position"]]:
        return cut_windows(document.text, tokenizer, config)

    return in_order(cut, documents, count_processes())


def _leave_out(documents: Sequence[Document], splits: dict[str, list[int]]) -> dict[str, list[int]]:
    """The splits without what shares a run with a document of an earlier one, be that left out itself or not."""
    shared = share(documents, splits)
    kept = {
        name: [i for i in own if name not in shared or i not in shared[name].documents] for name, own in splits.items()
    }
    for name, own in kept.items():
        if not own:
            raise UserError(
                f"corpus.near_duplicates = drop: every document of the {name} split shares {RUN} words in a row with "
                "an earlier split; keep them, or give another corpus"
            )
    return splits | kept


def share(documents: Sequence[Document], splits: dict[str, list[int]]) -> dict[str, Shared]:
    """What each split shares with those before it."""
    return find_shared([document.text for document in documents], splits)


def describe_splits(corpus: Corpus, splits: dict[str, list[int]]) -> dict[str, Any]:
    """What a run's manifest says of its corpus."""
    documents = corpus.documents
    shared = share(documents, splits)
    first = find_equal(document.text for document in documents)
    return {
        "sha256": hash_documents(documents),
        "documents": {split: len(members) for split, members in splits.items()},
        "null": corpus.null,
        "copies": sum(same != i for i, same in enumerate(first)),
        "shared": {
            split: {
                "run": RUN,
                "share": found.seen / found.words if found.words else 0.0,
                "documents": {documents[i].name: round(part, 4) for i, part in sorted(found.documents.items())},
            }
            for split, found in shared.items()
        },
    }
