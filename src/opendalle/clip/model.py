"""CLIP: a picture tower and a text tower that meet in one space of unit vectors.

A picture becomes a row of patches, a caption a row of tokens; each runs through a transformer of its own, and one
token's last state, projected to the joint width, speaks for the whole.  How alike a picture and a caption are is the
dot product of their vectors.  DALL·E 2 is called unCLIP because it runs this arrow backwards, from vector to picture.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv:2103.00020,
section 2.4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from opendalle.base.axes import Embeddings, Mask, Pictures, States, Tokens
from opendalle.base.errors import BadRequest, require
from opendalle.nn.embeddings import LearnedPositions
from opendalle.nn.residual import ResidualBlock
from opendalle.nn.transformer import Transformer, TransformerConfig

STEM_GROUPS = 32  # of every group norm in a convolutional stem
MAX_SCALE = 100.0  # of the logits; beyond it training grows unstable (section 2.5)


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Shape of both towers.  Plain numbers, so that `CLIPConfig(**json)` rebuilds it."""

    embed: int  # e, width of the joint space
    vocab: int  # tokens the text tower knows
    context: int  # longest caption in tokens, start and end included
    text_width: int  # of a token in the text tower
    text_depth: int  # blocks of the text tower
    text_heads: int  # attention heads of the text tower; they divide its width
    size: int  # side of a picture in pixels
    patch: int  # side of a patch in pixels; it divides size
    channels: int  # 3 for RGB, 4 for RGBA with premultiplied colour
    picture_width: int  # of a token in the picture tower
    picture_depth: int  # blocks of the picture tower
    picture_heads: int  # attention heads of the picture tower; they divide its width
    has_word_path: bool = False  # whether a caption's token vectors also reach the joint space past the transformer
    stem: Sequence[int] = ()  # widths of convolutions that make the patch tokens, halving the grid; empty: one matrix
    pool: Literal["class", "mean"] = "class"  # what speaks for a picture: a token of its own, or its patches' mean
    activation: Literal["gelu", "quick_gelu"] = "gelu"  # OpenAI's public weights were trained with quick_gelu
    eps: float = 1e-5  # added to the variance in layer norms
    pixel_mean: Sequence[float] = ()  # one a channel, of values in [0, 1]; empty: pictures enter in [-1, 1]
    pixel_std: Sequence[float] = ()  # one a channel, beside the means

    def __post_init__(self) -> None:
        require(self.embed > 0, f"embed is {self.embed}", "a positive number")
        require(self.vocab > 0, f"vocab is {self.vocab}", "a positive number")
        require(self.context >= 2, f"context is {self.context}", "at least 2: start and end")
        require(
            self.patch > 0 and self.size > 0 and self.size % self.patch == 0,
            f"size {self.size} in patches of {self.patch}",
            "a size that the patch divides",
        )
        require(self.channels in (3, 4), f"channels is {self.channels}", "3 (RGB) or 4 (RGBA)")
        require(self.pool in ("class", "mean"), f"pool is {self.pool!r}", "class or mean")
        object.__setattr__(self, "stem", tuple(self.stem))
        halvings = 2 ** max(len(self.stem) - 1, 0)
        require(
            self.patch % halvings == 0 and all(width > 0 and width % STEM_GROUPS == 0 for width in self.stem),
            f"a stem of {self.stem} for patches of {self.patch}",
            f"multiples of {STEM_GROUPS}, and a patch that halves once between them",
        )
        object.__setattr__(self, "pixel_mean", tuple(self.pixel_mean))  # JSON gives lists
        object.__setattr__(self, "pixel_std", tuple(self.pixel_std))
        has_statistics = len(self.pixel_mean) == len(self.pixel_std) in (0, self.channels)
        require(
            has_statistics and all(std > 0 for std in self.pixel_std),
            f"pixel_mean {self.pixel_mean}, pixel_std {self.pixel_std}",
            "both empty, or one mean and one positive deviation a channel",
        )
        _ = self.text, self.picture  # their configs check widths and heads

    @property
    def text(self) -> TransformerConfig:
        """The text tower's transformer: a token sees itself and earlier ones."""
        return TransformerConfig(
            width=self.text_width,
            depth=self.text_depth,
            heads=self.text_heads,
            is_causal=True,
            activation=self.activation,
            norm_eps=self.eps,
        )

    @property
    def picture(self) -> TransformerConfig:
        """The picture tower's transformer; its last norm is applied to the pooled token alone."""
        return TransformerConfig(
            width=self.picture_width,
            depth=self.picture_depth,
            heads=self.picture_heads,
            activation=self.activation,
            norm_eps=self.eps,
            final_norm=False,
        )


@dataclass(frozen=True, kw_only=True)
class TextEncoding:
    """All that a caption gives to what follows."""

    pooled: Embeddings  # unit vectors in the joint space
    raw: Embeddings  # the same before scaling to unit length: what priors of public weights read
    states: States  # last state of every token: structure that one vector cannot hold
    words: States  # first state of every token, before the transformer: which word it is, and nothing else


class TextTower(nn.Module):
    """Causal transformer over a caption, read at its end token, which alone has seen all of it.

    With a word path the sum of the token vectors, over the root of their number, is mapped into the joint space and
    added.  A sum of word vectors is a strong sentence embedding where there is little text to learn from (Arora et
    al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017); the transformer then need only
    learn what order and company change.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab, config.text_width)
        self.positions = LearnedPositions(config.context, config.text_width, std=0.01)
        self.transformer = Transformer(config.text)
        self.project = nn.Linear(config.text_width, config.embed, bias=False)
        self.words = nn.Linear(config.text_width, config.embed, bias=False) if config.has_word_path else None
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.project.weight, std=config.text_width**-0.5)

    def forward(self, ids: Tokens, mask: Mask) -> TextEncoding:
        """Read captions; padding comes last, so causality hides it and the mask only tells where the end is."""
        vectors = self.tokens(ids)  # (b, n, d)
        states = self.transformer(self.positions(vectors))  # (b, n, d)
        position = torch.arange(ids.shape[1], device=ids.device)
        end = (position * mask).amax(dim=1)  # (b,)
        raw = self.project(states[torch.arange(len(ids), device=ids.device), end])
        if self.words is not None:
            summed = (vectors * mask[..., None]).sum(dim=1)  # (b, d)
            raw = raw + self.words(summed / mask.sum(dim=1, keepdim=True).to(summed.dtype).sqrt())
        return TextEncoding(pooled=F.normalize(raw, dim=-1), raw=raw, states=states, words=vectors)


class ConvolutionalStem(nn.Sequential):
    """Pictures to patch tokens by a few convolutions: a small picture set teaches edges to these far sooner.

    Pixels are folded into channels first, so no convolution runs at full resolution.

    Source: Xiao et al., "Early Convolutions Help Transformers See Better", arXiv:2106.14881, section 3.
    """

    def __init__(self, config: CLIPConfig) -> None:
        widths = tuple(config.stem)
        fold = config.patch // 2 ** (len(widths) - 1)
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(fold),
            nn.Conv2d(config.channels * fold**2, widths[0], 3, padding=1),
        ]
        for before, after in pairwise(widths):
            layers.append(ResidualBlock(before, after, resample="down", norm_groups=STEM_GROUPS))
        layers += [nn.GroupNorm(STEM_GROUPS, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], config.picture_width, 1)]
        super().__init__(*layers)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, input: Pictures) -> Float[Tensor, "b n d"]:
        """Make one token a patch, row by row."""
        return rearrange(super().forward(input), "b d h w -> b (h w) d")


class PictureTower(nn.Module):
    """Vision transformer: patches, a class token (or the patches' mean), norms before and after.

    Source: Dosovitskiy et al., arXiv:2010.11929, section 3.1; the extra norm before the transformer is CLIP's.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        width, scale = config.picture_width, config.picture_width**-0.5
        has_class = config.pool == "class"
        values = config.channels * config.patch**2
        self.patches = ConvolutionalStem(config) if config.stem else nn.Linear(values, width, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * scale) if has_class else None
        self.positions = LearnedPositions((config.size // config.patch) ** 2 + has_class, width, std=scale)
        self.norm_in = nn.LayerNorm(width, eps=config.eps)
        self.transformer = Transformer(config.picture)
        self.norm_out = nn.LayerNorm(width, eps=config.eps)
        self.project = nn.Linear(width, config.embed, bias=False)
        nn.init.normal_(self.project.weight, std=scale)
        if (
            config.pixel_mean
        ):  # (x + 1) / 2 brings [-1, 1] to [0, 1]; then minus mean, over deviation: one scale and shift
            std = torch.tensor(config.pixel_std)
            self.register_buffer("pixel_scale", 0.5 / std, persistent=False)
            self.register_buffer("pixel_shift", (0.5 - torch.tensor(config.pixel_mean)) / std, persistent=False)

    def forward(self, pictures: Pictures) -> Embeddings:
        """Embed pictures, not yet to unit length."""
        tokens = self.states(pictures)
        pooled = tokens.mean(dim=1) if self.class_token is None else tokens[:, 0]
        return self.project(self.norm_out(pooled))

    def states(self, pictures: Pictures) -> States:
        """Return the last state of every token: the class token's, if there is one, then the patches' row by row."""
        if self.config.pixel_mean:
            scale, shift = self.get_buffer("pixel_scale"), self.get_buffer("pixel_shift")
            pictures = pictures * scale[:, None, None] + shift[:, None, None]
        if not self.config.stem:
            p = self.config.patch
            pictures = rearrange(pictures, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)
        tokens = self.patches(pictures)  # (b, n, d)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.to(tokens.dtype).expand(len(tokens), 1, -1), tokens], dim=1)
        return self.transformer(self.norm_in(self.positions(tokens)))


class CLIP(nn.Module):
    """Both towers and the learned sharpness of their comparison."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextTower(config)
        self.picture = PictureTower(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # of the logits; the paper's starting value

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by to become logits, at most MAX_SCALE."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def encode_text(self, ids: Tokens, mask: Mask) -> TextEncoding:
        """Embed captions.

        Args:
            ids: as `BytePairTokenizer.pack` makes them; rows may be shorter than the context.
            mask: True from start to end token, padding last.

        Raises:
            BadRequest: when a row is longer than the context.
        """
        if ids.shape[1] > self.config.context:
            raise BadRequest(
                f"captions of {ids.shape[1]} tokens", f"at most {self.config.context}, this CLIP's context"
            )
        return self.text(ids, mask)

    def encode_pictures(self, pictures: Pictures, *, unit: bool = True) -> Embeddings:
        """Embed pictures.

        Args:
            pictures: in [-1, 1]; RGBA is premultiplied.
            unit: scale to unit length; without, as decoders of public weights read it.

        Raises:
            BadRequest: when a picture has another size or other channels than this CLIP was trained on.
        """
        self.check_pictures(pictures)
        embedded = self.picture(pictures)
        return F.normalize(embedded, dim=-1) if unit else embedded

    def check_pictures(self, pictures: Pictures) -> None:
        """Refuse pictures that this CLIP was not trained on.

        Args:
            pictures: a batch.

        Raises:
            BadRequest: when they have another size or other channels.
        """
        wanted = (self.config.channels, self.config.size, self.config.size)
        if tuple(pictures.shape[1:]) != wanted:
            came = " x ".join(map(str, pictures.shape[1:]))
            raise BadRequest(f"pictures of {came}", " x ".join(map(str, wanted)) + " (channels, height, width)")


PRESETS: Mapping[str, CLIPConfig] = MappingProxyType(
    {
        # What two CPU cores can train: RGBA emoji at 64 px.
        "emoji": CLIPConfig(
            embed=256,
            vocab=12288,
            context=32,
            has_word_path=True,
            text_width=256,
            text_depth=4,
            text_heads=4,
            size=64,
            patch=16,
            channels=4,
            picture_width=256,
            picture_depth=4,
            picture_heads=4,
            stem=(96, 192, 256),
            pool="mean",
        ),
        # OpenAI's public ViT-L/14, which Karlo reads.
        "vit-l-14": CLIPConfig(
            embed=768,
            vocab=49408,
            context=77,
            text_width=768,
            text_depth=12,
            text_heads=12,
            size=224,
            patch=14,
            channels=3,
            picture_width=1024,
            picture_depth=24,
            picture_heads=16,
            activation="quick_gelu",
            pixel_mean=(0.48145466, 0.4578275, 0.40821073),
            pixel_std=(0.26862954, 0.26130258, 0.27577711),
        ),
        # The CLIP of DALL·E 2, never published.  Source: arXiv:2204.06125, appendix C.
        "paper": CLIPConfig(
            embed=1024,
            vocab=49408,
            context=77,
            text_width=1024,
            text_depth=24,
            text_heads=16,
            size=256,
            patch=16,
            channels=3,
            picture_width=1280,
            picture_depth=32,
            picture_heads=16,
            activation="quick_gelu",
        ),
    }
)
