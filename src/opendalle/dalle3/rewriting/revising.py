"""The step before a pipeline: requests whose prompts are to be rewritten, and the same requests with it done.

A request keeps both texts, and `Request.caption` is the one that is drawn.  A request that has its revised prompt
already is left as it is: so a picture is made again without any rewriter, and a door that rewrote by itself is not
rewritten once more by the pipeline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from opendalle.base.errors import BadRequest
from opendalle.base.request import Request
from opendalle.dalle3.rewriting.upsampler import PromptUpsampler


@dataclass(frozen=True, kw_only=True)
class Revised:
    """A request to be drawn, and what is told of its rewriting."""

    request: Request  # with its revised prompt, unless nothing was to be rewritten
    told: dict[str, Any] = field(default_factory=dict)  # into the recipe: empty, or "rewriting" and its record


def revise(requests: Sequence[Request], upsampler: PromptUpsampler) -> list[Revised]:
    """Rewrite the prompts of requests, whatever rewriter they ask for.

    Where the person's own words are kept they are the revised prompt as well: the step was taken, and is not taken
    again.  An empty prompt stays the unconditional model.

    Args:
        requests: those that say `off`, have a revised prompt, or have no prompt are left as they are.
        upsampler: rewrites.

    Raises:
        OpenDalleError: when a prompt cannot be rewritten and the upsampler is told to refuse.
    """
    places = [place for place, one in enumerate(requests) if _is_open(one)]
    rewritten = upsampler.rewrite([requests[place].prompt for place in places])
    revised = [Revised(request=one) for one in requests]
    for place, one in zip(places, rewritten, strict=True):
        request = replace(requests[place], revised_prompt=one.text)
        revised[place] = Revised(request=request, told={"rewriting": one.record})
    return revised


def revise_by_own(requests: Sequence[Request], own: PromptUpsampler | None, model: str) -> list[Revised]:
    """Do what a pipeline does first: rewrite with the model's own rewriter, unless a door did it by another one.

    Args:
        requests: of one batch or many.
        own: the model's rewriter, which is what its card says; None: it has none, and draws prompts as they are.
        model: its name, for messages.

    Raises:
        BadRequest: when a request wants a rewriter that the model does not have.
        OpenDalleError: as `revise`.
    """
    for one in requests:
        check_revisable(one, own, model)
    return [Revised(request=one) for one in requests] if own is None else revise(requests, own)


def check_revisable(request: Request, own: PromptUpsampler | None, model: str) -> None:
    """Refuse a request that wants a rewriter that the model does not have.

    Args:
        request: as it was asked.
        own: the model's rewriter; None: it has none.
        model: its name, for messages.

    Raises:
        BadRequest: when it does.
    """
    if not _is_open(request):
        return
    if request.rewrite == "own" and own is None:
        raise BadRequest(f"rewrite is 'own' for {model}", "off, http or local: it has no rewriter of its own")
    if request.rewrite not in (None, "own"):
        request.refuse_unwritten(model)


def _is_open(request: Request) -> bool:
    return request.rewrite != "off" and not request.revised_prompt and bool(request.prompt.strip())
