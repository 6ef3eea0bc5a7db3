"""Editing with a DALL·E 2: what the room below asks of a generation.

Source: the paper does not describe it, the production model had it; GLIDE, arXiv:2112.10741, section 2.4.
"""

from collections.abc import Callable
from functools import cache

import torch
from PIL import Image
from torch import Generator

from opendalle.base.axes import Embeddings
from opendalle.base.request import Request
from opendalle.dalle2.cascade import Cascade
from opendalle.dalle2.jobs import Start
from opendalle.dalle2.parts import Latent, Prompted
from opendalle.editing import Draw, Extension, Framing, Mask, on_grid
from opendalle.editing.requested import EditOnce, edit_once
from opendalle.pictures import Given, from_array
from opendalle.samplers.sample import last_state


class Edits:
    """The edits of one cascade.

    Args:
        cascade: the networks.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    def begin(
        self,
        given: Given,
        where: Mask | Extension,
        request: Request,
        *,
        embedding: Callable[[], Embeddings] | None = None,
    ) -> EditOnce:
        """Check an edit, and return what carries it out once for each picture that is wanted.

        Args:
            given: the picture.
            where: the mask, or the new ground.
            request: prompt, and all that the decoder reads.
            embedding: what the picture shall mean; None: what the prior makes of the prompt.

        Raises:
            BadPicture: when the picture cannot be edited.
            BadRequest: when the mask does not fit it.
        """

        def drawing(generator: Generator) -> Draw:
            return self.drawing(request, generator, lambda: self._begun(request, generator, embedding))

        return edit_once(given, where, drawing, self.cascade.sizes[-1], Framing(context=request.context))

    def drawing(self, request: Request, generator: Generator, begin: Callable[[], tuple[Prompted, Latent]]) -> Draw:
        """Return what draws frames of one picture: one meaning and one chance for all of them.

        Args:
            request: all that the decoder reads.
            generator: all their chance.
            begin: called with the first frame: what the whole picture shows, and what it means.
        """
        cascade, codec = self.cascade, self.cascade.parts.codec
        empty, begun = cascade.nothing(1), cache(begin)

        @torch.no_grad()
        def draw(picture: Image.Image, mask: Mask) -> Image.Image:
            said, latent = begun()
            side, channels = codec.picture_size, codec.picture_channels
            seen = on_grid(picture, mask, side=side, channels=channels, factor=codec.factor)
            x0 = codec.encode(torch.from_numpy(seen.values).to(cascade.device))
            known = torch.from_numpy(seen.known)[None, None].to(cascade.device)
            states = cascade.fill(latent, said, empty, [generator], request, x0, known)
            drawn = codec.decode(last_state(states).x_t)
            if drawn.shape[-1] < len(mask):
                drawn = cascade.upsample(drawn, [generator])
            return from_array(drawn[0].float().cpu().numpy())

        return draw

    def growing(self, start: Start, place: int, generator: Generator) -> Draw:
        """Return what draws new ground beside one picture of a batch: of its caption, and of what it means.

        Args:
            start: what the batch was drawn from; the noise has been used.
            place: of the picture in the batch.
            generator: the rest of its chance.
        """
        latent, rows = start.latent, torch.tensor([place], device=start.prompted.mask.device)
        z = None if latent.z is None else latent.z[place : place + 1]
        begun = start.prompted.rows(rows), Latent(z, doubt=latent.doubt)
        return self.drawing(start.request, generator, lambda: begun)

    @torch.no_grad()
    def _begun(
        self, request: Request, generator: Generator, embedding: Callable[[], Embeddings] | None
    ) -> tuple[Prompted, Latent]:
        """Read the prompt, and let the prior imagine a picture of it if nothing says what it shall mean."""
        cascade = self.cascade
        said = cascade.read([request.caption])
        if embedding is not None:
            return said, Latent(embedding())
        z = cascade.imagine(said, cascade.nothing(1), [generator], request)
        return said, Latent(z, doubt=cascade.config.doubt)
