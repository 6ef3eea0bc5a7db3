"""Verdicts are read off intervals, and intervals are those of a slow plain bootstrap over prompts."""

import numpy as np
import pytest

from opendalle.base.errors import BadConfig
from opendalle.evaluation.metrics import NUM_DRAWS, Interval
from opendalle.study.findings import FEWEST, Claim, Finding, verdict
from opendalle.study.pairing import difference, less, mean


@pytest.mark.parametrize(
    ("expected", "low", "high", "said"),
    [
        (1, 0.01, 0.2, "holds"),
        (1, -0.2, -0.01, "does not hold"),
        (1, -0.1, 0.2, "cannot be told"),
        (1, 0.0, 0.2, "cannot be told"),
        (1, -0.2, 0.0, "cannot be told"),
        (1, 0.0, 0.0, "cannot be told"),
        (-1, 0.01, 0.2, "does not hold"),
        (-1, -0.2, -0.01, "holds"),
        (-1, -0.1, 0.2, "cannot be told"),
        (1, float("nan"), float("nan"), "cannot be told"),
        (1, float("nan"), 0.2, "cannot be told"),
    ],
)
def test_the_verdict_is_the_side_of_nought_on_which_the_interval_lies(expected, low, high, said):
    assert verdict(expected, Interval((low + high) / 2, low, high, 50)) == said
    mirrored = Interval(-(low + high) / 2, -high, -low, 50)
    assert verdict(-expected, mirrored) == said


def test_few_prompts_tell_nothing_and_none_are_not_measured():
    assert verdict(1, Interval(0.5, 0.4, 0.6, FEWEST)) == "holds"
    assert verdict(1, Interval(0.5, 0.4, 0.6, FEWEST - 1)) == "cannot be told"
    assert verdict(1, None) == "not measured"
    with pytest.raises(BadConfig, match="expected is 0"):
        verdict(0, None)


def test_a_finding_is_its_claim_with_our_number():
    words = {"name": "a", "says": "b", "theirs": "c", "where": "d", "measured": "e"}
    claim = Claim(**words, expected=-1)
    assert Finding(claim=claim, difference=Interval(-1.0, -2.0, -0.5, 20)).verdict == "holds"
    assert Finding(claim=claim, difference=None).verdict == "not measured"


def slow_difference(first, second):
    """Resample pairs one by one, with the picks of the fast one."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    picks = np.random.default_rng(20_260).integers(0, len(pairs), size=(NUM_DRAWS, len(pairs)))
    draws = []
    for draw in picks:
        chosen = [pairs[place] for place in draw]
        draws.append(sum(a for a, _ in chosen) / len(chosen) - sum(b for _, b in chosen) / len(chosen))
    return np.mean([a - b for a, b in pairs]), np.quantile(draws, 0.025), np.quantile(draws, 0.975), len(pairs)


def test_paired_intervals_are_those_of_a_slow_bootstrap():
    rng = np.random.default_rng(0)
    first: list[float | None] = [float(one) for one in rng.random(23)]
    second: list[float | None] = [
        (one or 0.0) + float(noise) for one, noise in zip(first, 0.1 * rng.random(23), strict=True)
    ]
    first[4] = second[9] = None  # a pair of which one is missing is no pair
    found = difference(first, second)
    value, low, high, n = slow_difference(first, second)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-12)
    assert found.n == n == 21
    assert verdict(-1, found) == "holds"  # which two unpaired means could never tell
    apart = mean(first)
    assert apart.high - apart.low > 3 * (found.high - found.low)


def test_what_was_not_asked_counts_nowhere():
    assert mean([1.0, None, 3.0]).value == 2.0
    assert mean([1.0], [None, 3.0]).n == 2
    assert mean([None]) is None
    assert mean() is None
    assert difference([None, 1.0], [1.0, None]) is None
    assert less([3.0, None, 1.0], [1.0, 1.0, None]) == [2.0, None, None]
