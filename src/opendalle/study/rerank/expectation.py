"""Best of k, exactly: what choosing by a score gives on average, without drawing lots.

Of n candidates let k be picked at random, each k of them alike, and the highest-scored of these be kept.  Then the
candidate of rank r (1 has the highest score) is kept whenever it is picked and the r - 1 before it are not, which is
so in C(n - r, k - 1) of the C(n, k) cases.  The mean mark under these weights is the expected quality of best of k:
all k from the n candidates that were drawn once, with no chance left but that of the drawing itself.

Candidates of equal score share their ranks, each kept as often as the others.
"""

from functools import cache
from math import comb

import numpy as np
from jaxtyping import Float

from opendalle.base.errors import require

DIGITS = 12  # that are told: what two scores give alike differs by nothing, not by what was added up in another order


def best_of(scores: Float[np.ndarray, " n"], marks: Float[np.ndarray, " _"]) -> Float[np.ndarray, " n"]:
    """Return the expected mark of the highest-scored of k random candidates, for k from 1 to n.

    Args:
        scores: by which is chosen, larger is better; equal ones are chosen among by lot.
        marks: what is asked about, one a candidate.

    Raises:
        BadConfig: when there is nothing to choose from, or not one finite score a mark.

    Source: for marks of 0 and 1 that are their own scores it is the estimator of pass@k in Chen et al.,
        arXiv:2107.03374, section 2.1, equation 1.
    """
    scores, marks = np.asarray(scores, dtype=np.float64), np.asarray(marks, dtype=np.float64)
    require(len(scores) == len(marks) > 0, f"{len(scores)} scores of {len(marks)} marks", "one a candidate")
    require(bool(np.isfinite(scores).all()), "a score that is not a number", "finite ones")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # of each run of equal scores
    ends = np.append(starts[1:], len(ranked))
    means = np.add.reduceat(marks[order], starts) / (ends - starts)
    without = _without(len(ranked))
    found = (without[:, starts] - without[:, ends]) @ means
    return found.round(DIGITS)


@cache
def _without(n: int) -> Float[np.ndarray, "n _"]:
    """Return which share of the k-subsets of n holds none of the a highest: row k - 1, column a from 0 to n."""
    return np.array([[comb(n - a, k) / comb(n, k) for a in range(n + 1)] for k in range(1, n + 1)])
