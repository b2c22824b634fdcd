"""The planted language as a GPT-2 of three blocks, every weight of it set by hand, and the coder of its second MLP.

1. Block 0 gathers a position's features. One attention head fetches the word before, one the word before that (a query
   holds the bits of the position that it wants, a key those of its own), and one averages what was opened and closed so
   far, which the MLP turns into 0 or 1.
2. Block 1 is the hookpoint. Hidden unit l of its MLP is latent l, at a scale of its own, and writes along a direction
   of its own. With every latent 0 the model guesses by the frequency of the words, as well as any constant can; half of
   that is the embedding's and half the bias that the hookpoint writes.
3. Block 2 reads the directions and raises the logits of the words that each latent makes likely.

LayerNorm would bend the features. Two large constant coordinates make its scale the same everywhere, to a millionth;
and every weight vector that reads sums to zero, by one coordinate that is always 0, which takes out its mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float

from rewrite.coder.coder import Coder
from rewrite.commands.planted.language import (
    LATENTS,
    PAIRS,
    UNKNOWN,
    WINDOW,
    WORDS,
    Feature,
    Units,
    Where,
    compile_latents,
    next_logits,
    spell,
)

WIDTH, HEADS, ACTIVE = 208, 4, 8
HEAD: Final = WIDTH // HEADS
WHERE: Final[tuple[Where, ...]] = ("before", "before2")
"""What the first two heads of block 0 fetch."""
LARGE: Final = 1000.0
"""Size of the two constant coordinates."""
BITS: Final = WINDOW.bit_length() - 1
SHARPNESS: Final = 60.0
"""How much the score of the position that is wanted exceeds all others' [nats]."""

Vector = Float[np.ndarray, " _"]
Vectors = Float[np.ndarray, "_ _"]

Name = str | Feature | tuple[str | int, str | int]
"""What a coordinate holds."""

Weights = dict[str, np.ndarray]


class _Stream:
    """Names for the coordinates of the residual stream, and the weights of who reads them through a LayerNorm."""

    def __init__(self, units: Units, base: Vector) -> None:
        names: list[Name] = ["rest", "plus", "minus"]
        names += [(back, bit) for back in range(3) for bit in range(BITS)]
        names += [*units.features, *(("count", pair) for pair in PAIRS)]
        # What block 0 alone wants to know, for `near`.
        asked = [Feature(where, word) for where in WHERE for word in units.heard("near")]
        names += [feature for feature in asked if feature not in units.features]
        names += [("message", latent) for latent in range(len(LATENTS))] + [("logit", word) for word in WORDS]
        assert len(names) <= WIDTH
        self.place = {name: i for i, name in enumerate(names)}
        self.base = base

    def read(self, weights: Mapping[Name, float], after: bool = False) -> Vector:
        """The weights that give Σ weight · coordinate behind a LayerNorm, before the hookpoint or `after` it."""
        column = np.zeros(WIDTH)
        for name, weight in weights.items():
            column[self.place[name]] = weight
        column[self.place["rest"]] = -column.sum()
        # Bits and words have about this square; a few more or less are nothing beside 2 LARGE².
        guess = self.base if after else self.base / 2
        square = 2 * LARGE**2 + 3 * BITS + 4 + np.square(guess).sum()
        scaled: Vector = column * np.sqrt(square / WIDTH)
        return scaled

    def embed(self) -> Weights:
        """Each word's own coordinate, the constants, and the bits of a position and of the two before it."""
        words, positions = np.zeros((len(WORDS), WIDTH)), np.zeros((WINDOW, WIDTH))
        words[:, self.logits()] = self.base / 2
        words[:, self.place["plus"]], words[:, self.place["minus"]] = LARGE, -LARGE
        for row, word in zip(words, WORDS, strict=True):
            row[self.place[Feature("now", word)]] = 1
        for pair, (left, right) in PAIRS.items():
            # A sign that opens does not stand inside, one that closes does: to be added to what block 0 counts.
            words[WORDS.index(left), self.place[Feature("inside", pair)]] = -1
            words[WORDS.index(right), self.place[Feature("inside", pair)]] = 1
        for back in range(3):
            for bit in range(BITS):
                here = np.maximum(np.arange(WINDOW) - back, 0)
                positions[:, self.place[back, bit]] = np.where(here >> bit & 1, 1, -1)
        return {"transformer.wte.weight": words, "transformer.wpe.weight": positions}

    def fetch(self) -> Weights:
        """Block 0's attention: head 0 fetches the word before, head 1 the one before, head 2 averages the signs."""
        ask, answer = np.zeros((WIDTH, 3 * WIDTH)), np.zeros((WIDTH, WIDTH))
        queries, keys, values = np.split(ask, 3, axis=1)
        # Where one bit differs the score is less by 2 size² / √HEAD.
        size = float(np.sqrt(SHARPNESS / 2 * np.sqrt(HEAD)))
        for head, where in enumerate(WHERE):
            for bit in range(BITS):
                queries[:, head * HEAD + bit] = self.read({(head + 1, bit): size})
                keys[:, head * HEAD + bit] = self.read({(0, bit): size})
            wanted = [name for name in self.place if isinstance(name, Feature) and name.where == where]
            for channel, feature in enumerate(wanted, start=head * HEAD):
                values[:, channel] = self.read({Feature("now", feature.what): 1.0})
                answer[channel, self.place[feature]] = 1
        for channel, (pair, (left, right)) in enumerate(PAIRS.items(), start=2 * HEAD):
            values[:, channel] = self.read({Feature("now", left): 1.0, Feature("now", right): -1.0})
            answer[channel, self.place["count", pair]] = 1
        return {"transformer.h.0.attn.c_attn.weight": ask, "transformer.h.0.attn.c_proj.weight": answer}

    def decide(self, units: Units) -> Weights:
        """Block 0's MLP: for each sum that is 0 or at least 1 / WINDOW, the two units whose difference is 0 or 1."""
        sums: dict[Feature, dict[Name, float]] = {Feature("inside", pair): {("count", pair): 1.0} for pair in PAIRS}
        sums |= {Feature("near", word): {Feature(w, word): 1.0 for w in WHERE} for word in units.heard("near")}
        read, bias, write = np.zeros((WIDTH, len(LATENTS))), np.zeros(len(LATENTS)), np.zeros((len(LATENTS), WIDTH))
        for i, (feature, parts) in enumerate(sums.items()):
            read[:, 2 * i] = read[:, 2 * i + 1] = 2 * WINDOW * self.read(parts)
            bias[2 * i : 2 * i + 2] = -0.5, -1.5
            write[2 * i : 2 * i + 2, self.place[feature]] = 1, -1
        return _mlp(0, read, bias, write)

    def speak(self, directions: Vectors) -> Weights:
        """Block 2's MLP turns each latent's message into logits, which the unembedding reads off."""
        read = np.stack([self.read(self.name_messages(d), after=True) for d in directions], axis=1)
        write = np.zeros((len(LATENTS), WIDTH))
        write[:, self.logits()] = next_logits()
        head = np.stack([self.read({("logit", word): 1.0}, after=True) for word in WORDS])
        return _mlp(2, read, np.zeros(len(LATENTS)), write) | {"lm_head.weight": head}

    def logits(self) -> list[int]:
        """The coordinates of the words' logits."""
        return [self.place["logit", word] for word in WORDS]

    def name_messages(self, direction: Vector) -> dict[Name, float]:
        """A direction among the messages as coordinates."""
        return {("message", latent): float(x) for latent, x in enumerate(direction)}


def _mlp(block: int, read: Vectors, bias: Vector, write: Vectors) -> Weights:
    name = f"transformer.h.{block}.mlp"
    return {f"{name}.c_fc.weight": read, f"{name}.c_fc.bias": bias, f"{name}.c_proj.weight": write}


def make_weights(base: Vector, seed: int) -> Weights:
    """The parameters of the GPT-2 by name; those that are not here are 0, and its LayerNorms do nothing.

    `base` is the logit of each word with every latent 0; `seed` names the latents' directions and scales.
    """
    units, generator = compile_latents(), np.random.default_rng([seed, 3])
    stream = _Stream(units, base)
    directions = np.linalg.qr(generator.normal(size=(len(LATENTS), len(LATENTS)))).Q
    scales = generator.uniform(0.05, 0.5, len(LATENTS))
    gains = np.array([latent.gain for latent in LATENTS])
    read = np.zeros((WIDTH, len(LATENTS)))
    for latent, column in enumerate(units.weights.T):
        heard: dict[Name, float] = {
            units.features[i]: float(column[i] * scales[latent]) for i in np.flatnonzero(column)
        }
        read[:, latent] = stream.read(heard)
    write = np.zeros((len(LATENTS), WIDTH))
    write[:, [stream.place["message", latent] for latent in range(len(LATENTS))]] = directions
    # A latent at strength 9 writes a message of length 1, or of its gain, whatever the scale of its activation.
    write *= (gains / (9 * scales))[:, None]
    written = np.zeros(WIDTH)
    written[stream.logits()] = base / 2
    hook = _mlp(1, read, units.bias * scales, write) | {"transformer.h.1.mlp.c_proj.bias": written}
    return stream.embed() | stream.fetch() | stream.decide(units) | hook | stream.speak(directions)


def make_coder(weights: Weights) -> Coder:
    """The coder whose latents are the hookpoint's hidden units."""
    of = {name: torch.tensor(value, dtype=torch.float32) for name, value in weights.items()}
    mlp = "transformer.h.1.mlp"
    return Coder(
        W_enc=of[f"{mlp}.c_fc.weight"].T.contiguous(),
        b_enc=of[f"{mlp}.c_fc.bias"],
        W_dec=of[f"{mlp}.c_proj.weight"],
        b_dec=of[f"{mlp}.c_proj.bias"],
        kind="transcoder",
        activation="topk",
        k=ACTIVE,
    )


def save_subject(folder: Path, weights: Weights) -> None:
    """Write the model and its tokenizer, which knows whole words only."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({spell(word): i for i, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n| [^ \n]+"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapper: Any = PreTrainedTokenizerFast
    wrapper(tokenizer_object=tokenizer, unk_token=UNKNOWN).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=WINDOW,
        n_embd=WIDTH,
        n_layer=3,
        n_head=HEADS,
        n_inner=len(LATENTS),
        activation_function="relu",
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = weights.get(name)
            rest = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            parameter.copy_(torch.full_like(parameter, rest) if value is None else torch.as_tensor(value))
    with redirect_stderr(StringIO()):  # a progress bar
        model.save_pretrained(folder)
