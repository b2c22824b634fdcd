"""Train the bundled subject: a small Llama on the standard library's own source.

    python data/make_subject.py --out data/subject --steps 3800

1. The documents are the modules of the running Python's standard library (`rewrite.text.corpus`); a module's
   split is a hash of its name, so the calibrate and test modules are held out of this training too.
2. A byte-level BPE of 1,024 pieces; every digit, tab and newline is a piece of its own.
3. Muon for the matrices inside the blocks and AdamW for the embedding and the norms, on random windows of
   the packed train split; the learning rate falls linearly to zero over the second half.
4. Held-out loss beside an interpolated 5-gram model with modified Kneser-Ney discounts (Chen & Goodman 1999) on
   the same tokens; both go into the card.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rewrite.config import CorpusConfig
from rewrite.text.corpus import read_documents, split_documents

WINDOW = 256
BATCH = 16
VOCABULARY = 1024


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose digits, tabs and newlines never merge with anything."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\n\t]|\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Few layers and wide MLPs: what is to be rewritten should matter."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def learning_rate_factor(progress: float) -> float:
    """1 after a short warm-up, then linearly to 0 from half-way on."""
    warm_up = min(1.0, progress / 0.01)
    return warm_up * min(1.0, 2.0 * (1.0 - progress))


def train(model: LlamaForCausalLM, tokens: torch.Tensor, steps: int, seed: int) -> None:
    """Train on `steps` batches of random windows."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="original")
    adam = torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    base = {id(o): o.param_groups[0]["lr"] for o in (muon, adam)}
    draws = torch.Generator().manual_seed(seed)
    began, shown = time.monotonic(), 0.0
    for step in range(steps):
        for optimizer in (muon, adam):
            optimizer.param_groups[0]["lr"] = base[id(optimizer)] * learning_rate_factor(step / steps)
        starts = torch.randint(0, len(tokens) - WINDOW, (BATCH,), generator=draws)
        batch = torch.stack([tokens[s : s + WINDOW] for s in starts.tolist()])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(input_ids=batch).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden)
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        muon.step()
        adam.step()
        muon.zero_grad()
        adam.zero_grad()
        shown = loss.item() if step == 0 else 0.95 * shown + 0.05 * loss.item()
        if (step + 1) % 100 == 0:
            rate = (step + 1) * BATCH * WINDOW / (time.monotonic() - began)
            print(f"step {step + 1} of {steps}  loss {shown:.3f}  {rate:,.0f} tokens/s", flush=True)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, documents: list[list[int]]) -> float:
    """Mean nats a token over every token but the first of each window of `WINDOW`."""
    model.eval()
    nats, count = 0.0, 0
    for document in documents:
        for start in range(0, len(document) - 1, WINDOW):
            window = torch.tensor([document[start : start + WINDOW]])
            if window.shape[1] < 2:
                continue
            loss = model(input_ids=window, labels=window).loss
            nats += float(loss) * (window.shape[1] - 1)
            count += window.shape[1] - 1
    return nats / count


class KneserNey:
    """Interpolated n-gram model with modified Kneser-Ney discounts (Chen & Goodman 1999, section 4.3)."""

    def __init__(self, documents: list[list[int]], order: int, vocabulary: int):
        self.order, self.vocabulary = order, vocabulary
        full: Counter[tuple[int, ...]] = Counter()
        for document in documents:
            for end in range(1, len(document)):
                # At a document's start there is less history than the order asks: count what there is.
                full[tuple(document[max(0, end - order + 1) : end + 1])] += 1
        self.counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for gram, count in full.items():
            self.counts[len(gram)][gram] += count
        for size in range(order, 1, -1):
            # Below the highest order a gram counts by how many different tokens stand before it.
            for gram in self.counts[size]:
                self.counts[size - 1][gram[1:]] += 1
        self.discounts = [self._discounts(counter) for counter in self.counts]
        self.totals = [defaultdict(int) for _ in range(order + 1)]
        self.removed = [defaultdict(float) for _ in range(order + 1)]
        for size in range(1, order + 1):
            for gram, count in self.counts[size].items():
                self.totals[size][gram[:-1]] += count
                self.removed[size][gram[:-1]] += self.discounts[size][min(count, 3)]

    @staticmethod
    def _discounts(counter: Counter[tuple[int, ...]]) -> list[float]:
        tally = Counter(min(c, 5) for c in counter.values())
        n1, n2, n3, n4 = (max(tally[i], 1) for i in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        return [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]

    def probability(self, history: tuple[int, ...], token: int) -> float:
        """p(token | history), backing off to the uniform distribution."""
        p = 1.0 / self.vocabulary
        for size in range(1, min(self.order, len(history) + 1) + 1):
            context = history[len(history) - size + 1 :]
            total = self.totals[size].get(context)
            if total is None:
                break
            count = self.counts[size].get((*context, token), 0)
            p = (count - self.discounts[size][min(count, 3)] + self.removed[size][context] * p) / total
        return p

    def loss(self, documents: list[list[int]]) -> float:
        """Mean nats a token on the tokens that `held_out_loss` counts, with history across its windows' edges."""
        nats, count = 0.0, 0
        for document in documents:
            for end in range(1, len(document)):
                if end % WINDOW == 0:
                    continue
                history = tuple(document[max(0, end - self.order + 1) : end])
                nats -= math.log(self.probability(history, document[end]))
                count += 1
        return nats / count


def card(facts: dict[str, object]) -> str:
    """The model card: what it was trained on, how long, and how good it is."""
    lines = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return (
        "# The bundled subject\n\nA small Llama that `make subject` (`data/make_subject.py`) trains from nothing on\n"
        "the source and docstrings of Python's standard library, so that the whole pipeline runs without a download.\n"
        "It is an object of study, not a code assistant.\n\n| | |\n|---|---|\n" + lines + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data/subject"))
    parser.add_argument("--steps", type=int, default=3800, help="length of the training [steps]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)

    documents = read_documents(CorpusConfig(source="stdlib"))
    splits = split_documents(documents, CorpusConfig(source="stdlib"))
    texts = {name: [documents[i].text for i in indices] for name, indices in splits.items()}
    tokenizer = train_tokenizer(texts["train"])
    ids = {name: tokenizer(list(t))["input_ids"] for name, t in texts.items()}
    held_out = ids["calibrate"] + ids["test"]
    packed = torch.tensor([i for document in ids["train"] for i in document])
    model = build_model(tokenizer)
    size = sum(p.numel() for p in model.parameters())
    print(f"{len(packed):,} train tokens, {sum(map(len, held_out)):,} held out, {size:,} parameters", flush=True)
    train(model, packed, options.steps, options.seed)
    ours = held_out_loss(model, held_out)
    theirs = KneserNey(ids["train"], 5, VOCABULARY).loss(held_out)
    facts: dict[str, object] = {
        "architecture": f"Llama, {model.config.num_hidden_layers} layers, hidden {model.config.hidden_size}, "
        f"MLP {model.config.intermediate_size}, {size:,} parameters",
        "training text": f"Python {platform.python_version()} standard library, {len(texts['train'])} modules, "
        f"{len(packed):,} tokens",
        "training": f"{options.steps:,} steps of {BATCH} × {WINDOW} tokens",
        "seed": options.seed,
        "held out": f"{len(held_out)} modules (the calibrate and test splits), {sum(map(len, held_out)):,} tokens",
        "held-out loss": f"{ours:.3f} nats a token",
        "5-gram modified Kneser-Ney, same tokens": f"{theirs:.3f} nats a token",
    }
    print(json.dumps(facts, indent=1))
    model.half().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    (options.out / "README.md").write_text(card(facts))


if __name__ == "__main__":
    main()
