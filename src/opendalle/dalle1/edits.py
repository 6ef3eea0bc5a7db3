"""Editing with a DALL·E 1: what the room below asks of a generation.

Source: known words on any side of those that are drawn: ours, see `drawing`.
"""

from functools import partial

import torch
from PIL import Image
from torch import Generator

from opendalle.base.request import Request
from opendalle.dalle1.drawing import candidate_generators, drawing, fit_of_known, known_words, log_likelihood
from opendalle.dalle1.words import Words
from opendalle.editing import Draw, Extension, Framing, Mask, on_grid
from opendalle.editing.requested import EditOnce, edit_once
from opendalle.pictures import Given, from_array


class Edits:
    """The edits of one DALL·E 1.

    Args:
        words: the networks.
    """

    def __init__(self, words: Words) -> None:
        self.words = words

    def begin(self, given: Given, where: Mask | Extension, request: Request) -> EditOnce:
        """Check an edit, and return what carries it out once for each picture that is wanted.

        Args:
            given: the picture.
            where: the mask, or the new ground.
            request: prompt, and how words are drawn.

        Raises:
            BadPicture: when the picture cannot be edited.
            BadRequest: when the mask does not fit it.
        """
        framing = Framing(context=request.context)
        return edit_once(given, where, partial(self.drawing, request), self.words.sizes[-1], framing)

    def drawing(self, request: Request, generator: Generator) -> Draw:
        """Return what draws frames of one picture, each several times; what is known goes on best from the one kept.

        Args:
            request: prompt, candidates, and how words are drawn.
            generator: all their chance.
        """
        words, codec, network = self.words, self.words.parts.codec, self.words.parts.transformer
        count = request.candidates or words.config.edit_candidates

        @torch.no_grad()
        def draw(picture: Image.Image, mask: Mask) -> Image.Image:
            seed = int(torch.randint(2**62, (), generator=generator))
            side, channels = codec.picture_size, codec.picture_channels
            seen = on_grid(picture, mask, side=side, channels=channels, factor=codec.factor)
            cells = torch.from_numpy(seen.known).flatten()[None].to(words.device)
            known = known_words(words.encode(torch.from_numpy(seen.values)), cells).expand(count, -1)
            text, wish = words.read([request.caption] * count), words.wish(request, [request.caption] * count)
            tokens = list(drawing(network, text, candidate_generators(seed, count), wish, known))[-1].tokens
            if count > 1:
                fit = fit_of_known(log_likelihood(network, text, tokens), known)
                tokens = tokens[int(fit.argmax())][None]
            drawn = words.upsample(words.decode(tokens[:1]), len(mask), [generator])
            return from_array(drawn[0].float().cpu().numpy())

        return draw
