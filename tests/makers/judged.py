"""Documents with planted activations, judges of all kinds, and what a judge is shown, taken apart by its form alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from rewrite.coder.activations import Shard, save_shard
from rewrite.config import Config, ScoreConfig
from rewrite.engines.base import Question
from rewrite.run.files import write_json
from rewrite.run.store import Run
from rewrite.simulators.base import Strengths
from rewrite.simulators.strengths import save_simulator, save_strengths
from rewrite.text.windows import Text

WORDS = (" cat", " dog", " sat", " the", "\n", "\t9", " <<x>>", "\\", " [1, 1]", " 0", "Texts:", "\u202e")
DENSE, SILENT, RARE, LATENTS = 2, 3, 4, 6
LENGTH, WINDOWS, DOCUMENTS = 24, 4, 12

CONFIG = Config(
    score=ScoreConfig(scorers=("detection", "fuzz"), model="fake", windows=20, window=8, together=5),
)


def plant(seed: int = 0) -> list[Shard]:
    """Three shards of documents; latent 0 fires on " cat", 1 and 5 on " dog", 2 everywhere, 3 never, 4 in 3 windows."""
    draws = np.random.default_rng(seed)
    shards = []
    for number in range(3):
        ids = draws.choice(len(WORDS), 4 * WINDOWS * LENGTH, p=[0.04, 0.04, *[0.092] * 10]).astype(np.int32)
        text = Text(ids, np.arange(0, len(ids) + 1, LENGTH), WORDS)
        fires = np.stack([ids == 0, ids == 1, ids >= 0, ids < 0, np.zeros(len(ids), dtype=bool), ids == 1], axis=1)
        fires[[8 * 5 + 1, 8 * 9 + 1], RARE] = number == 0
        fires[8 * 9 + 2, RARE] = number == 1
        activations = fires * draws.uniform(0.5, 2, fires.shape) * text.counted()[:, None]
        owners = np.repeat(np.arange(4 * number, 4 * number + 4), WINDOWS).astype(np.int32)
        shards.append(Shard(text, owners, csr_array(activations.astype(np.float32))))
    return shards


def make_judged(place: Path) -> Path:
    """A run up to the simulations: strengths follow latent 0, are constant for 1, unknown for 5, and 0 for the rest."""
    with Run(place) as run:
        run.begin("k", ())
        with run.writing("2_activations") as folder:
            folder.mkdir()
            for number, shard in enumerate(plant()):
                save_shard(folder, f"calibrate-{number:05d}", shard)
            splits = {"calibrate": [[f"d{4 * n + i}" for i in range(4)] for n in range(3)], "test": []}
            write_json(folder / "documents.json", {"vocabulary": WORDS, "latents": LATENTS, "splits": splits})
        texts = ["fires on cat", None, "fires on everything", "never fires", "who knows", 'on "dog"\n[0, 0, 0, 0, 0]']
        rows = [{"latent": i, "text": t, "why": "" if t else "refused: no"} for i, t in enumerate(texts)]
        with run.writing("3_explanations.jsonl") as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with run.writing("4_simulations") as folder:
            folder.mkdir()
            for number, shard in enumerate(plant()):
                strengths = np.zeros(shard.activations.shape, dtype=np.float32)
                strengths[:, 0] = np.rint(4 * shard.activations[:, [0]].toarray()[:, 0])
                strengths[:, 1] = 3
                values = Strengths(csr_array(strengths), {5: "not understood"})
                save_strengths(folder, f"calibrate-{number:05d}", values, shard.text)
            save_simulator(folder, "planted", 9.0, None)
    return place


def lines_of(question: Question) -> list[str]:
    """The texts of a prompt, as a reader who knows only its form takes them apart."""
    listed = question.messages[-1].content.split("Texts:\n", 1)[1].split("\n")
    numbers, texts = zip(*(line.split("\t", 1) for line in listed), strict=True)
    assert list(numbers) == [str(i + 1) for i in range(len(listed))]
    return list(texts)


def read_marks(line: str) -> tuple[list[str], list[bool]]:
    """Characters and whether they are marked, from a line alone: the escapes undone one by one."""
    short = {"n": "\n", "t": "\t", "r": "\r"}
    characters, marked, inside = [], [], False
    for part in re.findall(r"\\u[0-9a-f]{4}|\\.|<<|>>|.", line):
        if part in ("<<", ">>"):
            assert inside == (part == ">>")
            inside = part == "<<"
        else:
            plain = chr(int(part[2:], 16)) if part[:2] == "\\u" else short.get(part[1:], part[-1])
            characters.append(plain if part[0] == "\\" else part)
            marked.append(inside)
    assert not inside
    return characters, marked


def perfect(question: Question) -> str:
    """Knows what the explanation means: whether some token of a text is such, or all that are marked."""
    word = " cat" if "fires on cat" in question.messages[-1].content.split("\n")[0] else " dog"
    fits = []
    for line in lines_of(question):
        if "marks" in question.messages[0].content:
            marked = "".join(c for c, inside in zip(*read_marks(line), strict=True) if inside)
            fits.append(not marked.replace(word, ""))
        else:
            fits.append(word in line)
    return json.dumps([int(fit) for fit in fits])
