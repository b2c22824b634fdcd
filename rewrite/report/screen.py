"""What a screen did, in sentences and rows (`screen` of 6_stats.json, `rewrite.statistics.screening`)."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
MISSED = {"hits": "true firings", "false": "false firings", "all": "all"}


def tell_screen(screen: Row, cover: str) -> list[str]:
    """A sentence on what was asked, one on what is known of the rest, one on what the audit says of the loss."""
    held = screen["pairs"] - screen["passed"]
    share = _share(screen["passed"], screen["pairs"])
    told = [
        f"The screen {screen['by']} let {screen['passed']:,} of {screen['pairs']:,} pairs of latent and position "
        f"through on the test split, {share}; {screen['audited']:,} more were asked about in the {screen['full']} of "
        f"{screen['documents']} documents that were drawn for the audit. The {held:,} held back are neither missing "
        "nor predictions: they are written as what strength 0 is calibrated to, and the audit's answers are written "
        "nowhere.",
        f"Of the latents' true firings at these positions it held {screen['true']['held']:,} of "
        f"{screen['true']['firings']:,} back, {_share(screen['true']['held'], screen['true']['firings'])}.",
    ]
    if screen["failed"]:
        told.append(f"{screen['failed']:,} of the audit's answers failed and count as no firing.")
    loss = screen["loss"]
    if loss is None:
        return [*told, "Too few documents of the audit have a loss to say what asking about everything would change."]
    low, high = loss["ci"]
    told.append(
        f"On the audit's {loss['documents']} documents, {loss['tokens']:,} tokens, asking about everything changed the "
        f"loss by {loss['nats']:+.4f} nats per token, {cover} interval [{low:.4f}, {high:.4f}], with either calibrated "
        "on the audit's documents of the calibrate split: above 0 the screen spared false firings, below 0 it cost "
        "true ones."
    )
    return told


def list_missed(screen: Row) -> list[Row]:
    """What the simulator would have said of what was held back: an estimate for all documents, from the audit's."""
    missed = screen["missed"]
    return [{"what": told} | missed[name] for name, told in MISSED.items()]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g}%" if whole else "of which there are none"
