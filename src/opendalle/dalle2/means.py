"""Guess and sketch: the means that the two diffusion networks work from.

At the highest noise the best a denoiser can do is to answer the mean of what it is asked for, and most of what the
picture shows is decided there.  A diffusion network learns that answer along with a thousand others; a plain regression
learns nothing else, many times as many pictures a second, and is then simply handed over beside what is noised:

- the guess E[z_i | z_t], from a caption's embedding to its pictures', to the prior;
- the sketch E[x0 | z_i], from a picture's embedding to its grid, to the decoder.

Source: ours; that the mean is the optimal denoiser at full noise follows from DDPM, arXiv:2006.11239, eq. 8 at t = T.
What it is worth stands in docs/decisions/0008.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from einops import rearrange
from torch import Tensor, nn

from opendalle.base.axes import Embeddings, Grid
from opendalle.base.errors import BadRequest, require
from opendalle.nn.regression import VectorRegression
from opendalle.nn.whitening import Whitening


def check_given(name: str, given: Tensor | None, *, wanted: bool) -> None:
    """Refuse a mean that a network was trained without, and a network that misses the one it was trained with.

    Args:
        name: of the mean: guess or sketch.
        given: what came.
        wanted: whether the network takes it.

    Raises:
        BadRequest: when the two differ.
    """
    if (given is not None) != wanted:
        came = f"no {name}" if given is None else f"a {name}"
        raise BadRequest(came, f"a {name}" if wanted else "none: this network was trained without")


@dataclass(frozen=True, kw_only=True)
class GuessConfig:
    """Shape of a guess network."""

    embedding_width: int  # e, of CLIP's joint space
    width: int = 512  # of the hidden vector
    depth: int = 3  # residual blocks

    def __post_init__(self) -> None:
        require(min(self.embedding_width, self.width) > 0 and self.depth >= 0, f"sizes of {self}", "positive numbers")


class Guess(nn.Module):
    """Pooled caption to the mean of its pictures' embeddings."""

    def __init__(self, config: GuessConfig) -> None:
        super().__init__()
        self.config = config
        self.mean = VectorRegression(config.embedding_width, config.embedding_width, config.width, config.depth)
        self.whitening = Whitening(config.embedding_width)  # of the picture embeddings: all axes count alike

    @torch.no_grad()
    def measure(self, z_t: Embeddings, z_i: Embeddings) -> None:
        """Fit both whitenings.

        Args:
            z_t: many captions' embeddings.
            z_i: many pictures' embeddings.
        """
        self.mean.whitening.fit(z_t)
        self.whitening.fit(z_i)

    def forward(self, z_t: Embeddings) -> Embeddings:
        """Guess the picture embedding; a mean of unit vectors is shorter than one.

        Args:
            z_t: captions' embeddings, as CLIP gives them.
        """
        return self.whitening.inverse(self.mean(z_t))


GUESS_PRESETS: Mapping[str, GuessConfig] = MappingProxyType({"emoji": GuessConfig(embedding_width=256)})


@dataclass(frozen=True, kw_only=True)
class SketchConfig:
    """Shape of a sketch network."""

    embedding_width: int  # e, of CLIP's joint space
    channels: int  # of the codec's grid
    side: int  # of the grid, in cells
    width: int = 512  # of the hidden vector
    depth: int = 3  # residual blocks

    def __post_init__(self) -> None:
        numbers = (self.embedding_width, self.channels, self.side, self.width)
        require(min(numbers) > 0 and self.depth >= 0, f"sizes of {self}", "positive numbers")


class Sketch(nn.Module):
    """Picture embedding to the mean of the grids that have it."""

    def __init__(self, config: SketchConfig) -> None:
        super().__init__()
        self.config = config
        self.mean = VectorRegression(
            config.embedding_width, config.channels * config.side**2, config.width, config.depth
        )

    def forward(self, z: Embeddings) -> Grid:
        """Draw the mean grid.

        Args:
            z: picture embeddings, as CLIP gives them or the prior draws them.
        """
        side = self.config.side
        return rearrange(self.mean(z), "b (c h w) -> b c h w", h=side, w=side)


SKETCH_PRESETS: Mapping[str, SketchConfig] = MappingProxyType(
    {"emoji": SketchConfig(embedding_width=256, channels=8, side=8)}
)
