"""Without a prior: the caption's own embedding in place of a picture's, or none at all.

Text and pictures lie in two separate regions of CLIP's space, so a decoder that knows pictures' embeddings meets a
stranger in z_t.  Shifting z_t by the distance between the two regions' centres brings it among the pictures; everything
else that sets the two apart stays.

Source: unCLIP, arXiv:2204.06125, section 5.1 (text embedding in, caption only); the gap is that of "Mind the gap",
arXiv:2203.02053.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from opendalle.base.axes import Embeddings
from opendalle.base.errors import require
from opendalle.dalle2.priors.protocol import Said


class TextAsPicture:
    """Hands z_t to the decoder as if it were a picture's embedding."""

    is_random = False
    knobs: frozenset[str] = frozenset()

    def draw(
        self,
        said: Said,
        empty: Said,
        generators: Sequence[Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Embeddings:
        """Return z_t; of the arguments of `Prior.draw` only the captions count."""
        return said.pooled


class CaptionOnly:
    """Hands nothing to the decoder, which has a learned vector for that and draws from the caption alone."""

    is_random = False
    knobs: frozenset[str] = frozenset()

    def draw(
        self,
        said: Said,
        empty: Said,
        generators: Sequence[Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> None:
        """Return no embedding; the arguments are those of `Prior.draw`."""


@dataclass(frozen=True, kw_only=True)
class ShiftedTextConfig:
    """Shape of a shift."""

    embedding_width: int  # e, of CLIP's joint space

    def __post_init__(self) -> None:
        require(self.embedding_width > 0, f"embedding_width {self.embedding_width}", "a positive number")


class ShiftedText(nn.Module):
    """Hands z_t to the decoder, shifted by the modality gap: the mean of z_i less the mean of z_t."""

    is_random = False
    knobs: frozenset[str] = frozenset()
    gap: Tensor

    def __init__(self, config: ShiftedTextConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("gap", torch.zeros(config.embedding_width))

    @torch.no_grad()
    def fit(self, z_t: Embeddings, z: Embeddings) -> None:
        """Measure the gap.

        Args:
            z_t: captions' embeddings.
            z: pictures' embeddings.
        """
        self.gap.copy_(z.mean(dim=0) - z_t.mean(dim=0))

    @torch.no_grad()
    def draw(
        self,
        said: Said,
        empty: Said,
        generators: Sequence[Generator],
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Embeddings:
        """Return z_t, shifted; of the arguments of `Prior.draw` only the captions count."""
        return said.pooled + self.gap
