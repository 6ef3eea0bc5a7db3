"""Pictures on their way, whichever generation draws them: which they are, how long each stage took, what is told."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from opendalle.base.errors import BadRequest
from opendalle.base.records import Sample
from opendalle.base.request import Request

TRANSPARENT_WORDS = ("sticker", "transparent", "贴纸", "透明")  # a prompt that asks for no background


@dataclass(frozen=True)
class Row:
    """One picture of a batch."""

    request: Request
    index: int  # which of the request's pictures
    seed: int  # of its chance
    told: Mapping[str, Any] = field(default_factory=dict)  # into its own recipe alone


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Guests of a generation that are not part of what was asked: guards and initial noise."""

    initial_noise: Any = None  # (generators, shape) -> noise; None: unit Gaussian
    guards: Sequence[Any] = ()  # called with each finished Sample; may raise

    def check(self, sample: Sample) -> None:
        """Show a finished sample to every guard.

        Args:
            sample: about to be handed out.
        """
        for guard in self.guards:
            guard(sample)


@dataclass
class Stopwatch:
    """Seconds of each stage of one batch, or of one picture of it that goes on alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now

    def pause(self) -> None:
        """Begin the next lap now: what a caller does with a picture is not ours."""
        self.last = time.perf_counter()

    def alone(self) -> "Stopwatch":
        """Return one for a picture that leaves its batch, with the batch's seconds on it."""
        return Stopwatch(dict(self.seconds))


def by_seed(request: Request) -> list[Row]:
    """Return one row a picture, each with a seed of its own."""
    return [Row(request, index, request.seed + index) for index in range(request.count)]


def by_prompt(prompts: Sequence[str], seeds: Sequence[int], asked: Mapping[str, Any]) -> list[Row]:
    """Return one row a caption, each with a request of its own.

    Args:
        prompts: captions.
        seeds: one a caption.
        asked: fields of `Request` without prompt, count and seed.

    Raises:
        BadRequest: when there is not one seed a caption, or a field is wrong.
    """
    if len(prompts) != len(seeds) or asked.get("count", 1) != 1:
        came = f"{len(prompts)} prompts, {len(seeds)} seeds, count {asked.get('count', 1)}"
        raise BadRequest(came, "one seed a prompt, and one picture of each")
    requests = [Request.of(p, seed=s, **asked) for p, s in zip(prompts, seeds, strict=True)]
    return [Row(request, 0, request.seed) for request in requests]


def by_frame(request: Request, count: int) -> list[Row]:
    """Return one row a picture of a series, all with the same chance: only what is led changes."""
    return [Row(request, index, request.seed) for index in range(count)]


def sample_of(
    row: Row,
    picture: Image.Image,
    told: Mapping[str, Any],
    watch: Stopwatch,
    step: int,
    num_steps: int,
    *,
    is_preview: bool = False,
) -> Sample:
    """Put a picture together with all that makes it again.

    Args:
        row: what was asked, and its chance.
        picture: finished, or as it stands.
        told: of the recipe: model, verb and inputs.
        watch: of its batch.
        step: steps done.
        num_steps: steps in all.
        is_preview: whether it is not finished.
    """
    asked = {"request": row.request.asked_of(told["verb"]), "index": row.index, "seed": row.seed}
    return Sample(
        picture=picture,
        request=row.request,
        index=row.index,
        seed=row.seed,
        step=step,
        num_steps=num_steps,
        is_preview=is_preview,
        recipe={**told, **row.told, **asked},
        seconds=dict(watch.seconds),
    )


def keeps_transparency(request: Request) -> bool:
    """Whether a picture stays transparent where nothing was drawn.

    `auto` follows the prompt: a sticker, or anything asked for as transparent, stays so; all else stands on white.
    A background that the prompt names is drawn by the model and is not touched by either.
    """
    if request.background == "auto":
        return any(word in request.prompt.lower() for word in TRANSPARENT_WORDS)
    return request.background == "transparent"


def preview_steps(previews: int, num_steps: int) -> frozenset[int]:
    """Spread previews evenly over the steps before the last.

    Args:
        previews: how many, 0 for none.
        num_steps: steps in all.
    """
    if previews == 0:
        return frozenset()
    wanted = min(previews, num_steps - 1)
    return frozenset(round((k + 1) * num_steps / (wanted + 1)) for k in range(wanted))
