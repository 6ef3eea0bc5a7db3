"""The denoiser of DALL·E 3: from a noised latent grid and a caption's tokens to what was there before the noise.

Two bodies stand behind one door, the paper's U-Net and a transformer.  What a caption fixes is computed once by `read`;
a caption that is not read yet can be handed in just as well, and gives the same.

Source: Betker et al., "Improving Image Generation with Better Captions", 2023, appendix A.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Grid, Steps
from opendalle.base.errors import require
from opendalle.dalle3.text_encoder import TextStates
from opendalle.dalle3.text_keys import TextKeys
from opendalle.dalle3.transformer import LatentTransformer, LatentTransformerConfig
from opendalle.dalle3.unet import LatentUNet, LatentUNetConfig


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Shape of a denoiser: one of two bodies."""

    unet: LatentUNetConfig | None = None  # the paper's
    transformer: LatentTransformerConfig | None = None  # instead of it

    def __post_init__(self) -> None:
        require((self.unet is None) != (self.transformer is None), f"bodies of {self}", "a unet or a transformer")

    @property
    def body(self) -> LatentUNetConfig | LatentTransformerConfig:
        """Whichever of the two is there."""
        body = self.unet if self.unet is not None else self.transformer
        assert body is not None, "checked when the config was made"
        return body

    @property
    def channels(self) -> int:
        """Channels of the grid that is denoised."""
        return self.body.channels

    @property
    def text_width(self) -> int:
        """Width of a token's state."""
        return self.body.text_width

    @property
    def multiple(self) -> int:
        """What height and width of a grid must be multiples of, in cells."""
        return self.body.multiple

    @property
    def learns_variance(self) -> bool:
        """Whether the second half of the output is the variance's interpolation (learned range)."""
        return self.body.learns_variance

    def fitting(self, *, channels: int, text_width: int) -> "DenoiserConfig":
        """Return the same shape for another codec's grid and another encoder's states."""
        name = "unet" if self.unet is not None else "transformer"
        return replace(self, **{name: replace(self.body, channels=channels, text_width=text_width)})


class Denoiser(nn.Module):
    """Predicts the noise (or whatever it was trained for) in a noised grid, told a caption."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        if config.unet is not None:
            self.body = LatentUNet(config.unet)
        else:
            assert config.transformer is not None, "checked when the config was made"
            self.body = LatentTransformer(config.transformer)

    def read(self, said: TextStates) -> TextKeys:
        """Read captions once, for all steps.

        Args:
            said: captions; every row has at least one token, the end.
        """
        return self.body.read(said)

    def forward(self, x_t: Grid, t: Steps, said: TextStates | TextKeys) -> Float[Tensor, "b c2 h w"]:
        """Predict from a noised grid of any height and width.

        Args:
            x_t: noised grid; height and width are multiples of config.multiple.
            t: diffusion step of each sample, 0 to 999.
            said: captions, or what `read` made of them: as many rows, or a fraction of them, where each few neighbours
                share a caption (several pictures of one prompt).

        Returns:
            The prediction; with a learned variance, its interpolation stands in the second half of the channels.

        Raises:
            BadRequest: when the grid does not fit the body.
        """
        return self.body(x_t, t, said)


DENOISER_PRESETS: Mapping[str, DenoiserConfig] = MappingProxyType(
    {
        # 8x8x8 codec grid as 16 tokens of 2x2 cells; docs/decisions/0006: no U-Net.  Captions of bytes are long, so
        # their keys are made once for all blocks.
        "emoji": DenoiserConfig(
            transformer=LatentTransformerConfig(
                channels=8,
                text_width=192,
                width=320,
                depth=6,
                heads=5,
                mlp_ratio=3.0,
                shares_keys=True,
                pools_text=True,
            )
        ),
        "emoji-unet": DenoiserConfig(
            unet=LatentUNetConfig(
                channels=8,
                text_width=192,
                widths=(64, 96, 160),
                num_blocks=1,
                time_width=192,
                context_width=192,
                head_width=32,
                norm_groups=16,
                pools_text=True,
            )
        ),
        # 32x32x4 grid of Stable Diffusion's autoencoder and T5-XXL's states, as the paper's; its sizes are not told,
        # these are of Stable Diffusion's order.
        "paper-like": DenoiserConfig(unet=LatentUNetConfig(channels=4, text_width=4_096, num_blocks=3)),
        # PixArt-α at 256 pixels.
        "pixart": DenoiserConfig(
            transformer=LatentTransformerConfig(
                channels=4,
                text_width=4_096,
                width=1_152,
                depth=28,
                heads=16,
                base_side=16,
                learns_variance=True,
            )
        ),
    }
)
