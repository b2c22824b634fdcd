"""Which families of language models are served, tried one by one: the table of docs/families.md is what is found here.

`PYTHONPATH=tests python tests/subject/test_families.py` writes the table anew.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from makers.families import FAMILIES

from rewrite.config import UserError
from rewrite.subject.loading import load_network
from rewrite.subject.subject import build_subject, write

DOCS = Path(__file__).parents[2] / "docs" / "families.md"
IDS = torch.randint(3, 90, (2, 17), generator=torch.Generator().manual_seed(0))
HEAD = """# Families of language models

Tried on small models of random weights, at the middle layer: what stands at the hookpoint is written back and no bit
of the logits changes, and with other vectors written there the fast path is the whole forward. Another family is tried
when it is loaded: where writing back changes its logits it is refused by name.

| family | `layers.N` | `layers.N.mlp` |
|---|---|---|
"""


def load(name: str, folder: Path) -> Any:
    """The model as a user's is loaded, its norms' gains random too, so that a forgotten norm shows."""
    torch.manual_seed(1)
    model = FAMILIES[name]().eval()
    for part, parameter in model.named_parameters():
        if "norm" in part or ".ln" in part:
            parameter.data += 0.5 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return load_network(name, str(folder), "main", "float32")


def try_family(name: str, hookpoint: str) -> str:
    """`served`, or why not; a model that is served must be so to the last bit."""
    try:
        with TemporaryDirectory() as folder:
            model = load(name, Path(folder))
    except UserError as error:
        return str(error).partition(": ")[2]
    with torch.no_grad():
        plain = model(input_ids=IDS, use_cache=False).logits.float()
    try:
        subject = build_subject(model, None, hookpoint)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error).partition("; ")[0].partition(": ")[2]
    prefix, clean = subject.run_to(IDS), subject.logits(IDS)
    # Mamba has another kernel for weights that want no gradient, which differs in the last bits.
    torch.testing.assert_close(clean, plain)
    assert torch.equal(subject.run_from(prefix, prefix.output), clean)
    other = torch.randn(prefix.output.shape, generator=torch.Generator().manual_seed(3))
    kept = other.clone()
    fast = subject.run_from(prefix, other)
    with write(subject, other):
        assert torch.equal(fast, subject.logits(IDS)) and not torch.allclose(fast, clean)
    assert torch.equal(subject.run_from(prefix, other), fast) and torch.equal(other, kept), (
        "nothing is changed in place"
    )
    marked = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(4)) < 0.3
    torch.testing.assert_close(subject.run_from(prefix, other, marked), fast[marked][None])
    assert torch.equal(subject.run_from(prefix, prefix.output), clean)
    return "served"


def tabulate() -> str:
    rows = (f"| {name} | {try_family(name, 'layers.1')} | {try_family(name, 'layers.1.mlp')} |" for name in FAMILIES)
    return HEAD + "\n".join(rows) + "\n"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hookpoint", ["layers.1", "layers.1.mlp"])
def test_a_family_is_served_or_refused_as_the_docs_say(family: str, hookpoint: str) -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| {family} |")]
    assert row.split(" | ")[1 + hookpoint.endswith(".mlp")].removesuffix(" |") == try_family(family, hookpoint)


def test_the_docs_name_no_other_family() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    assert [line.split(" | ")[0] for line in text.removeprefix(HEAD).splitlines()] == [f"| {name}" for name in FAMILIES]


def test_a_model_that_does_more_with_an_output_than_is_known_is_refused() -> None:
    model = FAMILIES["llama"]().eval()
    layer = model.model.layers[1]
    compute = layer.forward
    layer.mlp.said = 0.0

    def forward(*args: object, **kwargs: object) -> torch.Tensor:
        """A block that looks into its MLP beside what that returns."""
        handle = layer.mlp.down_proj.register_forward_hook(lambda module, read, said: setattr(layer.mlp, "said", said))
        layer.mlp.said = torch.zeros(())
        out: torch.Tensor = compute(*args, **kwargs) + 10 * layer.mlp.said
        handle.remove()
        return out

    layer.forward = forward
    with pytest.raises(UserError, match=r"a llama model does more with what layers\.1\.mlp returns"):
        build_subject(model, None, "layers.1.mlp")


if __name__ == "__main__":
    DOCS.write_text(tabulate(), encoding="utf-8")
