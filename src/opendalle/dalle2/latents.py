"""Ways through the space of latents: between two, among many, along a difference of texts, and up the ladder.

Embeddings are unit vectors and noise of d numbers lies near the sphere of radius sqrt(d), so both are led along great
circles: a straight line would cut through the inside, where neither a picture nor noise lives.

Source: unCLIP, arXiv:2204.06125, sections 3.2 (interpolation), 3.3 (text differences), 6 (principal components).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Embeddings
from opendalle.base.errors import BadRequest, require
from opendalle.nn.whitening import Whitening

SPHERICAL_ROUNDS, SPHERICAL_CLOSE = 32, 1e-6  # of the weighted mean: at most so many, until it moves no further


def spherical_mean(vectors: Float[Tensor, "k *d"], weights: Sequence[float]) -> Float[Tensor, "*d"]:
    """Return the weighted mean on the sphere: where the weighted ways to all vectors cancel out; of two it is `slerp`.

    Args:
        vectors: the first axis counts them; each is taken as one vector.
        weights: one a vector, at least 0, not all 0; their sum does not matter.

    Raises:
        BadRequest: when there is not one weight a vector, or they do not tell where to go.

    Source: Buss and Fillmore, Spherical averages and applications to spherical splines, ACM TOG 20(2), 2001,
        algorithm A1.
    """
    check_weights(weights, len(vectors))
    rows = vectors.flatten(1).double()
    shares = torch.tensor(list(weights), dtype=torch.float64, device=rows.device)[:, None]
    shares = shares / shares.sum()
    lengths = rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    units = rows / lengths
    mean = F.normalize((shares * units).sum(0, keepdim=True), dim=1)
    for _ in range(SPHERICAL_ROUNDS):
        cosine = (units * mean).sum(1, keepdim=True).clamp(-1, 1)
        away = units - cosine * mean
        step = (shares * cosine.acos() * F.normalize(away, dim=1)).sum(0, keepdim=True)
        angle = step.norm()
        if float(angle) < SPHERICAL_CLOSE:
            break
        mean = F.normalize(mean * angle.cos() + step / angle * angle.sin(), dim=1)
    return ((shares * lengths).sum() * mean).to(vectors.dtype).reshape(vectors.shape[1:])


def check_weights(weights: Sequence[float], count: int) -> None:
    """Refuse weights that tell nothing.

    Args:
        weights: of a mean.
        count: how many there must be.

    Raises:
        BadRequest: when there are more or fewer, one is negative, or all are 0.
    """
    if len(weights) != count:
        raise BadRequest(f"{len(weights)} weights for {count} sources", "one weight a source")
    if min(weights) < 0 or sum(weights) <= 0:
        raise BadRequest(f"weights {', '.join(map(str, weights))}", "weights of at least 0, not all 0")


def stops(count: int, frames: int) -> list[tuple[float, ...]]:
    """Spread frames evenly over a way from the first of several points to the last; return each one's weights.

    Args:
        count: points, two or more.
        frames: two or more; the first and the last stand on the first and the last point.
    """
    require(count >= 2 and frames >= 2, f"{frames} frames between {count} points", "two or more of each")
    found: list[tuple[float, ...]] = []
    for frame in range(frames):
        place = frame / (frames - 1) * (count - 1)
        near = min(int(place), count - 2)
        found.append(tuple(max(0.0, 1 - abs(place - k)) if k in (near, near + 1) else 0.0 for k in range(count)))
    return found


def text_difference(before: Embeddings, after: Embeddings) -> Embeddings:
    """Return the direction from one text to another, as unit vectors.

    Args:
        before: embeddings of what is there.
        after: embeddings of what is wanted.

    Raises:
        BadRequest: when both mean the same.

    Source: unCLIP, section 3.3: z_d = norm(z_t - z_t0).
    """
    difference = after - before
    if bool((difference.norm(dim=1) < 1e-6).any()):
        raise BadRequest("two texts that mean the same to the model", "texts that differ")
    return F.normalize(difference, dim=1)


def reduced(z: Embeddings, whitening: Whitening, components: int) -> Embeddings:
    """Rebuild embeddings from their first principal components.

    Args:
        z: unit vectors.
        whitening: fitted to picture embeddings: knows their mean and their axes, the widest first.
        components: how many are kept.

    Source: unCLIP, section 6, figure 7.
    """
    white = whitening(z)
    kept = torch.arange(white.shape[1], device=white.device) < components
    return F.normalize(whitening.inverse(white * kept), dim=1)
