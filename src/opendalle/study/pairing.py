"""Numbers of many prompts as one: a mean, or a paired difference, with the interval over prompts.

Every interval is drawn with the same resamples, so a report repeats itself.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from opendalle.evaluation.metrics import Interval, bootstrap_mean, paired_difference

Numbers = Sequence[float | None]  # one a prompt; None where it was not asked
_SEED = 20_260  # of every resample


def mean(*lists: Numbers) -> Interval | None:
    """Return the mean over prompts with its interval.

    Args:
        *lists: of different prompts; all count alike.

    Returns:
        None where nothing was asked.
    """
    values = np.concatenate([_array(numbers) for numbers in lists]) if lists else np.array([])
    values = values[np.isfinite(values)]
    return bootstrap_mean(values, np.random.default_rng(_SEED)) if len(values) else None


def difference(first: Numbers, second: Numbers) -> Interval | None:
    """Return mean(first - second) over the prompts that both were asked, with its interval.

    Args:
        first: one number a prompt.
        second: of the same prompts, in the same order.
    """
    one, other = _array(first), _array(second)
    asked = np.isfinite(one) & np.isfinite(other)
    if not asked.any():
        return None
    return paired_difference(one[asked], other[asked], np.random.default_rng(_SEED))


def gap(first: Numbers | None, second: Numbers | None) -> Interval | None:
    """Return first - second, prompt by prompt, of two things that may not be measured.

    Args:
        first: one number a prompt; None: not measured.
        second: of the same prompts, in the same order.

    Returns:
        None where one is not measured, NaN where no prompt has both.
    """
    if first is None or second is None:
        return None
    return difference(first, second) or Interval(math.nan, math.nan, math.nan, 0)


def less(first: Numbers, second: Numbers) -> Numbers:
    """Return first - second, prompt by prompt."""
    return [None if a is None or b is None else a - b for a, b in zip(first, second, strict=True)]


def _array(numbers: Numbers) -> Float[np.ndarray, " b"]:
    return np.array([np.nan if one is None else one for one in numbers], dtype=np.float64)
