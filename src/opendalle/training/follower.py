"""The slow average of a student that its own lessons ask: it changes so little a step that one can learn from it."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Follower:
    """A copy of a network whose weights follow it.

    Not the average that is drawn with (`ema`): this one is part of the objective, and short-lived.

    Args:
        network: whom it follows; it begins as a copy.
        decay: share of itself that it keeps at every step, 0 to below 1; 0: it is the network itself, a step late.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.followed, self.decay = network, decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the network, once a step.

        Source: Consistency Models, arXiv:2303.01469, eq. 8.
        """
        own, live = ([one.detach() for one in net.parameters()] for net in (self.network, self.followed))
        torch._foreach_lerp_(own, live, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]

    def remember(self) -> Mapping[str, Tensor]:
        """Return the average, which a resumed run needs."""
        return self.network.state_dict()

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the average back.

        Args:
            tensors: from `remember`.
        """
        self.network.load_state_dict(tensors, strict=True)
