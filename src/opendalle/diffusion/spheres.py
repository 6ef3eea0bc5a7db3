"""Ways along great circles: embeddings are unit vectors, and noise of d numbers lies near a sphere of radius sqrt(d).

A straight line would cut through the inside, where neither a picture nor noise lives.

Source: unCLIP, arXiv:2204.06125, section 3.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def slerp(
    one: Float[Tensor, "b *d"], other: Float[Tensor, "b *d"], share: float | Float[Tensor, " b"]
) -> Float[Tensor, "b *d"]:
    """Go along the great circle from one vector to another; the length goes evenly from one's to the other's.

    Args:
        one: a tensor a row, taken as one vector each.
        other: the same shape; where it is opposite to `one` there is no shortest way, and a straight line is gone.
        share: of the way, 0 to 1; one number, or one a row.
    """
    a, b = one.flatten(1).double(), other.flatten(1).double()
    share = torch.as_tensor(share, dtype=torch.float64, device=one.device).expand(len(one))[:, None]
    length_a, length_b = (x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in (a, b))
    angle = (a / length_a * b / length_b).sum(1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    straight = sine < 1e-6
    safe = torch.where(straight, torch.ones_like(sine), sine)
    of_a = torch.where(straight, 1 - share, ((1 - share) * angle).sin() / safe)
    of_b = torch.where(straight, share, (share * angle).sin() / safe)
    length = (1 - share) * length_a + share * length_b
    mixed = (of_a * a / length_a + of_b * b / length_b) * length
    return mixed.to(one.dtype).reshape(one.shape)
