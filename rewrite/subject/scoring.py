"""What is scored: the loss of the token after each counted position, the same for every arm.

A position counts where an arm writes (`rewrite.text.windows.Text.counted`), so the first position of a window, which
none writes, has no loss, and neither has the last, after which nothing stands.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rewrite.subject.subject import Prefix, Subject

NONE = -100
"""A target that is not scored, as torch's cross-entropy has it."""


def next_tokens(
    ids: Int[Tensor, "window position"],
    counted: Bool[Tensor, "window position"],
    real: Bool[Tensor, "window position"],
) -> Int[Tensor, "window position"]:
    """The token after each counted position, `NONE` where there is none but padding or the position does not count."""
    targets = torch.full_like(ids, NONE)
    following = counted[:, :-1] & real[:, 1:]
    targets[:, :-1][following] = ids[:, 1:][following]
    return targets


def token_losses(
    logits: Float[Tensor, "window position token"], targets: Int[Tensor, "window position"]
) -> Float[Tensor, "window position"]:
    """Cross-entropy in nats of each target, in float64; 0 where there is none."""
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return loss.view(targets.shape).double()


def losses_from(
    subject: Subject,
    prefix: Prefix,
    vectors: Float[Tensor, "window position d"],
    targets: Int[Tensor, "window position"],
) -> Float[Tensor, "window position"]:
    """`token_losses` of what the subject says with `vectors` at its hookpoint; what is not scored is not unembedded.
    Where `vectors` wants a gradient and gradients are on, the losses can be differentiated by it."""
    scored = targets != NONE
    logits = subject.run_from(prefix, vectors, scored)
    losses = torch.zeros(targets.shape, dtype=torch.float64, device=logits.device)
    losses[scored] = token_losses(logits, targets[scored][None])[0]
    return losses


def window_losses(
    logits: Float[Tensor, "window position token"], targets: Int[Tensor, "window position"]
) -> Float[np.ndarray, " window"]:
    """Cross-entropy in nats, summed over each window in float64."""
    return token_losses(logits, targets).sum(1).cpu().numpy()
