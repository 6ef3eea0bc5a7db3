"""The networks of a DALL·E 3 and what each of them does, one step of the way after the other.

    caption --text encoder--> states of its tokens
            --denoiser-->     a latent grid of any shape, denoised step by step under guidance
            --codec-->        a small picture (the paper's: the consistency decoder)
            --upsampler-->    a larger one
    --upscaler-->             a large one, where that is asked for

and back: a picture --codec, inverted denoiser--> the noise that it would have been drawn from.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, appendices A and B.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from opendalle.base.axes import Grid, Pictures
from opendalle.base.errors import require
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows
from opendalle.dalle3.parts import Dalle3Config, Dalle3Parts, Prompted
from opendalle.dalle3.text_keys import hidden, without_common_padding
from opendalle.samplers.course import SamplerOptions, SamplerState
from opendalle.samplers.guided import GuidedDenoise
from opendalle.samplers.invert import invert
from opendalle.samplers.repaint import RepaintOptions, repaint
from opendalle.samplers.sample import last_state, sample
from opendalle.upsampling.cascade import UpsamplerStage, enlarged
from opendalle.upsampling.network import native_sides
from opendalle.upsampling.settings import chained

Size = tuple[int, int]  # width and height in pixels


class Cascade:
    """The networks, each with its schedule and settings.

    Args:
        parts: the networks, in evaluation mode.
        config: settings of every stage.

    Raises:
        BadConfig: when the denoiser cannot take a grid that it is said to draw.
    """

    def __init__(self, parts: Dalle3Parts, config: Dalle3Config) -> None:
        self.parts, self.config = parts, config
        self.device = next(parts.denoiser.parameters()).device
        self.schedule = config.denoiser.make_schedule()
        self.side = parts.codec.picture_size // parts.codec.factor  # cells of the square grid, along each axis
        multiple = parts.denoiser.config.multiple
        for rows, columns in ((self.side, self.side), *config.shapes):
            fits = rows % multiple == columns % multiple == 0 and min(rows, columns) == self.side
            wanted = f"multiples of {multiple}, the shorter side {self.side}"
            require(fits, f"a grid of {rows} rows and {columns} columns", wanted)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the square pictures that it draws natively, smallest first."""
        return native_sides(self.parts.codec.picture_size, self.parts.upsampler)

    @property
    def longer(self) -> tuple[Size, ...]:
        """Width and height of the wide and tall pictures that it draws natively."""
        return tuple(
            (columns * short // self.side, rows * short // self.side)
            for short in self.sizes
            for rows, columns in self.config.shapes
            if rows != columns
        )

    @property
    def stages(self) -> tuple[UpsamplerStage, ...]:
        """The upsamplers, each with how it was trained and how it is sampled, from the smallest pictures on."""
        parts, config = self.parts, self.config
        links = (parts.upsampler, config.upsampler), (parts.upscaler, config.upscaler)
        return chained(parts.codec.picture_size, *links)

    def grid_shape(self, size: Size) -> tuple[int, int, int]:
        """Return channels, rows and columns of the grid that a picture is drawn from.

        Args:
            size: of a picture that is drawn natively.
        """
        width, height = size
        short = min(size)
        return self.parts.codec.grid_channels, height * self.side // short, width * self.side // short

    def read(self, prompts: Sequence[str]) -> Prompted:
        """Read captions; each distinct one is read once.

        Args:
            prompts: captions; the empty one is what guidance pushes away from.
        """
        distinct = list(dict.fromkeys(prompts))
        rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self.device)
        is_empty = torch.tensor([prompt == "" for prompt in distinct], device=self.device)
        return Prompted(self.parts.reader.read(distinct), is_empty).rows(rows)

    @cached_property
    def _nothing(self) -> Prompted:
        return self.read([""])

    def denoiser(self, prompted: Prompted, request: Request, *, clips: bool = True) -> GuidedDenoise:
        """Put caption, guidance and denoiser together into what a sampler can ask; captions are read here, once.

        Args:
            prompted: the captions.
            request: steps and guidance.
            clips: whether x0 is held in its range, where it has one: inversion cannot.
        """
        settings, network = self.config.denoiser, self.parts.denoiser
        scale = settings.scale(request.guidance)
        if bool(prompted.is_empty.any()):
            guided = torch.full(prompted.is_empty.shape, scale, device=self.device)
            scale = torch.where(prompted.is_empty, torch.ones_like(guided), guided)
        said = without_common_padding(prompted.said)
        empty = hidden(said, torch.ones_like(prompted.is_empty), without_common_padding(self._nothing.said))
        return GuidedDenoise(
            network,
            *({"said": network.read(one)} for one in (said, empty)),
            schedule=self.schedule,
            prediction=settings.prediction,
            scale=scale,
            rescale=request.rescale,
            threshold=request.threshold,
            clip=settings.clip_range if clips else None,
            learned_variance=network.config.learns_variance,
            grid=self.steps(request),
        )

    def denoise(
        self, prompted: Prompted, noise: Grid, generators: Sequence[Generator], request: Request
    ) -> Iterator[SamplerState]:
        """Walk from noise to a grid, one state a step.

        Args:
            prompted: the captions.
            noise: of the grid's shape, one row a picture.
            generators: one a picture.
            request: steps, guidance, sampler and its knobs.
        """
        settings = self.config.denoiser
        options = SamplerOptions(
            eta=request.eta or 0.0, variance=settings.variance, noise_power=tuple(settings.noise_power) or None
        )
        return sample(
            self.denoiser(prompted, request),
            noise.to(self.device),
            self.steps(request),
            schedule=self.schedule,
            sampler=request.sampler or settings.sampler,
            options=options,
            generators=generators,
        )

    def fill(
        self,
        prompted: Prompted,
        generators: Sequence[Generator],
        request: Request,
        x0: Grid,
        cells: Bool[Tensor, "b 1 h w"],
    ) -> Iterator[SamplerState]:
        """Draw the unknown cells of grids, one state a network call: the known ones are held in place meanwhile.

        Args:
            prompted: the captions, of the whole pictures.
            generators: one a picture.
            request: steps, guidance, eta, resamplings.
            x0: grids of which a part is known.
            cells: True where it is.
        """
        wishes = {"resamplings": request.resamplings, "eta": request.eta}
        return repaint(
            self.denoiser(prompted, request),
            normal_like_rows(generators, x0.shape[1:], self.device),
            x0,
            cells,
            self.steps(request),
            schedule=self.schedule,
            options=RepaintOptions(**{name: one for name, one in wishes.items() if one is not None}),
            generators=generators,
        )

    def invert(
        self, pictures: Pictures, prompted: Prompted, request: Request, refinements: int
    ) -> Float[Tensor, "b g hg wg"]:
        """Find the noise that the denoiser rebuilds pictures from, by walking DDIM backwards.

        Args:
            pictures: as the codec draws them, in [-1, 1].
            prompted: their captions, or empty ones.
            request: steps; guidance is off, since a guided walk leads elsewhere than back.
            refinements: network calls a step that solve the sampler's own equation; 0 is the published inversion.

        Source: DDIM, arXiv:2010.02502, section 4.3; `samplers.invert`.
        """
        calm = replace(request, guidance=1.0, rescale=0.0, threshold=1.0)
        denoise, grid = self.denoiser(prompted, calm, clips=False), self.steps(request)
        x0 = self.parts.codec.encode(pictures)
        return last_state(invert(denoise, x0, grid, schedule=self.schedule, num_refinements=refinements)).x_t

    def enlarge(self, small: Pictures, size: Size, generators: Sequence[Generator]) -> Float[Tensor, "b c h2 w2"]:
        """Enlarge pictures with the upsampler, if they are smaller than wanted.

        Args:
            small: as the codec draws them.
            size: of pictures that are drawn natively.
            generators: one a picture.
        """
        if min(small.shape[2:]) >= min(size):
            return small
        return enlarged(small, (size[1], size[0]), self.stages[:1], generators)

    def steps(self, request: Request) -> tuple[int, ...]:
        """Return the steps of the schedule that the sampler visits.

        Args:
            request: how many; None: as the settings say.
        """
        return self.config.denoiser.grid(self.schedule, request.steps)
