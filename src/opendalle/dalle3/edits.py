"""Changing pictures with a DALL·E 3: what the room below asks of a generation, and where variations begin.

Nothing but a caption tells this model what a picture means.  So a picture that is changed without a prompt is captioned
first, where there is a captioner.

Source: the paper does not describe it; filling holes: `samplers.repaint`; variations: DDIM inversion, as DALL·E 2's
    (arXiv:2204.06125, section 3.1), with the caption in the embedding's place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from PIL import Image
from torch import Generator

from opendalle.base.axes import Grid
from opendalle.base.jobs import Row, Stopwatch
from opendalle.base.request import Request
from opendalle.base.rng import normal_like_rows
from opendalle.dalle3.cascade import Cascade
from opendalle.dalle3.parts import Prompted
from opendalle.diffusion.spheres import slerp
from opendalle.editing import Draw, Extension, Framing, Mask, on_grid
from opendalle.editing.requested import EditOnce, edit_once
from opendalle.pictures import Given, from_array
from opendalle.samplers.invert import REFINEMENTS
from opendalle.samplers.sample import last_state


@dataclass(frozen=True)
class Start:
    """What a batch is denoised from."""

    prompted: Prompted  # captions, one row a picture
    noise: Grid  # x_T
    request: Request  # what is asked of the denoiser, the verb's own defaults filled in


Begin = Callable[[Sequence[Row], Sequence[Generator], Stopwatch], Start]  # where a batch begins


class Edits:
    """The changing verbs of one cascade.

    Args:
        cascade: the networks.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    def begin(self, given: Given, where: Mask | Extension, request: Request) -> EditOnce:
        """Check an edit, and return what carries it out once for each picture that is wanted.

        Args:
            given: the picture.
            where: the mask, or the new ground.
            request: caption, and all that the denoiser reads.

        Raises:
            BadPicture: when the picture cannot be edited.
            BadRequest: when the mask does not fit it.
        """

        def drawing(generator: Generator) -> Draw:
            return self.drawing(request, generator, lambda: self.cascade.read([request.caption]))

        return edit_once(given, where, drawing, self.cascade.sizes[-1], Framing(context=request.context))

    def drawing(self, request: Request, generator: Generator, read: Callable[[], Prompted]) -> Draw:
        """Return what draws frames of one picture: one caption and one chance for all of them.

        Args:
            request: all that the denoiser reads.
            generator: all their chance.
            read: called with the first frame: what the whole picture shows.
        """
        cascade, codec, said = self.cascade, self.cascade.parts.codec, cache(read)

        @torch.no_grad()
        def draw(picture: Image.Image, mask: Mask) -> Image.Image:
            side, channels = codec.picture_size, codec.picture_channels
            seen = on_grid(picture, mask, side=side, channels=channels, factor=codec.factor)
            x0 = codec.encode(torch.from_numpy(seen.values).to(cascade.device))
            known = torch.from_numpy(seen.known)[None, None].to(cascade.device)
            filled = last_state(cascade.fill(said(), [generator], request, x0, known)).x_t
            drawn = cascade.enlarge(codec.decode(filled), (len(mask), len(mask)), [generator])
            return from_array(drawn[0].float().cpu().numpy())

        return draw

    def growing(self, start: Start, place: int, generator: Generator) -> Draw:
        """Return what draws new ground beside one picture of a batch.

        Args:
            start: what the batch was drawn from.
            place: of the picture in the batch.
            generator: the rest of its chance.
        """
        rows = torch.tensor([place], device=self.cascade.device)
        return self.drawing(start.request, generator, lambda: start.prompted.rows(rows))

    def variation(self, given: Given, request: Request, size: tuple[int, int]) -> Begin:
        """Begin from a picture's own noise: its strength lets fresh noise in on the way, and guidance with it.

        Without strength the walk is unguided, and so leads back to the picture; with all of it, it is guided as any
        other drawing.

        Args:
            given: the picture.
            request: eta, the strength; renew; guidance, if it is to be another; a caption.
            size: what is drawn natively, in pixels.
        """
        config = self.cascade.config
        strength = config.vary_strength if request.eta is None else request.eta
        led = 1 + strength * (config.denoiser.guidance - 1)
        guidance = led if request.guidance is None else request.guidance
        asked = replace(request, eta=strength, guidance=guidance, sampler="ddim")
        found = cache(lambda: self._noise_of(given, asked, size))

        def begin(rows: Sequence[Row], generators: Sequence[Generator], watch: Stopwatch) -> Start:
            noise = found().expand(len(rows), -1, -1, -1)
            if request.renew > 0:
                noise = slerp(noise, normal_like_rows(generators, noise.shape[1:], noise.device), request.renew)
            watch.lap("latent")
            return Start(self.cascade.read([row.request.caption for row in rows]), noise, asked)

        return begin

    @torch.no_grad()
    def _noise_of(self, given: Given, asked: Request, size: tuple[int, int]) -> Grid:
        """Invert a picture."""
        codec = self.cascade.parts.codec
        _, rows, columns = self.cascade.grid_shape(size)
        values = given.fitted(columns * codec.factor, rows * codec.factor, codec.picture_channels)
        pictures = torch.from_numpy(values)[None].to(self.cascade.device)
        refinements = REFINEMENTS if asked.refinements is None else asked.refinements
        return self.cascade.invert(pictures, self.cascade.read([asked.caption]), asked, refinements)
