"""Chance enters by argument: one generator a picture, made on the CPU.

A picture's noise depends on its own seed and on nothing else, so the same seed draws the same picture alone, in a
batch, first or last, and its noise is the same on every device.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

MAX_SEED = 2**63 - 1  # what torch's CPU generator takes without wrapping


def picture_generator(seed: int) -> Generator:
    """Return the generator of the picture with this seed.

    Args:
        seed: 0 <= seed <= MAX_SEED.
    """
    return torch.Generator(device="cpu").manual_seed(seed)


def normal_like_rows(
    generators: Sequence[Generator], shape: Sequence[int], device: torch.device | str = "cpu"
) -> Float[Tensor, "b *rest"]:
    """Draw one unit Gaussian tensor of `shape` from each generator and stack them.

    Args:
        generators: one a picture.
        shape: shape of one picture's noise, without the batch axis.
        device: where the stacked noise is wanted; it is drawn on the CPU first, in float32.
    """
    rows = [torch.randn(tuple(shape), generator=generator, dtype=torch.float32) for generator in generators]
    return torch.stack(rows).to(device)
