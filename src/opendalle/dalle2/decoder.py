"""The decoder: from a CLIP picture embedding and a caption to a picture, or to a codec's grid.

GLIDE's U-Net with two additions: the embedding z_i is projected and added to the time vector, and it is projected to
four tokens that stand before the caption's in the U-Net's context.  All that a prompt fixes is computed once, by
`condition`.

Source: unCLIP, arXiv:2204.06125, section 2.1; sizes in its appendix C.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from opendalle.base.errors import BadRequest, require
from opendalle.dalle2.means import check_given
from opendalle.nn.attention import AttentionContext
from opendalle.nn.embeddings import LearnedPositions
from opendalle.nn.grid_transformer import GridTransformer, GridTransformerConfig
from opendalle.nn.transformer import Transformer, TransformerConfig
from opendalle.nn.unet import UNet, UNetConfig, UNetLevel


@dataclass(frozen=True, kw_only=True)
class CaptionEncoderConfig:
    """Shape of the decoder's own text transformer."""

    vocabulary: int  # v, token ids
    num_tokens: int  # a caption is padded or cut to
    transformer: TransformerConfig  # over the tokens

    def __post_init__(self) -> None:
        require(self.vocabulary > 0 and self.num_tokens > 0, f"numbers of {self}", "positive numbers")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder."""

    embedding_width: int  # e, of CLIP's joint space
    text_width: int  # of a caption token's state
    text_embedding_width: int  # of the pooled caption: e for CLIP's z_t
    unet: UNetConfig | None = None  # the paper's body; its out_channels are its in_channels, or, when a variance is
    # learned, twice as many
    transformer: GridTransformerConfig | None = None  # instead of it, for a small grid
    has_sketch: bool = False  # whether the mean grid of z_i stands beside the noised one, in further channels
    has_known: bool = False  # whether, after that, what is known of the grid does, and which cells those are
    num_picture_tokens: int = 4  # context tokens made from z_i
    embedding_scale: float = 1.0  # multiplies z_i and z_t on the way in; sqrt(e) brings unit vectors to unit variance
    caption_encoder: CaptionEncoderConfig | None = None  # a text transformer of its own; None: states come from CLIP

    def __post_init__(self) -> None:
        require(min(self.embedding_width, self.text_width) > 0, f"widths of {self}", "positive numbers")
        require(self.num_picture_tokens > 0, f"num_picture_tokens {self.num_picture_tokens}", "a positive number")
        require(self.embedding_scale > 0, f"embedding_scale {self.embedding_scale}", "a positive number")
        require((self.unet is None) != (self.transformer is None), f"bodies of {self}", "a unet or a transformer")
        require(self.body.context_width is not None, "a body without context", "a context_width")
        channels, of_cells = self.grid_channels, int(self.has_known)
        require(
            channels > 0 and self.body.in_channels == channels * (1 + self.has_sketch + self.has_known) + of_cells,
            f"{self.body.in_channels} channels in, has_sketch {self.has_sketch}, has_known {self.has_known}",
            "as many channels of each, and one that tells which cells are known",
        )
        require(
            self.body.out_channels in (channels, 2 * channels),
            f"{self.body.out_channels} channels out for a grid of {channels}",
            f"{channels}, or {2 * channels} to learn the variance",
        )
        if self.caption_encoder is not None:
            width = self.caption_encoder.transformer.width
            require(width == self.text_width, f"a caption encoder {width} wide", f"text_width, {self.text_width}")

    @property
    def body(self) -> UNetConfig | GridTransformerConfig:
        """The network that denoises: whichever of the two is there."""
        body = self.unet if self.unet is not None else self.transformer
        assert body is not None, "checked when the config was made"
        return body

    @property
    def grid_channels(self) -> int:
        """Channels of the grid that is denoised."""
        return (self.body.in_channels - self.has_known) // (1 + self.has_sketch + self.has_known)

    @property
    def learns_variance(self) -> bool:
        """Whether the second half of the output is the variance's interpolation (learned range)."""
        return self.body.out_channels == 2 * self.grid_channels

    def learning_variance(self) -> "DecoderConfig":
        """Return the same decoder with twice the channels out, to learn the variance of each step too."""
        name = "unet" if self.unet is not None else "transformer"
        return replace(self, **{name: replace(self.body, out_channels=2 * self.grid_channels)})


@dataclass(frozen=True)
class Conditioning:
    """A prompt as the decoder has read it: everything that stays the same while a picture is denoised."""

    embedding: Float[Tensor, "b d"]  # added to the time vector
    context: AttentionContext  # keys and values of every attention
    sketch: Float[Tensor, "b c h w"] | None = None  # the mean grid of z_i
    known: Float[Tensor, "b c1 h w"] | None = None  # what is known of the grid, zeros elsewhere; then which cells are

    def rows(self, index: slice | Tensor) -> "Conditioning":
        """Keep some entries of the batch."""
        sketch, known = (None if one is None else one[index] for one in (self.sketch, self.known))
        return Conditioning(self.embedding[index], self.context.rows(index), sketch, known)


class CaptionEncoder(nn.Module):
    """The decoder's own text transformer, trained with it.  Source: GLIDE, arXiv:2112.10741, section 3.1."""

    def __init__(self, config: CaptionEncoderConfig) -> None:
        super().__init__()
        width = config.transformer.width
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.positions = LearnedPositions(config.num_tokens, width)
        self.transformer = Transformer(config.transformer)

    def forward(self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Read token ids; mask is True where a token is real."""
        return self.transformer(self.positions(self.tokens(ids)), mask=mask)


class Decoder(nn.Module):
    """Predicts the noise (or whatever it was trained for) in a noised picture, given z_i and a caption."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        e, time_width, context_width = config.embedding_width, config.body.time_width, config.body.context_width or 0
        self.caption_encoder = None if config.caption_encoder is None else CaptionEncoder(config.caption_encoder)
        self.null_embedding = nn.Parameter(torch.zeros(e))  # stands for z_i where it was dropped
        self.picture_to_time = nn.Linear(e, time_width)
        self.text_to_time = nn.Linear(config.text_embedding_width, time_width)
        self.picture_to_tokens = nn.Linear(e, config.num_picture_tokens * context_width)
        self.text_in = nn.Linear(config.text_width, context_width)
        self.text_norm = nn.LayerNorm(context_width)
        if config.unet is not None:
            self.body = UNet(config.unet)
        else:
            assert config.transformer is not None, "checked when the config was made"
            self.body = GridTransformer(config.transformer)

    def condition(
        self,
        z: Float[Tensor, "b e"],
        text_embedding: Float[Tensor, "b f"],
        text_states: Float[Tensor, "b n d"],
        text_mask: Bool[Tensor, "b n"] | None = None,
        *,
        has_embedding: Bool[Tensor, " b"] | None = None,
        sketch: Float[Tensor, "b c h w"] | None = None,
        known: Float[Tensor, "b c1 h w"] | None = None,
    ) -> Conditioning:
        """Read a prompt once, for all steps.

        A dropped caption is the empty caption, read as any other; the embedding and the caption are dropped
        independently of each other.

        Args:
            z: z_i, as CLIP gives it or the prior draws it.
            text_embedding: the pooled caption.
            text_states: the caption's token states, from CLIP or from `caption_encoder`.
            text_mask: True where a token is real; None: all are.
            has_embedding: False where z is to be dropped for the learned null embedding; None: nowhere.
            sketch: the mean grid of z, for a decoder that has one; it is dropped, for zeros, where z is.
            known: from `known_channels`, for a decoder that can be told what is known; None: nothing is.

        Raises:
            BadRequest: when there is a sketch and the decoder takes none, or the other way round; when something is
                known and the decoder was not trained to hear of it.
        """
        if known is not None and not self.config.has_known:
            raise BadRequest("known cells", "none: this decoder was trained without", "Use samplers.repaint.")
        check_given("sketch", sketch, wanted=self.config.has_sketch)
        scale = self.config.embedding_scale
        z = z * scale
        if has_embedding is not None:
            z = torch.where(has_embedding[:, None], z, self.null_embedding.to(z.dtype))
            sketch = None if sketch is None else sketch * has_embedding[:, None, None, None]
        embedding = self.picture_to_time(z) + self.text_to_time(text_embedding * scale)
        # Karlo's layout: token k holds every fourth feature, from k on.
        picture = rearrange(self.picture_to_tokens(z), "b (d n) -> b n d", n=self.config.num_picture_tokens)
        states = torch.cat([picture, self.text_norm(self.text_in(text_states)).to(picture.dtype)], dim=1)
        if text_mask is not None:
            text_mask = F.pad(text_mask, (self.config.num_picture_tokens, 0), value=True)
        return Conditioning(embedding, self.body.prepare_context(states, text_mask), sketch, known)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Shaped[Tensor, " b"], conditioning: Conditioning
    ) -> Float[Tensor, "b c2 h w"]:
        """Predict from a noised grid.

        Args:
            x_t: noised grid.
            t: diffusion step of each sample, 0 to 999.
            conditioning: from `condition`, as many rows.

        Returns:
            The prediction; with a learned variance, its interpolation stands in the second half of the channels.
        """
        if conditioning.sketch is not None:
            x_t = torch.cat([x_t, conditioning.sketch.to(x_t.dtype)], dim=1)
        if self.config.has_known:
            known = conditioning.known
            nothing = x_t.new_zeros(len(x_t), self.config.grid_channels + 1, *x_t.shape[2:])
            x_t = torch.cat([x_t, nothing if known is None else known.to(x_t.dtype)], dim=1)
        return self.body(x_t, t, embedding=conditioning.embedding, context=conditioning.context)


def _emoji() -> DecoderConfig:
    """8x8x8 codec grid, its sketch, what is known of it, as 16 tokens of 2x2 cells; docs/decisions/0006: no U-Net."""
    body = GridTransformerConfig(
        in_channels=25, out_channels=8, patch=2, width=320, depth=6, heads=5, time_width=320, context_width=256
    )
    return DecoderConfig(
        embedding_width=256,
        text_width=256,
        text_embedding_width=256,
        transformer=body,
        has_sketch=True,
        has_known=True,
        embedding_scale=16.0,
    )


def _karlo() -> DecoderConfig:
    """Karlo v1 alpha: 64 px, OpenAI CLIP L/14, raw embeddings, learned variance."""
    unet = UNetConfig(
        in_channels=3,
        out_channels=6,
        levels=tuple(UNetLevel(width=w, num_blocks=3, has_attention=w > 320) for w in (320, 640, 960, 1280)),
        time_width=1280,
        context_width=1536,
    )
    return DecoderConfig(embedding_width=768, text_width=768, text_embedding_width=768, unet=unet)


def _paper() -> DecoderConfig:
    """The paper's column "64": GLIDE's U-Net and text transformer (its 50,257 byte pairs and context of 128)."""
    unet = UNetConfig(
        in_channels=3,
        out_channels=6,
        levels=tuple(UNetLevel(width=w, num_blocks=3, has_attention=w > 512) for w in (512, 1024, 1536, 2048)),
        time_width=2048,
        context_width=2048,
        dropout=0.1,
    )
    text = CaptionEncoderConfig(
        vocabulary=50_257, num_tokens=128, transformer=TransformerConfig(width=2048, depth=24, heads=32)
    )
    return DecoderConfig(
        embedding_width=1024,
        text_width=2048,
        text_embedding_width=2048,
        unet=unet,
        embedding_scale=32.0,
        caption_encoder=text,
    )


DECODER_PRESETS: Mapping[str, DecoderConfig] = MappingProxyType(
    {"emoji": _emoji(), "karlo": _karlo(), "paper": _paper()}
)
