"""What a study may ask of a DALL·E 2 besides pictures: its captions' embeddings, and what its priors make of them."""

from collections.abc import Sequence
from typing import Any

import torch

from opendalle.base.axes import Embeddings
from opendalle.base.errors import BadRequest
from opendalle.base.request import PRIORS, Request
from opendalle.base.rng import picture_generator
from opendalle.dalle2.cascade import Cascade

CHUNK = 128  # captions at once; more need memory and save no time


class Probes:
    """Meeting point 5 for DALL·E 2: the probes `encode_text` and `prior`; `embed` is one of its verbs."""

    cascade: Cascade

    @property
    def priors(self) -> tuple[str, ...]:
        """Names of the priors that it has, in the order in which they are asked for."""
        return tuple(name for name in PRIORS if name in self.cascade.priors)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Embeddings:
        """Return the captions' embeddings, one row each, as its networks see them.

        Args:
            captions: in any language.
        """
        return torch.cat([self.cascade.pooled(self.cascade.read(some)) for some in _chunks(captions)])

    @torch.no_grad()
    def prior(self, captions: Sequence[str], seeds: Sequence[int], **asked: Any) -> Embeddings | None:
        """Draw the picture embedding that the decoder would be given for each caption.

        Args:
            captions: what to imagine.
            seeds: one a caption; row i is what `generate(captions[i], seed=seeds[i], **asked)` draws from.
            **asked: of `Request`: prior, prior_steps, prior_guidance, candidates.

        Returns:
            One embedding a row; None: this prior gives none, the decoder draws from the caption alone.

        Raises:
            BadRequest: when there is not one seed a caption, or the prior cannot be had or would ignore a wish.
        """
        if len(captions) != len(seeds):
            raise BadRequest(f"{len(captions)} captions and {len(seeds)} seeds", "one seed a caption")
        request = Request.of("", **asked)
        self.cascade.prior_of(request)
        drawn: list[Embeddings] = []
        for first, some in zip(range(0, len(captions), CHUNK), _chunks(captions), strict=True):
            generators = [picture_generator(seed) for seed in seeds[first : first + CHUNK]]
            z = self.cascade.imagine(self.cascade.read(some), self.cascade.nothing(len(some)), generators, request)
            if z is None:
                return None
            drawn.append(z)
        return torch.cat(drawn) if drawn else None


def _chunks(captions: Sequence[str]) -> list[Sequence[str]]:
    return [captions[first : first + CHUNK] for first in range(0, len(captions), CHUNK)]
