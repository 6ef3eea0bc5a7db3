"""DALL·E 1's discrete variational autoencoder: a picture as words of a visual vocabulary, one a cell.

The encoder says, for every cell of the grid, how likely each word of the codebook is; the decoder draws a picture from
one word a cell.  Its first layer, a 1x1 convolution over words, *is* the codebook: a word's column is its vector.
While it is trained, cells hold mixtures of words (a relaxed categorical); afterwards they hold one word each, whose
vector is looked up, so no picture of 8,192 channels is ever built.

Source: Ramesh et al., "Zero-Shot Text-to-Image Generation", arXiv:2102.12092, section 2.1 and appendix A; where the
paper is silent, the network that was published with it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from opendalle.base.axes import Pictures
from opendalle.base.errors import require

GROWTH = (1, 2, 4, 8)  # widths of the four groups over the first one's; the grid halves between groups
FACTOR = 2 ** (len(GROWTH) - 1)


@dataclass(frozen=True, kw_only=True)
class DiscreteVAEConfig:
    """Shape of the autoencoder; the defaults are the paper's."""

    picture_size: int = 256  # pixels; any multiple of the factor works, this is what it was trained on
    picture_channels: int = 3  # 3 RGB, 4 premultiplied RGBA
    vocabulary: int = 8192  # words
    width: int = 256  # channels of the finest group
    code_width: int = 128  # of a word's vector
    blocks: int = 2  # residual blocks a group
    patch: int = 1  # pixels folded into channels at the door, along each axis; the paper folds none
    squeeze: float = 0.1  # pixels are mapped into (squeeze, 1 - squeeze), away from where the likelihood has no bounds

    def __post_init__(self) -> None:
        require(self.picture_channels in (3, 4), f"picture_channels is {self.picture_channels}", "3 or 4")
        numbers = (self.vocabulary, self.width, self.code_width, self.blocks, self.patch)
        require(min(numbers) >= 1, f"sizes {numbers}", "at least 1 each")
        require(
            self.width % 4 == 0, f"width is {self.width}", "a multiple of 4: blocks are four times as narrow inside"
        )
        require(0 < self.squeeze < 0.5, f"squeeze is {self.squeeze}", "above 0, below 0.5")
        fits = self.picture_size % self.factor == 0
        require(fits, f"picture_size is {self.picture_size}", f"a multiple of the factor {self.factor}")

    @property
    def factor(self) -> int:
        """Pixels per cell, along each axis."""
        return self.patch * FACTOR

    @property
    def branch_gain(self) -> float:
        """What a residual branch is multiplied by: 1 over the square of the number of blocks."""
        return 1 / (len(GROWTH) * self.blocks) ** 2


class Block(nn.Module):
    """A bottleneck of four convolutions beside the identity; there is no norm in the whole network."""

    def __init__(self, before: int, after: int, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        inner = after // 4
        channels = (before, inner, inner, inner, after)
        layers: list[nn.Module] = []
        for kernel, one, other in zip(kernels, channels, channels[1:], strict=False):
            layers += [nn.ReLU(), conv(one, other, kernel)]
        self.branch = nn.Sequential(*layers)
        self.same = conv(before, after, 1) if before != after else nn.Identity()
        self.gain = gain

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Add what the branch finds."""
        return self.same(x) + self.gain * self.branch(x)


class Encoder(nn.Sequential):
    """Pictures in (0, 1) to logits of the words of every cell."""

    def __init__(self, config: DiscreteVAEConfig) -> None:
        kernels, width = (3, 3, 3, 1), config.width
        layers: list[nn.Module] = [nn.PixelUnshuffle(config.patch)] if config.patch > 1 else []
        layers.append(conv(config.picture_channels * config.patch**2, width, 7))
        before = width
        for level, growth in enumerate(GROWTH):
            for _ in range(config.blocks):
                layers.append(Block(before, growth * width, kernels, config.branch_gain))
                before = growth * width
            if level < len(GROWTH) - 1:
                layers.append(nn.MaxPool2d(2))
        layers += [nn.ReLU(), conv(before, config.vocabulary, 1)]
        super().__init__(*layers)


class Decoder(nn.Module):
    """Words, or mixtures of words, to the two numbers of every channel of every pixel: mu and ln b."""

    def __init__(self, config: DiscreteVAEConfig) -> None:
        super().__init__()
        kernels, width = (1, 3, 3, 3), config.width
        self.codebook = conv(config.vocabulary, config.code_width, 1)
        before, layers = config.code_width, list[nn.Module]()
        for level, growth in enumerate(GROWTH[::-1]):
            for _ in range(config.blocks):
                layers.append(Block(before, growth * width, kernels, config.branch_gain))
                before = growth * width
            if level < len(GROWTH) - 1:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        layers += [nn.ReLU(), conv(before, 2 * config.picture_channels * config.patch**2, 1)]
        if config.patch > 1:
            layers.append(nn.PixelShuffle(config.patch))
        self.rest = nn.Sequential(*layers)

    def from_mixture(self, words: Float[Tensor, "b v h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Draw cells that hold shares of words, as in training.

        Args:
            words: shares, 1 in all a cell.
        """
        return self.rest(self.codebook(words))

    def forward(self, tokens: Int[Tensor, "b h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Draw cells that hold one word each: what a one-hot mixture would give, by looking the word up.

        Args:
            tokens: numbers of words.
        """
        vectors = F.embedding(tokens, self.codebook.weight[:, :, 0, 0].T)
        assert self.codebook.bias is not None
        return self.rest((vectors + self.codebook.bias).permute(0, 3, 1, 2).contiguous())


class DiscreteVAE(nn.Module):
    """Picture to words and back; a `TokenCodec`."""

    def __init__(self, config: DiscreteVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.picture_channels = config.picture_channels
        self.picture_size = config.picture_size
        self.vocabulary = config.vocabulary
        self.factor = config.factor

    def logits(self, pictures: Pictures) -> Float[Tensor, "b v h2 w2"]:
        """Say how likely each word is in every cell.

        Args:
            pictures: values in [-1, 1], sides a multiple of the factor.
        """
        return self.encoder(squeeze(pictures, self.config.squeeze))

    def encode_tokens(self, pictures: Pictures) -> Int[Tensor, "b h2 w2"]:
        """Pictures in [-1, 1] to the likeliest word of every cell."""
        return self.logits(pictures).argmax(dim=1)

    def decode_tokens(self, tokens: Int[Tensor, "b h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Words to pictures in [-1, 1]: the middle of the likelihood, without its width."""
        return unsqueeze(self.decoder(tokens).chunk(2, dim=1)[0], self.config.squeeze)


def conv(before: int, after: int, kernel: int) -> nn.Conv2d:
    """Make a convolution that keeps the size, begun as the published network's are: unit variance out, no bias.

    Args:
        before: channels in.
        after: channels out.
        kernel: side, odd.
    """
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(before * kernel**2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def squeeze(pictures: Pictures, margin: float) -> Pictures:
    """Map pixels of [-1, 1] into [margin, 1 - margin], where the logit-Laplace likelihood is finite.

    Args:
        pictures: any.
        margin: epsilon of the paper.

    Source: appendix A.3, eq. 3.
    """
    return (1 - 2 * margin) * (pictures + 1) / 2 + margin


def unsqueeze(mu: Pictures, margin: float) -> Pictures:
    """Map the middles of logit-Laplace distributions back to pixels of [-1, 1].

    Args:
        mu: any numbers.
        margin: as of `squeeze`.
    """
    return (2 * (mu.sigmoid() - margin) / (1 - 2 * margin) - 1).clamp(-1, 1)


DVAE_PRESETS: Mapping[str, DiscreteVAEConfig] = MappingProxyType(
    {
        "openai": DiscreteVAEConfig(),
        "emoji": DiscreteVAEConfig(
            picture_size=64, picture_channels=4, vocabulary=2048, width=48, code_width=64, patch=1
        ),
    }
)
