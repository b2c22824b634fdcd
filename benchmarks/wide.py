"""A wide coder: 32,768 latents on a random model of Pythia-160m's width, and what every stage of a run of it takes.

    python -m benchmarks.wide [FOLDER] [--latents 32768] [--k 32] [--width 768] [--layers 2] [--tokens 1000000]
        [--documents 16] [--windows 4] [--tokenizer DIR] [--stages NAME ...] [--set KEY=VALUE ...]

The subject is a GPT-NeoX of random weights with Pythia-160m's width, heads and vocabulary, and fewer layers: memory is
that of one layer's vectors and of the logits, time grows with the layers after the hookpoint. The coder is a transcoder
of random weights, k latents at a position. Nothing that such a run finds means anything; what it takes does. Text is
Python's standard library by the tokenizer that is named, the bundled one by default. A folder that is given is kept,
and a run that was stopped goes on in it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.stages import measure_stages
from rewrite.coder.coder import Coder
from rewrite.coder.files import save_coder
from rewrite.run.files import bundled

VOCABULARY, HEAD = 50_304, 64
HOOKPOINT = "layers.0.mlp"


@dataclass(frozen=True)
class Wide:
    """The sizes of a run of random weights."""

    latents: int = 32_768
    k: int = 32
    width: int = 768
    layers: int = 2
    tokens: int = 1_000_000
    """Tokens of the train split whose activations are kept."""
    documents: int = 16
    """Documents of the calibrate split, and as many of the test split."""
    windows: int = 4
    """Windows of each of them."""
    tokenizer: Path = bundled("data") / "subject"


def make_subject(size: Wide, folder: Path) -> None:
    """Write a GPT-NeoX of random weights with a tokenizer that others made."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=max(1, size.width // HEAD),
        intermediate_size=4 * size.width,
        max_position_embeddings=2048,
        # Larger than what training begins with: the module's output then depends on its input.
        initializer_range=0.1,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(size.tokenizer / name, folder / name)


def make_coder(size: Wide, folder: Path) -> None:
    """Write a transcoder of random weights, its decoder's rows of length 1."""
    torch.manual_seed(1)
    encoder, decoder = (torch.nn.functional.normalize(torch.randn(size.latents, size.width), dim=1) for _ in range(2))
    coder = Coder(
        kind="transcoder",
        activation="topk",
        k=size.k,
        W_enc=encoder,
        b_enc=torch.zeros(size.latents),
        W_dec=decoder,
        b_dec=torch.zeros(size.width),
    )
    save_coder(coder, folder, HOOKPOINT)


def settings(size: Wide, folder: Path) -> list[str]:
    """A run's settings: all of the tokens as evidence, and few held-out documents with every kind of arm once."""
    return [
        f"subject={folder / 'subject'}",
        f"hookpoint={HOOKPOINT}",
        f"coder.path={folder / 'coder'}",
        f"collect.train_tokens={size.tokens}",
        f"corpus.calibrate={size.documents}",
        f"corpus.test={size.documents}",
        f"corpus.max_windows={size.windows}",
        "evaluate.fractions=[0.1, 1.0]",
        "evaluate.random_seeds=1",
        "evaluate.control_seeds=1",
        "cost.documents=8",
        "cost.check=8",
        "diagnose.documents=0",
    ]


def bench(size: Wide, folder: Path, stages: Sequence[str] = (), more: Sequence[str] = ()) -> Iterator[str]:
    """Make the run, and tell what each of its stages took."""
    for name, make in (("subject", make_subject), ("coder", make_coder)):
        if not (folder / name).is_dir():
            make(size, folder / name)
    yield (
        f"{size.latents:,} latents, k = {size.k}, d = {size.width}, {size.layers} layers, {size.tokens:,} train "
        f"tokens, {size.documents} test documents of {size.windows} windows"
    )
    for stage, taken in measure_stages(folder / "run", [*settings(size, folder), *more], stages):
        yield f"{stage}: {taken.seconds:,.0f} s, {taken.cpu:,.0f} of CPU, at most {taken.peak / 2**20:.2f} GiB"


def main() -> None:
    """Read the sizes, and print a line a stage."""
    parser = argparse.ArgumentParser(description="What every stage takes at 32,768 latents.")
    parser.add_argument("folder", type=Path, nargs="?")
    for name in ("latents", "k", "width", "layers", "tokens", "documents", "windows"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Wide, name))
    parser.add_argument("--tokenizer", type=Path, default=Wide.tokenizer, help="a folder with a tokenizer.json")
    parser.add_argument("--stages", nargs="*", default=(), help="these stages alone; those before them must be there")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of the run")
    given = vars(parser.parse_args())
    folder, stages, more = given.pop("folder"), given.pop("stages"), given.pop("set")
    with tempfile.TemporaryDirectory(prefix="rewrite-bench-") as temporary:
        for line in bench(Wide(**given), folder or Path(temporary), stages, more):
            print(line, flush=True)


if __name__ == "__main__":
    main()
