"""DALL·E 2 from a sentence to a picture, in the order in which it happens.

    caption --CLIP text tower--> z_t and token states
            --prior-->           z_i, the CLIP embedding that a picture of it could have (best of a few)
            --decoder-->         a grid, denoised step by step under guidance
            --codec-->           a small picture (the paper's codec is the identity)
            --upsampler-->       a large one

Source: unCLIP, arXiv:2204.06125, section 2.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from opendalle.base.axes import Embeddings, Grid, Mask, Pictures
from opendalle.base.errors import BadRequest
from opendalle.base.protocols import Hooks
from opendalle.base.records import Sample
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.clip.model import CLIP, TextEncoding
from opendalle.codec.protocol import Codec
from opendalle.dalle2.decoder import Decoder
from opendalle.dalle2.means import Guess, Sketch
from opendalle.dalle2.priors.diffusion import DiffusionPrior
from opendalle.dalle2.settings import Dalle2Config, StageSettings
from opendalle.pictures import composite, from_array
from opendalle.samplers.course import SamplerOptions, SamplerState
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.sample import last_state, sample
from opendalle.tokenizers.bpe import BytePairTokenizer
from opendalle.upsampling.network import Upsampler

TRANSPARENT_WORDS = ("sticker", "transparent", "贴纸", "透明")  # a prompt that asks for no background


@dataclass(frozen=True, kw_only=True)
class Dalle2Parts:
    """The networks of a DALL·E 2."""

    tokenizer: BytePairTokenizer
    clip: CLIP
    prior: DiffusionPrior
    decoder: Decoder
    codec: Codec
    guess: Guess | None = None  # for a prior that takes its embeddings
    sketch: Sketch | None = None  # for a decoder that takes its grids
    upsampler: Upsampler | None = None


@dataclass(frozen=True)
class Prompted:
    """Captions as all networks read them, one row a picture."""

    text: TextEncoding
    mask: Mask
    is_empty: Bool[Tensor, " b"]  # the unconditional model: guidance has nothing to push towards

    def rows(self, index: Tensor) -> "Prompted":
        """Keep or repeat some rows."""
        text = TextEncoding(**{name: one[index] for name, one in vars(self.text).items()})
        return Prompted(text, self.mask[index], self.is_empty[index])


@dataclass
class Stopwatch:
    """Seconds of each stage of one batch."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now


class Dalle2:
    """Meeting point 3 for DALL·E 2.

    Args:
        parts: the networks, in evaluation mode.
        config: settings of every stage.
        origin: what goes into every picture's recipe: the model's name and sha256.
    """

    def __init__(self, parts: Dalle2Parts, config: Dalle2Config, origin: dict[str, str] | None = None) -> None:
        self.parts, self.config, self.origin = parts, config, dict(origin or {})
        self.device = parts.prior.query.device
        self._schedules = {
            name: stage.make_schedule()
            for name in ("prior", "decoder", "upsampler")
            if (stage := getattr(config, name))
        }

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the square pictures that it draws natively, smallest first."""
        side, upsampler = self.parts.codec.picture_size, self.parts.upsampler
        return (side,) if upsampler is None else (side, side * upsampler.config.factor)

    def generate(self, prompt: str = "", *, hooks: Hooks | None = None, **asked: Any) -> Iterator[Sample]:
        """Draw pictures of one caption; stop iterating to cancel.

        Args:
            prompt: what to draw; empty is the unconditional model.
            hooks: guards and initial noise.
            **asked: fields of `Request`.

        Raises:
            BadRequest: at once, before anything is drawn, when the request cannot be carried out.
        """
        request = Request.of(prompt, **asked)
        self._check(request)
        return self._generate(request, hooks or Hooks())

    def generate_many(self, prompts: Sequence[str], seeds: Sequence[int], **asked: Any) -> Iterator[Sample]:
        """Draw one picture of each caption, in batches; for evaluation and grids.

        Args:
            prompts: captions.
            seeds: one a caption.
            **asked: fields of `Request` without prompt, count and seed.

        Raises:
            BadRequest: at once, as `generate`; or when there is not one seed a caption.
        """
        if len(prompts) != len(seeds) or asked.get("count", 1) != 1:
            came = f"{len(prompts)} prompts, {len(seeds)} seeds, count {asked.get('count', 1)}"
            raise BadRequest(came, "one seed a prompt, and one picture of each")
        requests = [Request.of(p, seed=s, **asked) for p, s in zip(prompts, seeds, strict=True)]
        for request in requests[:1]:
            self._check(request)
        return self._generate_many(requests)

    def _check(self, request: Request) -> None:
        if request.width != request.height or request.width not in self.sizes:
            known = ", ".join(str(side) for side in self.sizes)
            raise BadRequest(f"size {request.width}x{request.height}", f"a square of side {known}")
        for name, stage in (("steps", self.config.decoder), ("prior_steps", self.config.prior)):
            asked = getattr(request, name)
            if asked is not None and asked > stage.num_train_steps:
                raise BadRequest(f"{name} is {asked}", f"at most {stage.num_train_steps}, as many as were trained")

    def _generate(self, request: Request, hooks: Hooks) -> Iterator[Sample]:
        batch = 1 if request.exact else request.batch
        for first in range(0, request.count, batch):
            indices = range(first, min(first + batch, request.count))
            yield from self._draw([request] * len(indices), list(indices), hooks)

    def _generate_many(self, requests: Sequence[Request]) -> Iterator[Sample]:
        batch = requests[0].batch if requests and not requests[0].exact else 1
        for first in range(0, len(requests), batch):
            rows = requests[first : first + batch]
            yield from self._draw(rows, [0] * len(rows), Hooks())

    @torch.no_grad()
    def _draw(self, requests: Sequence[Request], indices: Sequence[int], hooks: Hooks) -> Iterator[Sample]:
        """Draw one batch; its requests differ in prompt and seed only."""
        request, watch = requests[0], Stopwatch()
        generators = [picture_generator(one.seed + k) for one, k in zip(requests, indices, strict=True)]
        prompted, empty = self.read([one.prompt for one in requests]), self.read([""] * len(requests))
        watch.lap("text")
        z = self.imagine(prompted, empty, generators, request)
        watch.lap("prior")
        finish = self._finisher(requests, indices, watch)
        due = preview_steps(request.previews, len(self._grid("decoder", request.steps)))
        state = None
        for state in self.denoise(z, prompted, empty, generators, request, hooks):
            if state.step in due:
                watch.lap("decoder")
                yield from finish(self._small(state.x0), state, True)
                watch.last = time.perf_counter()  # what the caller does with a preview is not ours
        assert state is not None
        watch.lap("decoder")
        pictures = self._small(state.x_t)
        watch.lap("codec")
        if request.width > pictures.shape[-1]:
            pictures = self.upsample(pictures, generators)
            watch.lap("upsampler")
        for done in finish(pictures, state, False):
            for guard in hooks.guards:
                guard(done)
            yield done

    def read(self, prompts: Sequence[str]) -> Prompted:
        """Read captions with CLIP's text tower; each distinct one is read once.

        Args:
            prompts: captions; the empty one is what guidance pushes away from.
        """
        distinct = list(dict.fromkeys(prompts))
        packed = self.parts.tokenizer.pack(distinct, self.parts.clip.config.context)
        mask = torch.from_numpy(packed.mask).to(self.device)
        text = self.parts.clip.encode_text(torch.from_numpy(packed.ids).to(self.device), mask)
        rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self.device)
        is_empty = torch.tensor([prompt == "" for prompt in distinct], device=self.device)
        return Prompted(text, mask, is_empty).rows(rows)

    def imagine(
        self, prompted: Prompted, empty: Prompted, generators: Sequence[Generator], request: Request
    ) -> Embeddings:
        """Draw picture embeddings with the prior and keep, for each picture, the one nearest to its caption.

        Args:
            prompted: the captions.
            empty: the empty caption, as many rows.
            generators: one a picture.
            request: steps, guidance and candidates.

        Source: section 2.2: two samples, the better dot product with z_t is kept.
        """
        settings, prior = self.config.prior, self.parts.prior
        candidates = request.candidates or self.config.candidates
        rows = torch.arange(len(generators), device=self.device).repeat_interleave(candidates)
        width = prior.config.embedding_width
        noise = normal_like_rows(generators, (candidates, width), self.device).flatten(0, 1)
        denoise = GuidedDenoise(
            prior.step,
            {"conditioning": prior.condition(*self._prior_inputs(prompted.rows(rows)))},
            {"conditioning": prior.condition(*self._prior_inputs(empty.rows(rows)))},
            schedule=self._schedules["prior"],
            prediction=settings.prediction,
            scale=settings.guidance if request.prior_guidance is None else request.prior_guidance,
            clip=None if settings.clip is None else (-settings.clip, settings.clip),
        )
        repeated = [generator for generator in generators for _ in range(candidates)]
        drawn = self._sample("prior", denoise, noise, repeated, request.prior_steps, settings.sampler, 0.0)
        z = prior.denormalise(last_state(drawn).x_t)
        if self.config.unit_embeddings:
            z = torch.nn.functional.normalize(z, dim=-1)
        z = rearrange(z, "(b k) e -> b k e", k=candidates)
        nearness = torch.einsum("b k e, b e -> b k", z, self._pooled(prompted))
        return z[torch.arange(len(z), device=self.device), nearness.argmax(dim=1)]

    def denoise(
        self,
        z: Embeddings,
        prompted: Prompted,
        empty: Prompted,
        generators: Sequence[Generator],
        request: Request,
        hooks: Hooks | None = None,
    ) -> Iterator[SamplerState]:
        """Denoise a grid under guidance with the decoder.

        Args:
            z: picture embeddings, from `imagine` or from CLIP.
            prompted: the captions.
            empty: the empty caption, as many rows.
            generators: one a picture.
            request: steps, guidance, sampler and its knobs.
            hooks: initial noise.
        """
        settings, decoder, codec = self.config.decoder, self.parts.decoder, self.parts.codec
        side = codec.picture_size // codec.factor
        shape = (codec.grid_channels, side, side)
        make_noise = (hooks.initial_noise if hooks else None) or normal_like_rows
        null = torch.zeros(len(z), dtype=torch.bool, device=self.device)
        scale = settings.guidance if request.guidance is None else request.guidance
        if bool(prompted.is_empty.any()):
            scale = torch.where(prompted.is_empty, torch.ones_like(z[:, 0]), scale)
        sketch = self.parts.sketch and self.parts.sketch(z, prompted.text.words, prompted.mask, self.config.doubt)
        with_prompt, without = (
            decoder.condition(z, self._pooled(said), said.text.states, said.mask, has_embedding=has, sketch=sketch)
            for said, has in ((prompted, None), (empty, null))
        )
        denoise = GuidedDenoise(
            decoder,
            *({"conditioning": one} for one in (with_prompt, without)),
            schedule=self._schedules["decoder"],
            prediction=settings.prediction,
            scale=scale,
            rescale=request.rescale,
            threshold=request.threshold,
            clip=None if settings.clip is None else (-settings.clip, settings.clip),
            learned_variance=decoder.config.learns_variance,
            grid=self._grid("decoder", request.steps),
        )
        noise = make_noise(generators, shape).to(self.device)
        sampler = request.sampler or settings.sampler
        return self._sample("decoder", denoise, noise, generators, request.steps, sampler, request.eta)

    def upsample(self, small: Pictures, generators: Sequence[Generator]) -> Float[Tensor, "b c h2 w2"]:
        """Enlarge pictures in [-1, 1] with the upsampler.

        Args:
            small: pictures as the codec draws them.
            generators: one a picture.
        """
        upsampler, settings = self.parts.upsampler, self.config.upsampler
        assert upsampler is not None
        assert settings is not None
        enlarged = upsampler.condition(small)
        denoise = GuidedDenoise(
            upsampler,
            {"enlarged": enlarged},
            schedule=self._schedules["upsampler"],
            prediction=settings.prediction,
            clip=None if settings.clip is None else (-settings.clip, settings.clip),
            consistent_eps=True,
        )
        noise = normal_like_rows(generators, enlarged.shape[1:], self.device)
        drawn = self._sample("upsampler", denoise, noise, generators, None, settings.sampler, 0.0)
        return last_state(drawn).x_t.clamp(-1, 1)

    def _sample(
        self,
        stage: str,
        denoise: GuidedDenoise,
        noise: Float[Tensor, "b *d"],
        generators: Sequence[Generator],
        steps: int | None,
        sampler: str,
        eta: float,
    ) -> Iterator[SamplerState]:
        settings: StageSettings = getattr(self.config, stage)
        power = tuple(settings.noise_power) or None
        options = SamplerOptions(eta=eta, variance=settings.variance, noise_power=power)
        return sample(
            denoise,
            noise,
            self._grid(stage, steps),
            schedule=self._schedules[stage],
            sampler=sampler,
            options=options,
            generators=generators,
        )

    def _grid(self, stage: str, steps: int | None) -> tuple[int, ...]:
        settings: StageSettings = getattr(self.config, stage)
        return settings.grid(self._schedules[stage], steps)

    def _pooled(self, prompted: Prompted) -> Embeddings:
        return prompted.text.pooled if self.config.unit_embeddings else prompted.text.raw

    def _prior_inputs(self, prompted: Prompted) -> tuple[Embeddings, Tensor, Mask, Embeddings | None]:
        pooled, guess = self._pooled(prompted), self.parts.guess
        return pooled, prompted.text.states, prompted.mask, None if guess is None else guess(pooled)

    def _small(self, grid: Grid) -> Float[Tensor, "b p h2 w2"]:
        return self.parts.codec.decode(grid)

    def _finisher(
        self, requests: Sequence[Request], indices: Sequence[int], watch: Stopwatch
    ) -> Callable[[Pictures, SamplerState, bool], Iterator[Sample]]:
        """Return what turns a batch of tensors into samples."""

        def finish(pictures: Pictures, state: SamplerState, is_preview: bool) -> Iterator[Sample]:
            for request, index, one in zip(requests, indices, pictures, strict=True):
                picture = from_array(one.float().cpu().numpy())
                if not keeps_transparency(request):
                    picture = composite(picture)
                seed = request.seed + index
                recipe = {**self.origin, "request": asdict(request), "index": index, "seed": seed}
                yield Sample(
                    picture=picture,
                    request=request,
                    index=index,
                    seed=seed,
                    step=state.step,
                    num_steps=state.num_steps,
                    is_preview=is_preview,
                    recipe=recipe,
                    seconds=dict(watch.seconds),
                )

        return finish


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
