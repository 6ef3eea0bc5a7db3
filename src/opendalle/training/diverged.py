"""A run whose loss is no number any more."""

import math
from collections.abc import Mapping

from opendalle.base.errors import OpenDalleError


class Diverged(OpenDalleError):
    """Training has blown up: a loss or a gradient is NaN or infinite.  The weights were not touched by that step."""


def refuse_non_finite(values: Mapping[str, float], last: Mapping[str, float], step: int, saved: str | None) -> None:
    """Stop a run before a step that would spoil the weights.

    Args:
        values: losses and gradient norm of the step about to be made.
        last: those of the step before; empty at the first.
        step: which step, from 1.
        saved: the newest save, if any.

    Raises:
        Diverged: telling which value, at which step, what it was before, and what to try.
    """
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if not bad:
        return
    came = ", ".join(f"{name} = {value}" for name, value in bad.items())
    before = ", ".join(f"{name} {value:.4g}" for name, value in last.items()) or "none: this was the first step"
    where = f"The newest save is {saved}." if saved else "Nothing had been saved."
    raise Diverged(
        f"{came} at step {step}",
        "finite losses and gradients",
        f"Last finite values: {before}. The weights are as before that step. {where} Try a lower learning rate, a "
        "longer warm-up, a smaller clip or precision='float32', and look for broken pictures in the batch.",
    )
