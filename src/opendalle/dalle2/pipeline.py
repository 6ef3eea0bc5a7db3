"""DALL·E 2, seen from the doors: one method a verb, each a stream of samples.

Every verb ends in the same walk, from a latent (z_i, x_T) through decoder, codec and upsampler, and for other sizes on
through `making`.  What makes them different is where the latent comes from:

    generate    z_i from the prior, x_T from the picture's own chance
    vary        both from a picture; chance comes in on the way (eta), or in x_T (renew)
    blend       both from between several pictures
    morph       both from a picture; z_i is led along a difference of two texts
    ladder      both from a picture; z_i is rebuilt from few of its principal components
    edit        z_i from the prior; where the picture is known, so is the grid
    upscale     none: the upsamplers alone

Source: unCLIP, arXiv:2204.06125, sections 2, 3 and 6.
"""

from collections.abc import Iterator, Sequence
from functools import cache, cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from opendalle.base.axes import Embeddings, Pictures
from opendalle.base.errors import BadRequest
from opendalle.base.jobs import Row, Stopwatch, by_frame, by_prompt, by_seed, preview_steps
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import TOKEN_FIELDS, Request
from opendalle.base.rng import picture_generator
from opendalle.clip.embedded import Embedded
from opendalle.dalle2.cascade import Cascade
from opendalle.dalle2.changes import Changes
from opendalle.dalle2.edits import Edits
from opendalle.dalle2.jobs import Begin, Job, Start
from opendalle.dalle2.parts import Dalle2Config, Dalle2Parts, Latent
from opendalle.dalle2.probes import Probes
from opendalle.editing import Box, Draw, Extension, SizePlan, mask_from_box, mask_to_text
from opendalle.editing.making import Making
from opendalle.editing.requested import AnyMask, edited_samples, mask_of
from opendalle.pictures import AnyPicture, Given, PictureOrText, take, take_or_text
from opendalle.pictures.work import told_of
from opendalle.samplers.course import SamplerState
from opendalle.upsampling.cascade import resizing
from opendalle.upsampling.requested import upscaled_samples


class Dalle2(Probes):
    """Meeting point 3 for DALL·E 2; what studies ask besides is told in `probes`.

    Args:
        parts: the networks, in evaluation mode.
        config: settings of every stage.
        origin: what goes into every picture's recipe: the model's name and sha256.
        clip_sha256: of the folder that its CLIP came from; embeddings from files are checked against it.
    """

    def __init__(
        self, parts: Dalle2Parts, config: Dalle2Config, origin: dict[str, str] | None = None, clip_sha256: str = ""
    ) -> None:
        self.clip_sha256 = clip_sha256
        self.parts, self.config, self.origin = parts, config, dict(origin or {})
        self.cascade = Cascade(parts, config)

    @cached_property
    def _changes(self) -> Changes:
        return Changes(self.cascade)

    @cached_property
    def _edits(self) -> Edits:
        return Edits(self.cascade)

    @cached_property
    def _making(self) -> Making:
        behind = self.cascade.stages[len(self.sizes) - 1 :]  # without those that lead to a native size
        return Making(self.sizes, [stage.factor for stage in behind], partial(resizing, behind))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the square pictures that it draws natively, smallest first."""
        return self.cascade.sizes

    def generate(
        self,
        prompt: str = "",
        *,
        embedding: Embeddings | Embedded | None = None,
        hooks: Hooks | None = None,
        **asked: Any,
    ) -> Iterator[Sample]:
        """Draw pictures of one caption; stop iterating to cancel.

        Args:
            prompt: what to draw; empty is the unconditional model.
            embedding: a CLIP embedding to draw from instead of asking the prior, one row, from `embed` or a file.
            hooks: guards and initial noise.
            **asked: fields of `Request`.

        Raises:
            BadRequest: at once, before anything is drawn, when the request cannot be carried out.
        """
        request = Request.of(prompt, **asked)
        plan, told = self._check(request), told_of(self.origin, "generate")
        if isinstance(embedding, Embedded):
            if embedding.clip != self.clip_sha256:
                raise BadRequest(f"{embedding.name}, an embedding of another CLIP", "one that this model's CLIP made")
            told["inputs"], embedding = [embedding.record()], embedding.z
        width = self.parts.decoder.config.embedding_width
        if embedding is not None and request.prior is not None:
            raise BadRequest(f"an embedding and the prior {request.prior!r}", "one of them: both say what to draw")
        if embedding is not None and embedding.shape != (1, width):
            raise BadRequest(f"an embedding of shape {tuple(embedding.shape)}", f"one row of {width} numbers")
        hooks = hooks or Hooks()
        begin = self._drawing(hooks, embedding)
        return self._jobs(Job(rows=by_seed(request), begin=begin, hooks=hooks, told=told, plan=plan))

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
        begin, told = self._drawing(Hooks(), None), told_of(self.origin, "generate")
        return self._jobs(Job(rows=rows, begin=begin, hooks=Hooks(), told=told, plan=plan))

    def embed(self, what: PictureOrText | Pictures) -> Embeddings:
        """Return CLIP's embedding of a picture or a text, one row, as `generate` takes it.

        Args:
            what: a picture, or a text, as `pictures.take_or_text` tells them apart; or many pictures as the networks
                see them, at CLIP's size.

        Raises:
            BadPicture: when the picture cannot be read.
        """
        with torch.no_grad():
            if isinstance(what, Tensor):
                return self.cascade.embed(what)
            taken = take_or_text(what)
            if isinstance(taken, str):
                return self.cascade.pooled(self.cascade.read([taken]))
            return self.cascade.embed(self._changes.tensor(taken, self.parts.clip.config.size))

    def vary(
        self, picture: AnyPicture, prompt: str = "", *, hooks: Hooks | None = None, **asked: Any
    ) -> Iterator[Sample]:
        """Draw a picture anew: the same in meaning, other in what meaning does not fix.

        Args:
            picture: of any size and shape.
            prompt: what it shows, for the decoder to hold on to; may be empty.
            hooks: guards.
            **asked: fields of `Request`; eta is the strength: 0 rebuilds the picture, 1 wanders; with `keep` the
                picture keeps its size, and all inside that box its bytes.

        Raises:
            BadPicture: at once, when the picture cannot be read.
            BadRequest: at once, when the request cannot be carried out.
        """
        given, request = take(picture), Request.of(prompt, verb="vary", **asked)
        if request.keep:
            where = ~mask_from_box(Box.parse(request.keep), given.picture.size)
            self._check_steps(request)
            run = self._edits.begin(given, where, request, embedding=cache(lambda: self.embed(given)))
            return edited_samples(run, request, hooks or Hooks(), told_of(self.origin, "vary", given))
        return self._changed("vary", [given], request, by_seed(request), self._changes.variation(given, request), hooks)

    def blend(self, *sources: PictureOrText, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Draw what stands between pictures; `frames` of the way from the first to the last, or one by `weights`.

        Args:
            *sources: pictures and texts, two or more; a text stands for the picture that is drawn of it.
            hooks: guards.
            **asked: fields of `Request`.

        Raises:
            BadPicture: at once, when a picture cannot be read.
            BadRequest: at once, when the request cannot be carried out.
        """
        request = Request.of("", verb="blend", **asked)
        taken = [take_or_text(one) for one in sources]
        begin = self._changes.mixture(taken, request)
        return self._changed("blend", taken, request, by_frame(request, request.frames), begin, hooks)

    def morph(
        self,
        picture: AnyPicture,
        to_text: str = "",
        *,
        hooks: Hooks | None = None,
        **asked: Any,
    ) -> Iterator[Sample]:
        """Draw a picture as a text would have it: its embedding is led along the difference of two texts.

        Args:
            picture: of any size and shape.
            to_text: what it shall become.
            hooks: guards.
            **asked: fields of `Request`; from_text is what the picture shows now.

        Raises:
            BadPicture: at once, when the picture cannot be read.
            BadRequest: at once, when the request cannot be carried out.
        """
        given, request = take(picture), Request.of("", verb="morph", to_text=to_text, **asked)
        rows = by_frame(request, request.frames)
        return self._changed("morph", [given], request, rows, self._changes.morphing(given, request), hooks)

    def ladder(self, picture: AnyPicture, *, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Rebuild a picture from few and more principal components of its embedding: what CLIP knows of it, by weight.

        Args:
            picture: of any size and shape.
            hooks: guards.
            **asked: fields of `Request`.

        Raises:
            BadPicture: at once, when the picture cannot be read.
            BadRequest: at once, when the request cannot be carried out.
        """
        given, request = take(picture), Request.of("", verb="ladder", **asked)
        rows = by_frame(request, len(request.components))
        return self._changed("ladder", [given], request, rows, self._changes.rungs(given, request), hooks)

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
            prompt: what the whole picture shall show; empty: what it shows already.
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
        self._check_steps(request)
        shown = None if request.prompt else cache(lambda: self.embed(given))
        run = self._edits.begin(given, where, request, embedding=shown)
        return edited_samples(run, request, hooks or Hooks(), told)

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
        is_native = request.width == request.height and request.width in self.sizes
        return None if is_native else self._making.plan(request, can_grow=can_grow)

    def _check_steps(self, request: Request) -> None:
        request.refuse(TOKEN_FIELDS, "DALL·E 2")
        request.refuse_unwritten("DALL·E 2")
        self.config.decoder.refuse_untaught(request.steps, request.guidance, request.sampler)
        known = self.config.prior.num_train_steps
        if request.prior_steps is not None and request.prior_steps > known:
            raise BadRequest(f"prior_steps is {request.prior_steps}", f"at most {known}, as many as were trained")
        self.cascade.prior_of(request)

    def _drawing(self, hooks: Hooks, embedding: Embeddings | None) -> Begin:
        """Begin from captions: the prior imagines, or an embedding is given."""
        cascade = self.cascade

        def begin(rows: Sequence[Row], generators: Sequence[Generator], watch: Stopwatch) -> Start:
            prompted, request = cascade.read([row.request.caption for row in rows]), rows[0].request
            watch.lap("text")
            if embedding is None:
                empty = cascade.nothing(len(rows))
                z, doubt = cascade.imagine(prompted, empty, generators, request), self.config.doubt
            else:
                z, doubt = embedding.to(cascade.device).expand(len(rows), -1), 0.0
            watch.lap("prior")
            noise = None if hooks.initial_noise is None else hooks.initial_noise(generators, cascade.grid_shape)
            return Start(Latent(z, noise, doubt), prompted, request)

        return begin

    def _changed(
        self,
        verb: str,
        sources: Sequence[Given | str],
        request: Request,
        rows: Sequence[Row],
        begin: Begin,
        hooks: Hooks | None,
    ) -> Iterator[Sample]:
        plan = self._check(request, can_grow=False)
        pictures = [one for one in sources if isinstance(one, Given)]
        shape = pictures[0].picture.size if len(sources) == len(pictures) == 1 else None
        is_clear = all(one.is_clear for one in pictures) if pictures else None
        job = Job(
            rows=rows,
            begin=begin,
            hooks=hooks or Hooks(),
            told=told_of(self.origin, verb, *sources),
            shape=shape,
            is_clear=is_clear,
            plan=plan,
        )
        return self._jobs(job)

    def _jobs(self, job: Job) -> Iterator[Sample]:
        for rows in job.batches():
            yield from self._draw(rows, job)

    @torch.no_grad()
    def _draw(self, rows: Sequence[Row], job: Job) -> Iterator[Sample]:
        """Draw one batch; its requests differ in prompt and seed only."""
        cascade, watch = self.cascade, Stopwatch()
        generators = [picture_generator(row.seed) for row in rows]
        start = job.begin(rows, generators, watch)
        request = start.request
        empty = cascade.nothing(len(rows))
        due = preview_steps(request.previews, len(cascade.grid("decoder", request.steps)))
        state = None
        for state in cascade.denoise(start.latent, start.prompted, empty, generators, request):
            if state.step in due:
                watch.lap("decoder")
                for row, shown in zip(rows, self.parts.codec.decode(state.x0), strict=True):
                    yield _finished(job, state, row, shown, watch, True)
                watch.pause()
        assert state is not None
        watch.lap("decoder")
        pictures = self.parts.codec.decode(state.x_t)
        watch.lap("codec")
        if min(job.drawn) > pictures.shape[-1]:
            pictures = cascade.upsample(pictures, generators)
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
    """Turn one picture, as it stands at a state of the decoder, into a sample."""
    return job.finished(row, values.float().cpu().numpy(), watch, state.step, state.num_steps, is_preview=is_preview)
