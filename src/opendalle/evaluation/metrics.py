"""Counting with honesty: top-k hits, intervals, paired differences and ratios.

The unit is the prompt.  Several pictures of one prompt are not independent witnesses, so every bootstrap draws whole
prompts; two arms are always compared on the same prompts and seeds.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int

from opendalle.base.errors import require

LEVEL = 0.95  # of every interval unless asked otherwise
NUM_DRAWS = 2_000  # bootstrap draws; the interval's own noise is then about 2 % of its width


@dataclass(frozen=True)
class Interval:
    """A number and how sure it is."""

    value: float
    low: float
    high: float
    n: int  # independent units behind the number: prompts, or pictures where each prompt has one


def top_k_hits(scores: Float[np.ndarray, "b v"], labels: Int[np.ndarray, " b"], k: int) -> Bool[np.ndarray, " b"]:
    """Tell for each row whether its label is among its k largest scores; ties count against the label.

    Args:
        scores: logits or probabilities, larger is likelier.
        labels: true column of each row.
        k: how many guesses, >= 1.
    """
    own = scores[np.arange(len(labels)), labels]
    ahead = (scores >= own[:, None]).sum(axis=1) - 1  # without the label itself
    return ahead < k


def wilson(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Return a share with its Wilson score interval, which stays inside [0, 1] and is honest near both ends.

    Args:
        hits: successes, 0 to n.
        n: trials; with none, nothing is known and the interval is [0, 1].
        level: coverage.

    Source: Wilson 1927; Brown, Cai, DasGupta, "Interval Estimation for a Binomial Proportion", 2001, section 3.1.1.
    """
    require(0 <= hits <= n, f"{hits} hits of {n}", "0 <= hits <= n")
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if hits == 0 else max(0.0, centre - half)  # rounding must not move the exact ends
    high = 1.0 if hits == n else min(1.0, centre + half)
    return Interval(share, low, high, n)


def prompt_means(
    values: Float[np.ndarray, " b"], prompts: Int[np.ndarray, " b"] | None
) -> tuple[Float[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Sum values and count rows by prompt.

    Args:
        values: one number a picture.
        prompts: number of each picture's prompt; None when every picture has a prompt of its own.

    Returns:
        The sums and the counts, one entry a prompt.
    """
    if prompts is None:
        return values.astype(np.float64), np.ones(len(values), dtype=np.int64)
    _, group = np.unique(prompts, return_inverse=True)
    return np.bincount(group, weights=values).astype(np.float64), np.bincount(group)


def bootstrap_mean(
    values: Float[np.ndarray, " b"],
    rng: np.random.Generator,
    *,
    prompts: Int[np.ndarray, " b"] | None = None,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> Interval:
    """Return a mean with its percentile bootstrap interval over prompts.

    Args:
        values: one number a picture.
        rng: source of the resamples.
        prompts: number of each picture's prompt; None when each has its own.
        num_draws: resamples.
        level: coverage.
    """
    sums, counts = prompt_means(values, prompts)
    picks = _resamples(len(sums), num_draws, rng)
    draws = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    return _interval(float(sums.sum() / counts.sum()), draws, len(sums), level)


def paired_difference(
    first: Float[np.ndarray, " b"],
    second: Float[np.ndarray, " _"],
    rng: np.random.Generator,
    *,
    prompts: Int[np.ndarray, " b"] | None = None,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> Interval:
    """Return mean(first - second) with its interval; row i of both arms is the same prompt and seed.

    An interval above 0 says that the first arm is better; that of two unrelated means would be much wider.

    Args:
        first: one number a picture.
        second: the other arm's number for the same picture.
        rng: source of the resamples.
        prompts: number of each picture's prompt; None when each has its own.
        num_draws: resamples.
        level: coverage.
    """
    require(len(first) == len(second), f"arms of {len(first)} and {len(second)}", "arms of one length, row by row")
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return bootstrap_mean(difference, rng, prompts=prompts, num_draws=num_draws, level=level)


def paired_ratio(
    ours: Float[np.ndarray, " b"],
    real: Float[np.ndarray, " _"],
    rng: np.random.Generator,
    *,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
) -> Interval:
    """Return mean(ours) / mean(real), resampling prompts: the share of what real pictures score.

    Args:
        ours: one number a prompt, as a hit of a drawn picture.
        real: the same prompt's number for a real picture.
        rng: source of the resamples.
        num_draws: resamples.
        level: coverage.
    """
    require(len(ours) == len(real), f"arms of {len(ours)} and {len(real)}", "arms of one length, row by row")
    ours, real = np.asarray(ours, dtype=np.float64), np.asarray(real, dtype=np.float64)
    picks = _resamples(len(ours), num_draws, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = ours[picks].mean(axis=1) / real[picks].mean(axis=1)
        value = float(np.mean(ours) / np.mean(real)) if len(ours) else float("nan")
    return _interval(value, draws[np.isfinite(draws)], len(ours), level)


def corrected_rate(observed: float, sensitivity: float, specificity: float) -> float:
    """Return the true rate behind a rate seen through an imperfect judge, within [0, 1].

    Args:
        observed: share that the judge called a success.
        sensitivity: share of true successes that it calls so.
        specificity: share of true failures that it calls so.

    Raises:
        BadConfig: when sensitivity + specificity < 1.5: such a judge is too poor to correct.

    Source: Rogan and Gladen, "Estimating prevalence from the results of a screening test", 1978, equation 1.
    """
    total = sensitivity + specificity
    require(total >= 1.5, f"sensitivity + specificity = {total:.2f}", "at least 1.5", "Train a better judge first.")
    return float(np.clip((observed + specificity - 1) / (total - 1), 0.0, 1.0))


def _resamples(n: int, num_draws: int, rng: np.random.Generator) -> Int[np.ndarray, "r n"]:
    require(n > 0, "no values", "at least one")
    return rng.integers(0, n, size=(num_draws, n))


def _interval(value: float, draws: Float[np.ndarray, " r"], n: int, level: float) -> Interval:
    if len(draws) == 0:
        return Interval(value, float("nan"), float("nan"), n)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n)
