"""A language model judges explanations: it reads one, and some held-out windows, and says which windows fit.

1. The calibrate split is cut into windows of `score.window` tokens (`hold_out`). Of those in which the latent fires, up
   to `score.windows` are drawn, one from each of as many equal slices of their order by maximum, so that weak and
   strong ones are there alike; and as many of those in which it does not fire.
2. `detection`: the judge says of each window whether the latent fires in it.
   `fuzz`: in windows in which it fires, some tokens are marked: in half of them those that it fires on, in the other
   half as many others, drawn at random. The judge says whether the marks fit.
3. Shuffled, `score.together` windows go into one prompt, and the answer is a JSON list with a 0 or a 1 for each. An
   answer of any other form, or without exactly as many, is no judgement of any of its windows.
4. A latent that has no judgement of more than half of its windows has no score, and `why` says what went wrong.

After the detection and fuzzing scorers of EleutherAI's delphi (Paulo, Mallen, Juang & Belrose 2024), with our own words
and draws. The first token of a corpus window is not shown: whether the latent fires on it is not known.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, vstack

from rewrite.coder.activations import Shard
from rewrite.config import ScoreConfig
from rewrite.engines.base import Answer, Engine, Fault, Question, strip_thought
from rewrite.engines.prompting import fill, mark, show_line, show_token
from rewrite.text.windows import Pieces, show_tokens

FEWEST = 5
"""A latent that fires in fewer windows, or is silent in fewer, is not judged [windows]."""
QUOTED = 60
"""An answer that cannot be read is quoted up to here [characters]."""
LIST = re.compile(r"\[([^\[\]]*)(\]?)")
DRAW, DETECTION, FUZZ = range(3)


@dataclass(frozen=True)
class HeldOut:
    """Windows of one length that no explanation was made from, with the true activations at their tokens."""

    ids: Int[np.ndarray, "window token"]
    known: Bool[np.ndarray, "window token"]
    """False where the activations are not known; such tokens are not shown."""
    documents: Int[np.ndarray, " window"]
    activations: csc_array
    """Positions × latents, the tokens of one window after another's."""
    vocabulary: tuple[str, ...]
    pieces: Pieces = field(default_factory=dict)

    def tokens(self, window: int) -> list[str]:
        """The texts of the tokens of a window that are shown."""
        return show_tokens(self.ids[window, self.known[window]], self.vocabulary, self.pieces)

    def maxima(self, latent: int) -> Float[np.ndarray, " window"]:
        """The latent's largest activation in each window; 0 where it does not fire."""
        maxima = np.zeros(len(self.ids), dtype=np.float64)
        begin, end = self.activations.indptr[latent : latent + 2]
        windows = self.activations.indices[begin:end] // self.ids.shape[1]
        np.maximum.at(maxima, windows, self.activations.data[begin:end])
        return maxima

    def fires(self, latent: int, window: int) -> Bool[np.ndarray, " shown"]:
        """Whether the latent fires on each of `tokens`."""
        length = self.ids.shape[1]
        begin, end = self.activations.indptr[latent : latent + 2]
        positions, values = self.activations.indices[begin:end], self.activations.data[begin:end]
        own = slice(*np.searchsorted(positions, [window * length, (window + 1) * length]))
        fires = np.zeros(length, dtype=bool)
        fires[positions[own] - window * length] = values[own] > 0
        shown: np.ndarray = fires[self.known[window]]
        return shown


def hold_out(shards: Iterable[Shard], length: int) -> HeldOut:
    """Cut every window into consecutive ones of `length` tokens; what is left at an end is left out."""
    ids, known, documents, activations = [], [], [], []
    vocabulary: tuple[str, ...] = ()
    pieces: Pieces = {}
    for shard in shards:
        starts = shard.text.starts
        counts = np.diff(starts) // length
        runs = [b + np.arange(n * length) for b, n in zip(starts[:-1], counts, strict=True)]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *runs])
        ids.append(shard.text.ids[rows].reshape(-1, length))
        known.append(shard.text.counted()[rows].reshape(-1, length))
        documents.append(np.repeat(shard.documents, counts))
        activations.append(shard.activations[rows])
        vocabulary, pieces = shard.text.vocabulary, shard.text.pieces
    held = csc_array(vstack(activations, format="csc"))
    held.sort_indices()
    return HeldOut(np.concatenate(ids), np.concatenate(known), np.concatenate(documents), held, vocabulary, pieces)


@dataclass(frozen=True)
class Drawn:
    """The windows that a latent is judged by."""

    latent: int
    active: Int[np.ndarray, " active"]
    silent: Int[np.ndarray, " silent"]
    base_rate: float
    """Share of all windows in which the latent fires."""


def draw_windows(held: HeldOut, latent: int, config: ScoreConfig) -> Drawn | str:
    """The windows for one latent, or why there are too few."""
    maxima = held.maxima(latent)
    active, silent = np.flatnonzero(maxima > 0), np.flatnonzero(maxima <= 0)
    if len(active) < FEWEST:
        return f"fires in {len(active)} windows of the calibrate split"
    if len(silent) < FEWEST:
        return f"does not fire in {len(silent)} windows of the calibrate split"
    draws = np.random.default_rng([config.seed, DRAW, latent])
    # The best of each slice would be the same every time: one is drawn, so that another seed is another sample.
    slices = np.array_split(active[np.argsort(maxima[active], kind="stable")], min(config.windows, len(active)))
    chosen = np.array([draws.choice(part) for part in slices])
    return Drawn(latent, chosen, draws.permutation(silent)[: len(chosen)], len(active) / len(held.ids))


@dataclass(frozen=True)
class Shown:
    """A window as the judge sees it, in one line, and whether it fits."""

    line: str
    document: int
    fits: bool


def show_detection(held: HeldOut, drawn: Drawn, config: ScoreConfig) -> list[Shown]:
    """The windows in which the latent fires, and those in which it does not."""
    shown = [
        Shown(show_token("".join(held.tokens(window))), int(held.documents[window]), fits)
        for fits, windows in ((True, drawn.active), (False, drawn.silent))
        for window in windows.tolist()
    ]
    order = np.random.default_rng([config.seed, DETECTION, drawn.latent]).permutation(len(shown))
    return [shown[i] for i in order]


def show_fuzz(held: HeldOut, drawn: Drawn, config: ScoreConfig) -> list[Shown]:
    """The windows in which the latent fires, half of them marked where it does, half elsewhere."""
    draws = np.random.default_rng([config.seed, FUZZ, drawn.latent])
    shown = []
    for number, window in enumerate(draws.permutation(drawn.active).tolist()):
        marked = held.fires(drawn.latent, window)
        others, count = np.flatnonzero(~marked), int(marked.sum())
        # Where there are not as many others, the number of marks would give the answer away.
        fits = number % 2 == 0 or len(others) < count
        if not fits:
            chosen = draws.permutation(others)[:count]
            marked = np.isin(np.arange(len(marked)), chosen)
        line = show_line(mark(held.tokens(window), marked.tolist()))
        shown.append(Shown(line, int(held.documents[window]), fits))
    order = draws.permutation(len(shown))
    return [shown[i] for i in order]


SHOW: dict[str, Callable[[HeldOut, Drawn, ScoreConfig], list[Shown]]] = {
    "detection": show_detection,
    "fuzz": show_fuzz,
}


@dataclass(frozen=True)
class Marked:
    """What came of one latent's windows. `why` is empty where enough were judged; `faults` counts the others."""

    judged: Judgements
    faults: Counter[str]
    why: str


@dataclass(frozen=True)
class Sheet:
    """One latent's explanation and windows, to be judged in prompts of a few windows each."""

    scorer: str
    explanation: str
    windows: Sequence[Shown]

    def ask(self, engine: Engine, config: ScoreConfig) -> Iterator[Question]:
        """The questions, in the order of the windows."""
        for begin in range(0, len(self.windows), config.together):
            lines = [shown.line for shown in self.windows[begin : begin + config.together]]
            yield Question(
                fill(self.scorer, explanation=show_token(self.explanation), windows=lines),
                max_tokens=config.max_tokens,
                temperature=config.temperature,
                seed=config.seed,
                stop=("]",),  # Nothing after the list is read, so nothing need be written.
                schema=list_schema(len(lines)) if engine.can.schema else "",
            )

    def mark(self, replies: Sequence[Answer | Fault], config: ScoreConfig) -> Marked:
        """What the replies to `ask`, in its order, say of the windows."""
        faults: Counter[str] = Counter()
        first: dict[str, Fault] = {}
        kept: list[Shown] = []
        said: list[bool] = []
        for number, reply in enumerate(replies):
            windows = self.windows[number * config.together : (number + 1) * config.together]
            read = reply if isinstance(reply, Fault) else read_list(reply, len(windows))
            if isinstance(read, Fault):
                faults[read.kind] += len(windows)
                first.setdefault(read.kind, read)
            else:
                kept += windows
                said += read
        lost, why = faults.total(), ""
        if 2 * lost > len(self.windows):
            most = faults.most_common(1)[0][0]
            why = f"{first[most].why} ({lost} of {len(self.windows)} windows have no judgement)"
        judged = Judgements(
            np.array([shown.document for shown in kept], dtype=np.int64),
            np.array([shown.fits for shown in kept], dtype=bool),
            np.array(said, dtype=bool),
        )
        return Marked(judged, faults, why)


def list_schema(count: int) -> str:
    """The JSON schema of an answer about `count` windows: the list that the prompt asks for. Held to another form, such
    as an object about the list, a small model fills the place before the list with blanks without end."""
    item = {"type": "integer", "enum": [0, 1]}
    return json.dumps({"type": "array", "items": item, "minItems": count, "maxItems": count})


def read_list(answer: Answer, count: int) -> list[bool] | Fault:
    """The judgements in an answer: its first JSON list, whose end a stop text may have taken."""
    answer = strip_thought(answer)
    found = LIST.search(answer.text)
    if found is None:
        return _refuse(answer, "no list in")
    if not found[2] and not answer.whole:
        return Fault("truncated", f"the list does not end: {_quote(answer.text)}", answer.spent)
    values = [value.strip() for value in found[1].split(",")]
    if not set(values) <= {"0", "1"}:
        return _refuse(answer, "something other than 0 and 1 in")
    if len(values) != count:
        return _refuse(answer, f"{len(values)} judgements of {count} windows in")
    return [value == "1" for value in values]


def _refuse(answer: Answer, reason: str) -> Fault:
    return Fault("malformed", f"{reason} {_quote(answer.text)}", answer.spent)


def _quote(text: str) -> str:
    text = show_token(text.strip())
    return f"“{text if len(text) <= QUOTED else text[: QUOTED - 1] + '…'}”"


@dataclass(frozen=True)
class Judgements:
    """Windows that were judged: whose document each is, whether it fits, and whether the judge said so."""

    documents: Int[np.ndarray, " window"]
    truth: Bool[np.ndarray, " window"]
    said: Bool[np.ndarray, " window"]
