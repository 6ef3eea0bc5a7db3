"""What a network may be asked to predict, and how each prediction tells of both the data and the noise.

    eps   the noise                            x_t = alpha x0 + sigma eps
    x0    the data
    v     alpha eps - sigma x0                 the velocity along the circle of a variance-preserving schedule
    flow  eps - x0                             the velocity along the straight line of a flow

Each with x_t is two linear equations in x0 and eps, so any of them can be turned into any other, under any schedule.
"""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Steps
from opendalle.base.errors import BadConfig
from opendalle.base.protocols import Denoised
from opendalle.diffusion.schedules import Schedule, expand_like

Prediction = Literal["eps", "x0", "v", "flow"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


def check_prediction(kind: str, schedule: Schedule) -> None:
    """Refuse a kind that does not exist, and eps where it cannot tell x0.

    Args:
        kind: what the network predicts.
        schedule: the schedule it was trained with.

    Raises:
        BadConfig: in both cases.
    """
    if kind not in PREDICTIONS:
        raise BadConfig(f"prediction {kind!r}", "one of " + ", ".join(PREDICTIONS))
    if kind == "eps" and schedule.ends_in_noise:
        raise BadConfig("prediction 'eps' with a schedule that ends in noise alone", "x0, v or flow")


def target(
    kind: Prediction, x0: Float[Tensor, "b *d"], eps: Float[Tensor, "b *d"], t: Steps, schedule: Schedule
) -> Float[Tensor, "b *d"]:
    """What the network should have said of q_sample(x0, t, eps).

    Args:
        kind: what the network predicts.
        x0: clean data.
        eps: the noise that was added.
        t: step of each sample.
        schedule: signal and noise scales.

    Raises:
        BadConfig: when the kind does not exist.

    Source: eps: DDPM, arXiv:2006.11239, eq. 14; v: arXiv:2202.00512, section 4; flow: arXiv:2209.03003, eq. 1.
    """
    check_prediction(kind, schedule)
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    if kind == "flow":
        return eps - x0
    return expand_like(schedule.alpha(t), x0) * eps - expand_like(schedule.sigma(t), x0) * x0


def to_denoised(
    kind: Prediction,
    output: Float[Tensor, "b *d"],
    x_t: Float[Tensor, "b *d"],
    t: Steps,
    schedule: Schedule,
    log_variance: Float[Tensor, "b *d"] | None = None,
) -> Denoised:
    """Turn a network's output into its belief in the data and in the noise.

    Args:
        kind: what the network predicts.
        output: its output, of any float precision; the result has that of x_t.
        x_t: what it was shown.
        t: step of each sample.
        schedule: signal and noise scales.
        log_variance: handed on as it is.

    Raises:
        BadConfig: when the kind does not exist, or cannot tell x0 under this schedule.
    """
    check_prediction(kind, schedule)
    output = output.to(x_t.dtype)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if kind == "eps":
        x0 = expand_like(1 / alpha, x_t) * x_t - expand_like(sigma / alpha, x_t) * output
        return Denoised(x0, output, log_variance)
    if kind == "x0":
        return Denoised(output, eps_beside(output, x_t, t, schedule), log_variance)
    if kind == "flow":
        both = alpha + sigma  # 1 under a flow, where both lines below lose their denominator
        x0 = expand_like(1 / both, x_t) * x_t - expand_like(sigma / both, x_t) * output
        eps = expand_like(1 / both, x_t) * x_t + expand_like(alpha / both, x_t) * output
        return Denoised(x0, eps, log_variance)
    power = alpha**2 + sigma**2  # 1 under a variance-preserving schedule
    x0 = expand_like(alpha / power, x_t) * x_t - expand_like(sigma / power, x_t) * output
    eps = expand_like(sigma / power, x_t) * x_t + expand_like(alpha / power, x_t) * output
    return Denoised(x0, eps, log_variance)


def eps_beside(
    x0: Float[Tensor, "b *d"], x_t: Float[Tensor, "b *d"], t: Steps, schedule: Schedule
) -> Float[Tensor, "b *d"]:
    """The noise that must have been added, if x0 became x_t.

    Args:
        x0: clean data.
        x_t: data at step t.
        t: step of each sample, 0 <= t: clean data hold no noise to tell.
        schedule: signal and noise scales.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return expand_like(1 / sigma, x_t) * x_t - expand_like(alpha / sigma, x_t) * x0
