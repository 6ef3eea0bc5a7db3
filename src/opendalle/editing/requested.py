"""An edit as a request asks for it, whichever generation draws: where it is, and the samples that it becomes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Generator

from opendalle.base.errors import BadRequest
from opendalle.base.jobs import Stopwatch, by_seed, sample_of
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.base.rng import picture_generator
from opendalle.editing.drawing import Draw, Edited, edited, extended
from opendalle.editing.frames import Framing
from opendalle.editing.masks import Box, Mask, mask_from_alpha, mask_from_box, mask_from_white
from opendalle.editing.outpainting import Extension
from opendalle.pictures import AnyPicture, Given, composite, take

AnyMask = AnyPicture | np.ndarray  # a picture, or the array itself: True where to edit
EditOnce = Callable[[Generator], Iterator[Edited]]  # carries an edit out, with the chance of one picture


def mask_of(given: Given, mask: AnyMask | None, request: Request) -> Mask | Extension:
    """Find out where a request wants a picture edited, or how far it shall grow.

    Args:
        given: the picture.
        mask: transparent, or white, where to edit; or True, as an array.
        request: box, extend and mask_white.

    Raises:
        BadPicture: when the mask cannot be read.
        BadRequest: when not exactly one of mask, box and extend is there, or it does not fit the picture.
    """
    told = {"a mask": mask is not None, "a box": bool(request.box), "an extension": bool(request.extend)}
    if sum(told.values()) != 1:
        came = " and ".join(name for name, there in told.items() if there) or "nothing that says where to edit"
        raise BadRequest(came, "a mask, a box, or an extension")
    if request.mask_white and mask is None:
        raise BadRequest("mask_white without a mask", "a mask")
    if request.extend:
        return Extension.parse(request.extend)
    if request.box:
        return mask_from_box(Box.parse(request.box), given.picture.size)
    if isinstance(mask, np.ndarray):
        return mask
    assert mask is not None, "one of the three is there"
    return (mask_from_white if request.mask_white else mask_from_alpha)(take(mask).picture)


def edit_once(
    given: Given, where: Mask | Extension, drawing: Callable[[Generator], Draw], side: int, framing: Framing
) -> EditOnce:
    """Check an edit, and return what carries it out once for each picture that is wanted.

    Args:
        given: the picture.
        where: the mask, or the new ground.
        drawing: from the chance of one picture to what draws its frames.
        side: of a frame that the model draws, in pixels.
        framing: how frames lie.

    Raises:
        BadPicture: when the picture cannot be edited.
        BadRequest: when the mask does not fit it.
    """

    def run(generator: Generator) -> Iterator[Edited]:
        if isinstance(where, Extension):
            return extended(given.picture, where, drawing(generator), side, framing)
        return edited(given.picture, where, drawing(generator), side, framing)

    run(Generator())  # refuses at once; nothing is drawn before a state is asked for
    return run


def edited_samples(run: EditOnce, request: Request, hooks: Hooks, told: Mapping[str, Any]) -> Iterator[Sample]:
    """Carry an edit out for every picture that is wanted; with previews, show it after each frame.

    Args:
        run: from `edit_once`.
        request: count, seed, background, previews.
        hooks: guards.
        told: of the recipe: model, verb, inputs.
    """
    for row in by_seed(request):
        watch = Stopwatch()
        for state in run(picture_generator(row.seed)):
            watch.lap("frames")
            is_last = state.done == state.num_frames
            if not is_last and not request.previews:
                continue
            picture = composite(state.picture) if request.background == "white" else state.picture
            sample = sample_of(row, picture, told, watch, state.done, state.num_frames, is_preview=not is_last)
            if is_last:
                hooks.check(sample)
            yield sample
