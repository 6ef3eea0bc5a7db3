"""DALL·E 3, seen from the doors: one method a verb, each a stream of samples.

A prompt becomes a caption, and a caption a picture.  What makes the verbs different is where both come from:

    generate    the model's own rewriter makes a caption of the prompt; the noise is the picture's own chance
    vary        the noise is found from a picture, and the captioner says what it shows, unless a prompt does
    edit        so does the captioner here; where the picture is known, so is the grid
    upscale     none: the upsamplers alone

Wide and tall pictures of the shapes that it was trained on are drawn as such; other sizes go on through `making`.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, sections 3 and 4.1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.jobs import Row, Stopwatch, by_prompt, by_seed, preview_steps
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import PRIOR_FIELDS, TOKEN_FIELDS, Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.dalle3.cascade import Cascade
from opendalle.dalle3.edits import Begin, Edits, Start
from opendalle.dalle3.parts import Dalle3Config, Dalle3Parts
from opendalle.dalle3.probes import Probes
from opendalle.dalle3.rewriting.revising import Revised, check_revisable, revise_by_own
from opendalle.dalle3.rewriting.upsampler import PromptUpsampler
from opendalle.editing import Box, Draw, Extension, Mask, SizePlan, mask_from_box, mask_to_text
from opendalle.editing.making import Making
from opendalle.editing.refusing import DrawsFromWords
from opendalle.editing.requested import AnyMask, edited_samples, mask_of
from opendalle.pictures import AnyPicture, Given, take
from opendalle.pictures.work import PictureJob, told_of
from opendalle.samplers.course import SamplerState
from opendalle.upsampling.cascade import resizing
from opendalle.upsampling.requested import upscaled_samples


@dataclass(frozen=True, kw_only=True)
class Job(PictureJob):
    """Pictures to draw, and what they are denoised from."""

    begin: Begin
    plan: SizePlan | None = None  # how the size is made; None: it is drawn natively
    revise: Callable[[Request], Revised] = lambda request: Revised(request=request)  # what comes before all drawing


class Dalle3(Probes, DrawsFromWords):
    """Meeting point 3 for DALL·E 3; what studies ask besides is told in `probes`.

    Args:
        parts: the networks, in evaluation mode.
        config: settings of every stage.
        origin: what goes into every picture's recipe: the model's name and sha256.
        clip_sha256: of the folder that its CLIP came from; "" without one.

    Raises:
        BadConfig: when the denoiser cannot take a grid that it is said to draw.
    """

    name = "DALL·E 3"

    def __init__(
        self, parts: Dalle3Parts, config: Dalle3Config, origin: dict[str, str] | None = None, clip_sha256: str = ""
    ) -> None:
        self.parts, self.config, self.origin, self.clip_sha256 = parts, config, dict(origin or {}), clip_sha256
        self.cascade = Cascade(parts, config)
        rewriter = parts.rewriter
        self.upsampler = None if rewriter is None else PromptUpsampler(rewriter, config.rewriting)

    @cached_property
    def _edits(self) -> Edits:
        return Edits(self.cascade)

    @cached_property
    def _making(self) -> Making:
        behind = self.cascade.stages[len(self.sizes) - 1 :]  # without those that lead to a native size
        factors = [stage.factor for stage in behind]
        return Making(self.sizes, factors, partial(resizing, behind), self.cascade.longer)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the square pictures that it draws natively, smallest first."""
        return self.cascade.sizes

    def generate(self, prompt: str = "", *, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Draw pictures of one prompt, rewritten first if the model or the request says so; stop iterating to cancel.

        Args:
            prompt: what to draw; empty is the unconditional model.
            hooks: guards and initial noise.
            **asked: fields of `Request`; a sample tells the text that was drawn as its `revised_prompt`.

        Raises:
            BadRequest: at once, before anything is drawn, when the request cannot be carried out.
        """
        if "embedding" in asked:
            raise BadRequest(f"an embedding for {self.name}", "a prompt: it knows no embeddings")
        request, hooks = Request.of(prompt, **asked), hooks or Hooks()
        plan = self._check(request)
        return self._drawn(by_seed(request), hooks, plan)

    def generate_many(self, prompts: Sequence[str], seeds: Sequence[int], **asked: Any) -> Iterator[Sample]:
        """Draw one picture of each prompt, in batches; for evaluation and grids.

        Args:
            prompts: rewritten first, as by `generate`.
            seeds: one a prompt.
            **asked: fields of `Request` without prompt, count and seed.

        Raises:
            BadRequest: at once, as `generate`; or when there is not one seed a prompt.
        """
        rows = by_prompt(prompts, seeds, asked)
        plan = next((self._check(row.request) for row in rows), None)
        return self._drawn(rows, Hooks(), plan)

    def vary(
        self, picture: AnyPicture, prompt: str = "", *, hooks: Hooks | None = None, **asked: Any
    ) -> Iterator[Sample]:
        """Draw a picture anew: what its caption says stays, and of the rest as much as the strength leaves.

        Args:
            picture: of any size and shape.
            prompt: what it shows; empty: what the captioner says of it, if the model has one.
            hooks: guards.
            **asked: fields of `Request`; eta is the strength: 0 rebuilds the picture, 1 wanders; with `keep` the
                picture keeps its size, and all inside that box its bytes.

        Raises:
            BadPicture: at once, when the picture cannot be read.
            BadRequest: at once, when the request cannot be carried out.
        """
        given, request = take(picture), Request.of(prompt, verb="vary", **asked)
        hooks, told = hooks or Hooks(), told_of(self.origin, "vary", given)
        if request.keep:
            where = ~mask_from_box(Box.parse(request.keep), given.picture.size)
            return self._edited(given, where, request, hooks, told)
        plan = self._check(request, can_grow=False)
        request, told = self._described(given, request, told)
        size = (request.width, request.height) if plan is None else plan.drawn
        job = Job(
            rows=by_seed(request),
            begin=self._edits.variation(given, request, size),
            hooks=hooks,
            told=told,
            shape=given.picture.size,
            is_clear=given.is_clear,
            plan=plan,
        )
        return self._jobs(job)

    def edit(
        self,
        picture: AnyPicture,
        prompt: str = "",
        *,
        mask: AnyMask | None = None,
        hooks: Hooks | None = None,
        **asked: Any,
    ) -> Iterator[Sample]:
        """Draw a part of a picture anew, or let it grow; all else comes back byte for byte.

        Args:
            picture: of any size and shape.
            prompt: what the whole picture shall show; empty: what the captioner says of it, if the model has one.
            mask: where to edit: a picture of the same size, transparent there (or white, with mask_white=True), or an
                array, True there; or give `box` or `extend` instead.
            hooks: guards.
            **asked: fields of `Request`; previews show the picture after each frame of a large edit.

        Raises:
            BadPicture: at once, when a picture cannot be read or edited.
            BadRequest: at once, when the mask does not fit, or the request cannot be carried out.
        """
        given, request = take(picture), Request.of(prompt, verb="edit", **asked)
        where = mask_of(given, mask, request)
        told = told_of(self.origin, "edit", given)
        if mask is not None and not isinstance(where, Extension):
            told["mask"] = mask_to_text(where)
        return self._edited(given, where, request, hooks or Hooks(), told)

    def upscale(self, picture: AnyPicture, *, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Enlarge a picture with the upsamplers, window by window.

        Args:
            picture: of any size and shape; one with transparency keeps it.
            hooks: guards.
            **asked: fields of `Request`; scale says how many times.

        Raises:
            BadPicture: at once, when the picture cannot be read.
            BadRequest: at once, when the model has no upsampler, or the result would be too large.
        """
        given, request = take(picture), Request.of("", verb="upscale", **asked)
        cascade, told = self.cascade, told_of(self.origin, "upscale", given)
        return upscaled_samples(given, request, cascade.stages, hooks or Hooks(), told, cascade.device)

    def _check(self, request: Request, *, can_grow: bool = True) -> SizePlan | None:
        """Refuse what cannot be carried out; say how the size is made, None where it is drawn natively."""
        self._check_steps(request)
        check_revisable(request, self._rewriting(request), self.name)
        squares = ((side, side) for side in self.sizes)
        is_native = (request.width, request.height) in (*squares, *self.cascade.longer)
        return None if is_native else self._making.plan(request, can_grow=can_grow)

    def _check_steps(self, request: Request) -> None:
        request.refuse((*TOKEN_FIELDS, *PRIOR_FIELDS, "candidates"), self.name)
        self.config.denoiser.refuse_untaught(request.steps, request.guidance, request.sampler)

    def _rewriting(self, request: Request) -> PromptUpsampler | None:
        """Return who rewrites a prompt; None: nobody of this model's."""
        return None if request.rewrite is None and self.config.rewrite == "off" else self.upsampler

    def _drawn(self, rows: Sequence[Row], hooks: Hooks, plan: SizePlan | None) -> Iterator[Sample]:
        """Draw pictures of captions alone."""

        @cache
        def revise(request: Request) -> Revised:
            return revise_by_own([request], self._rewriting(request), self.name)[0]

        job = Job(
            rows=rows,
            begin=partial(self._begun, hooks, plan),
            hooks=hooks,
            told=told_of(self.origin, "generate"),
            plan=plan,
            revise=revise,
        )
        return self._jobs(job)

    def _begun(
        self,
        hooks: Hooks,
        plan: SizePlan | None,
        rows: Sequence[Row],
        generators: Sequence[Generator],
        watch: Stopwatch,
    ) -> Start:
        """Read the captions of a batch, and draw its noise."""
        request = rows[0].request
        prompted = self.cascade.read([row.request.caption for row in rows])
        watch.lap("text")
        size = (request.width, request.height) if plan is None else plan.drawn
        noise = (hooks.initial_noise or normal_like_rows)(generators, self.cascade.grid_shape(size))
        return Start(prompted, noise, request)

    def _described(self, given: Given, request: Request, told: dict[str, Any]) -> tuple[Request, dict[str, Any]]:
        """Put the captioner's words in an empty prompt's place, and into the recipe."""
        if request.prompt.strip() or self.parts.captioner is None:
            return request, told
        words = self.caption(given).text
        return replace(request, revised_prompt=words), {**told, "caption": words}

    def _edited(
        self, given: Given, where: Mask | Extension, request: Request, hooks: Hooks, told: dict[str, Any]
    ) -> Iterator[Sample]:
        self._check_steps(request)
        self._edits.begin(given, where, request)  # refuses before anything is read
        request, told = self._described(given, request, told)
        return edited_samples(self._edits.begin(given, where, request), request, hooks, told)

    def _jobs(self, job: Job) -> Iterator[Sample]:
        for rows in job.batches():
            yield from self._draw(rows, job)

    @torch.no_grad()
    def _draw(self, rows: Sequence[Row], job: Job) -> Iterator[Sample]:
        """Draw one batch; its requests differ in prompt and seed only."""
        cascade, codec, watch = self.cascade, self.parts.codec, Stopwatch()
        revised = [job.revise(row.request) for row in rows]
        rows = [replace(row, request=one.request, told=one.told) for row, one in zip(rows, revised, strict=True)]
        if any(one.told for one in revised):
            watch.lap("rewriting")
        generators = [picture_generator(row.seed) for row in rows]
        start = job.begin(rows, generators, watch)
        due = preview_steps(start.request.previews, len(cascade.steps(start.request)))
        state = None
        for state in cascade.denoise(start.prompted, start.noise, generators, start.request):
            if state.step in due:
                watch.lap("denoiser")
                for row, shown in zip(rows, codec.decode(state.x0), strict=True):
                    yield _finished(job, state, row, shown, watch, True)
                watch.pause()
        assert state is not None
        watch.lap("denoiser")
        small = codec.decode(state.x_t)
        watch.lap("codec")
        pictures = cascade.enlarge(small, job.drawn, generators)
        if pictures is not small:
            watch.lap("upsampler")
        finish = partial(_finished, job, state)
        if job.plan is not None:

            def drawing(place: int) -> Draw:
                return self._edits.growing(start, place, generators[place])

            yield from self._making.samples(pictures, rows, job.plan, generators, watch, drawing=drawing, finish=finish)
            return
        for row, one in zip(rows, pictures, strict=True):
            yield finish(row, one, watch, False)


def _finished(
    job: Job, state: SamplerState, row: Row, values: Float[Tensor, "c h w"], watch: Stopwatch, is_preview: bool
) -> Sample:
    """Turn one picture, as it stands at a state of the denoiser, into a sample."""
    return job.finished(row, values.float().cpu().numpy(), watch, state.step, state.num_steps, is_preview=is_preview)
