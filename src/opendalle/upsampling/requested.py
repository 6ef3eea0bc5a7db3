"""An enlargement as a request asks for it, whichever generation it belongs to: the samples that it becomes."""

from collections.abc import Iterator, Mapping
from typing import Any

from opendalle.base.jobs import Row, Stopwatch, sample_of
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.pictures import composite, from_array
from opendalle.upsampling.cascade import EnlargeStep


def upscaled_samples(
    steps: Iterator[EnlargeStep], request: Request, hooks: Hooks, told: Mapping[str, Any]
) -> Iterator[Sample]:
    """Yield the enlarged picture when it is done.

    Args:
        steps: of the enlargement.
        request: seed, background.
        hooks: guards.
        told: of the recipe: model, verb, inputs.
    """
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
