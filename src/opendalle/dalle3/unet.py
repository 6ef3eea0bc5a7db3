"""The paper's denoiser: a U-Net of three levels over the latent grid; norms tell it the step, attention the caption.

The step scales and shifts what every second group norm gives; cells look at the caption's tokens in transformer layers
between the convolutions.  The paper names the block that does so, and does not describe it: here it is latent
diffusion's.

Source: Betker et al., appendix A; latent diffusion, arXiv:2112.10752, section 3.3.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Grid, Steps
from opendalle.base.errors import require
from opendalle.dalle3.text_encoder import TextStates
from opendalle.dalle3.text_keys import TextIn, TextKeys
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel


@dataclass(frozen=True, kw_only=True)
class LatentUNetConfig:
    """Shape of a latent U-Net."""

    channels: int  # of the grid
    text_width: int  # of a token's state
    widths: tuple[int, ...] = (320, 640, 1_280)  # channels of each level, finest first; the paper has three
    num_blocks: int = 2  # residual blocks of every level on the way down; the way up has one more
    time_width: int = 1_280  # of the vector that carries the step
    context_width: int = 768  # of a caption's token inside
    head_width: int = 64  # channels an attention head
    norm_groups: int = 32  # groups of every group norm
    pools_text: bool = False  # whether the mean of the caption's states joins the step's vector
    learns_variance: bool = False  # whether the prediction has as many channels again, for the variance of each step

    def __post_init__(self) -> None:
        require(min(self.channels, self.text_width, self.context_width) > 0, f"widths of {self}", "positive numbers")
        self.make_unet()

    def make_unet(self) -> UNetConfig:
        """Describe the U-Net."""
        return UNetConfig(
            in_channels=self.channels,
            out_channels=self.channels * (1 + self.learns_variance),
            levels=tuple(UNetLevel(width=one, num_blocks=self.num_blocks, has_attention=True) for one in self.widths),
            time_width=self.time_width,
            looking="layer",
            head_width=self.head_width,
            context_width=self.context_width,
            norm_groups=self.norm_groups,
        )

    @property
    def multiple(self) -> int:
        """What height and width of a grid must be multiples of, in cells."""
        return self.make_unet().multiple


class LatentUNet(nn.Module):
    """Predicts the noise (or whatever it was trained for) in a noised grid, told a caption."""

    def __init__(self, config: LatentUNetConfig) -> None:
        super().__init__()
        self.config = config
        pooled = config.time_width if config.pools_text else None
        self.text_in = TextIn(config.text_width, config.context_width, pooled)
        self.unet = UNet(config.make_unet())

    def read(self, said: TextStates) -> TextKeys:
        """Read captions once, for all steps."""
        return self.text_in(said, self.unet.prepare_context)

    def forward(self, x_t: Grid, t: Steps, said: TextStates | TextKeys) -> Float[Tensor, "b c2 h w"]:
        """Predict; arguments, errors and result are those of `Denoiser.forward`."""
        keys = said if isinstance(said, TextKeys) else self.read(said)
        embedding = keys.pooled_for(len(x_t)) if self.config.pools_text else None
        return self.unet(x_t, t, embedding=embedding, context=keys.context)
