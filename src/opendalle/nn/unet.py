"""One U-Net: the denoiser of GLIDE, of unCLIP's decoder and of its upsamplers, of Karlo, and of our small models.

The grid goes down through levels of residual blocks, each half as fine and usually wider than the one before, and up
again; every grid on the way down is handed across to the way up.  Coarse levels add attention, whose keys are
[context ; picture]: the picture reads the prompt and itself in one softmax; or a whole transformer layer, which looks
at the picture and at the prompt one after the other, as latent diffusion does.

Source: ADM, arXiv:2105.05233, section 3 (residual resampling, adaptive group norm, heads of 64 channels);
    GLIDE, arXiv:2112.10741, section 3.1 (context keys); unCLIP, arXiv:2204.06125, section 2.1; latent diffusion,
    arXiv:2112.10752, section 3.3 (transformer layers).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from opendalle.base.errors import BadRequest, require
from opendalle.nn.attention import Attention, AttentionContext
from opendalle.nn.embeddings import LearnedTimeEmbedding, TimeEmbedding
from opendalle.nn.kv_cache import KeysValues
from opendalle.nn.norms import Norm, make_norm
from opendalle.nn.picture_transformer import PictureTransformer
from opendalle.nn.residual import Conditioning, Resample, ResidualBlock

Middle = Literal["attention", "residual", "none"]
Looking = Literal["joint", "layer"]


@dataclass(frozen=True, kw_only=True)
class UNetLevel:
    """One resolution of a U-Net."""

    width: int  # channels
    num_blocks: int  # residual blocks on the way down; the way up has one more
    has_attention: bool = False  # attention after every residual block of the level

    def __post_init__(self) -> None:
        require(self.width > 0 and self.num_blocks > 0, f"level {self}", "a positive width and number of blocks")


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a U-Net."""

    in_channels: int  # of the noised grid, with whatever is concatenated to it
    out_channels: int  # of the prediction; twice the grid's when a variance is learned
    levels: tuple[UNetLevel, ...]  # from the finest to the coarsest; each is half as fine as the one before
    time_width: int  # width of the vector that carries step and embedding to every residual block
    num_learned_steps: int | None = None  # so many steps have a learned vector each; None: any step, by its sinusoid
    patch: int = 1  # side of the squares folded into channels on the way in and unfolded on the way out, in cells
    middle: Middle = "attention"  # two residual blocks at the bottom with attention between them, or "residual" ones
    # alone, or "none": small models spend their weights better elsewhere
    looking: Looking = "joint"  # attention to picture and context in one softmax, or a transformer layer for both
    head_width: int = 64  # channels an attention head
    context_width: int | None = None  # width of a context token; None: the picture looks at itself only
    conditioning: Conditioning = "scale-shift"  # how the time vector enters a residual block; or "add"
    norm: Norm = "group"  # what every norm looks at: the whole grid, or with "cell" each cell alone, which tiles allow
    norm_groups: int = 32  # groups of every group norm; they divide every width
    norm_eps: float = 1e-5  # added to the variance in norms
    dropout: float = 0.0  # before each residual block's last convolution, in training

    def __post_init__(self) -> None:
        require(self.in_channels > 0 and self.out_channels > 0, f"channels of {self}", "positive numbers")
        require(len(self.levels) > 0, "no levels", "at least one level")
        require(self.time_width > 0 and self.patch > 0, f"time_width and patch of {self}", "positive numbers")
        steps = self.num_learned_steps
        require(steps is None or steps > 0, f"num_learned_steps is {steps}", "a positive number, or None")
        require(self.conditioning in ("add", "scale-shift"), f"conditioning {self.conditioning!r}", "add, scale-shift")
        require(
            self.middle in ("attention", "residual", "none"), f"middle {self.middle!r}", "attention, residual, none"
        )
        require(self.looking in ("joint", "layer"), f"looking {self.looking!r}", "joint, layer")
        require(self.looking == "joint" or self.context_width is not None, "layers without context", "a context_width")
        require(self.norm in ("group", "cell"), f"norm {self.norm!r}", "group, cell")
        require(0 <= self.dropout < 1, f"dropout {self.dropout}", "0 <= dropout < 1")
        require(self.norm_eps > 0, f"norm_eps {self.norm_eps}", "a positive number")
        attended = [level.width for level in self.levels if level.has_attention]
        attended += [self.levels[-1].width] if self.middle == "attention" else []
        for name, divisor, widths in (
            ("norm_groups", self.norm_groups, [level.width for level in self.levels]),
            ("head_width", self.head_width, attended),
            ("two (the sinusoid has cosines and sines)", 2, [self.levels[0].width]),
        ):
            fits = divisor > 0 and all(width % divisor == 0 for width in widths)
            require(fits, f"widths {widths}", f"multiples of {name}, {divisor}")

    @property
    def multiple(self) -> int:
        """What height and width of a grid must be multiples of, in cells."""
        return self.patch * 2 ** (len(self.levels) - 1)

    @property
    def reach(self) -> int | None:
        """How far a prediction sees, in cells, from a square of `multiple` cells; None: everywhere.

        Followed back from the exit along the longest way, through every level: a convolution adds one cell of its
        level, and what a coarse level is handed is first rounded up to whole cells of it.
        """
        attends = self.middle == "attention" or any(level.has_attention for level in self.levels)
        if attends or self.norm == "group":
            return None
        last = len(self.levels) - 1
        way = [0]  # level of every convolution on it
        for index, level in enumerate(self.levels):
            way += [index] * (2 * (level.num_blocks + 1) + (2 if index < last else 0))
        way += [last] * (4 if self.middle == "residual" else 0)
        for index, level in reversed(list(enumerate(self.levels))):
            way += [index] * (2 * level.num_blocks + (2 if index > 0 else 0))
        seen = 0
        for level in [*way, 0]:
            cell = self.patch * 2**level
            seen = (-(-seen // cell) + 1) * cell
        return seen


class PictureAttention(nn.Module):
    """Attention of a grid's cells over [context ; cells], added to the grid.

    Args:
        width: channels of the grid.
        config: head width, context width and norms.
        layer: which of the context's layers is ours.
    """

    def __init__(self, width: int, config: UNetConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = make_norm(config.norm, width, groups=config.norm_groups, eps=config.norm_eps)
        self.attention = Attention(width, width // config.head_width, context_width=config.context_width)
        nn.init.zeros_(self.attention.out.weight)  # every attention starts as the identity
        nn.init.zeros_(self.attention.out.bias)

    def project_context(self, states: Float[Tensor, "b m d"]) -> KeysValues:
        """Compute a context's keys and values; they can be kept as long as the context stays."""
        return self.attention.project_context(states)

    def forward(self, x: Float[Tensor, "b c h w"], context: AttentionContext | None) -> Float[Tensor, "b c h w"]:
        """Let every cell look at the context and at all cells."""
        height = x.shape[2]
        cells = rearrange(self.norm(x), "b c h w -> b (h w) c")  # a view when x is channels_last
        mask, keys = None, None
        if context is not None:
            keys = context.layers[self.layer]
            mask = context.mask_with(cells.shape[1])
        mixed = self.attention(cells, mask=mask, context=keys)
        return x + rearrange(mixed, "b (h w) c -> b c h w", h=height)


def make_attention(width: int, config: UNetConfig, layer: int) -> PictureAttention | PictureTransformer:
    """Build what looks at picture and context.

    Args:
        width: channels of the grid.
        config: of the whole U-Net.
        layer: which of the context's layers is its.
    """
    if config.looking == "joint":
        return PictureAttention(width, config, layer)
    assert config.context_width is not None, "checked when the config was made"
    return PictureTransformer(
        width,
        width // config.head_width,
        config.context_width,
        layer,
        norm=config.norm,
        norm_groups=config.norm_groups,
        norm_eps=config.norm_eps,
    )


class UNetBlock(nn.Module):
    """A residual block and, where the level has it, an attention.

    Args:
        in_channels: channels that come, the handed-over ones included.
        width: channels that leave.
        config: of the whole U-Net.
        layer: index of the attention; None: no attention.
        resample: whether the grid doubles or halves inside the residual block.
    """

    def __init__(
        self, in_channels: int, width: int, config: UNetConfig, *, layer: int | None, resample: Resample = "none"
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(
            in_channels,
            width,
            embedding_width=config.time_width,
            conditioning=config.conditioning,
            resample=resample,
            norm=config.norm,
            norm_groups=config.norm_groups,
            norm_eps=config.norm_eps,
            dropout=config.dropout,
        )
        self.attention = None if layer is None else make_attention(width, config, layer)
        self.takes_handed = resample != "up"  # on the way up: whether a grid of the way down is concatenated first

    def forward(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "b d"], context: AttentionContext | None
    ) -> Float[Tensor, "b c2 h2 w2"]:
        """Transform a grid."""
        x = self.residual(x, time)
        return x if self.attention is None else self.attention(x, context)


class UNet(nn.Module):
    """The denoiser.  `down`, `middle` and `up` are flat lists of blocks, in the order in which the grid meets them.

    Every block of `down` hands its result over; every block of `up` that does not resample takes one.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        levels, last = config.levels, len(config.levels) - 1
        num_attentions = 0

        def block(in_channels: int, width: int, has_attention: bool, resample: Resample = "none") -> UNetBlock:
            nonlocal num_attentions
            layer = num_attentions if has_attention else None
            num_attentions += has_attention
            return UNetBlock(in_channels, width, config, layer=layer, resample=resample)

        width = levels[0].width
        self.time = TimeEmbedding(width, config.time_width)
        if config.num_learned_steps is not None:
            self.time = LearnedTimeEmbedding(config.num_learned_steps, width, config.time_width)
        self.conv_in = nn.Conv2d(config.in_channels * config.patch**2, width, 3, padding=1)
        handed, self.down = [width], nn.ModuleList()  # handed: channels of every grid handed over
        for index, level in enumerate(levels):
            for _ in range(level.num_blocks):
                self.down.append(block(width, level.width, level.has_attention))
                width = level.width
                handed.append(width)
            if index < last:
                self.down.append(block(width, width, False, "down"))
                handed.append(width)

        self.middle = nn.ModuleList()
        if config.middle != "none":
            self.middle.append(block(width, width, config.middle == "attention"))
            self.middle.append(block(width, width, False))

        self.up = nn.ModuleList()
        for index, level in reversed(list(enumerate(levels))):
            for _ in range(level.num_blocks + 1):
                self.up.append(block(width + handed.pop(), level.width, level.has_attention))
                width = level.width
            if index > 0:
                self.up.append(block(width, width, False, "up"))

        self.norm_out = make_norm(config.norm, width, groups=config.norm_groups, eps=config.norm_eps)
        self.conv_out = nn.Conv2d(width, config.out_channels * config.patch**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)  # the first prediction is zero, so the first loss is the data's variance
        if self.conv_out.bias is not None:
            nn.init.zeros_(self.conv_out.bias)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - else every call copies them

    def prepare_context(
        self, states: Float[Tensor, "b m d"], mask: Bool[Tensor, "b m"] | None = None
    ) -> AttentionContext:
        """Compute every attention's keys and values of a prompt; they serve all denoising steps.

        Args:
            states: context tokens, config.context_width wide.
            mask: True where a token is real; None: all are.
        """
        attentions = [one for one in self.modules() if isinstance(one, PictureAttention | PictureTransformer)]
        return AttentionContext(tuple(one.project_context(states) for one in attentions), mask)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Shaped[Tensor, " b"],
        *,
        embedding: Float[Tensor, "b d"] | None = None,
        context: AttentionContext | None = None,
    ) -> Float[Tensor, "b c2 h w"]:
        """Predict from a noised grid.

        Args:
            x: noised grid; height and width are multiples of config.multiple.
            t: diffusion step of each sample.
            embedding: added to the time vector, config.time_width wide.
            context: from `prepare_context`.

        Raises:
            BadRequest: when the grid does not fit the levels.
        """
        if x.shape[2] % self.config.multiple or x.shape[3] % self.config.multiple:
            raise BadRequest(f"a grid of {x.shape[2]} by {x.shape[3]}", f"multiples of {self.config.multiple}")
        time = self.time(t)
        if embedding is not None:
            time = time + embedding

        x = self.conv_in(F.pixel_unshuffle(x, self.config.patch))
        x = x.contiguous(memory_format=torch.channels_last)  # and so stays all the way: cells are tokens without a copy
        handed = [x]
        for block in self.down:
            x = block(x, time, context)
            handed.append(x)
        for block in self.middle:
            x = block(x, time, context)
        for block in self.up:
            if block.takes_handed:
                x = torch.cat([x, handed.pop()], dim=1)
            x = block(x, time, context)

        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.config.patch)
