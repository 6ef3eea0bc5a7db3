"""The half of a VQGAN that draws: words to pictures, for makers who publish no more than that.

Its parts are the codec's own.  What it adds is the range of pixels that the weights were trained for: those of
dalle-mini draw from 0 to 1, the older ones from -1 to 1.  That is no part of any tensor, so it stands in the config.

Source: Esser et al., arXiv:2012.09841; retrained for dalle-mini with words from pictures in [0, 1].
"""

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from opendalle.base.errors import require
from opendalle.codec.convolutional import ConvolutionalConfig, Decoder
from opendalle.codec.vqgan import Codebook, VQGANConfig


@dataclass(frozen=True, kw_only=True)
class WordDecoderConfig:
    """Shape of the decoder; the defaults are those of the one that dalle-mini and min-dalle draw with."""

    network: ConvolutionalConfig = field(default_factory=ConvolutionalConfig)  # its encoder is not built
    vocabulary: int = 16_384  # words
    code_width: int = 256  # of a word's vector
    pixels: Literal["0..1", "-1..1"] = "0..1"  # black and white as the weights draw them; ours are -1 and 1

    def __post_init__(self) -> None:
        require(self.vocabulary >= 2, f"vocabulary is {self.vocabulary}", "at least 2")
        require(self.code_width >= 1, f"code_width is {self.code_width}", "at least 1")
        require(self.pixels in ("0..1", "-1..1"), f"pixels {self.pixels!r}", "0..1 or -1..1")


class WordDecoder(nn.Module):
    """Words to pictures; the weights have the names that they have in a `VQGAN`."""

    def __init__(self, config: WordDecoderConfig) -> None:
        super().__init__()
        self.config, network = config, config.network
        self.codebook = Codebook(
            VQGANConfig(network=network, vocabulary=config.vocabulary, code_width=config.code_width)
        )
        self.from_codes = nn.Conv2d(config.code_width, network.grid_channels, 1)
        self.decoder = Decoder(network)
        self.picture_channels = network.picture_channels
        self.picture_size = network.picture_size
        self.vocabulary = config.vocabulary
        self.factor = network.factor

    def decode_tokens(self, tokens: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Words to pictures in [-1, 1]."""
        drawn = self.decoder(self.from_codes(self.codebook.look_up(tokens)))
        if self.config.pixels == "0..1":
            drawn = 2 * drawn - 1
        return drawn.clamp(-1, 1)
