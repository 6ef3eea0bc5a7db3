"""Classifier-free guidance: step past the conditional prediction, away from the unconditional one.

A scale of 1 is off everywhere in this house, more follows the prompt harder, less follows it less.  A guided
prediction tends to be too strong in contrast; `rescale` and `dynamic_threshold` are the two known cures.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.diffusion.schedules import expand_like


def combine(
    conditional: Float[Tensor, "b *d"], unconditional: Float[Tensor, "b *d"], scale: float | Float[Tensor, " b"]
) -> Float[Tensor, "b *d"]:
    """Step past the conditional prediction, away from the unconditional one.

    Args:
        conditional: prediction with the prompt, of any kind: eps, x0 and v are guided alike, being linear in another.
        unconditional: prediction without it.
        scale: 1 is off; one number, or one a sample.

    Source: arXiv:2207.12598, eq. 6, whose w is scale - 1.
    """
    if isinstance(scale, Tensor):
        scale = expand_like(scale.to(conditional.device), conditional)
    return unconditional + scale * (conditional - unconditional)


def rescale(guided: Float[Tensor, "b *d"], conditional: Float[Tensor, "b *d"], amount: float) -> Float[Tensor, "b *d"]:
    """Pull a guided prediction back to the spread of the conditional one.

    Args:
        guided: what `combine` returned.
        conditional: prediction with the prompt.
        amount: 0 is off, 1 pulls all the way.

    Source: arXiv:2305.08891, section 3.4, eq. 15 and 16.
    """
    axes = tuple(range(1, guided.ndim))
    pulled = guided * (conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return amount * pulled + (1 - amount) * guided


def dynamic_threshold(x0: Float[Tensor, "b *d"], quantile: float, limit: float = 1.0) -> Float[Tensor, "b *d"]:
    """Clip each sample's belief in the data at a quantile of its own magnitudes, and shrink it back into range.

    Args:
        x0: belief in the clean data.
        quantile: share of values left untouched, such as 0.995; 1 is off.
        limit: largest magnitude that data have; a sample within it is left alone.

    Source: Imagen, arXiv:2205.11487, section 2.3.
    """
    if quantile >= 1:
        return x0
    largest = torch.quantile(x0.flatten(1).abs().float(), quantile, dim=1).clamp(min=limit)
    bound = expand_like(largest, x0)
    return x0.clamp(-bound, bound) * (limit / bound)
