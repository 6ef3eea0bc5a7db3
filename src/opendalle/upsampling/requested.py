"""An enlargement as a request asks for it, whichever generation it belongs to: the samples that it becomes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from opendalle.base.jobs import Row, Stopwatch, sample_of
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.base.rng import picture_generator
from opendalle.pictures import Given, composite, from_array, to_array
from opendalle.upsampling.cascade import EnlargeStep, UpsamplerStage, enlarging


def upscaled_samples(
    given: Given,
    request: Request,
    stages: Sequence[UpsamplerStage],
    hooks: Hooks,
    told: Mapping[str, Any],
    device: torch.device,
) -> Iterator[Sample]:
    """Enlarge any picture; yield it when it is done.

    Args:
        given: of any size.
        request: scale, seed, background.
        stages: the upsamplers, from the smallest pictures to the largest.
        hooks: guards.
        told: of the recipe: model, verb, inputs.
        device: of the upsamplers.

    Raises:
        BadRequest: at once, when there is no upsampler, or the result would be too large.
    """
    values = torch.from_numpy(to_array(given.picture))[None].to(device)
    size = (given.picture.height * request.scale, given.picture.width * request.scale)
    steps = enlarging(values, size, stages, [picture_generator(request.seed)])
    return _samples(steps, request, hooks, told)


def _samples(steps: Iterator[EnlargeStep], request: Request, hooks: Hooks, told: Mapping[str, Any]) -> Iterator[Sample]:
    watch = Stopwatch()
    for state in steps:
        watch.lap("upsampler")
        if state.pictures is None:
            continue
        picture = from_array(state.pictures[0].float().cpu().numpy())
        if request.background == "white":
            picture = composite(picture)
        sample = sample_of(Row(request, 0, request.seed), picture, told, watch, state.step, state.num_steps)
        hooks.check(sample)
        yield sample
