"""One gradient scale a residual branch, so that half precision can train a deep transformer.

In half precision the gradients of later branches are too small to be told from zero.  One scale for the whole network
cannot help: what lifts the last branch makes the first overflow.  So each branch has its own.  The gradient is scaled
up where it enters the branch and down where it leaves; the identity beside it stays in single precision and is never
scaled.  What overflows inside becomes zero, and the branch's scale is lowered; otherwise it creeps upwards.

bfloat16 has single precision's range and needs none of this.

Source: arXiv:2102.12092, section 2.4 and appendix D, figure 4.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.errors import require


@dataclass(frozen=True, kw_only=True)
class GradientScaleConfig:
    """How scales move; the paper's numbers, for one replica."""

    start: float = 2.0**13  # scale of a fresh branch
    growth: float = 2.0 ** (1 / 1000)  # factor after an update without overflow
    backoff: float = 2.0**-0.5  # factor after an overflow
    rest: int = 125  # updates after a lowering in which it is not lowered again
    least: float = 2.0**7  # lowest scale
    most: float = 2.0**24  # highest scale

    def __post_init__(self) -> None:
        require(0 < self.least <= self.start <= self.most, f"start {self.start}", f"{self.least} to {self.most}")
        require(self.growth >= 1, f"growth {self.growth}", "at least 1")
        require(0 < self.backoff < 1, f"backoff {self.backoff}", "above 0, below 1")
        require(self.rest >= 0, f"rest {self.rest}", "a number of updates")

    def times(self, replicas: int) -> "GradientScaleConfig":
        """Return the config of so many replicas, whose gradients are summed.

        Args:
            replicas: M of the paper.
        """
        of_all = {name: getattr(self, name) * replicas for name in ("start", "least", "most")}
        return replace(self, **of_all)


class BranchScale:
    """The scale of one branch's gradients.

    Args:
        config: how it moves.
    """

    def __init__(self, config: GradientScaleConfig) -> None:
        self.config, self.scale = config, config.start
        self.has_overflowed = False  # since the last update
        self.resting = 0  # updates until it may be lowered again

    def enclose(self, tokens: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Run a branch whose gradients are scaled.

        Args:
            tokens: what the branch reads, in single precision.
            branch: normalisation, layer and all.
        """
        return _Leave.apply(branch(_Enter.apply(tokens, self)), self, tokens.dtype)

    def follow(self, module: nn.Module) -> None:
        """Scale the gradients of a branch's own weights down as they come; called once.

        Args:
            module: the branch's.
        """
        for weight in module.parameters():
            weight.register_hook(self.unscale)

    def unscale(self, gradient: Tensor) -> Tensor:
        """Scale a gradient down; what is not finite becomes zero and is remembered.

        Args:
            gradient: scaled.
        """
        gradient = gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient
        is_finite = gradient.isfinite()
        self.has_overflowed |= not bool(is_finite.all())
        return torch.where(is_finite, gradient / self.scale, torch.zeros_like(gradient))

    def after_step(self) -> None:
        """Move the scale after an update."""
        config = self.config
        if self.has_overflowed and self.resting == 0:
            self.scale *= config.backoff
            self.resting = config.rest
        else:
            self.resting = max(0, self.resting - 1)
            if not self.has_overflowed:
                self.scale *= config.growth
        self.scale = min(max(self.scale, config.least), config.most)
        self.has_overflowed = False


class _Enter(torch.autograd.Function):
    """The branch's door: forward nothing, backward the gradient leaves it here."""

    @staticmethod
    def forward(ctx: Any, tokens: Float[Tensor, "b n d"], scale: BranchScale) -> Float[Tensor, "b n d"]:
        ctx.scale, ctx.dtype = scale, tokens.dtype
        return tokens.view_as(tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.scale.unscale(gradients[0]).to(ctx.dtype), None


class _Leave(torch.autograd.Function):
    """Where the branch joins the sum: forward back to the sum's dtype, backward the gradient enters here, scaled."""

    @staticmethod
    def forward(ctx: Any, branch: Tensor, scale: BranchScale, dtype: torch.dtype) -> Tensor:
        ctx.scale, ctx.dtype = scale, branch.dtype
        return branch.to(dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return (gradients[0] * ctx.scale.scale).to(ctx.dtype), None, None
