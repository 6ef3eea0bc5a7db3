"""The networks of a DALL·E 2 and what each of them does, one step of the way after the other.

    caption --CLIP text tower--> z_t and token states
            --prior-->           z_i, the CLIP embedding that a picture of it could have (best of a few)
            --decoder-->         a grid, denoised step by step under guidance
            --codec-->           a small picture (the paper's codec is the identity)
            --upsampler-->       a larger one
    --upscaler-->        a large one, where that is asked for

and back: a picture --CLIP picture tower--> z_i; --codec, inverted decoder--> x_T.

Source: unCLIP, arXiv:2204.06125, sections 2 and 3.
"""

from collections import ChainMap
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from opendalle.base.axes import Embeddings, Grid, Pictures
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows
from opendalle.dalle2.known import known_channels
from opendalle.dalle2.parts import Dalle2Config, Dalle2Parts, Latent, Prompted
from opendalle.dalle2.priors.diffusion import DiffusionDraws
from opendalle.dalle2.priors.protocol import Prior, Said, chosen_prior, draw_nearest
from opendalle.dalle2.priors.untrained import CaptionOnly, TextAsPicture
from opendalle.nn.whitening import Whitening
from opendalle.samplers.course import SamplerOptions, SamplerState
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.invert import invert
from opendalle.samplers.repaint import RepaintOptions, repaint
from opendalle.samplers.sample import last_state, sample
from opendalle.samplers.settings import StageSettings
from opendalle.upsampling.cascade import UpsamplerStage
from opendalle.upsampling.network import native_sides
from opendalle.upsampling.settings import chained

OWN_PRIOR = "diffusion"  # the one that lies in the model's own folder
ENLARGING = ("upsampler", "upscaler")  # the networks that make pictures larger, in order
RESAMPLINGS = 5  # of each stretch, where the decoder was not trained to fill holes


class Cascade:
    """The networks, each with its schedule and settings.

    Args:
        parts: the networks, in evaluation mode.
        config: settings of every stage.
    """

    def __init__(self, parts: Dalle2Parts, config: Dalle2Config) -> None:
        self.parts, self.config = parts, config
        self.device = parts.prior.query.device
        own: dict[str, Prior] = {
            OWN_PRIOR: DiffusionDraws(parts.prior, config.prior, parts.guess),
            "none": TextAsPicture(),
            "caption": CaptionOnly(),
        }
        self.priors = ChainMap(own, cast(MutableMapping[str, Prior], parts.priors))  # only looked up: loads no other
        self._schedules = {
            name: stage.make_schedule()
            for name in ("decoder", "upsampler")  # the prior keeps its own
            if (stage := getattr(config, name))
        }

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the square pictures that it draws natively, smallest first."""
        return native_sides(self.parts.codec.picture_size, self.parts.upsampler)

    @property
    def stages(self) -> tuple[UpsamplerStage, ...]:
        """The upsamplers, each with how it was trained and how it is sampled, from the smallest pictures on."""
        links = ((getattr(self.parts, name), getattr(self.config, name)) for name in ENLARGING)
        return chained(self.parts.codec.picture_size, *links)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the grid that is denoised."""
        codec = self.parts.codec
        side = codec.picture_size // codec.factor
        return codec.grid_channels, side, side

    @property
    def whitening(self) -> Whitening | None:
        """Mean and principal axes of picture embeddings, where a network of the model keeps them."""
        means = (
            self.parts.guess and self.parts.guess.whitening,
            self.parts.sketch and self.parts.sketch.mean.whitening,
        )
        return next((one for one in means if one is not None), None)

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

    def nothing(self, count: int) -> Prompted:
        """Return the empty caption, which is read once for all pictures.

        Args:
            count: rows wanted.
        """
        return self._nothing.rows(torch.zeros(count, dtype=torch.long, device=self.device))

    @cached_property
    @torch.no_grad()
    def _nothing(self) -> Prompted:
        return self.read([""])

    def imagine(
        self, prompted: Prompted, empty: Prompted, generators: Sequence[Generator], request: Request
    ) -> Embeddings | None:
        """Draw picture embeddings with a prior and keep, for each picture, the one nearest to its caption.

        Args:
            prompted: the captions.
            empty: the empty caption, as many rows.
            generators: one a picture.
            request: which prior, its steps, guidance and candidates.

        Returns:
            One embedding a row; None: the decoder is to draw from the captions alone.

        Source: section 2.2: two samples, the better dot product with z_t is kept.
        """
        return draw_nearest(
            self.prior_of(request),
            self._said(prompted),
            self._said(empty),
            generators,
            candidates=request.candidates or self.config.candidates,
            steps=request.prior_steps,
            guidance=request.prior_guidance,
            is_unit=self.config.unit_embeddings,
        )

    def prior_of(self, request: Request) -> Prior:
        """Return the prior that is asked for, the model's own unless a name is given.

        Args:
            request: prior, and the wishes that it must heed.

        Raises:
            BadRequest: when the model has none of that name, or it would ignore a wish.
        """
        wishes = {"steps": request.prior_steps, "guidance": request.prior_guidance, "candidates": request.candidates}
        return chosen_prior(self.priors, request.prior or OWN_PRIOR, **wishes)

    def denoiser(
        self,
        z: Embeddings | None,
        prompted: Prompted,
        empty: Prompted,
        request: Request,
        *,
        doubt: float,
        clips: bool = True,
        known: Float[Tensor, "b c1 h w"] | None = None,
    ) -> GuidedDenoise:
        """Put embedding, caption, guidance and decoder together into what a sampler can ask.

        Args:
            z: picture embeddings, from `imagine` or from CLIP; None: the decoder's null embedding.
            prompted: the captions.
            empty: the empty caption, as many rows.
            request: steps and guidance.
            doubt: how far z may be off, for the sketch.
            clips: whether x0 is held in its range, where it has one: inversion cannot.
            known: from `known_channels`, for a decoder that can be told what is known.
        """
        settings, decoder = self.config.decoder, self.parts.decoder
        null = torch.zeros(len(prompted.mask), dtype=torch.bool, device=self.device)
        own = None if z is not None else null
        if z is None:
            z = torch.zeros_like(self.pooled(prompted))
        scale = settings.scale(request.guidance)
        if bool(prompted.is_empty.any()):
            scale = torch.where(prompted.is_empty, torch.ones_like(z[:, 0]), scale)
        sketch = self.parts.sketch and self.parts.sketch(z, prompted.text.words, prompted.mask, doubt)
        with_prompt, without = (
            decoder.condition(
                z, self.pooled(said), said.text.states, said.mask, has_embedding=has, sketch=sketch, known=known
            )
            for said, has in ((prompted, own), (empty, null))
        )
        return GuidedDenoise(
            decoder,
            *({"conditioning": one} for one in (with_prompt, without)),
            schedule=self._schedules["decoder"],
            prediction=settings.prediction,
            scale=scale,
            rescale=request.rescale,
            threshold=request.threshold,
            clip=settings.clip_range if clips else None,
            learned_variance=decoder.config.learns_variance,
            grid=self.grid("decoder", request.steps),
        )

    def denoise(
        self,
        latent: Latent,
        prompted: Prompted,
        empty: Prompted,
        generators: Sequence[Generator],
        request: Request,
    ) -> Iterator[SamplerState]:
        """Walk from noise to a grid, one state a step.

        Args:
            latent: embedding and noise, one row a picture.
            prompted: the captions.
            empty: the empty caption, as many rows.
            generators: one a picture.
            request: steps, guidance, sampler and its knobs.
        """
        denoise = self.denoiser(latent.z, prompted, empty, request, doubt=latent.doubt)
        noise = self._noise_of(latent, generators)
        sampler, eta = request.sampler or self.config.decoder.sampler, request.eta or 0.0
        return self._sample("decoder", denoise, noise, generators, request.steps, sampler, eta)

    def fill(
        self,
        latent: Latent,
        prompted: Prompted,
        empty: Prompted,
        generators: Sequence[Generator],
        request: Request,
        x0: Grid,
        cells: Bool[Tensor, "b 1 h w"],
    ) -> Iterator[SamplerState]:
        """Draw the unknown cells of grids, one state a network call.

        A decoder that was trained to hear what is known is told; any other has the known cells held in place while it
        denoises, again and again until both halves agree.

        Args:
            latent: embedding and noise, one row a picture.
            prompted: the captions, of the whole pictures.
            empty: the empty caption, as many rows.
            generators: one a picture.
            request: steps, guidance, eta, resamplings.
            x0: grids of which a part is known.
            cells: True where it is.
        """
        is_told = self.parts.decoder.config.has_known
        known = known_channels(x0, cells) if is_told else None
        denoise = self.denoiser(latent.z, prompted, empty, request, doubt=latent.doubt, known=known)
        noise = self._noise_of(latent, generators)
        eta = (0.0 if is_told else 1.0) if request.eta is None else request.eta
        rounds = (1 if is_told else RESAMPLINGS) if request.resamplings is None else request.resamplings
        return repaint(
            denoise,
            noise,
            x0,
            cells,
            self.grid("decoder", request.steps),
            schedule=self._schedules["decoder"],
            options=RepaintOptions(resamplings=rounds, eta=eta),
            generators=generators,
        )

    def embed(self, pictures: Pictures) -> Embeddings:
        """Embed pictures as the decoder was trained to see embeddings.

        Args:
            pictures: at CLIP's size, in [-1, 1].
        """
        z = self.parts.clip.encode_pictures(pictures)
        return torch.nn.functional.normalize(z, dim=-1) if self.config.unit_embeddings else z

    def invert(
        self, z: Embeddings, pictures: Pictures, prompted: Prompted, request: Request, refinements: int
    ) -> Latent:
        """Find the noise that the decoder rebuilds pictures from, by walking DDIM backwards.

        Args:
            z: their embeddings, from `embed`.
            pictures: at the codec's size, in [-1, 1].
            prompted: their captions, or empty ones.
            request: steps; guidance is off, since a guided walk leads elsewhere than back.
            refinements: network calls a step that solve the sampler's own equation; 0 is the published inversion.

        Source: unCLIP, section 3; `samplers.invert`.
        """
        calm = replace(request, guidance=1.0, rescale=0.0, threshold=1.0)
        denoise = self.denoiser(z, prompted, prompted, calm, doubt=0.0, clips=False)
        grid, schedule = self.grid("decoder", request.steps), self._schedules["decoder"]
        x0 = self.parts.codec.encode(pictures)
        return Latent(z, last_state(invert(denoise, x0, grid, schedule=schedule, num_refinements=refinements)).x_t)

    def expected(self, prompted: Prompted) -> Embeddings:
        """Return the embedding that pictures of captions have on average, as unit vectors; z_t where nothing tells.

        Args:
            prompted: the captions.
        """
        pooled = self.pooled(prompted)
        return pooled if self.parts.guess is None else torch.nn.functional.normalize(self.parts.guess(pooled), dim=-1)

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
            clip=settings.clip_range,
            consistent_eps=True,
        )
        noise = normal_like_rows(generators, enlarged.shape[1:], self.device)
        drawn = self._sample("upsampler", denoise, noise, generators, None, settings.sampler, 0.0)
        return last_state(drawn).x_t.clamp(-1, 1)

    def grid(self, stage: str, steps: int | None) -> tuple[int, ...]:
        """Return the steps that a stage visits.

        Args:
            stage: decoder or upsampler.
            steps: how many; None: as the settings say.
        """
        settings: StageSettings = getattr(self.config, stage)
        return settings.grid(self._schedules[stage], steps)

    def pooled(self, prompted: Prompted) -> Embeddings:
        """Return the captions' embeddings as the networks were trained to see them."""
        return prompted.text.pooled if self.config.unit_embeddings else prompted.text.raw

    def _noise_of(self, latent: Latent, generators: Sequence[Generator]) -> Grid:
        noise = latent.noise if latent.noise is not None else normal_like_rows(generators, self.grid_shape)
        return noise.to(self.device)

    def _said(self, prompted: Prompted) -> Said:
        return Said(self.pooled(prompted), prompted.text.states, prompted.mask, prompted.is_empty)

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
            self.grid(stage, steps),
            schedule=self._schedules[stage],
            sampler=sampler,
            options=options,
            generators=generators,
        )
