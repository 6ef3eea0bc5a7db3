"""DALL·E 1, seen from the doors: one method a verb, each a stream of samples.

Every verb ends in the same walk, word by word in raster order.  What makes them different is what is known already:

    generate    nothing
    vary        the first rows of a picture; the rest is drawn anew, as in the paper's picture-to-picture examples
    edit        all words that no edited pixel touches, on whichever side they lie
    upscale     everything: the upsamplers alone

Other sizes than the native ones go on through `making`.

Source: arXiv:2102.12092, sections 2 and 3.3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from opendalle.base.errors import BadRequest
from opendalle.base.jobs import Row, Stopwatch, by_prompt, by_seed, preview_steps
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import DENOISING_FIELDS, Request
from opendalle.dalle1.drawing import candidate_generators, drawing, known_words
from opendalle.dalle1.edits import Edits
from opendalle.dalle1.parts import Dalle1Config, Dalle1Parts
from opendalle.dalle1.probes import Probes
from opendalle.dalle1.words import Words
from opendalle.editing import Box, Draw, Extension, Mask, SizePlan, mask_from_box, mask_to_text
from opendalle.editing.making import Making
from opendalle.editing.refusing import DrawsFromWords
from opendalle.editing.requested import AnyMask, edited_samples, mask_of
from opendalle.pictures import AnyPicture, Given, take
from opendalle.pictures.work import PictureJob, told_of
from opendalle.upsampling.cascade import resizing
from opendalle.upsampling.requested import upscaled_samples


@dataclass(frozen=True, kw_only=True)
class Job(PictureJob):
    """Pictures to draw, and the words that they share."""

    plan: SizePlan | None = None  # how the size is made; None: it is drawn natively
    known: Int[Tensor, "1 n"] | None = None  # words that stay; None: nothing is known
    is_scored: bool = False  # whether its samples tell what candidates are chosen by


class Dalle1(Probes, DrawsFromWords):
    """Meeting point 3 for DALL·E 1.

    Args:
        parts: the networks, in evaluation mode.
        config: how they draw.
        origin: what goes into every picture's recipe: the model's name and sha256.
        clip_sha256: of the folder that its CLIP came from.
    """

    name = "DALL·E 1"

    def __init__(
        self, parts: Dalle1Parts, config: Dalle1Config, origin: dict[str, str] | None = None, clip_sha256: str = ""
    ) -> None:
        self.parts, self.config, self.origin, self.clip_sha256 = parts, config, dict(origin or {}), clip_sha256
        self.words = Words(parts, config)

    @cached_property
    def _edits(self) -> Edits:
        return Edits(self.words)

    @cached_property
    def _making(self) -> Making:
        behind = self.words.stages[len(self.sizes) - 1 :]  # without those that lead to a native size
        return Making(self.sizes, [stage.factor for stage in behind], partial(resizing, behind))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the square pictures that it draws natively, smallest first."""
        return self.words.sizes

    def generate(self, prompt: str = "", *, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Draw pictures of one caption; stop iterating to cancel.

        Args:
            prompt: what to draw; empty is the unconditional model.
            hooks: guards.
            **asked: fields of `Request`; previews show the rows that are drawn so far.

        Raises:
            BadRequest: at once, before anything is drawn, when the request cannot be carried out.
        """
        if "embedding" in asked:
            raise BadRequest("an embedding for DALL·E 1", "a prompt: it knows no embeddings")
        request = Request.of(prompt, **asked)
        plan = self._check(request, hooks)
        job = Job(rows=by_seed(request), hooks=hooks or Hooks(), told=told_of(self.origin, "generate"), plan=plan)
        return self._jobs(job)

    def generate_many(self, prompts: Sequence[str], seeds: Sequence[int], **asked: Any) -> Iterator[Sample]:
        """Draw one picture of each caption, in batches; for evaluation and grids.

        Args:
            prompts: captions.
            seeds: one a caption.
            **asked: fields of `Request` without prompt, count and seed.

        Raises:
            BadRequest: at once, as `generate`; or when there is not one seed a caption.
        """
        rows = by_prompt(prompts, seeds, asked)
        plan = next((self._check(row.request) for row in rows), None)
        return self._jobs(Job(rows=rows, hooks=Hooks(), told=told_of(self.origin, "generate"), plan=plan))

    def generate_scored(self, prompts: Sequence[str], seeds: Sequence[int], **asked: Any) -> Iterator[Sample]:
        """Draw one picture of each caption, with the scores that candidates are chosen by: a probe for study.

        Args:
            prompts: captions.
            seeds: one a caption.
            **asked: fields of `Request` without prompt, count, seed and candidates.

        Raises:
            BadRequest: at once, as `generate_many`; or when the size is not native.
        """
        rows = by_prompt(prompts, seeds, {**asked, "candidates": 1})
        if next((self._check(row.request) for row in rows), None) is not None:
            raise BadRequest("scores of pictures of another size", f"a size of {self.sizes}, which are drawn natively")
        return self._jobs(Job(rows=rows, hooks=Hooks(), told=told_of(self.origin, "generate"), is_scored=True))

    def vary(
        self, picture: AnyPicture, prompt: str = "", *, hooks: Hooks | None = None, **asked: Any
    ) -> Iterator[Sample]:
        """Keep the first rows of a picture and draw the rest anew.

        Args:
            picture: of any size and shape.
            prompt: what the whole picture shows; may be empty.
            hooks: guards.
            **asked: fields of `Request`; eta is the share of words that is drawn anew: 0 rebuilds the picture, 1 keeps
                nothing of it; with `keep` all inside that box keeps its bytes, and all else is drawn anew.

        Raises:
            BadPicture: at once, when the picture cannot be read.
            BadRequest: at once, when the request cannot be carried out.
        """
        given, request = take(picture), Request.of(prompt, verb="vary", **asked)
        if request.keep:
            where = ~mask_from_box(Box.parse(request.keep), given.picture.size)
            return self._edited(given, where, request, hooks, told_of(self.origin, "vary", given))
        plan = self._check(request, hooks, can_grow=False)
        number = self.parts.transformer.config.num_cells
        share = self.config.vary_share if request.eta is None else request.eta
        with torch.no_grad():
            cells = torch.arange(number, device=self.words.device) < round((1 - share) * number)
            known = known_words(self.words.encode(self.words.as_codec_sees(given)), cells[None])
        job = Job(
            rows=by_seed(request),
            hooks=hooks or Hooks(),
            told=told_of(self.origin, "vary", given),
            known=known,
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
            prompt: what the whole picture shall show; may be empty.
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
        return self._edited(given, where, request, hooks, told)

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
        words, told = self.words, told_of(self.origin, "upscale", given)
        return upscaled_samples(given, request, words.stages, hooks or Hooks(), told, words.device)

    def _check(self, request: Request, hooks: Hooks | None = None, *, can_grow: bool = True) -> SizePlan | None:
        """Refuse what cannot be carried out; say how the size is made, None where it is drawn natively."""
        self._check_words(request, hooks)
        is_native = request.width == request.height and request.width in self.sizes
        return None if is_native else self._making.plan(request, can_grow=can_grow)

    def _check_words(self, request: Request, hooks: Hooks | None) -> None:
        """Refuse wishes that only a denoiser can heed."""
        request.refuse(DENOISING_FIELDS, self.name)
        request.refuse_unwritten(self.name)
        if hooks is not None and hooks.initial_noise is not None:
            raise BadRequest("initial noise for DALL·E 1", "guards alone: it draws words, not out of noise")
        self.words.rank_of(request)

    def _jobs(self, job: Job) -> Iterator[Sample]:
        for rows in job.batches():
            yield from self._draw(rows, job)

    @torch.no_grad()
    def _draw(self, rows: Sequence[Row], job: Job) -> Iterator[Sample]:
        """Draw all candidates of some pictures, keep the best of each; requests differ in prompt and seed only."""
        words, watch, request = self.words, Stopwatch(), rows[0].request
        config, count = self.parts.transformer.config, request.candidates or self.config.candidates
        generators = [one for row in rows for one in candidate_generators(row.seed, count)]
        prompts = [row.request.caption for row in rows for _ in range(count)]
        text = words.read(prompts)
        watch.lap("text")
        found = list[Tensor]()
        for some in torch.arange(len(prompts)).split(job.batch):
            first, end = int(some[0]), int(some[-1]) + 1
            known = None if job.known is None else job.known.expand(end - first, -1)
            wish = words.wish(request, prompts[first:end])
            tokens = text.new_zeros(end - first, 0)
            due = sorted(preview_steps(request.previews, config.grid_height))
            for state in drawing(self.parts.transformer, text[first:end], generators[first:end], wish, known):
                tokens, done = state.tokens, state.tokens.shape[1] // config.grid_width
                if due and done >= due[0] and tokens.shape[1] < config.num_cells:
                    due = [one for one in due if one > done]
                    watch.lap("transformer")
                    shown = [place for place in range(first, end) if place % count == 0]  # first candidates
                    pictures = words.half_drawn(tokens[[place - first for place in shown]])
                    for place, one in zip(shown, pictures, strict=True):
                        yield self._finished(job, tokens.shape[1], rows[place // count], one, watch, True)
                    watch.pause()
            found.append(tokens)
        watch.lap("transformer")
        tokens = torch.cat(found).unflatten(0, (len(rows), count))
        rank = words.rank_of(request)
        best = [words.best(rank, row.request.caption, one) for row, one in zip(rows, tokens, strict=True)]
        chosen = torch.stack([one[place] for one, place in zip(tokens, best, strict=True)])
        scores = words.scores(prompts, chosen) if job.is_scored else {}
        watch.lap("rank")
        pictures = words.decode(chosen)
        watch.lap("codec")
        side = min(job.drawn)
        if side > pictures.shape[-1]:
            pictures = words.upsample(pictures, side, generators[::count])
            watch.lap("upsampler")
        finish = partial(self._finished, job, config.num_cells)
        if job.plan is not None:

            def drawing_beside(place: int) -> Draw:
                return self._edits.drawing(rows[place].request, generators[place * count])

            yield from self._making.samples(
                pictures, rows, job.plan, generators[::count], watch, drawing=drawing_beside, finish=finish
            )
            return
        for place, (row, one) in enumerate(zip(rows, pictures, strict=True)):
            told = {name: float(some[place]) for name, some in scores.items()}
            yield replace(finish(row, one, watch, False), scores=told)

    def _finished(
        self, job: Job, step: int, row: Row, values: Float[Tensor, "c h w"], watch: Stopwatch, is_preview: bool
    ) -> Sample:
        """Turn one picture, as it stands when so many words are drawn, into a sample; guards see it when it is done."""
        num_steps = self.parts.transformer.config.num_cells
        return job.finished(row, values.float().cpu().numpy(), watch, step, num_steps, is_preview=is_preview)

    def _edited(
        self, given: Given, where: Mask | Extension, request: Request, hooks: Hooks | None, told: Mapping[str, Any]
    ) -> Iterator[Sample]:
        self._check_words(request, hooks)
        return edited_samples(self._edits.begin(given, where, request), request, hooks or Hooks(), told)
