"""Gradient caching: the gradients of a batch that does not fit into memory, exactly.

A contrastive loss compares every picture with every caption, so a batch cannot simply be cut into pieces.  Yet the
loss sees only their embeddings, which are small.  So: embed the pieces without a graph, take the loss's gradient with
respect to the embeddings, then run each piece again and push that gradient through it.  One more forward pass buys a
batch that memory does not bound, with the very gradients of the undivided one.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv:2101.06983.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from opendalle.base.protocols import Losses


def backward_in_pieces(
    encoders: Sequence[Callable[[], Tensor]], losses_of: Callable[[Sequence[Tensor]], Losses]
) -> Losses:
    """Accumulate the gradients of losses_of(everything encoded), holding the graph of one encoder at a time.

    Args:
        encoders: each embeds one piece of the batch; called twice, it must give the same (no fresh dropout).
        losses_of: the losses, from what the encoders gave, in their order.

    Returns:
        the losses, without their graph.
    """
    with torch.no_grad():
        embedded = [encode() for encode in encoders]
    leaves = [piece.detach().requires_grad_() for piece in embedded]
    losses = losses_of(leaves)
    torch.stack(
        list(losses.total.values())
    ).sum().backward()  # down to the embeddings, and to what the loss itself owns
    for encode, leaf in zip(encoders, leaves, strict=True):
        if leaf.grad is not None:
            encode().backward(leaf.grad)
    return replace(losses, total={name: loss.detach() for name, loss in losses.total.items()})
