"""Two clouds of features: do drawn pictures lie where real ones lie, everywhere they lie, and not only on top of them?

Features come from outside: the judge's, or those of `random_features`, a network nobody trained.  Names say the
features (`KID-judge`), since the same formula on other features is another number.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.errors import require
from opendalle.evaluation.metrics import Interval

Features = Float[np.ndarray, "_ d"]  # sets of any sizes, of one feature width


def polynomial_mmd(first: Features, second: Features) -> float:
    """Return the unbiased squared MMD under the kernel (x.y/d + 1)^3; it may be a little below 0.

    Args:
        first: features of one set, at least two rows.
        second: features of the other.

    Source: Gretton et al., "A Kernel Two-Sample Test", 2012, equation 3; kernel of Binkowski et al., "Demystifying
    MMD GANs", arXiv:1801.01401, section 4.
    """
    require(min(len(first), len(second)) >= 2, f"{len(first)} and {len(second)} rows", "at least two in each set")
    first, second = first.astype(np.float64), second.astype(np.float64)

    def kernel(x: Features, y: Features) -> Float[np.ndarray, "n m"]:
        linear = x @ y.T / x.shape[1] + 1
        return linear * linear * linear  # a power of 3 would call pow for every pair

    within_first, within_second = kernel(first, first), kernel(second, second)
    n, m = len(first), len(second)
    return float(
        (within_first.sum() - np.trace(within_first)) / (n * (n - 1))
        + (within_second.sum() - np.trace(within_second)) / (m * (m - 1))
        - 2 * kernel(first, second).mean()
    )


def kid(drawn: Features, real: Features, rng: np.random.Generator, num_halves: int = 50) -> Interval:
    """Return the kernel inception distance over given features with a 95 % interval.

    A bootstrap would repeat rows, and repeated rows break the kernel sums' unbiasedness.  Random halves do not, and
    the spread of a statistic over random halves of a sample is that of the statistic over samples.

    Args:
        drawn: features of drawn pictures, at least four.
        real: features of real pictures, at least four.
        rng: picks the halves.
        num_halves: halves that the interval is read off.

    Source: Binkowski et al., "Demystifying MMD GANs", arXiv:1801.01401, section 4; random half-samples after
    McCarthy, "Pseudo-replication: Half Samples", 1969.
    """
    require(min(len(drawn), len(real)) >= 4, f"{len(drawn)} and {len(real)} rows", "at least four in each set")

    def half(features: Features) -> Features:
        return features[rng.choice(len(features), len(features) // 2, replace=False)]

    value = polynomial_mmd(drawn, real)
    spread = float(np.std([polynomial_mmd(half(drawn), half(real)) for _ in range(num_halves)]))
    return Interval(value, value - 1.96 * spread, value + 1.96 * spread, min(len(drawn), len(real)))


def distances(first: Features, second: Features) -> Float[np.ndarray, "n m"]:
    """Return Euclidean distances between all rows of two sets."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.sqrt(np.maximum(squared, 0))


@dataclass(frozen=True)
class Spread:
    """How drawn pictures fill the space of real ones."""

    density: float  # mean number of real balls around a drawn picture, over k; about 1 when the sets are alike
    coverage: float  # share of real balls that hold a drawn picture, 0 to 1


def density_coverage(drawn: Features, real: Features, k: int = 5) -> Spread:
    """Measure fidelity (density) and diversity (coverage) by balls that reach each real picture's k-th neighbour.

    Args:
        drawn: features of drawn pictures, as many as real ones: both numbers depend on the sizes.
        real: features of real pictures, more than k.
        k: neighbours that set a ball's radius.

    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics", arXiv:2002.09797, equations 5 and 7.
    """
    require(len(real) > k, f"{len(real)} real pictures", f"more than k = {k}")
    require(len(drawn) == len(real), f"{len(drawn)} drawn and {len(real)} real", "sets of one size")
    apart = distances(real, real)
    np.fill_diagonal(apart, np.inf)  # a picture is not its own neighbour
    radius = np.partition(apart, k - 1, axis=1)[:, k - 1]
    # A copy lies at distance 0 up to rounding, and belongs to a ball of radius 0 all the same.
    inside = distances(real, drawn) <= radius[:, None] + 1e-9  # (real, drawn)
    return Spread(float(inside.sum() / (k * len(drawn))), float(inside.any(axis=1).mean()))


@dataclass(frozen=True)
class Copying:
    """Whether drawn pictures lie suspiciously close to training pictures."""

    ratio: Interval  # median of nearest-training over nearest-held-out distance, equal set sizes; 1 is drawing
    copies: float  # share nearer to a training picture than 1 % of real pictures are to each other


def copying(
    drawn: Features, train: Features, held_out: Features, rng: np.random.Generator, num_draws: int = 20
) -> Copying:
    """Compare drawn pictures' distance to the nearest training picture with that to the nearest held-out one.

    A large set has a nearer nearest member by size alone, so as many training pictures as held-out ones are drawn at
    a time, and each drawn picture's ratio is averaged over draws.  The share of copies looks at all training pictures.

    Args:
        drawn: features of drawn pictures.
        train: features of pictures the generator was trained on.
        held_out: features of pictures it never saw.
        rng: picks the training pictures and the resamples.
        num_draws: subsets of the larger set.
    """
    size = min(len(train), len(held_out))
    require(size >= 2, f"{len(train)} training and {len(held_out)} held-out pictures", "at least two of each")
    to_train, to_held_out = distances(drawn, train), distances(drawn, held_out)
    log_ratio = np.zeros(len(drawn))
    for _ in range(num_draws):
        of_train = to_train[:, rng.choice(len(train), size, replace=False)].min(axis=1)
        of_held_out = to_held_out[:, rng.choice(len(held_out), size, replace=False)].min(axis=1)
        log_ratio += np.log((of_train + 1e-9) / (of_held_out + 1e-9)) / num_draws
    picks = rng.integers(0, len(drawn), size=(1_000, len(drawn)))
    low, high = np.quantile(np.median(log_ratio[picks], axis=1), [0.025, 0.975])
    ratio = Interval(float(np.exp(np.median(log_ratio))), float(np.exp(low)), float(np.exp(high)), len(drawn))
    apart = distances(train, train)
    np.fill_diagonal(apart, np.inf)
    return Copying(ratio, float((to_train.min(axis=1) < np.quantile(apart.min(axis=1), 0.01)).mean()))


def random_features(pictures: Float[Tensor, "b 3 h w"], seed: int = 0, width: int = 64) -> Float[np.ndarray, "b d"]:
    """Look at pictures through a convolutional network with random weights: features that nobody can train against.

    Args:
        pictures: RGB in [-1, 1].
        seed: fixes the network; no weights file is needed to repeat a number.
        width: features a picture.

    Source: random embeddings after Naeem et al., arXiv:2002.09797, section 3.3.
    """
    rng = torch.Generator().manual_seed(seed)
    channels, x = 3, pictures
    with torch.inference_mode():
        for wide in (32, 64, width):
            weight = torch.randn(wide, channels, 4, 4, generator=rng) * (2 / (16 * channels)) ** 0.5
            x = nn.functional.leaky_relu(nn.functional.conv2d(x, weight, stride=2, padding=1), 0.2)
            channels = wide
        return x.mean(dim=(2, 3)).numpy()
