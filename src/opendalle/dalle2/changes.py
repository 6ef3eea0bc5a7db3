"""Where the latents of changed pictures come from: one function a verb, called batch by batch.

Source: unCLIP, arXiv:2204.06125, section 3 (variations, interpolations, text differences) and section 6 (components).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from opendalle.base.axes import Embeddings, Grid, Pictures
from opendalle.base.errors import BadRequest
from opendalle.base.jobs import Row, Stopwatch
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows, picture_generator
from opendalle.dalle2.cascade import Cascade
from opendalle.dalle2.jobs import Begin, Start
from opendalle.dalle2.latents import check_weights, reduced, spherical_mean, stops, text_difference
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.diffusion.spheres import slerp
from opendalle.pictures import Given
from opendalle.samplers.invert import REFINEMENTS
from opendalle.samplers.sample import last_state

VARY_ETA = 0.8  # how far a variation wanders, unless `eta` says otherwise


class Changes:
    """The changing verbs of one cascade.

    Args:
        cascade: the networks.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    def variation(self, given: Given, request: Request) -> Begin:
        """Rebuild a picture with fresh noise on the way, or with some of its own noise drawn anew.

        Args:
            given: the picture.
            request: eta, renew; a prompt that is said of the picture, for the decoder to hold on to.
        """
        asked = _rebuilding(request, eta=VARY_ETA if request.eta is None else request.eta)
        latent = self._found(given, request.prompt, asked)

        def begin(rows: Sequence[Row], generators: Sequence[Generator], watch: Stopwatch) -> Start:
            z, x_T = _rows(latent(), len(rows))
            if request.renew > 0:
                fresh = normal_like_rows(generators, x_T.shape[1:], x_T.device)
                x_T = slerp(x_T, fresh, request.renew)
            watch.lap("latent")
            return Start(Latent(z, x_T), self._said(request.prompt, len(rows)), asked)

        return begin

    def mixture(self, sources: Sequence[Given | str], request: Request) -> Begin:
        """Stand between pictures; a text stands for the picture that is drawn of it.

        Args:
            sources: pictures and texts, two or more.
            request: weights, or frames of the way from the first to the last; noise.

        Raises:
            BadRequest: when there is but one source, or the weights do not fit.
        """
        if len(sources) < 2:
            raise BadRequest(f"{len(sources)} pictures to blend", "two or more pictures or texts")
        if request.weights and request.frames > 1:
            raise BadRequest(f"weights for {request.frames} frames", "weights for one picture, or frames")
        if request.weights:
            check_weights(request.weights, len(sources))
        even = (1.0,) * len(sources)
        shares = [request.weights or even] if request.frames == 1 else stops(len(sources), request.frames)
        asked = _rebuilding(request, eta=0.0)
        found = cache(lambda: [self._of_source(one, request, asked) for one in sources])

        def begin(rows: Sequence[Row], generators: Sequence[Generator], watch: Stopwatch) -> Start:
            z, x_T = (torch.cat(ones) for ones in zip(*(_rows(one, 1) for one in found()), strict=True))
            weights = [shares[row.index] for row in rows]
            mixed = torch.stack([spherical_mean(z, one) for one in weights])
            if request.noise == "led":
                noise = torch.stack([spherical_mean(x_T, one) for one in weights])
            else:
                noise = normal_like_rows(generators, x_T.shape[1:], x_T.device)
            watch.lap("latent")
            return Start(Latent(mixed, noise), self._said("", len(rows)), asked)

        return begin

    def morphing(self, given: Given, request: Request) -> Begin:
        """Lead a picture along the difference of two texts, its noise kept.

        Args:
            given: the picture.
            request: both texts, strength, frames.

        Raises:
            BadRequest: when nothing is wanted.
        """
        if not request.to_text.strip():
            raise BadRequest("no text to morph to", "what the picture shall become")
        asked = _rebuilding(request, eta=0.0)
        latent = self._found(given, "", asked)
        wanted = cache(lambda: self._difference(request.from_text, request.to_text))

        def begin(rows: Sequence[Row], generators: Sequence[Generator], watch: Stopwatch) -> Start:
            frames = request.frames
            shares = [1.0 if frames == 1 else row.index / (frames - 1) for row in rows]
            z, x_T = _rows(latent(), len(rows))
            way = torch.tensor([request.strength * share for share in shares], device=z.device)
            led = slerp(z, wanted().expand(len(rows), -1), way)
            watch.lap("latent")
            return Start(Latent(led, x_T), self._said("", len(rows)), asked)

        return begin

    def rungs(self, given: Given, request: Request) -> Begin:
        """Rebuild a picture from fewer and more principal components of its embedding, its noise kept.

        Args:
            given: the picture.
            request: components.

        Raises:
            BadRequest: when the model knows no principal components, or fewer than are asked for.
        """
        whitening = self.cascade.whitening
        if whitening is None:
            raise BadRequest("a ladder of a model without principal components", "a model that stores them")
        width = whitening.mean.shape[0]
        if not request.components or max(request.components) > width:
            raise BadRequest(f"components {request.components}", f"some numbers from 1 to {width}")
        asked = _rebuilding(request, eta=0.0)
        latent = self._found(given, "", asked)

        def begin(rows: Sequence[Row], generators: Sequence[Generator], watch: Stopwatch) -> Start:
            whole, x_T = _rows(latent(), len(rows))
            rungs = [request.components[row.index] for row in rows]
            z = torch.cat([reduced(whole[:1], whitening, number) for number in rungs])
            watch.lap("latent")
            return Start(Latent(z, x_T), self._said("", len(rows)), asked)

        return begin

    def _found(self, given: Given, prompt: str, asked: Request) -> Callable[[], Latent]:
        """Invert a picture when it is first asked for."""
        parts = self.cascade.parts

        def find() -> Latent:
            seen, small = (self.tensor(given, side) for side in (parts.clip.config.size, parts.codec.picture_size))
            return self._inverted(seen, small, prompt, asked)

        return cache(find)

    @torch.no_grad()
    def _inverted(self, seen: Pictures, small: Float[Tensor, "b c h2 w2"], prompt: str, asked: Request) -> Latent:
        refinements = REFINEMENTS if asked.refinements is None else asked.refinements
        return self.cascade.invert(self.cascade.embed(seen), small, self._said(prompt, 1), asked, refinements)

    def tensor(self, given: Given, side: int) -> Pictures:
        """Return a picture as the networks see pictures.

        Args:
            given: the picture.
            side: of the square that it is fitted into.
        """
        channels = self.cascade.parts.codec.picture_channels
        return torch.from_numpy(given.square(side, channels))[None].to(self.cascade.device)

    def _of_source(self, source: Given | str, request: Request, asked: Request) -> Latent:
        """Return the latent of a picture, or of the one that the model itself draws of a text."""
        if isinstance(source, Given):
            return self._found(source, "", asked)()
        cascade, generators = self.cascade, [picture_generator(request.seed)]
        with torch.no_grad():
            said, empty = cascade.read([source]), cascade.nothing(1)
            drawing = replace(request, eta=0.0, steps=None, guidance=None)
            latent = Latent(cascade.imagine(said, empty, generators, request), doubt=cascade.config.doubt)
            grid = last_state(cascade.denoise(latent, said, empty, generators, drawing)).x_t
            small = cascade.parts.codec.decode(grid).clamp(-1, 1)
            seen = F.interpolate(small, cascade.parts.clip.config.size, mode="bicubic", antialias=True).clamp(-1, 1)
            return self._inverted(seen, small, "", asked)

    def _difference(self, before: str, after: str) -> Tensor:
        with torch.no_grad():
            said = self.cascade.read([before, after])
            means = self.cascade.expected(said)
        return text_difference(means[:1], means[1:])

    def _said(self, prompt: str, count: int) -> Prompted:
        return self.cascade.read([prompt] * count)


def _rows(latent: Latent, count: int) -> tuple[Embeddings, Grid]:
    """Repeat the latent of one picture."""
    assert latent.z is not None, "an inverted picture has its embedding"
    assert latent.noise is not None, "an inverted picture has its noise"
    return latent.z.expand(count, -1), latent.noise.expand(count, *latent.noise.shape[1:])


def _rebuilding(request: Request, eta: float) -> Request:
    """Ask for what rebuilds a picture unless told otherwise: guidance off, and DDIM, which alone can be inverted."""
    return replace(
        request,
        eta=eta,
        guidance=1.0 if request.guidance is None else request.guidance,
        sampler="ddim",
    )
