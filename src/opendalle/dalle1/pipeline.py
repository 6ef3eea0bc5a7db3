"""DALL·E 1, seen from the doors: one method a verb, each a stream of samples.

Every verb ends in the same walk, word by word in raster order.  What makes them different is what is known already:

    generate    nothing
    vary        the first rows of a picture; the rest is drawn anew, as in the paper's picture-to-picture examples
    edit        all words that no edited pixel touches, on whichever side they lie
    upscale     everything: the upsampler alone

Source: arXiv:2102.12092, sections 2 and 3.3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import torch
from jaxtyping import Int
from PIL import Image
from torch import Generator, Tensor

from opendalle.base.axes import Pictures
from opendalle.base.errors import BadRequest
from opendalle.base.jobs import Row, Stopwatch, by_prompt, by_seed, preview_steps, sample_of
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import DENOISING_FIELDS, Request
from opendalle.dalle1.drawing import candidate_generators, drawing, fit_of_known, known_words, log_likelihood
from opendalle.dalle1.parts import Dalle1Config, Dalle1Parts
from opendalle.dalle1.probes import Probes
from opendalle.dalle1.words import Words
from opendalle.editing import Box, Draw, Extension, Framing, Mask, cells_of, mask_to_text
from opendalle.editing.masks import mask_from_box
from opendalle.editing.requested import AnyMask, edit_once, edited_samples, mask_of
from opendalle.pictures import (
    AnyPicture,
    Given,
    PictureOrText,
    composite,
    from_array,
    resize,
    take,
    to_array,
)
from opendalle.pictures.finishing import finished
from opendalle.upsampling.requested import upscaled_samples


@dataclass(frozen=True)
class Job:
    """Pictures to draw, and what all of them share."""

    rows: Sequence[Row]
    hooks: Hooks
    told: Mapping[str, Any]  # of the recipe: model, verb and inputs
    known: Int[Tensor, "1 n"] | None = None  # words that stay; None: nothing is known
    shape: tuple[int, int] | None = None  # width and height of the one picture that was handed in
    is_clear: bool | None = None  # whether what was handed in is transparent somewhere; None: nothing was
    is_scored: bool = False  # whether its samples tell what candidates are chosen by


class Dalle1(Probes):
    """Meeting point 3 for DALL·E 1.

    Args:
        parts: the networks, in evaluation mode.
        config: how they draw.
        origin: what goes into every picture's recipe: the model's name and sha256.
        clip_sha256: of the folder that its CLIP came from.
    """

    def __init__(
        self, parts: Dalle1Parts, config: Dalle1Config, origin: dict[str, str] | None = None, clip_sha256: str = ""
    ) -> None:
        self.parts, self.config, self.origin, self.clip_sha256 = parts, config, dict(origin or {}), clip_sha256
        self.words = Words(parts, config)

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
        self._check(request, hooks)
        return self._jobs(Job(by_seed(request), hooks or Hooks(), self._told("generate")))

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
        for row in rows[:1]:
            self._check(row.request)
        return self._jobs(Job(rows, Hooks(), self._told("generate")))

    def generate_scored(self, prompts: Sequence[str], seeds: Sequence[int], **asked: Any) -> Iterator[Sample]:
        """Draw one picture of each caption, with the scores that candidates are chosen by: a probe for study.

        Args:
            prompts: captions.
            seeds: one a caption.
            **asked: fields of `Request` without prompt, count, seed and candidates.

        Raises:
            BadRequest: at once, as `generate_many`.
        """
        rows = by_prompt(prompts, seeds, {**asked, "candidates": 1})
        for row in rows[:1]:
            self._check(row.request)
        return self._jobs(Job(rows, Hooks(), self._told("generate"), is_scored=True))

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
            return self._edited(given, where, request, hooks, self._told("vary", given))
        self._check(request, hooks)
        number = self.parts.transformer.config.num_cells
        share = self.config.vary_share if request.eta is None else request.eta
        with torch.no_grad():
            cells = torch.arange(number, device=self.words.device) < round((1 - share) * number)
            known = known_words(self.words.encode(self.words.as_codec_sees(given)), cells[None])
        told, shape = self._told("vary", given), given.picture.size
        return self._jobs(Job(by_seed(request), hooks or Hooks(), told, known, shape, given.is_clear))

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
        told = self._told("edit", given)
        if mask is not None and not isinstance(where, Extension):
            told["mask"] = mask_to_text(where)
        return self._edited(given, where, request, hooks, told)

    def upscale(self, picture: AnyPicture, *, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Enlarge a picture with the upsampler, window by window.

        Args:
            picture: of any size and shape; one with transparency keeps it.
            hooks: guards.
            **asked: fields of `Request`; scale says how many times.

        Raises:
            BadPicture: at once, when the picture cannot be read.
            BadRequest: at once, when the model has no upsampler, or the result would be too large.
        """
        given, request = take(picture), Request.of("", verb="upscale", **asked)
        words, told = self.words, self._told("upscale", given)
        return upscaled_samples(given, request, words.stages, hooks or Hooks(), told, words.device)

    def blend(self, *sources: PictureOrText, **asked: Any) -> NoReturn:
        """Refuse: there is no space of meanings between two sentences of words."""
        _refuse("blend")

    def morph(self, picture: AnyPicture, to_text: str = "", **asked: Any) -> NoReturn:
        """Refuse: as `blend`."""
        _refuse("morph")

    def ladder(self, picture: AnyPicture, **asked: Any) -> NoReturn:
        """Refuse: as `blend`."""
        _refuse("ladder")

    def _check(self, request: Request, hooks: Hooks | None = None) -> None:
        if request.width != request.height or request.width not in self.sizes:
            known = ", ".join(str(side) for side in self.sizes)
            raise BadRequest(f"size {request.width}x{request.height}", f"a square of side {known}")
        self._check_words(request, hooks)

    def _check_words(self, request: Request, hooks: Hooks | None) -> None:
        """Refuse wishes that only a denoiser can heed."""
        request.refuse(DENOISING_FIELDS, "DALL·E 1")
        if hooks is not None and hooks.initial_noise is not None:
            raise BadRequest("initial noise for DALL·E 1", "guards alone: it draws words, not out of noise")
        self.words.rank_of(request)

    def _told(self, verb: str, *inputs: Given) -> dict[str, Any]:
        """What a recipe tells of every picture of a command: the model, the verb, and what was handed in."""
        return {**self.origin, "verb": verb} | ({"inputs": [one.record() for one in inputs]} if inputs else {})

    def _jobs(self, job: Job) -> Iterator[Sample]:
        if not job.rows:
            return
        request = job.rows[0].request
        batch = 1 if request.exact else request.batch
        for first in range(0, len(job.rows), batch):
            yield from self._draw(job.rows[first : first + batch], job, batch)

    @torch.no_grad()
    def _draw(self, rows: Sequence[Row], job: Job, batch: int) -> Iterator[Sample]:
        """Draw all candidates of some pictures, keep the best of each; requests differ in prompt and seed only."""
        words, watch, request = self.words, Stopwatch(), rows[0].request
        config, count = self.parts.transformer.config, request.candidates or self.config.candidates
        generators = [one for row in rows for one in candidate_generators(row.seed, count)]
        prompts = [row.request.prompt for row in rows for _ in range(count)]
        text = words.read(prompts)
        watch.lap("text")
        found = list[Tensor]()
        for some in torch.arange(len(prompts)).split(batch):
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
                    yield from self._samples([rows[place // count] for place in shown], pictures, job, watch, tokens)
                    watch.pause()
            found.append(tokens)
        watch.lap("transformer")
        tokens = torch.cat(found).unflatten(0, (len(rows), count))
        rank = words.rank_of(request)
        best = [words.best(rank, row.request.prompt, one) for row, one in zip(rows, tokens, strict=True)]
        chosen = torch.stack([one[place] for one, place in zip(tokens, best, strict=True)])
        scores = words.scores(prompts, chosen) if job.is_scored else {}
        watch.lap("rank")
        pictures = words.decode(chosen)
        watch.lap("codec")
        if request.width > pictures.shape[-1]:
            pictures = words.upsample(pictures, request.width, generators[::count])
            watch.lap("upsampler")
        for place, sample in enumerate(self._samples(rows, pictures, job, watch, chosen)):
            job.hooks.check(sample)
            yield replace(sample, scores={name: float(some[place]) for name, some in scores.items()})

    def _samples(
        self, rows: Sequence[Row], pictures: Pictures, job: Job, watch: Stopwatch, tokens: Tensor
    ) -> Iterator[Sample]:
        """Turn a batch of tensors into samples."""
        step, num_steps = tokens.shape[1], self.parts.transformer.config.num_cells
        for row, one in zip(rows, pictures, strict=True):
            picture = finished(one.float().cpu().numpy(), row.request, shape=job.shape, is_clear=job.is_clear)
            yield sample_of(row, picture, job.told, watch, step, num_steps, is_preview=step < num_steps)

    def _edited(
        self, given: Given, where: Mask | Extension, request: Request, hooks: Hooks | None, told: Mapping[str, Any]
    ) -> Iterator[Sample]:
        self._check_words(request, hooks)
        framing = Framing(context=request.context)
        run = edit_once(given, where, partial(self._drawing_frames, request), self.sizes[-1], framing)
        return edited_samples(run, request, hooks or Hooks(), told)

    def _drawing_frames(self, request: Request, generator: Generator) -> Draw:
        """Draw frames of one picture, each several times; kept is the one that what is known goes on from best."""
        words, codec = self.words, self.parts.codec
        count = request.candidates or self.config.edit_candidates

        @torch.no_grad()
        def draw(picture: Image.Image, mask: Mask) -> Image.Image:
            seed = int(torch.randint(2**62, (), generator=generator))
            small = resize(picture, codec.picture_size, codec.picture_size)
            if codec.picture_channels == 3:
                small = composite(small)
            cells = torch.from_numpy(~cells_of(mask, len(mask) * codec.factor // codec.picture_size))
            seen = words.encode(torch.from_numpy(to_array(small))[None])
            known = known_words(seen, cells.flatten()[None].to(words.device)).expand(count, -1)
            text, wish = words.read([request.prompt] * count), words.wish(request, [request.prompt] * count)
            states = drawing(self.parts.transformer, text, candidate_generators(seed, count), wish, known)
            tokens = list(states)[-1].tokens
            if count > 1:
                fit = fit_of_known(log_likelihood(self.parts.transformer, text, tokens), known)
                tokens = tokens[int(fit.argmax())][None]
            drawn = words.upsample(words.decode(tokens[:1]), len(mask), [generator])
            return from_array(drawn[0].float().cpu().numpy())

        return draw


def _refuse(verb: str) -> NoReturn:
    todo = "DALL·E 2 can: its pictures have a space of meanings between them."
    raise BadRequest(f"{verb} with DALL·E 1", "generate, vary, edit or upscale", todo)
