"""From a network to a denoiser: conditioning, guidance, prediction kind and clipping wrapped into meeting point 1."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from opendalle.base.axes import Steps
from opendalle.base.errors import BadRequest, require
from opendalle.base.protocols import Denoised
from opendalle.diffusion.grids import check_grid
from opendalle.diffusion.guidance import combine, dynamic_threshold, rescale
from opendalle.diffusion.losses import learned_range
from opendalle.diffusion.predictions import Prediction, check_prediction, eps_beside, to_denoised
from opendalle.diffusion.schedules import CLEAN, Schedule

Conditioning = Mapping[
    str, Any
]  # keyword -> tensor batched on axis 0, or tuples, mappings, dataclasses of such, or None


class GuidedDenoise:
    """A network that a sampler can ask: `denoise(x_t, t) -> Denoised`.

    Guidance takes one pass over a batch of twice the size, [conditional; unconditional]; at scale 1 the unconditional
    half is not computed.  What the prompt fixes is joined once, here.

    Args:
        network: `network(x_t, t, **conditioning) -> output`; with a learned variance the output has twice the
            channels of x_t on axis 1, the prediction first.
        conditioning: the network's keywords with the prompt, every tensor batched on axis 0.
        unconditional: the same keywords without the prompt; may be None where the scale is 1.
        schedule: the schedule that the network was trained with.
        prediction: what the network predicts.
        scale: 1 is off; one number, or one a sample.
        rescale: pulls a guided prediction back to its unguided spread; 0 is off, 1 pulls all the way.
        threshold: quantile of dynamic thresholding; 1 is off.
        clip: range that the data are known to have; x0 is held in it.  Also the range that thresholding shrinks to.
        consistent_eps: after clipping or thresholding let eps be what leads from the new x0 to x_t.  The posterior
            mean reads x0 alone; DDIM with strong guidance oversaturates less.  False is what diffusers does.
        learned_variance: whether the output has variance channels.  Those of the conditional half count.
        grid: the sampler's grid, where the variance is learned: it lies between bounds that depend on the stride.
            None: the full schedule.

    Raises:
        BadConfig: when a knob lies outside its range.
        BadRequest: when guidance is asked for and the unconditional keywords are missing or others.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        conditioning: Conditioning,
        unconditional: Conditioning | None = None,
        *,
        schedule: Schedule,
        prediction: Prediction = "eps",
        scale: float | Float[Tensor, " b"] = 1.0,
        rescale: float = 0.0,
        threshold: float = 1.0,
        clip: tuple[float, float] | None = None,
        consistent_eps: bool = False,
        learned_variance: bool = False,
        grid: Sequence[int] | None = None,
    ) -> None:
        check_prediction(prediction, schedule)
        require(0.0 <= rescale <= 1.0, f"rescale is {rescale}", "0 to 1")
        require(0.0 < threshold <= 1.0, f"threshold is {threshold}", "a quantile above 0; 1 is off")
        require(clip is None or clip[0] < clip[1], f"clip is {clip}", "a range (low, high)")
        self.network = network
        self.schedule, self.learned_variance = schedule, learned_variance
        self.prediction: Prediction = prediction
        self.scale, self.rescale, self.threshold = scale, rescale, threshold
        self.clip, self.consistent_eps = clip, consistent_eps
        self.is_guided = bool((scale != 1).any()) if isinstance(scale, Tensor) else scale != 1
        self.conditioning: Conditioning = dict(conditioning)
        if self.is_guided:
            if unconditional is None:
                raise BadRequest(f"guidance {scale} and no unconditional inputs", "both, or guidance 1")
            self.conditioning = join(conditioning, unconditional)
        self._before = _steps_before(schedule, grid)

    def __call__(self, x_t: Float[Tensor, "b *d"], t: Steps) -> Denoised:
        """Ask the network about x_t.

        Args:
            x_t: data at step t.
            t: step of each sample.
        """
        prediction, values = self._predict(x_t, t)
        log_variance = None
        if values is not None:
            self._before = self._before.to(t.device)
            log_variance = learned_range(values.to(x_t.dtype), t, self.schedule, self._before[t])
        denoised = to_denoised(self.prediction, prediction, x_t, t, self.schedule, log_variance)
        return self._in_range(denoised, x_t, t)

    def _predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The guided prediction, and the variance channels if there are any."""
        if not self.is_guided:
            return self._split(self.network(x_t, t, **self.conditioning))
        output = self.network(torch.cat([x_t, x_t]), torch.cat([t, t]), **self.conditioning)
        both, values = self._split(output.to(x_t.dtype))
        conditional, unconditional = both.chunk(2)
        guided = combine(conditional, unconditional, self.scale)
        if self.rescale > 0:
            guided = rescale(guided, conditional, self.rescale)
        return guided, None if values is None else values[: len(x_t)]

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Part prediction from variance channels."""
        if not self.learned_variance:
            return output, None
        prediction, values = output.chunk(2, dim=1)
        return prediction, values

    def _in_range(self, denoised: Denoised, x_t: Tensor, t: Tensor) -> Denoised:
        """Hold x0 in the range that the data are known to have."""
        if self.clip is None and self.threshold >= 1:
            return denoised
        x0 = denoised.x0
        if self.threshold < 1:
            x0 = dynamic_threshold(x0, self.threshold, limit=1.0 if self.clip is None else self.clip[1])
        if self.clip is not None:
            x0 = x0.clamp(*self.clip)
        eps = eps_beside(x0, x_t, t, self.schedule) if self.consistent_eps else denoised.eps
        return Denoised(x0, eps, denoised.log_variance)


def join(conditional: Any, unconditional: Any) -> Any:
    """Put two sets of a network's keywords into one batch, conditional half first.

    Args:
        conditional: tensors batched on axis 0, or nested tuples, lists, mappings, dataclasses of such, or None.
        unconditional: the same structure.

    Raises:
        BadRequest: when the structures differ.
    """
    if hasattr(conditional, "joined") and type(conditional) is type(unconditional):
        return conditional.joined(unconditional)  # a prompt as a network has read it knows how to be batched
    if isinstance(conditional, Tensor) and isinstance(unconditional, Tensor):
        if conditional.shape[1:] != unconditional.shape[1:]:
            raise BadRequest(
                f"conditioning of shapes {tuple(conditional.shape)} and {tuple(unconditional.shape)}",
                "equal shapes behind the batch axis",
            )
        return torch.cat([conditional, unconditional.to(conditional)])
    if isinstance(conditional, Mapping) and isinstance(unconditional, Mapping):
        if conditional.keys() != unconditional.keys():
            raise BadRequest(
                f"conditional inputs {sorted(conditional)} and unconditional inputs {sorted(unconditional)}",
                "the same names on both sides",
            )
        return {name: join(conditional[name], unconditional[name]) for name in conditional}
    if isinstance(conditional, (tuple, list)) and isinstance(unconditional, (tuple, list)):
        if len(conditional) != len(unconditional):
            raise BadRequest(f"{len(conditional)} and {len(unconditional)} entries", "as many on both sides")
        joined = [join(*pair) for pair in zip(conditional, unconditional, strict=True)]
        return joined if isinstance(conditional, list) else tuple(joined)
    if is_dataclass(conditional) and not isinstance(conditional, type) and type(conditional) is type(unconditional):
        names = [one.name for one in fields(conditional)]
        return replace(
            conditional, **{name: join(getattr(conditional, name), getattr(unconditional, name)) for name in names}
        )
    if conditional is None and unconditional is None:
        return None
    raise BadRequest(
        f"conditioning of {type(conditional).__name__} and {type(unconditional).__name__}",
        "tensors, or tuples, mappings, dataclasses of tensors, alike on both sides",
    )


def _steps_before(schedule: Schedule, grid: Sequence[int] | None) -> Tensor:
    """For every training step, the step that the sampler goes to from there."""
    before = torch.arange(schedule.num_steps) - 1
    if grid is not None:
        check_grid(grid, schedule.num_steps)
        before[torch.tensor(list(grid))] = torch.tensor([*grid[1:], CLEAN])
    return before
