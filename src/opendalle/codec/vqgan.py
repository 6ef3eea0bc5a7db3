"""VQGAN's autoencoder: every cell is replaced by the nearest vector of a codebook.

Around the codebook stands the published encoder and decoder, or those of the small KL autoencoder: a trained one then
gives the weights to begin with, and words spread over its cells already give most of a picture back.

Source: Esser et al., "Taming Transformers", arXiv:2012.09841, section 3.1; straight-through gradient and the two
halves of the codebook's loss: van den Oord et al., arXiv:1711.00937, section 3.2, eq. 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from opendalle.base.axes import Grid, Pictures
from opendalle.base.errors import require
from opendalle.codec import kl
from opendalle.codec.codebook import cluster_means, nearest_rows
from opendalle.codec.convolutional import ConvolutionalConfig, Decoder, Encoder
from opendalle.codec.kl import KLAutoencoderConfig

TOGETHER = 64  # pictures whose cells are looked at together, before there are words


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Shape of the autoencoder; the defaults are the published one's with 1,024 words."""

    network: ConvolutionalConfig = field(default_factory=ConvolutionalConfig)  # encoder and decoder
    small: KLAutoencoderConfig | None = None  # instead of them: those of the small autoencoder
    vocabulary: int = 1024  # words
    code_width: int = 256  # of a word's vector
    is_normalised: bool = (
        False  # whether words and cells are compared by direction alone, arXiv:2110.04627, section 3.2
    )

    def __post_init__(self) -> None:
        require(self.vocabulary >= 2, f"vocabulary is {self.vocabulary}", "at least 2")
        require(self.code_width >= 1, f"code_width is {self.code_width}", "at least 1")


@dataclass(frozen=True)
class Quantised:
    """Cells with the words that they were replaced by."""

    tokens: Int[Tensor, "b h w"]  # numbers of words
    vectors: Float[Tensor, "b c h w"]  # of the words; the gradient passes through them to the cells
    codebook_loss: Float[Tensor, ""]  # draws words towards cells
    commitment: Float[Tensor, ""]  # draws cells towards words


class Codebook(nn.Module):
    """The words.

    Args:
        config: how many, how wide, how compared.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.is_normalised = config.is_normalised
        self.words = nn.Embedding(config.vocabulary, config.code_width)
        nn.init.uniform_(self.words.weight, -1 / config.vocabulary, 1 / config.vocabulary)
        if config.is_normalised:
            nn.init.normal_(self.words.weight)

    def vectors(self) -> Float[Tensor, "v c"]:
        """Return the words' vectors as cells are compared with them."""
        return F.normalize(self.words.weight, dim=1) if self.is_normalised else self.words.weight

    def nearest(self, cells: Grid) -> Int[Tensor, "b h w"]:
        """Return the number of the word nearest to each cell.

        Args:
            cells: as the encoder gives them.
        """
        rows, words = self._placed(cells).permute(0, 2, 3, 1), self.vectors()
        return nearest_rows(rows, words)

    def look_up(self, tokens: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h w"]:
        """Return the vectors of words.

        Args:
            tokens: numbers of words.
        """
        return F.embedding(tokens, self.vectors()).permute(0, 3, 1, 2).contiguous()

    def forward(self, cells: Grid) -> Quantised:
        """Replace cells by words, as training does.

        Args:
            cells: as the encoder gives them.
        """
        tokens, cells = self.nearest(cells.detach()), self._placed(cells)
        found = self.look_up(tokens)
        codebook_loss, commitment = F.mse_loss(found, cells.detach()), F.mse_loss(cells, found.detach())
        return Quantised(tokens, cells + (found - cells).detach(), codebook_loss, commitment)

    def _placed(self, cells: Grid) -> Grid:
        return F.normalize(cells, dim=1) if self.is_normalised else cells


class VQGAN(nn.Module):
    """Picture to words and back; a `TokenCodec`."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config, network, seen = config, config.network, config.network.grid_channels
        if config.small is not None:
            network, seen = config.small, 2 * config.small.grid_channels  # a posterior's mean, and its spread
            self.encoder, self.decoder = kl.Encoder(network), kl.Decoder(network)
        else:
            self.encoder, self.decoder = Encoder(network, seen), Decoder(network)
        self.to_codes = nn.Conv2d(seen, config.code_width, 1)
        self.codebook = Codebook(config)
        self.from_codes = nn.Conv2d(config.code_width, network.grid_channels, 1)
        self.picture_channels = network.picture_channels
        self.picture_size = network.picture_size
        self.vocabulary = config.vocabulary
        self.factor = network.factor

    @torch.no_grad()
    def begin_with(self, autoencoder: kl.KLAutoencoder, pictures: Pictures, rng: Generator) -> None:
        """Take over a trained autoencoder, and spread the words over its cells: their clusters' means.

        Args:
            autoencoder: of the config's shape; a word is as wide as its grid, in unit spread.
            pictures: that show what cells there are; at least a few cells for each word.
            rng: from which cells the search for clusters begins.

        Raises:
            BadConfig: when the two do not fit, or there are fewer cells than words.
        """
        small, width = self.config.small, self.config.code_width
        wanted = f"{autoencoder.config} with words of {autoencoder.grid_channels} numbers, as they are"
        fits = small == autoencoder.config and width == autoencoder.grid_channels and not self.config.is_normalised
        require(fits, f"a VQGAN of {small} with words of {width} numbers", wanted)
        self.encoder.load_state_dict(autoencoder.encoder.state_dict())
        self.decoder.load_state_dict(autoencoder.decoder.state_dict())
        mean, std = autoencoder.grid_mean.flatten(), autoencoder.grid_std.flatten()
        for layer, scale, shift in ((self.to_codes, 1 / std, -mean / std), (self.from_codes, std, mean)):
            nn.init.zeros_(layer.weight)
            layer.weight[:, :width, 0, 0] = scale.diag()
            assert layer.bias is not None
            layer.bias.copy_(shift)
        cells = torch.cat([self.cells(some).permute(0, 2, 3, 1).flatten(0, 2) for some in pictures.split(TOGETHER)])
        self.codebook.words.weight.copy_(cluster_means(cells, self.config.vocabulary, rng))

    def cells(self, pictures: Pictures) -> Float[Tensor, "b c2 h2 w2"]:
        """Look at pictures in [-1, 1]; what comes is not yet words.

        Args:
            pictures: sides a multiple of the factor.
        """
        return self.to_codes(self.encoder(pictures))

    def draw(self, vectors: Grid) -> Float[Tensor, "b c2 h2 w2"]:
        """Draw words given by their vectors, without clamping: what the objective compares.

        Args:
            vectors: from the codebook.
        """
        return self.decoder(self.from_codes(vectors))

    def encode_tokens(self, pictures: Pictures) -> Int[Tensor, "b h2 w2"]:
        """Pictures in [-1, 1] to the nearest word of every cell."""
        return self.codebook.nearest(self.cells(pictures))

    def decode_tokens(self, tokens: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Words to pictures in [-1, 1]."""
        return self.draw(self.codebook.look_up(tokens)).clamp(-1, 1)


VQGAN_PRESETS: Mapping[str, VQGANConfig] = MappingProxyType(
    {
        "f16-1024": VQGANConfig(),
        "f16-16384": VQGANConfig(vocabulary=16_384),
        "emoji": VQGANConfig(
            network=ConvolutionalConfig(
                picture_size=64,
                picture_channels=4,
                grid_channels=96,
                width=96,
                growth=(1, 2),
                blocks=1,
                attention_sides=(),
                patch=4,
            ),
            vocabulary=4096,
            code_width=12,
            is_normalised=True,
        ),
    }
)
