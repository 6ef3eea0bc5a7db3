"""A paper's claim beside what was measured here; the verdict is read off the interval, by nobody's taste."""

import math
from dataclasses import dataclass
from typing import Literal

from opendalle.base.errors import require
from opendalle.evaluation.metrics import Interval

Verdict = Literal["holds", "does not hold", "cannot be told", "not measured"]
FEWEST = 8  # prompts; the bootstrap of fewer gives intervals that are far too narrow


def verdict(expected: int, difference: Interval | None) -> Verdict:
    """Compare the sign that a claim expects with an interval of the measured difference.

    Args:
        expected: +1 when the claim says that the difference is above 0, -1 when below.
        difference: with its 95 % interval; None: not measured.

    Returns:
        `holds` when the whole interval lies on the claim's side of 0, `does not hold` when it lies on the other,
        `cannot be told` when it touches 0, or stands on fewer than FEWEST prompts.
    """
    require(expected in (1, -1), f"expected is {expected}", "1 or -1")
    if difference is None:
        return "not measured"
    low, high = sorted((expected * difference.low, expected * difference.high))
    if difference.n < FEWEST or not (math.isfinite(low) and math.isfinite(high)):
        return "cannot be told"
    return "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says, and what of it can be measured here."""

    name: str  # one word or two, for files
    says: str  # the claim
    theirs: str  # its number
    where: str  # paper and section
    measured: str  # the difference that is measured here, in words
    expected: int  # its sign, if the claim is right
    note: str = ""  # what a reader must know before believing it

    def __post_init__(self) -> None:
        require(self.expected in (1, -1), f"expected is {self.expected}", "1 or -1")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim with our number."""

    claim: Claim
    difference: Interval | None  # None: not measured

    @property
    def verdict(self) -> Verdict:
        """What the interval says of the claim."""
        return verdict(self.claim.expected, self.difference)
